"""Where the defect pixels stand among the good ones: what PRO, sPRO, AUPIMO and the
pixels' AUROC are areas of. Arrays as in `metrics`.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage


class PixelRanking:
    """Where the defect pixels of all images stand among the good ones.

    That is each one's false-positive rate, from one sort of the good pixels. A defect
    pixel is found at every threshold below its score, so at the false-positive rates
    from its own upwards; what it adds to PRO or AUROC is the part of the curve that it
    is found in. `weights` (N,), non-negative, counts image i weights[i] times (default:
    once). A bootstrap resample is such a count, so it needs no new sort. `pixels` gives
    of each defect pixel score, overlap and image, where they are not those of the
    connected regions: see `defect_pixels`. Raises ValueError for shapes that differ,
    masks that are not bool, and maps that are not finite; `pro` and `auroc` raise it
    where no defect region or no good pixel is left to count.
    """

    def __init__(self, maps: np.ndarray, masks: np.ndarray,
                 pixels: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None):
        check_maps(maps, masks)
        if masks.dtype != bool:
            raise ValueError(
                f"masks must be bool, not {masks.dtype}: make them binary first")
        self._maps, self._masks = maps, masks
        scores, overlap, image = pixels or defect_pixels(maps, masks)
        # Neighbouring searches then read neighbouring memory.
        order = np.argsort(scores)
        scores, self._overlap, self._image = scores[order], overlap[order], image[order]
        good = maps[~masks]
        good.sort()
        # How many good pixels lie below each defect pixel, and how many at most as
        # high: equal scores are found together. None is as high, nearly everywhere.
        self._below = np.searchsorted(good, scores, "left")
        self._upto = self._below.copy()
        equal = self._below < good.size
        equal[equal] = good[self._below[equal]] == scores[equal]
        self._upto[equal] = np.searchsorted(good, scores[equal], "right")
        self._good = good.size

    @cached_property
    def _image_of_good(self) -> np.ndarray:
        """The image of each good pixel, by ascending score."""
        image = np.arange(len(self._maps), dtype=np.int32)
        image = np.repeat(image, self._maps[0].size)[~self._masks.ravel()]
        return image[np.argsort(self._maps[~self._masks])]

    def _rates(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Each defect pixel's false-positive rates just above its score and at it.

        The curve gains the pixel between the two.
        """
        if weights is None:
            below, upto, total = self._below, self._upto, self._good
        else:
            counted = np.append(0.0, np.cumsum(weights[self._image_of_good]))
            below, upto, total = counted[self._below], counted[self._upto], counted[-1]
        if total == 0:
            raise ValueError("no good pixel: every mask that counts is full")
        return (total - upto) / total, (total - below) / total

    def pro(self, limit: float = 0.3, weights: ArrayLike | None = None,
            regions_of: ArrayLike | None = None) -> float:
        """Exact PRO up to the false-positive rate `limit`, in (0, 1].

        `regions_of` (N,) bool takes only these images' regions, but still the good
        pixels of all images.
        """
        if not 0 < limit <= 1:
            raise ValueError(f"limit must be in (0, 1], not {limit}")
        return self._area(self._overlap, _held_upto(limit), weights, regions_of)

    def auroc(self, weights: ArrayLike | None = None) -> float:
        """Area under the ROC curve of the pixels.

        It is as PRO up to 1, but each defect pixel weighs the same.
        """
        return self._area(np.ones(len(self._overlap)), _held_upto(1.0), weights)

    def overlap_by_image(self, limit: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
        """What each image adds to PRO: overlap (N,) and its number of regions (N,).

        Its overlap is the summed share of its regions found, averaged up to `limit`.
        pro(limit) is overlap.sum() / regions.sum(), and so for any of the images'
        regions, at the false-positive rates of all good pixels.
        """
        n = len(self._maps)
        held = self._overlap * _held_upto(limit)(*self._rates(None))
        regions = np.bincount(self._image, self._overlap, n)
        return np.bincount(self._image, held, n), regions.round().astype(int)

    def false_by_image(self, limit: float = 0.3,
                       regions_of: ArrayLike | None = None) -> np.ndarray:
        """What each image does to the summed overlap through its good pixels, (N,).

        That is the derivative of overlap.sum() by the image's weight through the
        false-positive rates; `regions_of` as in `pro`. With w for `weights`, to first
        order pro(limit, w) is

            (w @ overlap) / (w @ regions) + (w - 1) @ false / regions.sum()

        All of `false` sums to 0: images that count twice each leave the rates alone.
        """
        low, high = self._rates(None)
        by_low, by_high = (self._overlap * slope for slope in _slopes(low, high, limit))
        if regions_of is not None:
            inside = np.asarray(regions_of)[self._image]
            by_low, by_high = by_low * inside, by_high * inside
        # One more good pixel raises the rates of the defect pixels below it; its share
        # of the total lowers those of all.
        size = self._good + 1
        raised = np.cumsum(np.bincount(self._upto, by_low, size)
                           + np.bincount(self._below, by_high, size))[:-1]
        lowered = by_low @ low + by_high @ high
        return np.bincount(self._image_of_good, raised - lowered,
                           len(self._maps)) / self._good

    def _area(self, gain: np.ndarray, share_held: Callable, weights: ArrayLike | None,
              regions_of: ArrayLike | None = None) -> float:
        """Of all gained, the share that is held: share_held(low, high) of each rate."""
        if weights is not None:
            weights = np.asarray(weights, dtype=np.float64)
            gain = gain * weights[self._image]
        if regions_of is not None:
            gain = gain * np.asarray(regions_of)[self._image]
        if not gain.any():
            raise ValueError("no defect region: every mask that counts is empty")
        held = share_held(*self._rates(weights))
        found, missed = np.dot(gain, held), np.dot(gain, 1 - held)
        return float(found / (found + missed))    # exactly 1 when nothing is missed


def _held_upto(limit: float) -> Callable:
    return lambda low, high: _held(low, high, limit)


def _held(low: np.ndarray, high: np.ndarray, limit: float) -> np.ndarray:
    """The share of the rates 0 .. limit in which a pixel is found, in [0, 1].

    It is gained evenly between the rates low and high.
    """
    whole = limit - (low + high) / 2              # gained before the limit, then kept
    cut = np.clip(limit - low, 0, None) ** 2 / 2 / np.maximum(high - low, 1e-300)
    return np.where(high <= limit, whole, cut) / limit


def _slopes(low: np.ndarray, high: np.ndarray,
            limit: float) -> tuple[np.ndarray, np.ndarray]:
    """The derivatives of `_held` by low and by high."""
    # of the stretch from low to high, the part before the limit
    part = np.clip(limit - low, 0, None) / np.maximum(high - low, 1e-300)
    part, before = np.minimum(part, 1), high <= limit
    by_low = np.where(before, -0.5, part**2 / 2 - part)
    return by_low / limit, np.where(before, -0.5, -part**2 / 2) / limit


def check_maps(maps: np.ndarray, masks: np.ndarray) -> None:
    if maps.ndim != 3 or maps.shape != masks.shape or maps.size == 0:
        raise ValueError("maps and masks must have one shape (N, H, W), "
                         f"not {maps.shape} and {masks.shape}")
    if not np.isfinite(maps).all():
        raise ValueError("maps hold NaN or infinite values")


def defect_pixels(
    maps: np.ndarray, masks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, overlap and image of every pixel in `masks`, image by image.

    Overlap is 1 / area of the 8-connected region that the pixel belongs to: its sum
    over found pixels is the summed overlap of all regions, its sum over all pixels
    their number.
    """
    scores, overlap, image = [], [], []
    for n in np.flatnonzero(masks.any(axis=(1, 2))):
        # The smallest box around the mask: the rest need not be searched.
        rows, columns = (np.flatnonzero(masks[n].any(axis)) for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        mask = masks[n][box]
        regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        region = regions[mask]
        scores.append(maps[n][box][mask])
        overlap.append(1 / np.bincount(region)[region])
        image.append(np.full(region.size, n))
    parts = (scores, maps.dtype), (overlap, float), (image, int)
    return tuple(np.concatenate(part) if part else np.empty(0, kind)
                 for part, kind in parts)
