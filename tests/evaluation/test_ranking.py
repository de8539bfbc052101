"""How PRO changes with the images that are there, against finite differences."""

import numpy as np
import pytest

from ddad.evaluation.metrics import PixelRanking


def random_case(levels, images=6, side=12):
    """Maps of so many levels, and masks; two images are good, one is full of holes."""
    rng = np.random.default_rng(levels)
    maps = rng.integers(0, levels, (images, side, side)).astype(float)
    masks = rng.random(maps.shape) < 0.2
    masks[:2] = False
    masks[2] = rng.random((side, side)) < 0.8
    return maps + rng.integers(0, levels, images)[:, None, None] // 3, masks


def slope(function, n, image, step=1e-5):
    """The derivative of `function` by the weight of one image, where all are 1."""
    up, down = np.ones(n), np.ones(n)
    up[image] += step
    down[image] -= step
    return (function(up) - function(down)) / (2 * step)


@pytest.mark.parametrize("levels", [3, 20, 100_000])  # many ties, some, hardly any
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_pro_changes_through_regions_and_false_positives(levels, limit):
    maps, masks = random_case(levels)
    ranking, n = PixelRanking(maps, masks), len(maps)
    overlap, regions = ranking.overlap_by_image(limit)
    for regions_of in (np.ones(n, bool), np.arange(n) % 2 == 0):
        false = ranking.false_by_image(limit, regions_of)
        inside = np.where(regions_of, regions, 0)
        whole = ranking.pro(limit, regions_of=regions_of)
        through_regions = np.where(regions_of, overlap - whole * regions, 0)
        expected = (through_regions + false) / inside.sum()
        found = [slope(lambda w, r=regions_of: ranking.pro(limit, w, r), n, i)
                 for i in range(n)]
        assert found == pytest.approx(expected, abs=1e-7)
        assert abs(false).max() > 1e-3 and false.sum() == pytest.approx(0, abs=1e-9)


def test_what_a_good_image_does_to_pro_by_hand():
    # Three images of four pixels; the defect, 5, has two of eleven good pixels above.
    maps = np.array([[[5, 0, 0, 0]], [[6, 7, 0, 0]], [[0, 0, 0, 0]]], float)
    masks = maps == 5
    ranking = PixelRanking(maps, masks)
    # Its rate is 2 / 11, PRO 1 - rate / 0.3. Where the second image counts a little
    # more, so do two pixels above and four in all: rate' = (2 - 4 * rate) / 11.
    rate = 2 / 11
    expected = -np.array([0 - 3 * rate, 2 - 4 * rate, 0 - 4 * rate]) / 11 / 0.3
    assert ranking.pro() == pytest.approx(1 - rate / 0.3)
    assert ranking.false_by_image() == pytest.approx(expected)


def test_thirds_add_up_to_the_whole():
    maps, masks = random_case(20)
    ranking, some = PixelRanking(maps, masks), np.arange(6) < 4
    parts = [ranking.false_by_image(regions_of=one) for one in (some, ~some)]
    assert sum(parts) == pytest.approx(ranking.false_by_image(), abs=1e-12)
    assert not ranking.false_by_image(regions_of=np.zeros(6, bool)).any()
