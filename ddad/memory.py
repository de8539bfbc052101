"""What detection and training hold in memory at once, reckoned from shapes without computing anything, and what fits a GPU."""
from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIGABYTES = (8, 16, 24)


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, from birth to death; `peak` is the most alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (key := id(storage := tensor.untyped_storage())) not in self.known:
                self.known.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def reckon(build: Callable[[], tuple[nn.Module, nn.Module, nn.Module]], size: int = 256) -> dict:
    """Bytes that detection and training hold in float32 whatever the batch, bytes for each image of size x size, and the largest batch by GPU.

    build() -> autoencoder (a diffusers AutoencoderKL), U-Net, phi. Counted are weights, gradients, AdamW's moments, averaged weights,
    and the tensors alive at the worst moment; not the allocator's reserve and the GPU libraries' workspaces, for which a tenth of the
    GPU and 1 GB are left free.
    """
    def peak(run: Callable[[int], object], B: int) -> int:
        with Alive() as alive:
            run(B)
        return alive.peak

    @torch.no_grad()
    def detect(B: int) -> None:
        z0 = vae.encode(torch.randn(B, 3, size, size)).latent_dist.mean
        unet(z0, torch.zeros(B, dtype=torch.long))
        phi(vae.decode(z0).sample)                                      # phi's maps of x0, held meanwhile, are small beside the decoder's

    def train(B: int) -> None:
        unet.zero_grad(set_to_none=True)
        unet(torch.randn(B, vae.config.latent_channels, size // 8, size // 8), torch.zeros(B, dtype=torch.long)).sample.square().mean().backward()

    found = {}
    with FakeTensorMode():
        vae, unet, phi = build()
        bytes_of = lambda *nets: sum(4 * p.numel() for net in nets for p in net.parameters())
        for name, run, held in (("detect", detect, bytes_of(vae, unet, phi)), ("train", train, 4 * bytes_of(unet))):
            each = (peak(run, 32) - peak(run, 16)) // 16               # of few images the gradients, not the batch, make the worst moment
            fixed = peak(run, 16) - 16 * each + held
            fits = {f"{gigabytes} GB": max(0, int((gigabytes * 0.9e9 - 1e9 - fixed) // each)) for gigabytes in GIGABYTES}
            found[name] = {"fixed": fixed, "an_image": each, "largest_batch": fits}
        return found | {"parameters": bytes_of(unet) // 4}
