"""What the gallery shows is what was recorded, and each picture is of its image."""
import copy

import gallery
import numpy as np
import pytest
from gallery import FOLDER, OUTCOMES, SETS, apart, outcome
from matplotlib import colormaps
from PIL import Image

from ddad.synthetic.products import image_seed, render
from ddad.synthetic.weights import BEYOND

SHOWN, LIMIT = gallery.read(), 4_000_000
EACH = pytest.mark.parametrize("detector", SETS)


def tiles(detector: str, layer: str) -> list[np.ndarray]:
    """The tiles of a sheet, in the order of the images."""
    one, (name, side) = SHOWN[detector], SHOWN[detector]["sheets"][layer].values()
    sheet = np.asarray(Image.open(FOLDER / name))
    columns, rows = one["columns"], -(-len(one["images"]) // one["columns"])
    assert sheet.shape[:2] == (rows * side, columns * side)
    place = [(n // columns * side, n % columns * side)
             for n in range(len(one["images"]))]
    return [sheet[y : y + side, x : x + side] for y, x in place]


def test_it_shows_what_was_recorded():
    assert apart(SHOWN) == []


@pytest.mark.parametrize("detector, name, value, said", (
    ("board", "score", 0.5, "a score"), ("fabric", "T_hat", 10, "T_hat of an image"),
    ("blister", "outcome", "miss", "a number of outcomes"),
    (BEYOND, "score", 0.0, "the I-AUROC"),
    ("board", "image", "test/good/999.png", "image of an image")))
def test_a_wrong_number_is_noticed(detector, name, value, said):
    wrong = copy.deepcopy(SHOWN)
    hit = next(one for one in wrong[detector]["images"] if one["outcome"] == "hit")
    assert hit[name] != value
    hit[name] = value
    assert f"{detector}: {said} differs from the record" in apart(wrong)


def test_outcomes():
    cases = (("hole", 2), ("hole", 1), ("good", 2), ("good", 1))
    assert tuple(outcome(kind, score, 1) for kind, score in cases) == OUTCOMES


def test_the_record_counts_what_the_rates_say():
    for product in gallery.PRODUCTS:
        counts = gallery.recorded_outcomes(product)
        by_kind = gallery.by_kind(product).values()
        for one in ("hit", "miss"):
            assert sum(count[one] for count in by_kind) == counts[one]


@EACH
def test_masks_and_rings_are_of_their_images(detector):
    layers = zip(SHOWN[detector]["images"], tiles(detector, "mask"),
                 tiles(detector, "ring"))
    for one, mask, ring in layers:
        assert (mask > 0).mean() == pytest.approx(one["area"], abs=1e-6)
        assert ring.any() == (one["area"] > 0)
        assert not (ring[..., 3] * mask[..., 0]).any(), "a ring over its defect"


@EACH
def test_maps_are_of_their_images(detector):
    """The brightest pixel of a map tells its score, up to the compression."""
    one, share = SHOWN[detector], np.linspace(0, 1, 256)
    grey = colormaps["inferno"](share)[:, :3].mean(1) * 255
    brightest = np.array([np.interp(tile.mean(-1).max(), grey, share)
                          for tile in tiles(detector, "map")])
    score = np.array([image["score"] for image in one["images"]])
    told = np.minimum(score / (2 * one["threshold"]), 1)
    assert np.abs(brightest - told).mean() < 0.02
    assert np.abs(brightest - told).max() < 0.15


@pytest.mark.parametrize("product", gallery.PRODUCTS)
def test_inputs_are_the_images(product):
    """The first and the last good image, drawn again."""
    images, found = SHOWN[product]["images"], tiles(product, "input")
    for index in (0, 59):
        n = [one["image"] for one in images].index(f"test/good/{index:03}.png")
        drawn = render(product, 128, image_seed(product, "test_good", index))[0]
        assert np.abs(found[n].astype(int) - drawn).mean() < 8
        assert np.abs(found[n - 1].astype(int) - drawn).mean() > 8


def test_repaintings_are_near_their_inputs():
    for product in gallery.PRODUCTS:
        inputs, repainted = tiles(product, "input"), tiles(product, "repainting")
        for n, (one, other) in enumerate(zip(inputs, repainted)):
            apart = np.abs(one.astype(int) - other).mean()
            assert apart < np.abs(inputs[n - 1].astype(int) - other).mean()


def test_step_maps_hold_the_steps():
    one = SHOWN[BEYOND]
    step = {colour: int(T) for T, colour in one["steps"].items()}
    for image, tile in zip(one["images"], tiles(BEYOND, "steps")):
        found = {step["#" + bytes(rgb).hex()] for rgb in tile.reshape(-1, 3)}
        assert max(found) == image["T_hat"]


def test_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < LIMIT
