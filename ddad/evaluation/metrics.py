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
[0, 1]. AUPIMO and sPRO: see `aupimo` and `spro`.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

from ..data.regions import Region
from .aupimo import LOW, ImageRanking
from .ranking import PixelRanking, check_maps, defect_pixels
from .resampling import bootstrap
from .spro import saturated

MEASURED = ("i_auroc", "i_ap", "i_f1_max", "p_auroc", "p_ap", "p_f1_max", "pro",
            "pro_005", "aupimo")


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
    check_maps(maps, masks)
    masks = np.asarray(masks, dtype=np.float64)
    scores, overlap, _ = defect_pixels(maps, masks == 1)
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


def found_by(A: np.ndarray, masks: np.ndarray, labels: np.ndarray,
             overlap: tuple | None = None) -> np.ndarray:
    """Of each defective image (2, D): the share of good images whose score it exceeds,
    and its regions' part of PRO. The means are I-AUROC and, with a region each, PRO.
    overlap: of `defect_pixels`, overlap and image, which no map changes.
    """
    score = A.max((1, 2))
    good, bad = np.sort(score[~labels]), score[labels]
    below = (np.searchsorted(good, bad) + np.searchsorted(good, bad, "right")) / 2
    pixels = overlap and (A[masks], *overlap)
    overlap, regions = PixelRanking(A, masks, pixels).overlap_by_image()
    return np.stack([below / len(good), overlap[labels] / regions[labels].clip(1)])


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
    groups: np.ndarray | None = None, regions: Sequence[Region] | None = None,
) -> dict:
    """All metrics of one test set, as Python numbers ready for JSON, rates in [0, 1].

    i_* are of images, p_* of pixels; pro has the limit 0.3, pro_005 the limit 0.05;
    aupimo is None where one pixel of the good images is a larger rate than its lower
    limit. With `regions` (of masks that are kept apart) also spro, of the limit 0.05,
    and spro_030. With `threshold` (an image is flagged when its score is above it) also
    recall, false_positive_rate and by_size.

    With `bootstrap_repeats` also this number, and interval: 95% bounds [low, high] of
    i_auroc, p_auroc, pro, aupimo and spro over so many resamples of the images. With
    `groups` (N,), the name of what each image shows, whole groups are drawn, and groups
    is their number. ValueError where a metric is undefined: no good or no defective
    image, no defect region, no good pixel.
    """
    _check_labels(scores, labels, masks)
    for label, name in enumerate(("good", "defective")):
        if not np.any(labels == label):
            raise ValueError(
                f"no {name} image (label {label}): the image metrics are undefined")
    ranking, alone = PixelRanking(maps, masks), ImageRanking(maps, masks, labels)
    result = {
        "i_auroc": float(roc_auc_score(labels, scores)),
        "i_ap": float(average_precision_score(labels, scores)),
        "i_f1_max": f1_max(scores, labels),
        "p_auroc": ranking.auroc(),
        "p_ap": float(average_precision_score(masks.ravel(), maps.ravel())),
        "p_f1_max": f1_max(maps.ravel(), masks.ravel()),
        "pro": ranking.pro(0.3),
        "pro_005": ranking.pro(0.05),
        "aupimo": alone.aupimo() if alone.smallest_rate <= LOW else None,
    }
    if regions:
        whole = saturated(maps, regions)
        result |= {"spro": whole.pro(0.05), "spro_030": whole.pro(0.3)}
    if threshold is not None:
        flagged = scores > threshold
        result["recall"] = float(np.mean(flagged[labels == 1]))
        result["false_positive_rate"] = float(np.mean(flagged[labels == 0]))
        result["by_size"] = by_size(ranking, masks, scores, labels, threshold)
    if not bootstrap_repeats:
        return result

    areas = {"p_auroc": ranking.auroc, "pro": lambda weights: ranking.pro(0.3, weights)}
    if result["aupimo"] is not None:
        areas["aupimo"] = alone.aupimo
    if regions:
        areas["spro"] = lambda weights: whole.pro(0.05, weights)
    result["bootstrap_repeats"] = bootstrap_repeats
    if groups is not None:
        result["groups"] = len(np.unique(groups))
    result["interval"] = _intervals(
        scores, labels, masks, areas, repeats=bootstrap_repeats, seed=seed,
        groups=groups)
    return result


def _intervals(
    scores: np.ndarray, labels: np.ndarray, masks: np.ndarray,
    areas: dict[str, Callable[[np.ndarray], float]], **how,
) -> dict[str, list[float]]:
    """The 95% bounds of i_auroc, and of `areas`, functions of the images' weights."""
    n = len(scores)
    # Defective images with an empty mask are a stratum of their own, or a resample
    # might hold no region.
    strata = 2 * labels + masks.any(axis=(1, 2))
    drawn = {"i_auroc": lambda index: roc_auc_score(labels[index], scores[index])}
    drawn |= {name: lambda index, area=area: area(np.bincount(index, minlength=n))
              for name, area in areas.items()}
    return {name: list(bootstrap(one, n, strata=strata, **how))
            for name, one in drawn.items()}
