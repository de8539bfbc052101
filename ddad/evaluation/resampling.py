"""How far a figure depends on which test images there happen to be: the bootstrap."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def resamples(strata: ArrayLike, repeats: int, seed: int = 0,
              groups: ArrayLike | None = None) -> list[np.ndarray]:
    """`repeats` draws of image indices, len(strata) of them, with replacement.

    Each stratum (say, label) keeps its size. `groups` (N,) says which images depend on
    one another, such as several photographs of one part: whole groups are drawn then,
    as many as there are of those that hold the same strata, so that no resample lacks a
    label. The number of images varies with the groups' sizes. ValueError where strata
    and groups differ in length.
    """
    strata = np.asarray(strata)
    groups = np.arange(len(strata)) if groups is None else np.asarray(groups)
    if groups.shape != strata.shape:
        raise ValueError(f"{len(groups)} groups for {len(strata)} images: give each "
                         "image one")
    rng, alike = np.random.default_rng(seed), {}
    _, number = np.unique(groups, return_inverse=True)
    ends = np.cumsum(np.bincount(number))[:-1]
    for images in np.split(np.argsort(number, kind="stable"), ends):
        alike.setdefault(tuple(np.unique(strata[images])), []).append(images)
    pools = [alike[held] for held in sorted(alike)]
    draw = lambda pool: [pool[i] for i in rng.integers(len(pool), size=len(pool))]
    return [np.concatenate([images for pool in pools for images in draw(pool)])
            for _ in range(repeats)]


def percentiles(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The interval that holds the middle `level` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[np.ndarray], float], n: int, *, repeats: int = 1000,
    seed: int = 0, level: float = 0.95, strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[float, float]:
    """Percentile interval of `statistic`.

    It gets image indices drawn with replacement from 0..n-1. With `strata` (n,), say
    the labels, each stratum keeps its size, so no resample lacks a class; with `groups`
    (n,) whole groups are drawn: see `resamples`.
    """
    strata = np.zeros(n) if strata is None else strata
    drawn = resamples(strata, repeats, seed, groups)
    return percentiles([statistic(index) for index in drawn], level)
