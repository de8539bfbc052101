"""Anomaly map and score (paper, section 3.5): where input and reconstruction differ, in
the latent and in the features.

    A_l = |z0 - z0_hat|, mean over channels, upsampled              latent map
    A_f = sum over J of 1 - cos(phi_j(x0), phi_j(x0_hat)), upsampled  feature map
    A   = lambda norm(A_l) + (1 - lambda) norm(A_f), smoothed by a Gaussian
    score = largest value of A

Two things are ours, not the paper's, and a calibration takes them only where held-out
images gain. `blur` puts a Gaussian over z0 - z0_hat before the absolute value: what a
fine-grained latent holds of a texture comes back with another sign at each cell and
cancels there, while a part that is missing or a stain differs to one side throughout.
A third map is the distance of each patch to the good ones: see `step_map`.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample(values: Tensor, size: int, align_corners: bool = False) -> Tensor:
    """(B, h, w) -> (B, size, size), bilinear."""
    return F.interpolate(values.unsqueeze(1), size=(size, size), mode="bilinear",
                         align_corners=align_corners).squeeze(1)


def latent_map(z0: Tensor, z0_hat: Tensor, size: int, blur: float = 0.0,
               align_corners: bool = False) -> Tensor:
    """A_l (B, size, size) >= 0 from latents (B, C, h, w); blur in cells of the
    latent.
    """
    difference = z0 - z0_hat
    if blur:
        cells = difference.shape[:2]
        difference = smooth(difference.flatten(0, 1), blur).unflatten(0, cells)
    return upsample(difference.abs().mean(1), size, align_corners)


def feature_map(target: list[Tensor], reconstructed: list[Tensor], size: int,
                stages: tuple[int, ...], align_corners: bool = False) -> Tensor:
    """A_f (B, size, size) in 0 .. 2 |J| from the features of the blocks j in J,
    `stages`; lists of (B, C_j, h_j, w_j).
    """
    def distance(j: int) -> Tensor:
        return 1 - F.cosine_similarity(target[j - 1], reconstructed[j - 1], dim=1)

    return sum(upsample(distance(j), size, align_corners) for j in stages)


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest value of each map over the images that define 0 and 1; None
    for a map that is not made.
    """

    latent: tuple[float, float]
    feature: tuple[float, float] | None
    patch: tuple[float, float] | None = None

    @classmethod
    def of(cls, A_l: Tensor, A_f: Tensor | None, A_p: Tensor | None = None) -> Ranges:
        """Of maps (N, H, W)."""
        return cls(*(None if A is None else (A.min().item(), A.max().item())
                     for A in (A_l, A_f, A_p)))

    @classmethod
    def joined(cls, parts: list[Ranges]) -> Ranges:
        """Of all images that the parts are of."""
        each = zip(*((one.latent, one.feature, one.patch) for one in parts))
        return cls(*(None if None in of else (min(of)[0], max(high for _, high in of))
                     for of in each))


def normalise(A: Tensor, low_high: tuple[float, float]) -> Tensor:
    """(A - low) / (high - low): [0, 1] on the images the range is of, possibly beyond
    on others; no clamp, it would hide an order.
    """
    low, high = low_high
    return (A - low) / max(high - low, 1e-8)


def combine(A_l: Tensor, A_f: Tensor | None, ranges: Ranges, lam: float, sigma: float,
            A_p: Tensor | None = None, patch_share: float = 0.0) -> Tensor:
    """A (B, H, W): both maps normalised, weighed by lambda, smoothed; sigma in pixels
    of an image of 256. A_p: a third map, which takes patch_share of the whole.
    """
    A = normalise(A_l, ranges.latent)
    if A_f is not None:
        A = lam * A + (1 - lam) * normalise(A_f, ranges.feature)
    if patch_share:
        A = (1 - patch_share) * A + patch_share * normalise(A_p, ranges.patch)
    return smooth(A, sigma * A.shape[-1] / 256)


def smooth(A: Tensor, sigma: float) -> Tensor:
    """Gaussian of `sigma` pixels, cut at 4 sigma, mirrored at the border; (B, H, W)."""
    radius = min(int(4 * sigma + 0.5), A.shape[-1] - 1)
    x = torch.arange(-radius, radius + 1, device=A.device, dtype=A.dtype)
    kernel = torch.exp(-x**2 / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    A = F.pad(A.unsqueeze(1), (radius,) * 4, mode="reflect")
    # TF32 keeps three digits, and scores differ in the fourth
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        across = F.conv2d(A, kernel.view(1, 1, 1, -1))
        return F.conv2d(across, kernel.view(1, 1, -1, 1)).squeeze(1)


def score(A: Tensor) -> Tensor:
    """The image score, (B,): the largest value of A."""
    return A.flatten(1).amax(1)
