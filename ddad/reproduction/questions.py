"""The questions that readers ask of the method, answered on one fitted detector: the
same networks and images, one thing changed at a time.

Does dynamic noise help, and whom? Is no noise better than noise? How much do the
constants matter? What do simpler methods reach?
"""
from __future__ import annotations

import time

import numpy as np
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ..data.product import TestSet
from ..detector import Detector, Prediction
from ..dynamic_noise import MemoryBank
from ..evaluation.baselines import baselines
from ..evaluation.metrics import PixelRanking
from ..evaluation.scoring import summary
from ..settings import Settings
from .ablation import OTHER_PATH
from .receipts import by_third

# What each path changes. A calibrated detector may have chosen static steps (smallest
# bin = all bins), so both kinds are made from it.
PATHS = {"dynamic steps": {"dynamic": True, "smallest_bin": 2},
         "static steps": {"dynamic": False},
         "noise added": OTHER_PATH["noise added"]}


def constants(settings: Settings) -> list[dict]:
    """One constant changed at a time: less and more than what the detector has, and the
    values that switch a part off.
    """
    s = settings
    tens = lambda level: max(10, min(round(level / 10) * 10, s.timesteps - 10))
    tried = {"bins": (5, 20), "neighbours": (5, 10), "smallest_bin": (1, 5, s.bins),
             "T_max": (tens(s.T_max / 2), tens(s.T_max * 2)),
             "guidance": (0.0, s.guidance * 2 or Settings.guidance),
             "lam": (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)}
    return [{name: value} for name, values in tried.items()
            for value in dict.fromkeys(values) if value != getattr(s, name)]


def ask(detector: Detector, train: Tensor, held_out: Tensor, test: TestSet,
        found: Prediction, *, every_constant: bool) -> dict:
    """The answers for one detector, JSON-ready.

    found: its own prediction of the test images. paths: the detector as it is, with
    dynamic and with static steps, and with noise added, each with what its figures are
    made of. With every_constant also constants: each of them changed, with dynamic
    steps; and baselines: what simpler methods reach.
    """
    answers = {"paths": _paths(detector, held_out, test, found)}
    if every_constant:
        answers["constants"] = _constants(detector, held_out, test)
        answers["baselines"] = baselines(detector, train, test, held_out)
        started = time.perf_counter()
        detector.predict(test.images)
        answers["seconds"] = round(time.perf_counter() - started, 2)
    return answers


def _paths(detector: Detector, held_out: Tensor, test: TestSet,
           found: Prediction) -> dict:
    here = detector.settings
    is_static = not here.dynamic or here.smallest_bin == here.bins
    paths = {"as it is": _seen(detector, found, test)}
    for name, change in PATHS.items():
        same = here.change(**change) == here or name == "static steps" and is_static
        if same:
            paths[name] = paths["as it is"]
        else:
            variant = varied(detector, change, held_out)
            paths[name] = _seen(variant, variant.predict(test.images), test)
    return paths


def _constants(detector: Detector, held_out: Tensor, test: TestSet) -> list[dict]:
    dynamic, rows = varied(detector, PATHS["dynamic steps"], held_out), []
    found = dynamic.predict(test.images)
    for change in constants(dynamic.settings):
        variant = varied(dynamic, change, held_out)
        # lambda only weighs the maps that are there
        again = "lam" not in change
        seen = variant.predict(test.images) if again else variant.weigh(found)
        had = {name: getattr(dynamic.settings, name) for name in change}
        rows.append({"changed": change, "had": had}
                    | summary(seen.score, seen.map, test))
    return rows


def varied(detector: Detector, change: dict, held_out: Tensor) -> Detector:
    """The detector under other settings, with bins, ranges and threshold made anew
    where the change reaches them.
    """
    variant = detector.under(detector.settings.change(**change))
    if "neighbours" in change:
        s = variant.settings
        y = detector.memory_bank.y
        variant.memory_bank = MemoryBank.fit(y, s.neighbours, s.self_neighbour)
    variant.set_ranges(held_out)
    return variant


def _seen(detector: Detector, found: Prediction, test: TestSet) -> dict:
    """I-AUROC, P-AUROC and PRO, and what they are made of for each image: score, step,
    and its parts of PRO.
    """
    masks, score = test.masks > 0.5, found.score.numpy()
    ranking = PixelRanking(found.map.numpy(), masks)
    return {"i_auroc": float(roc_auc_score(test.labels, score)),
            "p_auroc": ranking.auroc(), "pro": ranking.pro(0.3),
            "threshold": detector.threshold, "score": short(score),
            "T_hat": found.T_hat.tolist()} | pro_by_image(ranking, masks)


def pro_by_image(ranking: PixelRanking, masks: np.ndarray) -> dict:
    """What PRO and its interval are made of, for each image: its regions' overlap; and
    by third of the defects' area, what it does to that third's through its good pixels.
    """
    thirds = by_third(np.array(areas(masks)))
    return {"overlap": short(ranking.overlap_by_image()[0]),
            "false": [short(ranking.false_by_image(regions_of=third))
                      for third in thirds]}


def areas(masks: np.ndarray) -> list[float]:
    """The share of each image that is defect."""
    return short(masks.mean(axis=(1, 2)))


def short(values: np.ndarray) -> list[float]:
    """The shortest decimals that give the float32 values back."""
    return [float(str(np.float32(value))) for value in values]
