"""What detection and training hold in memory at once, reckoned from shapes without
computing anything, and what fits a GPU.
"""
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
    """Counts the bytes of the tensors that operations make, from birth to death; `peak`
    is the most alive at once.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _count(self, storage) -> None:
        key = id(storage)
        if key not in self.known:
            self.known.add(key)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._gone, key, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def reckon(build: Callable[[], tuple[nn.Module, nn.Module, nn.Module]],
           size: int = 256) -> dict:
    """Bytes that detection and training hold in float32 whatever the batch, bytes for
    each image of size x size, and the largest batch by GPU.

    build() -> autoencoder (a diffusers AutoencoderKL), U-Net, phi. Counted are weights,
    gradients, AdamW's moments, averaged weights, and the tensors alive at the worst
    moment; not the allocator's reserve and the GPU libraries' workspaces, for which a
    tenth of the GPU and 1 GB are left free.
    """
    def peak(run: Callable[[int], object], B: int) -> int:
        with Alive() as alive:
            run(B)
        return alive.peak

    @torch.no_grad()
    def detect(B: int) -> None:
        z0 = vae.encode(torch.randn(B, 3, size, size)).latent_dist.mean
        unet(z0, torch.zeros(B, dtype=torch.long))
        # phi's maps of x0, held meanwhile, are small beside the decoder's
        phi(vae.decode(z0).sample)

    def train(B: int) -> None:
        unet.zero_grad(set_to_none=True)
        z_t = torch.randn(B, vae.config.latent_channels, size // 8, size // 8)
        e = unet(z_t, torch.zeros(B, dtype=torch.long)).sample
        e.square().mean().backward()

    found = {}
    with FakeTensorMode():
        vae, unet, phi = build()
        held = {"detect": _bytes(vae, unet, phi), "train": 4 * _bytes(unet)}
        for name, run in (("detect", detect), ("train", train)):
            # of few images the gradients, not the batch, make the worst moment
            each = (peak(run, 32) - peak(run, 16)) // 16
            fixed = peak(run, 16) - 16 * each + held[name]
            fits = {f"{gigabytes} GB": _fits(gigabytes, fixed, each)
                    for gigabytes in GIGABYTES}
            found[name] = {"fixed": fixed, "an_image": each, "largest_batch": fits}
        return found | {"parameters": _bytes(unet) // 4}


def _bytes(*networks: nn.Module) -> int:
    return sum(4 * w.numel() for network in networks for w in network.parameters())


def _fits(gigabytes: int, fixed: int, each: int) -> int:
    """The largest batch on a GPU of so many gigabytes."""
    return max(0, int((gigabytes * 0.9e9 - 1e9 - fixed) // each))
