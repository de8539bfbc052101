"""The questions that readers ask of the method, answered on one fitted detector: the same networks and images, one thing changed at a time.

Does dynamic noise help, and whom? Is no noise better than noise? How much do the constants matter? What do simpler methods reach?
"""
from __future__ import annotations

import time

import numpy as np
from torch import Tensor

from .detector import Detector, Prediction
from .dynamic_noise import DynamicNoise
from .evaluation import TestSet
from .experiments import OTHER_PATH, floors
from .metrics import PixelRanking, by_size, resamples
from .settings import Settings

REPEATS = 100


def constants(settings: Settings) -> list[dict]:
    """One constant changed at a time: less and more than what the detector has, and the values that switch a part off."""
    s = settings
    tens = lambda level: max(10, min(round(level / 10) * 10, s.timesteps - 10))
    tried = {"bins": (5, 20), "neighbours": (5, 10), "smallest_bin": (1, 5, s.bins), "T_max": (tens(s.T_max / 2), tens(s.T_max * 2)),
             "guidance": (0.0, s.guidance * 2), "lam": (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)}
    return [{name: value} for name, values in tried.items() for value in dict.fromkeys(values) if value != getattr(s, name)]


def ask(detector: Detector, train: Tensor, held_out: Tensor, test: TestSet, found: Prediction, *, every_constant: bool) -> dict:
    """The answers for one detector, JSON-ready.

    found: its own prediction of the test images. paths: the detector as it is, with static steps, and with noise added, each with PRO
    and recall by size and their resamples over images, the same for every path. With every_constant also constants: each of them changed,
    and floors: nearest neighbours, the autoencoder alone, and PatchCore with the same features.
    """
    answers = {"paths": {"as it is": _by_size(detector, found, test)}}
    for name, change in OTHER_PATH.items():
        variant = varied(detector, change, held_out)
        answers["paths"][name] = _by_size(variant, variant.predict(test.images), test)
    if every_constant:
        answers["constants"] = []
        for change in constants(detector.settings):
            variant = varied(detector, change, held_out)
            seen = variant.weigh(found) if "lam" in change else variant.predict(test.images)
            answers["constants"].append({"changed": change} | _figures(variant, seen, test))
        answers["floors"] = floors(detector, train, test)
        started = time.perf_counter()
        detector.predict(test.images)
        answers["seconds"] = round(time.perf_counter() - started, 2)
    return answers


def varied(detector: Detector, change: dict, held_out: Tensor) -> Detector:
    """The detector under other settings, with bins, ranges and threshold made anew where the change reaches them."""
    variant = detector.under(detector.settings.change(**change))
    if "neighbours" in change:
        variant.dynamic_noise = DynamicNoise.fit(detector.dynamic_noise.bank, variant.settings)
    variant.set_ranges(held_out)
    return variant


def _figures(detector: Detector, found: Prediction, test: TestSet) -> dict:
    from .evaluation import summary
    return summary(found.score, found.map, test)


def _by_size(detector: Detector, found: Prediction, test: TestSet) -> dict:
    """I-AUROC, P-AUROC, PRO; PRO and recall in thirds of the defects' area; and PRO of each third over resampled images."""
    A, binary, scores = found.map.numpy(), test.masks > 0.5, found.score.numpy()
    ranking, area = PixelRanking(A, binary), binary.mean(axis=(1, 2))
    thirds = by_size(A, binary, scores, test.labels, detector.threshold)
    strata = 2 * test.labels + (area > 0)
    weights = [np.bincount(index, minlength=len(A)) for index in resamples(strata, REPEATS)]
    edges = [third["edges"] for third in thirds]
    for third, (low, high) in zip(thirds, edges):
        inside = (area > 0) & (area >= low) & (area < high)
        third["pro_resampled"] = [round(ranking.pro(0.3, w, inside), 5) if (w * inside).any() else None for w in weights]
    return _figures(detector, found, test) | {
        "threshold": detector.threshold, "scores": [float(str(np.float32(s))) for s in scores], "T_hat": found.T_hat.tolist(), "by_size": thirds,
        "pro_resampled": [round(ranking.pro(0.3, w), 5) for w in weights]}
