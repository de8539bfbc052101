"""Synthetic defects of known place on good images: calibration without test data."""
from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, gaussian_filter, label
from torch import Tensor


def synthetic_defects(images: Tensor, seed: int) -> tuple[Tensor, np.ndarray]:
    """Each image once with a defect: (N, 3, H, W) in [-1, 1], masks (N, H, W) bool.

    Their sizes lie even in log area, from 0.3% to 30% of the image.
    """
    good = ((images + 1) / 2).permute(0, 2, 3, 1).numpy()
    order = np.random.default_rng(seed).permutation(len(good))
    defective, masks = [], []
    for n, place in enumerate(order):
        rng = np.random.default_rng([seed, n])
        area = float(0.003 * 100 ** ((place + rng.random()) / len(order)))
        other = order[n] if order[n] != n else n - 1
        image, mask = damage(good[n], good[other], area, rng)
        defective.append(image)
        masks.append(mask)
    stacked = torch.from_numpy(np.stack(defective)).permute(0, 3, 1, 2)
    return stacked * 2 - 1, np.stack(masks)


def damage(
    image: np.ndarray, other: np.ndarray, area: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A copy of `image` with one synthetic defect, and the defect's mask, bool (H, W).

    image, other: (H, W, 3) float32 in [0, 1]. Four kinds: erased (filled from around
    it: a missing part), pasted (a patch from elsewhere, of this or the `other` image),
    recoloured, stained. A defect that hardly changes the image is drawn again.
    """
    for _ in range(20):
        m = region(image, area, rng)
        new = _filling(image, other, m, area, rng)
        edge = gaussian_filter(m.astype(np.float32), 0.7)[..., None]
        new = image * (1 - edge) + new * edge
        change = np.abs(new - image).max(-1)
        if m.any() and change[m].mean() > 0.12:
            return new.astype(np.float32), m & (change > 0.03)
    return new.astype(np.float32), m


def _filling(
    image: np.ndarray,
    other: np.ndarray,
    m: np.ndarray,
    area: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """What the defect shows inside its region m, as a whole image (H, W, 3)."""
    size = len(image)
    kind = rng.integers(4)
    if kind == 0:
        sigma = max(1.5, np.sqrt(area) * size / 2)
        keep = gaussian_filter((~m).astype(np.float32), sigma)[..., None]
        around = gaussian_filter(image * ~m[..., None], (sigma, sigma, 0))
        return around / np.maximum(keep, 1e-4)
    if kind == 1:
        source = image if rng.random() < 0.5 else other
        shift = tuple(rng.integers(size // 8, size - size // 8, 2))
        return np.roll(source, shift, (0, 1))
    if kind == 2:
        swapped = image[..., rng.permutation(3)]
        new = swapped * rng.uniform(0.5, 1.5) + rng.uniform(-0.2, 0.2)
        return np.clip(new, 0, 1)
    grain = _unit(gaussian_filter(rng.standard_normal(image.shape), (2, 2, 0)))
    return np.clip(rng.uniform(0, 1, 3) + 0.3 * grain, 0, 1)


def region(image: np.ndarray, area: float, rng: np.random.Generator) -> np.ndarray:
    """One patch of about `area` (share) of `image` (H, H, 3) in [0, 1]; bool (H, H).

    A rectangle, a blob, a thin line, or a region bounded by the image's own edges, as
    a missing part has the part's outline.
    """
    size = len(image)
    yy, xx = np.mgrid[:size, :size] / size
    cy, cx = rng.uniform(0.12, 0.88, 2)
    kind = rng.integers(4)
    if kind == 2 and area >= 0.02:
        kind = 3
    if kind == 2:
        # a line: as long as its width of 1 to 3% allows
        width, angle = rng.uniform(0.012, 0.03), rng.uniform(0, np.pi)
        along = (xx - cx) * np.cos(angle) + (yy - cy) * np.sin(angle)
        across = -(xx - cx) * np.sin(angle) + (yy - cy) * np.cos(angle)
        return (np.abs(along) <= area / width / 2) & (np.abs(across) <= width / 2)
    stretch = np.exp(rng.uniform(-0.7, 0.7))
    ry, rx = (yy - cy) * stretch, (xx - cx) / stretch
    distance = np.maximum(abs(ry), abs(rx)) if kind == 0 else np.hypot(ry, rx)
    if kind == 3:
        # like colours first, near ones before far ones
        colour = gaussian_filter(image, (size / 128, size / 128, 0))
        at = colour[int(cy * size), int(cx * size)]
        distance = 0.5 * distance + np.abs(colour - at).max(-1)
    elif kind != 0:
        noise = gaussian_filter(
            rng.standard_normal((size, size)), size / 16, mode="wrap"
        )
        distance = distance * np.exp(0.6 * _unit(noise))
    pixels = max(4, int(area * size * size))
    inside = distance <= np.partition(distance.ravel(), pixels)[pixels]
    if kind == 3:
        parts = label(inside)[0]
        inside = parts == parts.flat[distance.argmin()]
    return binary_fill_holes(inside)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / (np.abs(x).max() + 1e-8)
