"""The metrics against brute force, cases by hand, scikit-learn and definitions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from ddad.evaluation import official
from ddad.evaluation.metrics import (
    PixelRanking,
    by_size,
    f1_max,
    measure,
    pro,
    pro_200,
)


def flood_regions(mask):
    """The 8-connected regions of one mask as lists of pixels, found by flood fill."""
    left = {(int(i), int(j)) for i, j in np.argwhere(mask)}
    regions = []
    while left:
        region = [left.pop()]
        for i, j in region:  # grows while it is walked
            near = {(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)} & left
            left -= near
            region += near
        regions.append(region)
    return regions


def brute_pro(maps, masks, limit):
    """PRO from its definition: every distinct score, every region, every segment."""
    regions = [(n, region) for n, mask in enumerate(masks)
               for region in flood_regions(mask)]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        found = maps >= threshold
        overlaps = [np.mean([found[n][pixel] for pixel in region])
                    for n, region in regions]
        rate = (found & ~masks).sum() / (~masks).sum()
        points.append((rate, sum(overlaps) / len(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 >= limit or x1 == x0:
            continue
        end = min(x1, limit)
        y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def random_case(seed, kind="normal", images=6, side=12):
    """Maps and masks: two images are good, one is defective with an empty mask.

    The rest have some random regions.
    """
    rng = np.random.default_rng(seed)
    masks = rng.random((images, side, side)) < 0.15
    masks[:3] = False
    maps = rng.normal(size=masks.shape) + masks
    if kind == "ties":
        maps = np.round(maps)
    if kind == "heavy":
        maps = np.exp(6 * maps)
    return maps.astype(np.float32), masks


def scores_and_labels(maps):
    return maps.max(axis=(1, 2)), np.array([0, 0] + [1] * (len(maps) - 2))


@pytest.mark.parametrize("kind", ["normal", "ties", "heavy"])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_pro_is_brute_force(seed, kind, limit):
    maps, masks = random_case(seed, kind)
    expected = brute_pro(maps, masks, limit)
    assert pro(maps, masks, limit) == pytest.approx(expected, abs=1e-12)


def test_pro_by_hand():
    # Regions: two diagonal pixels (one region, 8-connected) and a single pixel (the 4).
    masks = np.array([[[1, 0, 0, 1], [0, 1, 0, 0]]], dtype=bool)
    maps = np.array([[[9, 8, 1, 4], [1, 6, 7, 1]]], dtype=np.float32)
    # Five good pixels: 8, 7 and three ties at 1. Scores down: 9 (half of the first
    # region) -> overlap 1/4 at FPR 0; 8 -> FPR 1/5; 7 -> FPR 2/5; 6 -> 3/4 at 2/5;
    # 4 -> 1 at 2/5; the ties -> FPR 1.
    assert pro(maps, masks, limit=0.3) == pytest.approx(0.25)
    assert pro(maps, masks, limit=0.5) == pytest.approx((0.4 * 0.25 + 0.1 * 1) / 0.5)
    # A single good pixel tied with the lone defect pixel: a ramp from (0, 0) to (1, 1),
    # cut at 0.3.
    one = np.array([[[True, False]]])
    assert pro(np.zeros((1, 1, 2)), one, limit=0.3) == pytest.approx(0.15)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_pro_of_constant_and_perfect_and_inverted_maps(limit):
    _, masks = random_case(0)
    assert pro(np.full(masks.shape, 7.0), masks, limit) == pytest.approx(limit / 2)
    assert pro(masks.astype(np.float32), masks, limit) == 1.0
    assert pro(-masks.astype(np.float32), masks, limit) == 0.0


def test_regions_weigh_alike_whatever_their_size():
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, :5] = True  # 50 pixels, missed
    masks[1, 9, 9] = True  # 1 pixel, found
    maps = np.zeros(masks.shape)
    maps[0, 5:] = 1.0
    maps[1] = 1.0
    maps[1, 9, 9] = 2.0
    ranking = PixelRanking(maps, masks)
    assert ranking.pro() == pytest.approx(0.5)
    assert ranking.pro(regions_of=[False, True]) == 1.0
    assert ranking.pro(regions_of=[True, False]) == 0.0
    assert ranking.auroc() == pytest.approx(1 / 51)


def test_order_and_monotone_scale_of_the_maps_do_not_matter():
    maps, masks = random_case(1)
    expected = pytest.approx(pro(maps, masks), abs=1e-12)
    order = np.random.default_rng(0).permutation(len(maps))
    assert pro(maps[order], masks[order]) == expected
    assert pro(np.exp(maps.astype(np.float64)), masks) == expected


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(ranks=arrays(np.int8, (3, 4, 5)), masks=arrays(bool, (3, 4, 5)))
def test_areas_depend_on_the_order_alone(ranks, masks):
    maps = ranks.astype(np.float64)
    if masks.all() or not masks.any():
        with pytest.raises(ValueError):
            PixelRanking(maps, masks).auroc()
        return
    one, other = PixelRanking(maps, masks), PixelRanking(maps**3 / 7, masks)
    turned = PixelRanking(-maps, masks)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert one.auroc() == pytest.approx(expected, abs=1e-9)
    assert 0 <= one.pro() <= 1 and one.pro() == pytest.approx(other.pro(), abs=1e-12)
    assert turned.auroc() == pytest.approx(1 - one.auroc(), abs=1e-9)


@pytest.mark.parametrize("kind", ["normal", "ties"])
def test_pixel_auroc_is_scikit_learns(kind):
    maps, masks = random_case(2, kind)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert PixelRanking(maps, masks).auroc() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["normal", "ties"])
def test_weights_count_images(kind):
    maps, masks = random_case(3, kind)
    weights = np.array([2, 0, 1, 3, 0, 1])
    index = np.repeat(np.arange(6), weights)
    ranking, copied = PixelRanking(maps, masks), PixelRanking(maps[index], masks[index])
    assert ranking.pro(weights=weights) == pytest.approx(copied.pro(), abs=1e-12)
    assert ranking.auroc(weights) == pytest.approx(copied.auroc(), abs=1e-12)
    with pytest.raises(ValueError, match="no defect region"):
        ranking.pro(weights=[1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("levels", [3, 50, 100_000])  # many ties, some, hardly any
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_overlap_by_image_adds_up_to_pro(levels, limit):
    rng = np.random.default_rng(levels)
    maps = rng.integers(0, levels, (6, 12, 12)).astype(float)
    masks = rng.random((6, 12, 12)) < 0.2
    masks[4:] = False
    ranking = PixelRanking(maps, masks)
    overlap, regions = ranking.overlap_by_image(limit)
    assert regions.tolist() == [len(flood_regions(mask)) for mask in masks]
    assert not overlap[4:].any()
    whole = overlap.sum() / regions.sum()
    assert whole == pytest.approx(ranking.pro(limit), abs=1e-12)
    some = np.array([True, False, True, True, False, False])
    part = overlap[some].sum() / regions[some].sum()
    assert part == pytest.approx(ranking.pro(limit, regions_of=some), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_pro_200_is_the_official_rule(seed):
    maps, masks = random_case(seed)
    masks = masks.astype(np.float64)
    masks[:, :, 0] *= 0.5  # fractional: not a region, half a good pixel
    expected = official.pro(maps, masks)
    assert pro_200(maps, masks) == pytest.approx(expected, abs=1e-12)


def test_pro_200_counts_scores_strictly_above_a_threshold():
    _, masks = random_case(0)
    maps = np.random.default_rng(0).integers(201, size=masks.shape).astype(np.float32)
    maps = np.minimum(maps + 100 * masks, 200)
    maps[0, 0, :2] = 0, 200  # every score but the largest is a threshold
    expected = official.pro(maps, masks.astype(np.float64))
    assert pro_200(maps, masks) == pytest.approx(expected, abs=1e-12)


def test_pro_200_is_near_on_light_tails_and_off_on_heavy_ones():
    rng = np.random.default_rng(0)
    masks = np.zeros((8, 64, 64), dtype=bool)
    masks[4:, 10:20, 10:20] = True
    maps = rng.uniform(size=masks.shape) + masks * rng.uniform(size=masks.shape)
    assert abs(pro_200(maps, masks) - pro(maps, masks)) < 0.02
    heavy = np.exp(5 * maps)  # the same ranking, so the same PRO
    assert pro(heavy, masks) == pytest.approx(pro(maps, masks), abs=1e-12)
    assert abs(pro_200(heavy, masks) - pro(heavy, masks)) > 0.1


def test_pro_200_loses_thin_regions():
    maps, masks = random_case(0)
    maps[3, 0] += 9.0
    masks = masks.astype(np.float64)
    masks[4:] *= 0.9
    alone = masks.copy()
    alone[4:] = 0.9 * (masks[4:] > 0)
    expected = pytest.approx(official.pro(maps, masks), abs=1e-12)
    assert pro_200(maps, masks) == pro_200(maps, alone) == expected
    with pytest.raises(ValueError, match="no mask reaches 1"):
        pro_200(maps, masks * 0.9)


def test_pro_200_errors():
    maps, masks = random_case(0)
    with pytest.raises(ValueError, match="no curve"):
        pro_200(np.ones(masks.shape), masks)
    with pytest.raises(ValueError, match="no curve"):
        pro_200(masks.astype(np.float32), masks)
    with pytest.raises(ValueError, match="no curve"):
        pro_200(maps, np.ones(masks.shape))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        pro_200(maps, masks.astype(np.uint8) * 255)


def test_pro_errors():
    maps, masks = random_case(0)
    for bad in (np.nan, np.inf):
        broken = maps.copy()
        broken[0, 0, 0] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            pro(broken, masks)
    with pytest.raises(ValueError, match="no defect region"):
        pro(maps, np.zeros_like(masks))
    with pytest.raises(ValueError, match="no good pixel"):
        pro(maps, np.ones_like(masks))
    with pytest.raises(ValueError, match="one shape"):
        pro(maps, masks[:, :5])
    with pytest.raises(ValueError, match="one shape"):
        pro(maps[0], masks[0])
    with pytest.raises(ValueError, match="must be bool"):
        pro(maps, masks.astype(np.uint8))
    for limit in (0, 1.5, np.nan):
        with pytest.raises(ValueError, match="limit"):
            pro(maps, masks, limit)


def test_f1_max():
    labels = np.array([0, 1, 0, 1, 1])
    # Down from the top: precision 1, 1/2, 2/3, 2/4 or (with the last) 3/5; best F1 is
    # 2 * 3 / (5 + 3).
    scores = np.array([0.4, 0.9, 0.8, 0.5, 0.1])
    assert f1_max(scores, labels) == pytest.approx(0.75)
    assert f1_max(labels.astype(float), labels) == 1.0
    with pytest.raises(ValueError, match="positive"):
        f1_max(np.arange(3.0), np.zeros(3, dtype=int))


def size_case():
    """Two good images and squares of side 1, 2, 4, 5, 6, 8 in 16 x 16.

    The last image has a defect but an empty mask.
    """
    sides = [0, 0, 1, 2, 4, 5, 6, 8, 0]
    masks = np.zeros((len(sides), 16, 16), dtype=bool)
    for mask, side in zip(masks, sides, strict=True):
        mask[:side, :side] = True
    maps = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32)
    scores = np.array([0.0, 0.9, 0.2, 0.8, 0.5, 0.6, 0.7, 0.9, 1.0])
    return maps + 2 * masks, masks, scores, np.array([0, 0, 1, 1, 1, 1, 1, 1, 1])


def test_by_size_terciles():
    maps, masks, scores, labels = size_case()
    rows = PixelRanking(maps, masks), masks, scores, labels
    bins = by_size(*rows, threshold=0.5)
    assert [one["images"] for one in bins] == [2, 2, 2]
    pixels = [[256 * size for size in one["size"]] for one in bins]
    assert pixels == [[1, 4], [16, 25], [36, 64]]
    # A score of 0.5 is not above 0.5.
    assert [one["recall"] for one in bins] == [0.5, 0.5, 1.0]
    # With one region an image and the same good pixels for all, the bins' PRO average
    # to the whole.
    mean = np.mean([one["pro"] for one in bins])
    assert mean == pytest.approx(pro(maps, masks), abs=1e-12)
    inner = [one["edges"][1] for one in bins[:-1]]
    assert by_size(*rows, 0.5, edges=inner) == bins


def test_by_size_edges_given():
    maps, masks, scores, labels = size_case()
    ranking = PixelRanking(maps, masks)
    bins = by_size(ranking, masks, scores, labels, 0.5, edges=[4 / 256, 0.9])
    # A size on an edge is in the upper bin.
    assert [one["images"] for one in bins] == [1, 5, 0]
    assert bins[0]["edges"] == [0.0, 4 / 256] and bins[2]["edges"] == [0.9, 1.0]
    assert bins[2]["size"] is bins[2]["pro"] is bins[2]["recall"] is None
    few = [part[:2] for part in (maps, masks, scores, labels)]
    with pytest.raises(ValueError, match="no defect region"):
        by_size(PixelRanking(*few[:2]), *few[1:], 0.5)


def test_measure():
    maps, masks = random_case(4)
    scores, labels = scores_and_labels(maps)
    plain = measure(scores, labels, maps, masks)
    assert list(plain) == ["i_auroc", "i_ap", "i_f1_max", "p_auroc", "p_ap", "p_f1_max",
                           "pro", "pro_005", "aupimo"]
    assert plain["i_auroc"] == roc_auc_score(labels, scores)
    assert plain["p_ap"] == average_precision_score(masks.ravel(), maps.ravel())
    assert plain["pro"] == pro(maps, masks)
    assert plain["pro_005"] == pro(maps, masks, 0.05)


def test_measure_with_threshold_and_intervals():
    maps, masks = random_case(4)
    scores, labels = scores_and_labels(maps)
    threshold, repeated = float(np.median(scores)), {"bootstrap_repeats": 20, "seed": 1}
    plain = measure(scores, labels, maps, masks)
    full = measure(scores, labels, maps, masks, threshold=threshold, **repeated)
    assert json.loads(json.dumps(full)) == full
    assert {name: full[name] for name in plain} == plain
    assert full["recall"] == np.mean(scores[2:] > np.median(scores))
    assert full["false_positive_rate"] == np.mean(scores[:2] > np.median(scores))
    assert sum(one["images"] for one in full["by_size"]) == 3
    assert list(full["interval"]) == ["i_auroc", "p_auroc", "pro"]
    assert full["bootstrap_repeats"] == 20
    for name, (low, high) in full["interval"].items():
        assert low <= full[name] <= high
    again = measure(scores, labels, maps, masks, **repeated)
    assert again["interval"] == full["interval"]

    # Of two defective images one has an empty mask: a quarter of the resamples by label
    # alone would lack a region.
    few = [part[:4] for part in (scores, labels, maps, masks)]
    assert measure(*few, bootstrap_repeats=20)["interval"]["pro"][0] > 0


def test_measure_errors():
    maps, masks = random_case(4)
    scores, labels = scores_and_labels(maps)
    for part, name in ((slice(0, 2), "defective"), (slice(2, None), "good")):
        with pytest.raises(ValueError, match=f"no {name} image"):
            measure(scores[part], labels[part], maps[part], masks[part])
    # The one defective image of the first three has an empty mask.
    with pytest.raises(ValueError, match="no defect region"):
        measure(scores[:3], labels[:3], maps[:3], masks[:3])
    with pytest.raises(ValueError, match="labelled good"):
        measure(scores, np.array([0] * 5 + [1]), maps, masks)
    with pytest.raises(ValueError, match="0 or 1"):
        measure(scores, 2 * labels, maps, masks)
    with pytest.raises(ValueError, match="numbers differ"):
        measure(scores[1:], labels, maps, masks)
    with pytest.raises(ValueError, match="scores hold NaN"):
        measure(np.full(6, np.nan), labels, maps, masks)
