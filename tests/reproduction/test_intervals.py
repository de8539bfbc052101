"""Intervals from a receipt's images alone: scikit-learn's and scipy's figures, and the
exact bootstrap's widths.
"""
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from ddad.evaluation.by_image import areas, by_third, parts
from ddad.evaluation.metrics import PixelRanking, measure
from ddad.reproduction import intervals
from ddad.reproduction.receipts import exact_pro

N, SIDE, RUN = 60, 24, {"category": "any"}


@pytest.fixture(scope="module")
def case():
    """Maps, masks and labels of 30 good images and 30 with a square; some images are
    much noisier than others, so that the false-positive rates hang on which are drawn.
    """
    rng = np.random.default_rng(0)
    labels, masks = np.repeat([0, 1], N // 2), np.zeros((N, SIDE, SIDE), bool)
    for mask in masks[N // 2 :]:
        side = rng.integers(2, 10)
        y, x = rng.integers(0, SIDE - side, 2)
        mask[y : y + side, x : x + side] = True
    noise = np.exp(0.4 * rng.normal(size=N))[:, None, None]
    maps = noise * rng.normal(size=masks.shape) + 1.5 * masks
    return maps, masks, labels


def receipt_of(masks, labels, group=None):
    """What a receipt holds of the test images."""
    regions = PixelRanking(np.zeros(masks.shape), masks).overlap_by_image()[1]
    kinds = ["bad" if label else "good" for label in labels]
    of = {"kind": kinds, "area": areas(masks), "regions": regions.tolist(),
          "group": group}
    return {"format": 2, "test": {"any": of}}


def width(bounds):
    return bounds[1] - bounds[0]


@pytest.mark.parametrize("grouped", [False, True])
def test_pro_intervals_are_as_wide_as_those_of_the_exact_bootstrap(case, grouped):
    """Within 3%; with the false-positive rates held fixed they are too narrow."""
    maps, masks, labels = case
    group = [str(n // 3) for n in range(N)] if grouped else None
    receipt = receipt_of(masks, labels, group)
    images = parts(maps.max((1, 2)), PixelRanking(maps, masks), masks)
    exact = measure(maps.max(axis=(1, 2)), labels, maps, masks, bootstrap_repeats=1000,
                    groups=group)["interval"]["pro"]
    ours = intervals.percentiles(intervals.pro_resampled(receipt, RUN, images))
    assert ours == pytest.approx(exact, abs=0.03 * width(exact))
    fixed = images | {"false": [[0.0] * N] * 3}
    fixed = intervals.percentiles(intervals.pro_resampled(receipt, RUN, fixed))
    assert width(fixed) < 0.9 * width(exact)


def test_each_resample_and_each_third_is_near_the_exact_pro(case):
    maps, masks, labels = case
    ranking, receipt = PixelRanking(maps, masks), receipt_of(masks, labels)
    images = parts(maps.max((1, 2)), ranking, masks)
    counts = intervals.draws(receipt, "any")
    thirds = by_third(np.array(areas(masks)))
    for third, inside in ((None, None), *enumerate(thirds)):
        exact = ranking.pro(regions_of=inside)
        assert exact_pro(receipt, RUN, images, third) == pytest.approx(exact, abs=1e-6)
        found = intervals.pro_resampled(receipt, RUN, images, third)[:50]
        exact = [ranking.pro(0.3, w, inside) for w in counts[:50]]
        assert np.corrcoef(found, exact)[0, 1] > 0.99
        assert found == pytest.approx(exact, abs=0.03)


def test_draws_are_of_whole_groups_where_there_are_some(case):
    _, masks, labels = case
    group = [f"tile {n // 5}" for n in range(N)]
    alone = intervals.draws(receipt_of(masks, labels), "any")
    whole = intervals.draws(receipt_of(masks, labels, group), "any")
    assert alone.shape == whole.shape == (1000, N)
    assert (alone[:, labels == 1].sum(1) == 30).all() and alone.max() > 2
    by_tile = whole.reshape(1000, 12, 5)
    assert (by_tile == by_tile[:, :, :1]).all() and by_tile.max() > 2


@pytest.mark.parametrize("levels", [3, 1000])
def test_auroc_is_that_of_scikit_learn_with_ties_and_without(case, levels):
    _, masks, labels = case
    receipt = receipt_of(masks, labels)
    scores = np.random.default_rng(levels).integers(levels, size=N).astype(float)
    found = intervals.auroc_resampled(receipt, RUN, scores.tolist())
    expected = [roc_auc_score(labels, scores, sample_weight=counts)
                for counts in intervals.draws(receipt, "any")[:100]]
    assert found[:100] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [3, 1000])
def test_rank_correlations_are_those_of_scipy_with_ties_and_without(levels):
    rng = np.random.default_rng(levels)
    a, b = rng.integers(levels, size=(2, 12))
    counts = rng.multinomial(12, [1 / 12] * 12, size=50).astype(float)
    counts[0] = 12 * (np.arange(12) == 3)
    found = intervals.correlations(a, b, counts)
    assert np.isnan(found[0])
    for one, count in zip(found[1:], counts[1:]):
        index = np.repeat(np.arange(12), count.astype(int))
        assert one == pytest.approx(spearmanr(a[index], b[index]).statistic, abs=1e-9)


def test_a_rank_correlation_is_over_the_images_that_are_named():
    values, area = np.array([9.0, 1, 2, 3, 4]), np.array([0.0, 1, 2, 3, 4])
    drawn = np.ones((10, 5))
    text = intervals.rank(values, area, np.arange(1, 5), drawn)
    assert text == "+1.000 (+1.000 to +1.000)"
    assert intervals.rank(values, 0 * area, np.arange(5), drawn) == "all the same"


def test_resamples_without_a_value_are_left_out():
    text = intervals.interval(0.5, [0.4, float("nan"), 0.6])
    assert text == "0.500 (0.405 to 0.595)"
