"""The photographed surface: the same crops for the same seed, no pixel on both sides of
the split, masks that hold all that was changed.
"""
import csv

import numpy as np
import pytest
from PIL import Image

from ddad.data.check import check
from ddad.data.product import GROUPS, load_test
from ddad.runtime.errors import DataError
from ddad.settings import Settings
from ddad.synthetic import surface
from ddad.synthetic.surface import KINDS, SPLITS, damaged, make_surface, picture

COUNTS = dict(surface="gravel", size=64, train=6, validation=3, test_good=3,
              test_defect=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small data set, that no test may change."""
    pytest.importorskip("skimage", reason="scikit-image ships the pictures")
    root = tmp_path_factory.mktemp("made")
    make_surface(root, **COUNTS)
    return root / "gravel"


def contents(root):
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def places(root):
    """Top and left of each crop, by its split."""
    with open(root / GROUPS, newline="") as file:
        rows = [*csv.DictReader(file)]
    return {split: [(int(row["top"]), int(row["left"])) for row in rows
                    if row["image"].startswith(split)] for split in SPLITS}


def test_the_pictures_are_there():
    pytest.importorskip("skimage", reason="scikit-image ships the pictures")
    for name in surface.SURFACES:
        assert picture(name).shape == (512, 512) and picture(name).dtype == np.uint8


def test_the_same_seed_makes_the_same_files(made, tmp_path):
    make_surface(tmp_path, **COUNTS)
    first = contents(made)
    assert contents(tmp_path / "gravel") == first
    # an image depends on its number alone, and what was there is replaced
    make_surface(tmp_path, **COUNTS | {"train": 2, "test_defect": 3})
    fewer = contents(tmp_path / "gravel")
    assert len(fewer) == len(first) - 4 - 2 * 2
    assert all(first[name] == fewer[name] for name in fewer.keys() - {GROUPS})
    make_surface(tmp_path, **COUNTS, seed=1)
    assert contents(tmp_path / "gravel")["train/good/000.png"] != first[
        "train/good/000.png"]


def test_it_is_a_data_set_that_every_command_can_use(made):
    report = check(made, 64)
    assert report["usable"] and not report["problems"]
    assert report["train"] == {"good": 6} and report["validation"] == 3
    assert report["test"] == {"good": 3} | dict.fromkeys(KINDS, 1)
    test = load_test(made, Settings(image_size=64))
    assert set(test.groups) <= {str(n) for n in range(16)}
    assert (test.masks.any((1, 2)) == (test.labels == 1)).all()


def test_no_pixel_of_the_picture_is_in_two_splits(made):
    seen = {}
    for split, corners in places(made).items():
        seen[split] = np.zeros((512, 512), bool)
        for top, left in corners:
            seen[split][top : top + 64, left : left + 64] = True
        assert seen[split].any()
    assert sum(x.astype(int) for x in seen.values()).max() == 1


def test_a_good_image_is_the_crop_it_says_in_a_light_of_its_own(made):
    for split, corners in places(made).items():
        top, left = corners[0]
        cut = picture("gravel")[top : top + 64, left : left + 64].astype(float)
        image = np.asarray(Image.open(made / split / "good/000.png"), float)
        light = image / cut.clip(1)
        assert image.shape == (64, 64)
        assert .85 < np.median(light) < 1.15 and np.corrcoef(
            image.ravel(), cut.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_holds_all_that_was_changed(kind):
    rng = np.random.default_rng(3)
    image, other = rng.integers(60, 200, (2, 16, 16)).repeat(4, 1).repeat(4, 2).astype(
        np.uint8)
    bad, mask = damaged(image, other, kind, rng)
    assert mask.any() and mask.mean() < 0.2
    assert (bad == image)[~mask].all()
    assert (bad != image)[mask].mean() > 0.8


def test_what_cannot_be_made_is_said(made, tmp_path):
    with pytest.raises(DataError, match="unknown surface 'sand': it must be one of"):
        picture("sand")
    with pytest.raises(ValueError, match="size is 129: a crop has 32 to 128 pixels"):
        make_surface(tmp_path, "brick", size=129)
    (tmp_path / "gravel").mkdir()
    with pytest.raises(FileExistsError, match="was not made here"):
        make_surface(tmp_path, **COUNTS)


def test_without_scikit_image_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(surface, "files", missing)
    with pytest.raises(DataError, match="pip install scikit-image"):
        picture("gravel")
