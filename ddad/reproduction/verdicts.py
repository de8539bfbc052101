"""What paired runs say of a claim: on each data set, across data sets, in one word.

A pair is the method with and without one of its parts, of one seed, on the same test
images. Three things vary, and each has its place:

    images     a paired bootstrap: both runs in the same resamples (of whole groups,
               where images have some), the mean over the seeds in each resample
    seeds      their spread is told; those on one test set are one piece of evidence
    data sets  the mean of their means over seeds, with a t interval of sets - 1 degrees
               of freedom

Who tests many claims finds some by chance: p values are corrected by Holm's method
(1979), those of the sets of one claim, and those of all claims.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from ..evaluation.resampling import percentiles
from .intervals import auroc_resampled, correlations, draws, pro_resampled
from .receipts import exact_pro, labels

LEVEL = 0.05
CONFIRMED, CONTRADICTED = "confirmed", "contradicted"
DIFFERS, OPEN, NOT_HERE = "differs by set", "open", "not testable here"
Measured = tuple[float, np.ndarray]     # a figure, and what it is in each resample


# --- what is measured of one run

def auroc(receipt: dict, run: dict, images: dict) -> Measured:
    """I-AUROC of `images`: run["images"], or one of its answers."""
    value = float(roc_auc_score(labels(receipt, run), images["score"]))
    return value, auroc_resampled(receipt, run, images["score"])


def pro(receipt: dict, run: dict, images: dict, third: int | None = None) -> Measured:
    """Exact PRO, of all defects or of one third of them by area: see `exact_pro`."""
    return (exact_pro(receipt, run, images, third),
            pro_resampled(receipt, run, images, third))


def step_against_area(receipt: dict, run: dict, images: dict) -> Measured:
    """Rank correlation of the chosen step and the defect's area over the defective
    images; 0 where all have one step.
    """
    area = np.array(receipt["test"][run["category"]]["area"])
    sized = np.flatnonzero(area > 0)
    step, area = np.array(images["T_hat"])[sized], area[sized]
    value, = correlations(step, area, np.ones((1, len(sized))))
    drawn = correlations(step, area, draws(receipt, run["category"])[:, sized])
    return float(np.nan_to_num(value)), np.nan_to_num(drawn)


def only(receipt: dict, category: str, kinds: Sequence[str]) -> dict:
    """A receipt with those test images of one category alone that are good or of one of
    these kinds of defects; `kept` of its test says which they were.
    """
    test = receipt["test"][category]
    kept = [n for n, kind in enumerate(test["kind"]) if kind in ("good", *kinds)]
    of = {name: values and [values[n] for n in kept] for name, values in test.items()}
    return receipt | {"test": {category: of | {"kept": kept}}}


def minus(one: Measured, other: Measured) -> Measured:
    """The paired difference: both must be of the same test images."""
    return one[0] - other[0], one[1] - other[1]


# --- one data set

@dataclass(frozen=True)
class Effect:
    """A difference on one data set: by seed, and the means over the seeds in each
    resample of the test images; None where a record has no images.
    """

    data: str
    by_seed: tuple[float, ...]
    resampled: np.ndarray | None = None

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return mean(self.by_seed)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds."""
        return stdev(self.by_seed) if len(self.by_seed) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """95% of the resamples."""
        return percentiles(self.resampled, 1 - LEVEL)

    @property
    def p(self) -> float:
        """Two-sided, of no difference: twice the share of resamples on the rarer side
        of zero, counting one more than there are.
        """
        rarer = min((self.resampled <= 0).sum(), (self.resampled >= 0).sum())
        return min(1.0, 2 * (rarer + 1) / (len(self.resampled) + 1))


def effect(data: str, seeds: Sequence[Measured]) -> Effect:
    """What was measured of one data set, once a seed; resamples in which it is not
    defined are left out.
    """
    values, resampled = zip(*seeds)
    scattered = np.mean(resampled, 0)
    return Effect(data, values, scattered[np.isfinite(scattered)])


def sides(effects: Sequence[Effect]) -> list[int]:
    """1 where a data set by itself is above zero, -1 below, 0 neither: by its images,
    corrected for the number of sets, and with two seeds or more, all on that side. The
    images' interval knows nothing of another training.
    """
    corrected = holm([None if one.resampled is None else one.p for one in effects])
    found = []
    for one, p in zip(effects, corrected):
        signs = {int(np.sign(value)) for value in one.by_seed}
        stands = p is not None and p < LEVEL and len(one.by_seed) > 1
        found.append(signs.pop() if stands and len(signs) == 1 else 0)
    return found


# --- across data sets

@dataclass(frozen=True)
class Across:
    """The mean over data sets, its 95% interval and two-sided p of no difference; None
    for a single set, from which nothing follows for another.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def across(effects: Sequence[Effect]) -> Across:
    values = [one.value for one in effects]
    if len(values) < 2:
        return Across(values[0])
    if len(set(values)) == 1:
        # no spread to reckon with: nothing, or the same to the last digit everywhere
        return Across(values[0], values[0], values[0], float(not values[0]))
    test = ttest_1samp(values, 0)
    return Across(mean(values), *map(float, test.confidence_interval(1 - LEVEL)),
                  float(test.pvalue))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number, by Holm's step-down method; None stays."""
    order = sorted((n for n, one in enumerate(p) if one is not None), key=p.__getitem__)
    corrected, largest = list(p), 0.0
    for rank, n in enumerate(order):
        largest = max(largest, min(1.0, p[n] * (len(order) - rank)))
        corrected[n] = largest
    return corrected


def verdict(effects: Sequence[Effect], p: float | None) -> str:
    """In one word, of a difference that the claim says is above zero.

    p: that of `across`, corrected for the number of claims. Confirmed, or contradicted:
    the mean over data sets is above zero, or below. Differs by set: one data set by
    itself is above and another below (`sides`), whatever the mean. Open: neither.
    """
    if {1, -1} <= set(sides(effects)):
        return DIFFERS
    if p is None or p >= LEVEL:
        return OPEN
    return CONFIRMED if across(effects).value > 0 else CONTRADICTED
