"""Results to look at: the input, its reconstruction, and the map over the input."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from ..runtime.files import whole

MAGENTA = (255, 0, 255)


def pixels(x0: Tensor) -> np.ndarray:
    """An image (3, H, W) in [-1, 1] as (H, W, 3) uint8."""
    levels = (x0.permute(1, 2, 0).numpy() + 1) * 127.5
    return levels.round().clip(0, 255).astype(np.uint8)


def heat(A: np.ndarray, threshold: float | None) -> np.ndarray:
    """A map (H, W) as colours (H, W, 3) uint8.

    The threshold, or else the largest value, lies in the middle of the scale.
    """
    middle = threshold if threshold else float(A.max())
    share = np.clip(A / (2 * middle + 1e-8), 0, 1)
    return (colormaps["inferno"](share)[..., :3] * 255).astype(np.uint8)


def save_overlay(
    path: Path,
    x0: Tensor,
    x0_hat: Tensor | None,
    A: Tensor,
    threshold: float | None,
    mask: np.ndarray | None = None,
) -> None:
    """A PNG of input, reconstruction and map over input, side by side.

    x0, x0_hat: (3, H, W) in [-1, 1]; without a reconstruction its place is left out.
    A: (H, W). mask: bool (H, W), the true defect, outlined in magenta. Below 256 pixels
    a side, all is shown two or more times as large.
    """
    left, hot = pixels(x0), heat(A.numpy(), threshold)
    blend = (0.45 * left + 0.55 * hot).astype(np.uint8)
    if mask is not None:
        left = left.copy()
        left[outline(mask)] = MAGENTA
    middle = [] if x0_hat is None else [pixels(x0_hat)]
    row, times = np.concatenate([left, *middle, blend], 1), -(-256 // len(left))
    with whole(path) as aside:
        Image.fromarray(row.repeat(times, 0).repeat(times, 1)).save(aside, "PNG")


def outline(mask: np.ndarray) -> np.ndarray:
    """The mask's pixels beside one that is not in it; bool (H, W)."""
    wide = np.pad(mask, 1)
    up, down = wide[:-2, 1:-1], wide[2:, 1:-1]
    left, right = wide[1:-1, :-2], wide[1:-1, 2:]
    return mask & ~(up & down & left & right)
