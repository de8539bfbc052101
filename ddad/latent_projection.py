"""Latent projection (paper, section 3.1; Rombach et al. 2022).

    z0     = E(x0) * s                      image to latent, scaled to variance 1
    x0_hat = D(z0_hat / s)                  and back

A frozen, pretrained autoencoder with 8x downsampling. Diffusion then works on what an
image shows, not on its grain: fine texture is left to the decoder, and a missing part
as large as a palm is a few latent positions wide.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LatentProjection:
    """E and D of one frozen autoencoder, and the scale s between them.

    E: x0 (B, 3, H, W) in [-1, 1] -> mean and deviation of its latent, (B, C, H/8, W/8)
    float32 each; None in place of the deviation for an autoencoder without variance.
    D: latent -> image. s: 0.18215 for Stable Diffusion's autoencoder.
    """

    E: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    D: Callable[[Tensor], Tensor]
    s: float

    @torch.no_grad()
    def posterior(self, x0: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation of z0 given x0, both scaled by s."""
        mean, std = self.E(x0)
        return mean * self.s, None if std is None else std * self.s

    def encode(self, x0: Tensor, posterior: str = "mode",
               generator: torch.Generator | None = None) -> Tensor:
        """z0 (B, C, H/8, W/8): the posterior's "mode", or a "sample" drawn with the CPU
        `generator`.
        """
        return draw(*self.posterior(x0), posterior, generator)

    @torch.no_grad()
    def decode(self, z0: Tensor, clamp: bool = True) -> Tensor:
        """x0_hat = D(z0 / s), (B, 3, H, W), clamped to [-1, 1] unless told
        otherwise.
        """
        x0_hat = self.D(z0 / self.s)
        return x0_hat.clamp(-1, 1) if clamp else x0_hat


def draw(mean: Tensor, std: Tensor | None, posterior: str,
         generator: torch.Generator | None = None) -> Tensor:
    """The mode, or mean + std * eps, with eps drawn on the CPU, so that a seed gives
    the same latents on every device.
    """
    if posterior == "mode" or std is None:
        return mean
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)


def draws_of(x0: Tensor, seed: int) -> torch.Generator:
    """The generator of the draws of one image (3, H, W): from the seed and its levels,
    so that its place in a list changes nothing.
    """
    content = x0.cpu().contiguous().numpy().tobytes()
    digest = hashlib.sha256(f"{seed} ".encode() + content).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
