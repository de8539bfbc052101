"""Running a detector over a test set and scoring it, and the floors any detector has to stand above."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor
from tqdm.auto import tqdm

from . import anomaly_map as maps
from . import metrics
from .data import held_out_items, read_images, read_item, test_items, train_items
from .detector import Detector, Prediction
from .latent_projection import LatentProjection
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


@torch.no_grad()
def neighbour_floor(phi, train: Tensor, test: TestSet, settings: Settings, patches: int = 10_000) -> dict:
    """Nearest neighbours alone: each patch of the map's blocks against `patches` drawn from the training images.

    PatchCore without its core set (Roth et al. 2022): 3 x 3 averaged features, L2 distance, the largest is the score.
    """
    def patch_features(images: Tensor) -> Tensor:
        stages = [torch.nn.functional.avg_pool2d(phi(images)[j - 1], 3, 1, 1) for j in settings.map_stages]
        side = max(stage.shape[-1] for stage in stages)
        return torch.cat([torch.nn.functional.interpolate(stage, size=(side, side), mode="bilinear") for stage in stages], 1)

    device, draws = next(phi.parameters()).device, torch.Generator().manual_seed(settings.seed)
    each = -(-patches // len(train))
    bank = torch.cat([f.flatten(2).transpose(1, 2)[:, torch.randperm(f[0, 0].numel(), generator=draws)[:each]].flatten(0, 1)
                      for f in (patch_features(x0.to(device)) for x0 in train.split(16))])[:patches]
    parts = []
    for x0 in tqdm(test.images.split(4), "neighbours", leave=False, delay=2):
        f = patch_features(x0.to(device))
        distance = torch.cdist(f.flatten(2).transpose(1, 2).flatten(0, 1), bank).amin(1).view(len(x0), *f.shape[-2:])
        parts.append(maps.upsample(distance, x0.shape[-1], settings).cpu())
    A = maps.smooth(torch.cat(parts), settings.sigma * test.images.shape[-1] / 256)
    return summary(maps.score(A), A, test)


@torch.no_grad()
def vae_floor(projection: LatentProjection, phi, test: TestSet, settings: Settings) -> dict:
    """The autoencoder alone: D(E(x0)) against x0, without any denoising, by pixels and by the features' cosine."""
    pixels, features, size = [], [], test.images.shape[-1]
    for x0 in tqdm(test.images.split(16), "autoencoder", leave=False, delay=2):
        x0 = x0.to(projection.device)
        x0_hat = projection.decode(projection.encode(x0))
        pixels.append((x0 - x0_hat).abs().mean(1).cpu())
        features.append(maps.feature_map(phi(x0), phi(x0_hat), size, settings).cpu())
    result = {}
    for name, part in (("pixels", pixels), ("features", features)):
        A = maps.smooth(torch.cat(part), settings.sigma * size / 256)
        result[name] = summary(maps.score(A), A, test)
    return result
