"""A mask at the size that a detector works at."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MASK_RULES = ("area", "bilinear")


def resize_mask(defect: np.ndarray | None, size: int, rule: str) -> Tensor:
    """A mask (height, width), bool, or None for no defect, as `read_mask` returns it.

    Raises ValueError for another rule.
    """
    if rule not in MASK_RULES:
        raise ValueError(
            f"The mask rule {rule!r} is unknown: use one of {', '.join(MASK_RULES)}.")
    if defect is None:
        return torch.zeros(size, size)
    if rule == "bilinear":
        levels = Image.fromarray(defect.astype(np.uint8) * 255)
        levels = levels.resize((size, size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(levels, dtype=np.float32) / 255)
    # Pillow's own BOX filter takes whole pixels only: at a ratio like 1.27 it would not
    # measure areas. In units of 1/size of a source pixel overlaps are whole numbers.
    height, width = defect.shape
    covered = _gathered(_gathered(defect, size).T, size).T
    return torch.from_numpy((2 * covered > height * width).astype(np.float32))


def _gathered(values: np.ndarray, size: int) -> np.ndarray:
    """(side, n) -> (size, n), int64: the sum over each target pixel's stretch of the
    side, in units of 1/size of a source pixel.
    """
    whole, part = np.divmod(np.arange(size + 1) * len(values), size)
    counted = np.int64 if values.dtype == np.int64 else np.int32
    before = np.zeros((len(values) + 1, values.shape[1]), counted)
    np.cumsum(values, axis=0, out=before[1:])
    inner = values[np.minimum(whole, len(values) - 1)]
    upto = before[whole].astype(np.int64) * size + part[:, None] * inner
    return np.diff(upto, axis=0)
