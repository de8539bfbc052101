"""Memory reckoned from shapes: what is alive, and what training keeps."""
import pytest
import torch
from conftest import tiny, tiny_vae

from ddad.noise_predictor import build_unet
from ddad.reproduction.memory import Alive, reckon


def test_memory_counts_what_is_alive():
    with Alive() as alive:
        a = torch.ones(1000)
        b = a + 1
        del a
        c = b.view(10, 100) * 2                 # a view is no new memory
        del b, c
    assert alive.peak == 8000 and alive.now == 0


def test_memory_of_training_is_what_autograd_keeps():
    small = tiny(unet_channels=(32, 64))
    unet, kept = build_unet(small, 4, 16), {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        unet(torch.randn(16, 4, 16, 16), torch.zeros(16, dtype=torch.long))
    # The largest batch that fits is reckoned for 256 x 256; here the image is 128 x 128
    # for latents of 16 x 16.
    networks = lambda: (tiny_vae(), build_unet(small, 4, 16), torch.nn.Conv2d(3, 8, 3))
    found = reckon(networks, size=128)["train"]
    saved = sum(kept.values()) - sum(4 * p.numel() for p in unet.parameters())
    assert found["an_image"] == pytest.approx(saved / 16, rel=0.35)
    assert found["largest_batch"]["8 GB"] < found["largest_batch"]["24 GB"]
