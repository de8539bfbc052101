"""The bootstrap is seeded, covers what it says, and keeps strata."""

import numpy as np
import pytest

from ddad.evaluation.metrics import measure
from ddad.evaluation.resampling import bootstrap, resamples


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


def test_whole_groups_are_drawn_and_their_labels_kept():
    strata = np.array([0, 0, 0, 0, 0, 1, 1, 1, 0, 1])
    groups = np.array(list("aabbbccdee"))  # a, b good; c, d defective; e both
    for index in resamples(strata, 50, 1, groups):
        drawn = groups[index]
        times = {name: (drawn == name).sum() / (groups == name).sum()
                 for name in "abcde"}
        assert all(time == int(time) for time in times.values())
        assert times["a"] + times["b"] == times["c"] + times["d"] == 2
        assert times["e"] == 1
    sizes = {len(index) for index in resamples(strata, 50, 1, groups)}
    assert sizes == {8, 9, 10, 11, 12}


def test_each_image_its_own_group_is_no_group():
    strata = np.array([1, 0, 0, 1, 0, 1, 1])
    plain = resamples(strata, 5, 3)
    alone = resamples(strata, 5, 3, groups=np.arange(7))
    assert all(np.array_equal(a, b) for a, b in zip(plain, alone))
    with pytest.raises(ValueError, match="3 groups for 7 images"):
        resamples(strata, 5, groups=[1, 2, 3])


def test_by_group_an_interval_of_correlated_scores_covers_what_it_says():
    """Six images of each group share most of their score. By image the mean's interval
    misses it more than half of the time.
    """
    rng, covered = np.random.default_rng(0), {"image": 0, "group": 0}
    groups = np.repeat(np.arange(40), 6)
    for trial in range(60):
        sample = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=240)
        mean = lambda index, sample=sample: sample[index].mean()
        for name, of in (("image", None), ("group", groups)):
            low, high = bootstrap(mean, 240, repeats=200, seed=trial, groups=of)
            covered[name] += low <= 0 <= high
    assert covered["group"] >= 51 and covered["image"] <= 40


def test_measure_is_wider_by_group_where_scores_are_planted_to_correlate():
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(30), 4)
    labels = np.repeat([0, 1], 60)
    level = rng.normal(size=30)[groups] + labels
    masks = np.zeros((120, 8, 8), bool)
    masks[60:, 2:5, 2:5] = True
    maps = level[:, None, None] + 0.3 * rng.normal(size=masks.shape) + masks
    given = level, labels, maps, masks
    by_image = measure(*given, bootstrap_repeats=200)
    by_group = measure(*given, bootstrap_repeats=200, groups=groups)
    assert by_group["groups"] == 30 and "groups" not in by_image
    for name in ("i_auroc", "p_auroc", "pro"):
        widths = [high - low for low, high in (
            found["interval"][name] for found in (by_image, by_group))]
        assert widths[1] > 1.4 * widths[0], name
        assert by_group[name] == by_image[name]
