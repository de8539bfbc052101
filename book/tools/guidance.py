"""What leaving out guidance gives by itself, and what a step for each region adds: from
the records of the step rules and of the calibrated detectors, on the same test images.

    (region - static) + (static - the paper's method) = region - the paper's method

Region and static: paths of one network without guidance, at the extension's T_max, with
none of their constants chosen. The paper's method: calibrated by `ddad reproduce`, with
guidance as its calibration chose; networks of another training, by the same settings
and seeds.
"""
from __future__ import annotations

from collections.abc import Callable

import step_rules
from own_claims import NAME, PLAIN
from paired import entries
from records import METRICS, name_of, table

from ddad.reproduction.verdicts import Effect, across, effect, minus
from ddad.reproduction.worth import MEASURES
from ddad.settings import preset

# what is added: the path that has it; the one, or the method, that has not
PARTS = {"one step for all, no guidance": ("static", "clean"),
         "a step per region": ("region", "static"), "both": ("region", "clean")}
Receipts = dict[str, dict]


def effects(receipts: Receipts, metric: str) -> dict[str, list[Effect]]:
    """By part its difference on each data set, paired by seed and test image."""
    ruled, measure, T = receipts[NAME], MEASURES[metric], preset("regional").T_max
    found: dict = {part: [] for part in PARTS}
    for category, test in ruled["test"].items():
        # an ablation has the same test images, and no run of the method as it is
        calibrated = next((receipt for name, receipt in receipts.items()
                           if name != NAME and (category, "clean") in entries(receipt)
                           and _images(receipt["test"][category]) == _images(test)),
                          None)
        if calibrated is None:
            continue
        by = {"clean": {seed: measure(calibrated, run, images) for seed, run, images
                        in entries(calibrated).get((category, "clean"), [])}}
        paired = ruled | {"test": calibrated["test"]}           # the same draws
        for rule in ("static", "region"):
            path = step_rules.name(PLAIN, rule, T)
            by[rule] = {run["seed"]: measure(paired, run, run["images"])
                        for run in ruled["runs"]
                        if (run["category"], run["preset"]) == (category, path)}
        seeds = sorted(set.intersection(*map(set, by.values())))
        for part, (one, other) in PARTS.items() if seeds else ():
            found[part].append(effect(category, [
                minus(by[one][seed], by[other][seed]) for seed in seeds]))
    return found


def _images(test: dict) -> dict:
    """A receipt's test images, but for their groups: they may be known in one alone."""
    return {name: value for name, value in test.items() if name != "group"}


def by_set(receipts: Receipts) -> str:
    """A row a data set and metric, each part with 95% of resamples; below, the means
    over the sets with their t intervals.
    """
    rows, last = [], []
    for metric in MEASURES:
        found = effects(receipts, metric)
        for of in zip(*found.values()):
            rows.append([name_of(of[0].data), METRICS[metric], *(
                shown(one.value, *one.interval) for one in of)])
        means = [across(of) for of in found.values()]
        last.append([f"mean of {len(found['both'])} sets", METRICS[metric],
                     *(shown(one.value, one.low, one.high) for one in means)])
    return table(["data", "metric", *PARTS], [*rows, *last])


def answer(receipts: Receipts) -> str:
    """The means over the sets in two sentences."""
    found, told = {metric: effects(receipts, metric) for metric in MEASURES}, []
    for part in PARTS:
        means = {metric: across(of[part]) for metric, of in found.items()}
        told.append(" and ".join(
            f"{METRICS[metric]} by " + shown(mean.value, mean.low, mean.high)
            for metric, mean in means.items()))
    without, region, _ = told
    sets = len(found["pro"]["both"])
    return (f"On the mean of {sets} real sets, one step for all without guidance "
            f"changes {without}; a step for each region then changes {region}.")


def shown(value: float, low: float | None, high: float | None) -> str:
    told = f"{value:+.3f}"
    return told if low is None else f"{told} ({low:+.3f} to {high:+.3f})"


def tables(receipts: Receipts) -> dict[str, Callable[[], str]]:
    """By name: "guidance", "guidance_answer"."""
    def of(make: Callable[[Receipts], str]) -> Callable[[], str]:
        there = NAME in receipts and effects(receipts, "pro")["both"]
        return lambda: make(receipts) if there else "Not run yet."
    return {"guidance": of(by_set), "guidance_answer": of(answer)}
