"""Pictures of results: the input, its reconstruction, and the map laid over the input."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from .writing import whole


def picture(x0: Tensor) -> np.ndarray:
    """An image (3, H, W) in [-1, 1] as (H, W, 3) uint8."""
    return ((x0.permute(1, 2, 0).numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def heat(A: np.ndarray, threshold: float | None) -> np.ndarray:
    """A map (H, W) as colours (H, W, 3) uint8: the threshold, or else the largest value, lies in the middle of the scale."""
    middle = threshold if threshold else float(A.max())
    return (colormaps["inferno"](np.clip(A / (2 * middle + 1e-8), 0, 1))[..., :3] * 255).astype(np.uint8)


def save_overlay(path: Path, x0: Tensor, x0_hat: Tensor, A: Tensor, threshold: float | None, mask: np.ndarray | None = None) -> None:
    """Side by side: input (the true defect outlined in magenta, where a mask is given), reconstruction, map over input.

    Pictures below 256 pixels a side are shown two or more times as large.
    """
    left, hot = picture(x0), heat(A.numpy(), threshold)
    blend = (0.45 * left + 0.55 * hot).astype(np.uint8)
    if mask is not None:
        inside = np.pad(mask, 1)
        inner = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        left = left.copy()
        left[mask & ~inner] = (255, 0, 255)
    row, times = np.concatenate([left, picture(x0_hat), blend], 1), -(-256 // len(left))
    with whole(path) as aside:
        Image.fromarray(row.repeat(times, 0).repeat(times, 1)).save(aside, "PNG")
