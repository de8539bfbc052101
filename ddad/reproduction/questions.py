"""The questions that readers ask of the method, answered on one fitted detector: the
same networks and images, one thing changed at a time.

Does dynamic noise help, and whom? Is no noise better than noise? How much do the
constants matter? What do simpler methods reach?
"""
from __future__ import annotations

import time

from ..data.images import Images
from ..data.product import TestSet
from ..detector import Detector, Prediction
from ..dynamic_noise import MemoryBank
from ..evaluation.baselines import baselines
from ..evaluation.scoring import summary
from ..settings import Settings
from ..training import hold_out, split
from .variants import NOISE, STATIC, VARIANTS

# What each path changes. A calibrated detector may have chosen static steps (smallest
# bin = all bins), so both kinds are made from it.
PATHS = {"dynamic steps": {"step_rule": "image", "smallest_bin": 2},
         STATIC: VARIANTS[STATIC].change,
         NOISE: VARIANTS[NOISE].change}


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


def ask(detector: Detector, train: Images, held_out: Images | None, test: TestSet,
        found: Prediction, *, every_constant: bool) -> dict:
    """The answers for one detector, JSON-ready.

    held_out: good images given as such; else a share of `train` is held out, as in the
    training. found: its own prediction of the test images. paths: the detector as it
    is, with dynamic and with static steps, and with noise added, each with what its
    figures are made of. With every_constant also constants: each of them changed, with
    dynamic steps; and baselines: what simpler methods reach.
    """
    good = hold_out(train, detector.settings, held_out)[1]
    answers = {"paths": _paths(detector, good, test, found)}
    if every_constant:
        answers["constants"] = _constants(detector, good, test)
        answers["baselines"] = baselines(detector, train, test, held_out)
        started = time.perf_counter()
        detector.predict(test.images)
        answers["seconds"] = round(time.perf_counter() - started, 2)
    return answers


def _paths(detector: Detector, held_out: Images, test: TestSet,
           found: Prediction) -> dict:
    here = detector.settings
    is_static = here.step_rule == "static" or here.smallest_bin == here.bins
    paths = {"as it is": _seen(detector, found, test)}
    for name, change in PATHS.items():
        same = here.change(**change) == here or name == STATIC and is_static
        if same:
            paths[name] = paths["as it is"]
        else:
            variant = varied(detector, change, held_out)
            paths[name] = _seen(variant, variant.predict(test.images), test)
    return paths


def _constants(detector: Detector, held_out: Images, test: TestSet) -> list[dict]:
    dynamic, rows = varied(detector, PATHS["dynamic steps"], held_out), []
    found = dynamic.predict(test.images)
    for change in constants(dynamic.settings):
        if "lam" in change:             # it only weighs the maps that are there
            variant = dynamic.under(dynamic.settings.change(**change))
            seen = variant.weigh(found)
        else:
            variant = _with_ranges(dynamic, change, held_out)
            seen = variant.predict(test.images)
        had = {name: getattr(dynamic.settings, name) for name in change}
        rows.append({"changed": change, "had": had}
                    | summary(seen.score, seen.map, test))
    return rows


def varied(detector: Detector, change: dict, held_out: Images) -> Detector:
    """The detector under other settings, with bins, ranges and threshold made anew
    where the change reaches them.
    """
    variant = _with_ranges(detector, change, held_out)
    variant.set_held_out_scores(split(held_out, variant.settings)[1])
    return variant


def _with_ranges(detector: Detector, change: dict, held_out: Images) -> Detector:
    """`varied`, but its threshold is still the detector's."""
    variant = detector.under(detector.settings.change(**change))
    if "neighbours" in change:
        s = variant.settings
        y = detector.memory_bank.y
        variant.memory_bank = MemoryBank.fit(y, s.neighbours, s.self_neighbour)
    variant.set_ranges(split(held_out, variant.settings)[0], keep=False)
    return variant


def _seen(detector: Detector, found: Prediction, test: TestSet) -> dict:
    """I-AUROC, P-AUROC and PRO, threshold, and of each image its step and what those
    are made of.
    """
    return {"threshold": detector.threshold, "T_hat": found.T_hat.tolist(),
            **summary(found.score, found.map, test)}
