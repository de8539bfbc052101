"""sPRO against its definition, by hand, and against PRO."""

import numpy as np
import pytest

from ddad.data.regions import Region
from ddad.evaluation.metrics import measure, pro
from ddad.evaluation.spro import saturated, spro


def by_definition(maps, regions, limit):
    """Every distinct score a threshold, every region, every segment of the curve."""
    good = np.ones(maps.shape, bool)
    for region in regions:
        good[region.image] &= ~region.mask
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        shares = []
        for region in regions:
            found = (maps[region.image][region.mask] >= threshold).sum()
            shares.append(min(found / (region.saturation * region.mask.sum()), 1))
        points.append(((maps >= threshold)[good].mean(), np.mean(shares)))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        end = min(x1, limit)
        if x0 < end:
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def random_case(seed, levels):
    """Maps (5, 14, 14) and regions that overlap, of saturations of whole pixels, parts
    of pixels, less than a pixel, and all.
    """
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (5, 14, 14)).astype(float)
    regions = [Region(1 + i % 4, rng.random((14, 14)) < 0.15, share)
               for i, share in enumerate((1.0, 0.5, 0.33, 0.01, 1.0, 0.71))]
    for region in regions:
        maps[region.image] += levels // 3 * region.mask
    return maps, regions


@pytest.mark.parametrize("levels", [4, 10_000])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_spro_is_its_definition(seed, limit, levels):
    maps, regions = random_case(seed, levels)
    expected = by_definition(maps, regions, limit)
    assert spro(maps, regions, limit) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


def test_spro_by_hand():
    # One region of four pixels, 9 8 2 1, of which two are enough; four good pixels.
    maps = np.array([[[9, 8, 2, 1]], [[7, 0, 0, 0]]], float)
    mask = np.array([[True, True, True, True]])
    assert spro(maps, [Region(0, mask, 0.5)], 1.0) == 1
    # Now the 9 alone is above all good pixels: half of what is enough. The 2 follows
    # once one good pixel of four is found too.
    maps[0, 0], maps[1, 0] = (9, 2, 1, 1), (5, 0, 0, 0)
    assert spro(maps, [Region(0, mask, 0.5)], 1.0) == pytest.approx(0.25 / 2 + 0.75)
    assert pro(maps, np.stack([mask, ~mask]), 1.0) == pytest.approx(0.25 / 4 + 0.75)


def test_without_saturation_and_of_connected_regions_it_is_pro():
    maps, _ = random_case(0, 10_000)
    masks = np.zeros(maps.shape, bool)
    masks[1, 2:5, 2:5] = masks[1, 8:10, 8:13] = masks[2, 3, 4:9] = True
    parts = [(1, np.s_[2:5]), (1, np.s_[8:10]), (2, np.s_[3:4])]
    regions = []
    for image, rows in parts:
        mask = np.zeros_like(masks[0])
        mask[rows] = masks[image][rows]
        regions.append(Region(image, mask, 1.0))
    for limit in (0.05, 0.3):
        assert spro(maps, regions, limit) == pytest.approx(pro(maps, masks, limit))
    # with saturation it can only be more
    fewer = [Region(one.image, one.mask, 0.3) for one in regions]
    assert spro(maps, fewer, 0.3) > pro(maps, masks, 0.3) + 0.01


def test_weights_count_images():
    maps, regions = random_case(2, 50)
    weights = np.array([1, 2, 0, 1, 3])
    index = np.repeat(np.arange(5), weights)
    copied = [Region(n, one.mask, one.saturation)
              for n, image in enumerate(index) for one in regions if one.image == image]
    found = saturated(maps, regions).pro(0.3, weights)
    assert found == pytest.approx(spro(maps[index], copied, 0.3))


def test_measure_has_spro_where_there_are_regions():
    maps, regions = random_case(1, 1000)
    masks = np.zeros(maps.shape, bool)
    for region in regions:
        masks[region.image] |= region.mask
    given = maps.max(axis=(1, 2)), np.array([0, 1, 1, 1, 1]), maps, masks
    assert "spro" not in measure(*given)
    found = measure(*given, regions=regions, bootstrap_repeats=20)
    assert found["spro"] == spro(maps, regions, 0.05)
    assert found["spro_030"] == spro(maps, regions, 0.3)
    low, high = found["interval"]["spro"]
    assert low < found["spro"] < high
    with pytest.raises(ValueError, match="no defect region"):
        spro(maps, [])
