"""Running a detector over a test set and scoring it."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor
from tqdm.auto import tqdm

from . import metrics
from .data import held_out_items, read_images, read_item, test_items, train_items
from .detector import Detector, Prediction
from .settings import Settings


@dataclass
class TestSet:
    """N test images: (N, 3, H, W) in [-1, 1]; masks (N, H, W) float32 in [0, 1]; labels (N,) 0 or 1; kinds and paths."""

    images: Tensor
    masks: np.ndarray
    labels: np.ndarray
    kinds: list[str]
    paths: list[Path]


def load_train(root: str | Path, settings: Settings) -> Tensor:
    """The good training images (N, 3, H, W) in [-1, 1]. Raises DataError."""
    return read_images([item.path for item in train_items(root)], settings.image_size)


def load_held_out(root: str | Path, settings: Settings) -> Tensor | None:
    """The images of validation/good (N, 3, H, W) in [-1, 1], or None where that folder does not exist. Raises DataError."""
    items = held_out_items(root)
    return read_images([item.path for item in items], settings.image_size) if items else None


def load_test(root: str | Path, settings: Settings) -> TestSet:
    """The test images and masks, by the settings' mask rule. Raises DataError."""
    items = test_items(root)
    images, masks = zip(*[read_item(item, settings.image_size, settings.mask_rule) for item in tqdm(items, "read", leave=False, delay=2)])
    return TestSet(torch.stack(images), torch.stack(masks).numpy(), np.array([item.kind != "good" for item in items], int),
                   [item.kind for item in items], [item.path for item in items])


def evaluate(detector: Detector, test: TestSet, bootstrap_repeats: int = 0, found: Prediction | None = None) -> tuple[dict, Prediction]:
    """All metrics of `metrics.evaluate`, by the settings' rules, and the prediction they are of.

    found: a prediction of the same images by the same path; its maps are weighed anew by this detector's settings.
    """
    found = detector.predict(test.images) if found is None else detector.weigh(found)
    scores, A, settings = found.score.numpy(), found.map.numpy(), detector.settings
    threshold = youden(scores, test.labels) if settings.threshold == "youden" else detector.threshold
    binary = test.masks > (0 if settings.mask_rule == "bilinear" else 0.5)
    result = metrics.evaluate(scores, test.labels, A, binary, threshold=threshold, bootstrap_repeats=bootstrap_repeats, seed=settings.seed)
    if settings.pro == "200-thresholds":
        result["pro"], result["pro_005"] = metrics.pro_200(A, test.masks), None
    return result | {"threshold": threshold, "images": len(scores), "defective": int(test.labels.sum())}, found


def youden(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the largest true minus false positive rate, found on the test labels: the official code's."""
    false, true, thresholds = roc_curve(labels, scores)
    return float(np.nextafter(thresholds[np.argmax(true - false)], -np.inf))


def summary(scores: Tensor, A: Tensor, test: TestSet) -> dict:
    """I-AUROC, P-AUROC and exact PRO of scores (N,) and maps (N, H, W)."""
    ranking = metrics.PixelRanking(A.numpy(), test.masks > 0.5)
    return {"i_auroc": float(roc_auc_score(test.labels, scores.numpy())), "p_auroc": ranking.auroc(), "pro": ranking.pro(0.3)}
