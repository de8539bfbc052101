"""The bootstrap is seeded, covers what it says, and keeps strata."""

import numpy as np

from ddad.evaluation.resampling import bootstrap


def test_bootstrap_is_seeded_and_covers():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        sample = rng.normal(size=50)
        mean = lambda index, sample=sample: sample[index].mean()
        low, high = bootstrap(mean, 50, repeats=200, seed=trial)
        covered += low <= 0 <= high
    assert 85 <= covered <= 99
    again = [bootstrap(mean, 50, repeats=50, seed=seed) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_bootstrap_strata_keep_their_size():
    strata = np.array([0] * 9 + [1])
    mean = lambda index: np.mean(strata[index])
    assert bootstrap(mean, 10, repeats=50, strata=strata) == (0.1, 0.1)
    assert bootstrap(mean, 10, repeats=50) != (0.1, 0.1)
