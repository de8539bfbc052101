"""How far a figure depends on which test images there happen to be: the bootstrap."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def resamples(strata: np.ndarray, repeats: int, seed: int = 0) -> list[np.ndarray]:
    """`repeats` draws of len(strata) image indices with replacement.

    Each stratum (say, label) keeps its size.
    """
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    return [np.concatenate([rng.choice(group, group.size) for group in groups])
            for _ in range(repeats)]


def percentiles(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The interval that holds the middle `level` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[np.ndarray], float], n: int, *, repeats: int = 1000,
    seed: int = 0, level: float = 0.95, strata: np.ndarray | None = None,
) -> tuple[float, float]:
    """Percentile interval of `statistic`.

    It gets n image indices drawn with replacement from 0..n-1. With `strata` (n,),
    say the labels, each stratum keeps its size, so no resample lacks a class.
    """
    strata = np.zeros(n) if strata is None else strata
    return percentiles([statistic(index) for index in resamples(strata, repeats, seed)],
                       level)
