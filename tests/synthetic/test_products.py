"""The drawn products: the same images for the same seed, exact masks, and the spread of
sizes that a test set needs.
"""
import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ddad.synthetic import products
from ddad.synthetic.products import (
    KINDS,
    PRODUCTS,
    SPLITS,
    image_seed,
    make,
    photograph,
    plan,
    render,
    set_up,
)

COUNTS = dict(size=64, train=2, test_good=2, test_defect=8)
EVERY_KIND = [(product, kind) for product in PRODUCTS for kind in KINDS[product]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small data set of all products, that no test may change."""
    root = tmp_path_factory.mktemp("made")
    make(root, **COUNTS)
    return root


def files(root):
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def dilated(mask, width):
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.MaxFilter(width))) > 0


def quarter(image):
    """(4n, 4n, ...) averaged down to (n, n, ...)."""
    n = len(image) // 4
    return image.reshape(n, 4, n, 4, -1).astype(np.float64).mean((1, 3))


# --- one image


def test_same_seed_same_bytes_and_another_seed_another_image():
    for product in PRODUCTS:
        good, mask, kind = render(product, 64, 7)
        assert good.shape == (64, 64, 3) and good.dtype == np.uint8 and kind == "good"
        assert mask.shape == (64, 64) and mask.dtype == bool and not mask.any()
        assert np.array_equal(good, render(product, 64, 7)[0])
        assert not np.array_equal(good, render(product, 64, 8)[0])
    first, second = (render("board", 64, 7, "shifted") for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    assert first[2] == "shifted"


@pytest.mark.parametrize("product, kind", EVERY_KIND)
def test_mask_is_exact(product, kind):
    """The same seed without a defect is the same image but for the mask, which blur and
    noise widen by a pixel or two.
    """
    good, (bad, mask, _) = render(product, 64, 3)[0], render(product, 64, 3, kind)
    difference = np.abs(bad.astype(int) - good).max(-1)
    assert mask.any()
    assert difference[~dilated(mask, 5)].max() <= 6  # of 255: rests of the blur
    assert difference[mask].max() > 15  # and there is something to see
    assert np.mean(difference[mask] > 8) > 0.3


@pytest.mark.parametrize(
    "product, kind",
    [("blister", "missing"), ("board", "exchanged"), ("fabric", "weave_shift")],
)
def test_every_size_shows_the_same(product, kind):
    for seed in (1, 2):
        small, small_mask, _ = render(product, 64, seed, kind)
        large, large_mask, _ = render(product, 256, seed, kind)
        # Not equal: noise and blur are of one pixel at any size. Another seed's image
        # correlates by less than 0.9.
        assert np.corrcoef(quarter(large).ravel(), small.ravel())[0, 1] > 0.97
        assert np.mean((quarter(large_mask)[..., 0] > 0.5) == small_mask) > 0.99
        assert 0.75 < large_mask.mean() / small_mask.mean() < 1.25


def test_a_set_up_photographed_is_the_rendered_image():
    for product in PRODUCTS:
        scene, camera, _ = set_up(product, 64, 5)
        image = photograph(scene.image, np.random.default_rng(camera))
        assert np.array_equal(image, render(product, 64, 5)[0])


UNKNOWN = "unknown product 'bottle': it must be one of blister, board, fabric"


@pytest.mark.parametrize("arguments, message", [
    (("bottle", 64, 0), UNKNOWN),
    (("board", 16, 0), "size is 16: an image must be at least 32"),
    (("board", 64, 0, "tear"), "unknown defect 'tear': board has missing"),
    (
        ("board", 64, 0, "bridge", 0.1),
        r"area is 0.1: board/bridge must be within 0.001..0.003",
    ),
    (("fabric", 64, 0, "stain", 0.0), "area is 0.0"),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        render(*arguments)


# --- what a test set holds


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("count", [40, 90])
def test_planned_areas_are_spread_evenly_and_most_defects_are_logical(
    product, seed, count
):
    kinds, areas = zip(*[plan(product, i, seed) for i in range(count)], strict=True)
    smallest, largest = products.SMALLEST, products.LARGEST  # 0.1% and 20%
    place = np.log(np.array(areas) / smallest) / np.log(largest / smallest)
    assert place.min() >= 0 and place.min() < 0.05
    assert place.max() <= 1 and place.max() > 0.95
    assert np.histogram(place, 5, (0, 1))[0].min() >= 0.1 * count
    assert np.mean([KINDS[product][kind][2] for kind in kinds]) >= 0.5
    for kind, area in zip(kinds, areas, strict=True):
        assert KINDS[product][kind][0] <= area <= KINDS[product][kind][1]


def test_drawn_areas_are_near_the_planned_ones(made):
    """Those of defects.csv are the masks'; 64 pixels are few for the smallest, so that
    not all can be near.
    """
    ratios = []
    for product in PRODUCTS:
        with (made / product / "defects.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 8
        for i, row in enumerate(rows):
            kind, area = plan(product, i, 0)
            masks = made / product / "ground_truth" / kind
            share = (np.asarray(Image.open(masks / f"{i:03}_mask.png")) > 0).mean()
            assert row["image"] == f"test/{kind}/{i:03}.png" and row["kind"] == kind
            assert (made / product / row["image"]).exists()
            assert row["logical"] == str(KINDS[product][kind][2])
            assert float(row["area_fraction"]) == pytest.approx(share, abs=1e-5)
            ratios.append(share / area)
    assert np.mean(np.abs(np.log(ratios)) < np.log(1.5)) > 0.8


# --- the data set on disk


def names_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def test_layout_on_disk(made):
    assert json.loads((made / "make.json").read_text())["size"] == 64
    good = {"good/000.png", "good/001.png"}
    for product in PRODUCTS:
        masks = made / product / "ground_truth"
        images = names_of(made / product / "test")
        assert names_of(made / product / "train") == good and good <= images
        names = names_of(masks)
        assert {name.replace("_mask", "") for name in names} == images - good
        assert sorted(name[-12:-9] for name in names) == [f"{i:03}" for i in range(8)]
        for name in names:
            mask = Image.open(masks / name)
            assert mask.mode == "L" and mask.size == (64, 64)
            assert set(np.unique(mask)) == {0, 255}
    assert not [name for name in files(made) if name.endswith(".part")]


def test_an_image_on_disk_is_the_one_of_its_seed(made):
    seeds = [image_seed("board", split, i) for split in SPLITS for i in range(2)]
    assert len(set(seeds)) == 6 and image_seed("board", "train", 0, seed=1) != seeds[0]
    kind, area = plan("board", 1, 0)
    for name, seed, defect in (
        ("train/good/001", seeds[1], ()),
        ("test/good/001", seeds[3], ()),
        (f"test/{kind}/001", seeds[5], (kind, area)),
    ):
        on_disk = np.asarray(Image.open(made / "board" / f"{name}.png"))
        assert np.array_equal(on_disk, render("board", 64, seed, *defect)[0])


def test_images_do_not_depend_on_the_counts(made, tmp_path):
    make(tmp_path, ["fabric"], **COUNTS | dict(train=1, test_good=0, test_defect=3))
    few, many = files(tmp_path / "fabric"), files(made / "fabric")
    assert len(few) == 1 + 2 * 3 + 1
    del few["defects.csv"]
    assert all(many[name] == content for name, content in few.items())


def test_an_interrupted_run_goes_on_and_keeps_what_is_there(tmp_path):
    counts = COUNTS | dict(test_defect=3)
    make(tmp_path, ["fabric"], **counts)
    whole = files(tmp_path)
    kept = tmp_path / "fabric" / "train" / "good" / "000.png"
    kept.write_bytes(b"kept")
    done = (tmp_path / "fabric" / "test").rglob("*.png")
    for path in [kept.with_name("001.png"), *done]:
        path.unlink()
    (tmp_path / "fabric" / "defects.csv").unlink()
    make(tmp_path, ["fabric"], **counts)
    assert files(tmp_path) == whole | {"fabric/train/good/000.png": b"kept"}


def test_other_settings_and_foreign_folders_are_refused(made, tmp_path):
    before = files(made)
    for changed in (dict(seed=1), dict(size=96), dict(train=3)):
        with pytest.raises(FileExistsError, match="was not made with these settings"):
            make(made, **COUNTS | changed)
    assert files(made) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        make(tmp_path, **COUNTS)
    for asked, size in ((["bottle"], 64), (["board"], 16)):
        with pytest.raises(ValueError, match="unknown product|size is 16"):
            make(tmp_path / "new", asked, size)
    assert not (tmp_path / "new").exists() and list(files(tmp_path)) == ["notes.txt"]
