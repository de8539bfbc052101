"""Image and pixel metrics of anomaly detection.

Arrays throughout, for N test images of H x W pixels; higher scores mean more anomalous:
    scores (N,) float           one anomaly score per image
    labels (N,) 0 or 1          1 where the image is defective
    maps   (N, H, W) float      anomaly maps, finite
    masks  (N, H, W) bool       True on defect pixels; those of a defective image with
                                an empty mask count as good

PRO, the per-region overlap, follows Bergmann et al., "The MVTec Anomaly Detection
Dataset", IJCV 2021: the share of each connected defect region that is found, averaged
over the regions of all images, against the share of good pixels falsely found. The area
under that curve up to a limit on the false positives, divided by the limit, lies in
[0, 1].
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

from .resampling import bootstrap


class PixelRanking:
    """Where the defect pixels of all images stand among the good ones.

    That is each one's false-positive rate, from one sort of the good pixels. A defect
    pixel is found at every threshold below its score, so at the false-positive rates
    from its own upwards; what it adds to PRO or AUROC is the part of the curve that it
    is found in. `weights` (N,), non-negative, counts image i weights[i] times (default:
    once). A bootstrap resample is such a count, so it needs no new sort. Raises
    ValueError for shapes that differ, masks that are not bool, and maps that are not
    finite; `pro` and `auroc` raise it where no defect region or no good pixel is left
    to count.
    """

    def __init__(self, maps: np.ndarray, masks: np.ndarray):
        _check_maps(maps, masks)
        if masks.dtype != bool:
            raise ValueError(
                f"masks must be bool, not {masks.dtype}: make them binary first")
        self._maps, self._masks = maps, masks
        scores, overlap, image = _defect_pixels(maps, masks)
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
        return self._area(self._overlap, limit, weights, regions_of)

    def auroc(self, weights: ArrayLike | None = None) -> float:
        """Area under the ROC curve of the pixels.

        It is as PRO up to 1, but each defect pixel weighs the same.
        """
        return self._area(np.ones(len(self._overlap)), 1.0, weights, None)

    def overlap_by_image(self, limit: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
        """What each image adds to PRO: overlap (N,) and its number of regions (N,).

        Its overlap is the summed share of its regions found, averaged up to `limit`.
        pro(limit) is overlap.sum() / regions.sum(), and so for any of the images'
        regions, at the false-positive rates of all good pixels.
        """
        n = len(self._maps)
        held = self._overlap * _held(*self._rates(None), limit)
        regions = np.bincount(self._image, self._overlap, n)
        return np.bincount(self._image, held, n), regions.round().astype(int)

    def _area(self, gain: np.ndarray, limit: float, weights: ArrayLike | None,
              regions_of: ArrayLike | None) -> float:
        if weights is not None:
            weights = np.asarray(weights, dtype=np.float64)
            gain = gain * weights[self._image]
        if regions_of is not None:
            gain = gain * np.asarray(regions_of)[self._image]
        if not gain.any():
            raise ValueError("no defect region: every mask that counts is empty")
        held = _held(*self._rates(weights), limit)
        found, missed = np.dot(gain, held), np.dot(gain, 1 - held)
        return float(found / (found + missed))    # exactly 1 when nothing is missed


def _held(low: np.ndarray, high: np.ndarray, limit: float) -> np.ndarray:
    """The share of the rates 0 .. limit in which a pixel is found, in [0, 1].

    It is gained evenly between the rates low and high.
    """
    whole = limit - (low + high) / 2              # gained before the limit, then kept
    cut = np.clip(limit - low, 0, None) ** 2 / 2 / np.maximum(high - low, 1e-300)
    return np.where(high <= limit, whole, cut) / limit


def _check_maps(maps: np.ndarray, masks: np.ndarray) -> None:
    if maps.ndim != 3 or maps.shape != masks.shape or maps.size == 0:
        raise ValueError("maps and masks must have one shape (N, H, W), "
                         f"not {maps.shape} and {masks.shape}")
    if not np.isfinite(maps).all():
        raise ValueError("maps hold NaN or infinite values")


def _defect_pixels(
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


def pro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """Exact PRO, in [0, 1]: every distinct score is a threshold.

    The curve is interpolated linearly at `limit`. Maps that are constant over all
    images get limit / 2. Errors: see PixelRanking.
    """
    return PixelRanking(maps, masks).pro(limit)


def pro_200(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """PRO as the official code computes it, to rerun its figures only.

    `masks` are float in [0, 1], not binary. Only 8-connected regions of mask == 1
    count, so a thin defect that resizing blurred below 1 vanishes. Any pixel below 1
    can be a false positive, while the number of good pixels is the sum of 1 - mask. A
    pixel is found where it is strictly above one of 200 thresholds, equally spaced over
    the range of the maps; the false-positive rates below `limit` are stretched so that
    the largest is 1. With heavy tails most thresholds lie above almost every pixel: the
    points kept may then span a small part of the range, and the result be off by more
    than 0.1. Raises ValueError where no region is left, or where the curve has no false
    positive below `limit` (the official code fails too).
    """
    _check_maps(maps, masks)
    masks = np.asarray(masks, dtype=np.float64)
    scores, overlap, _ = _defect_pixels(maps, masks == 1)
    if masks.min() < 0 or masks.max() > 1 or not overlap.size:
        raise ValueError(
            "no defect region: no mask reaches 1, or masks are not in [0, 1]")
    low, high = float(maps.min()), float(maps.max())
    thresholds = np.linspace(low, high, 200, endpoint=False)

    def found(values: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        # how many thresholds each pixel is strictly above
        passed = np.searchsorted(thresholds, values)
        return np.cumsum(np.bincount(passed, weight, minlength=201)[:0:-1])[::-1]

    true = found(scores, overlap) / overlap.sum()
    # Without a good pixel there is no false positive either.
    false = found(maps[masks < 1]) / max((1 - masks).sum(), 1e-9)
    kept = false < limit
    if kept.sum() < 2 or false[kept].max() == 0:
        raise ValueError(
            f"the 200 thresholds leave no curve below a false-positive rate of {limit}")
    return float(auc(false[kept] / false[kept].max(), true[kept]))


def f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """Largest F1 over all thresholds, in (0, 1], of any 1-d scores and 0/1 labels.

    ValueError without a positive.
    """
    if not np.any(labels):
        raise ValueError("F1 needs a positive label: there is none")
    precision, recall, _ = precision_recall_curve(labels, scores)
    # Thresholds that find no positive have both at 0, and an F1 of 0.
    total = np.maximum(precision + recall, 1e-300)
    return float(np.max(2 * precision * recall / total))


def by_size(
    ranking: PixelRanking, masks: np.ndarray, scores: np.ndarray, labels: np.ndarray,
    threshold: float, edges: Sequence[float] | None = None,
) -> list[dict]:
    """PRO (limit 0.3) and image recall by the size of the defect, from the smallest up.

    `ranking` is of these masks. Size is the share of the image that its mask covers;
    defective images with an empty mask have none and are left out. `edges` are the
    inner bin edges, ascending; default: the terciles of the sizes. A bin holds sizes
    from its lower edge up to, not including, its upper one. Its PRO counts the bin's
    regions but the good pixels of all images, so that bins are compared at the same
    false-positive rate; its recall counts scores above `threshold`. Each dict: edges
    [low, high], images, size [smallest, largest], pro, recall; the last three are None
    if empty.
    """
    _check_labels(scores, labels, masks)
    size = masks.mean(axis=(1, 2))
    if not size.any():
        raise ValueError("no defect region: every mask is empty")
    edges = np.quantile(size[size > 0], [1 / 3, 2 / 3]) if edges is None else edges
    bounds, bins = [0.0, *map(float, edges), 1.0], []
    for index in range(len(bounds) - 1):
        inside = (size > 0) & (np.digitize(size, edges) == index)
        row = {"edges": bounds[index : index + 2], "images": int(inside.sum()),
               "size": None, "pro": None, "recall": None}
        if inside.any():
            row["size"] = [float(size[inside].min()), float(size[inside].max())]
            row["pro"] = ranking.pro(regions_of=inside)
            row["recall"] = float(np.mean(scores[inside] > threshold))
        bins.append(row)
    return bins


def _check_labels(scores: np.ndarray, labels: np.ndarray, masks: np.ndarray) -> None:
    if not len(scores) == len(labels) == len(masks):
        raise ValueError(f"{len(scores)} scores, {len(labels)} labels and "
                         f"{len(masks)} masks: the numbers differ")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if masks[labels == 0].any():
        raise ValueError("an image labelled good has a defect in its mask")


def measure(
    scores: np.ndarray, labels: np.ndarray, maps: np.ndarray, masks: np.ndarray, *,
    threshold: float | None = None, bootstrap_repeats: int = 0, seed: int = 0,
) -> dict:
    """All metrics of one test set, as Python numbers ready for JSON, rates in [0, 1].

    i_* are of images, p_* of pixels; pro has the limit 0.3, pro_005 the limit 0.05.
    With `threshold` (an image is flagged when its score is above it) also recall,
    false_positive_rate and by_size. With `bootstrap_repeats` also this number, and
    interval: 95% bounds [low, high] of i_auroc, p_auroc and pro over so many resamples
    of the images. ValueError where a metric is undefined: no good or no defective
    image, no defect region, no good pixel.
    """
    _check_labels(scores, labels, masks)
    for label, name in enumerate(("good", "defective")):
        if not np.any(labels == label):
            raise ValueError(
                f"no {name} image (label {label}): the image metrics are undefined")
    ranking = PixelRanking(maps, masks)
    result = {
        "i_auroc": float(roc_auc_score(labels, scores)),
        "i_ap": float(average_precision_score(labels, scores)),
        "i_f1_max": f1_max(scores, labels),
        "p_auroc": ranking.auroc(),
        "p_ap": float(average_precision_score(masks.ravel(), maps.ravel())),
        "p_f1_max": f1_max(maps.ravel(), masks.ravel()),
        "pro": ranking.pro(0.3),
        "pro_005": ranking.pro(0.05),
    }
    if threshold is not None:
        flagged = scores > threshold
        result["recall"] = float(np.mean(flagged[labels == 1]))
        result["false_positive_rate"] = float(np.mean(flagged[labels == 0]))
        result["by_size"] = by_size(ranking, masks, scores, labels, threshold)
    if bootstrap_repeats:
        result["bootstrap_repeats"] = bootstrap_repeats
        result["interval"] = _intervals(
            ranking, scores, labels, masks, bootstrap_repeats, seed)
    return result


def _intervals(
    ranking: PixelRanking, scores: np.ndarray, labels: np.ndarray, masks: np.ndarray,
    repeats: int, seed: int,
) -> dict[str, list[float]]:
    """The 95% bounds of `measure`."""
    n = len(scores)
    # Defective images with an empty mask are a stratum of their own, or a resample
    # might hold no region.
    strata = 2 * labels + masks.any(axis=(1, 2))
    statistics = {
        "i_auroc": lambda index: roc_auc_score(labels[index], scores[index]),
        "p_auroc": lambda index: ranking.auroc(np.bincount(index, minlength=n)),
        "pro": lambda index: ranking.pro(0.3, np.bincount(index, minlength=n)),
    }
    return {name: list(bootstrap(one, n, repeats=repeats, seed=seed, strata=strata))
            for name, one in statistics.items()}
