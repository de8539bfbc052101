"""AUPIMO against its definition, and the numbers of the reference implementation,
recorded by record_aupimo.py.
"""

import json

import numpy as np
import pytest
from record_aupimo import CASES, NUMBERS, drawn

from ddad.evaluation.aupimo import HIGH, LOW, ImageRanking, aupimo
from ddad.evaluation.metrics import measure

THEIRS = json.loads(NUMBERS.read_text(encoding="utf-8"))


def case(decimals=None, seed=0):
    """Four good images of 160 x 160, three defective ones, of which one has no mask."""
    rng = np.random.default_rng(seed)
    maps, masks = rng.normal(size=(7, 160, 160)), np.zeros((7, 160, 160), bool)
    masks[4, :30, :30] = masks[6, 50:52, 50:60] = masks[6, 90, 90] = True
    maps[4] += 4 * masks[4]
    maps[6] += 3.5 * masks[6]
    maps = maps if decimals is None else maps.round(decimals)
    return maps, masks, np.array([0, 0, 0, 0, 1, 1, 1])


def by_definition(maps, masks, labels):
    """Every distinct score a threshold, every image, every step of the curve."""
    good, found = maps[labels == 0], []
    for scores, mask in zip(maps[labels == 1], masks[labels == 1]):
        if not mask.any():
            found.append(np.nan)
            continue
        area, rate, overlap = 0.0, 0.0, 0.0
        for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
            next_rate = np.mean([np.mean(one >= threshold) for one in good])
            low, high = (np.clip(one, LOW, HIGH) for one in (rate, next_rate))
            area += overlap * np.log(high / low)
            rate, overlap = next_rate, np.mean(scores[mask] >= threshold)
            if rate > HIGH:
                break
        found.append(area / np.log(HIGH / LOW))
    return found


@pytest.mark.parametrize("decimals", [None, 1])  # hardly a tie, and many
def test_aupimo_is_its_definition(decimals):
    maps, masks, labels = case(decimals)
    found = aupimo(maps, masks, labels)
    expected = by_definition(maps, masks, labels)
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert np.isnan(found).tolist() == [False, True, False]
    assert 0.2 < found[0] < 0.8 and 0 < found[2] < 0.8


@pytest.mark.parametrize("name", CASES)
def test_aupimo_is_that_of_the_reference_implementation(name):
    """To 1e-4 where the ends of the range are rates that occur. Where not, theirs takes
    the nearest ones, here 1.017e-5 and 0.992e-4, and leaves the rest of the range out:
    0.011 of a share that is found throughout.
    """
    theirs = THEIRS["cases"][name]["aupimo"]
    tolerance = 1e-4 if name == "a million pixels" else 0.012
    assert aupimo(*drawn(name)) == pytest.approx(theirs, abs=tolerance)
    assert theirs[0] < 0.01 and theirs[-1] > 0.9


def test_good_pixels_of_defective_images_do_not_count():
    maps, masks, labels = case()
    expected = aupimo(maps, masks, labels)
    maps[labels == 1] += 50 * ~masks[labels == 1]
    assert aupimo(maps, masks, labels) == pytest.approx(expected, nan_ok=True)
    # but those of good ones do: eleven above all leave nothing below 1e-4
    maps[0, 0, :11] = 99
    assert not np.nan_to_num(aupimo(maps, masks, labels)).any()


def test_order_alone_matters_and_perfect_is_1():
    maps, masks, labels = case()
    expected = aupimo(maps, masks, labels)
    assert aupimo(np.exp(maps), masks, labels) == pytest.approx(expected, nan_ok=True)
    perfect = aupimo(masks.astype(float), masks, labels)
    assert perfect == pytest.approx([1, np.nan, 1], nan_ok=True)


def test_weights_count_images():
    maps, masks, labels = case()
    weights = np.array([2, 1, 0, 1, 3, 1, 1])
    index = np.repeat(np.arange(7), weights)
    copied = np.nanmean(aupimo(maps[index], masks[index], labels[index]))
    assert ImageRanking(maps, masks, labels).aupimo(weights) == pytest.approx(copied)


def test_measure_has_the_mean_and_its_interval():
    maps, masks, labels = case()
    scores = maps.max(axis=(1, 2)) + labels
    found = measure(scores, labels, maps, masks, bootstrap_repeats=20)
    mean = np.nanmean(aupimo(maps, masks, labels))
    assert found["aupimo"] == pytest.approx(mean)
    low, high = found["interval"]["aupimo"]
    assert low < found["aupimo"] < high


def test_without_100000_good_pixels_there_is_none():
    maps, masks, labels = case()
    parts = [part[1:] for part in (maps, masks, labels)]
    with pytest.raises(ValueError, match="76800 pixels, and a rate of 1e-05 needs 100"):
        aupimo(*parts)
    maps, masks, labels = parts
    found = measure(maps.max(axis=(1, 2)), labels, maps, masks, bootstrap_repeats=2)
    assert found["aupimo"] is None and "aupimo" not in found["interval"]
    with pytest.raises(ValueError, match="no good image"):
        aupimo(maps[4:], masks[4:], labels[4:])
