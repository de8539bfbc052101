"""Running a detector over a test set and scoring it."""
from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from ..data.product import TestSet
from ..detector import Detector, Prediction
from .by_image import parts, short
from .metrics import MEASURED, PixelRanking, f1_max, measure, pro_200


def evaluate(
    detector: Detector, test: TestSet, bootstrap_repeats: int = 0,
    found: Prediction | None = None,
) -> tuple[dict, Prediction]:
    """All metrics of `measure`, by the settings' rules, and the prediction they are of.

    The intervals are by the test set's groups, where it has some. Where metrics are
    not defined, those that are, and "undefined", which says why: see `lacking`.
    found: a prediction of the same images by the same path; its maps are weighed anew
    by this detector's settings.
    """
    settings = detector.settings
    found = detector.predict(test.images) if found is None else detector.weigh(found)
    scores, A = found.score.numpy(), found.map.numpy()
    threshold = detector.threshold
    if settings.threshold == "youden":
        both = 0 < test.labels.sum() < len(test.labels)
        threshold = youden(scores, test.labels) if both else None
    binary = test.masks > (0 if settings.mask_rule == "bilinear" else 0.5)
    if reason := lacking(test):
        result = of_images(scores, test.labels, threshold) | {"undefined": reason}
    else:
        result = measure(scores, test.labels, A, binary, threshold=threshold,
                         bootstrap_repeats=bootstrap_repeats, seed=settings.seed,
                         groups=test.groups, regions=test.regions)
        if settings.pro == "200-thresholds":
            result["pro"], result["pro_005"] = pro_200(A, test.masks), None
    result["threshold"] = threshold
    result |= {"images": len(scores), "defective": int(test.labels.sum())}
    return result, found


def lacking(test: TestSet) -> str:
    """What the test set lacks for all metrics, told before anything is predicted; ""
    where it lacks nothing.
    """
    if not test.labels.any():
        return "the test set has no defective image: false alarms alone are measured"
    if test.labels.all():
        return "the test set has no good image: recall alone is measured"
    if not (test.masks > 0.5).any():
        return ("no defect has a mask, or only an empty one: no metric of pixels or "
                "regions is defined")
    return ""


def of_images(scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> dict:
    """The metrics that need no mask, of one class or both; None for the others."""
    bad, result = labels == 1, dict.fromkeys(MEASURED)
    if bad.any() and not bad.all():
        result["i_auroc"] = float(roc_auc_score(labels, scores))
        result["i_ap"] = float(average_precision_score(labels, scores))
        result["i_f1_max"] = f1_max(scores, labels)
    if threshold is not None:
        flagged = scores > threshold
        result["recall"] = float(flagged[bad].mean()) if bad.any() else None
        result["false_positive_rate"] = (
            None if bad.all() else float(flagged[~bad].mean()))
    return result


def youden(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the largest true minus false positive rate.

    It is found on the test labels: the official code's.
    """
    false, true, thresholds = roc_curve(labels, scores)
    # in the scores' own type: a finer step is lost when they are compared
    best = thresholds[np.argmax(true - false)].astype(scores.dtype)
    return float(np.nextafter(best, -np.inf))


def summary(scores: Tensor, A: Tensor, test: TestSet) -> dict:
    """I-AUROC, P-AUROC and exact PRO of scores (N,) and maps (N, H, W), and what they
    are made of for each image: `by_image.parts`. Without any mask what needs none.
    """
    masks, score = test.masks > 0.5, scores.numpy()
    if not masks.any():
        return {name: of_images(score, test.labels, None)[name]
                for name in ("i_auroc", "p_auroc", "pro")} | {"score": short(score)}
    ranking = PixelRanking(A.numpy(), masks)
    return {"i_auroc": float(roc_auc_score(test.labels, score)),
            "p_auroc": ranking.auroc(), "pro": ranking.pro(0.3),
            **parts(score, ranking, masks)}

