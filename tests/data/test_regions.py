"""Regions with saturation areas, on a look-alike of MVTec LOCO's layout."""

import json

import numpy as np
import pytest
from conftest import SIZE, make_product, tiny
from PIL import Image

from ddad.data.images import test_items as items_to_test
from ddad.data.product import load_test
from ddad.data.regions import CONFIG, read_regions
from ddad.evaluation.scoring import evaluate
from ddad.runtime.errors import DataError

TABLE = [{"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 128,
          "relative_saturation": False},
         {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 1.0,
          "relative_saturation": True},
         {"defect_name": "half", "pixel_value": 253, "saturation_threshold": 0.5,
          "relative_saturation": True}]
# of each defective image the files: grey level, rows and columns of 64
FILES = [[(255, (0, 16), (0, 16))], [(255, (0, 8), (0, 8))],
         [(254, (8, 16), (8, 16)), (253, (8, 16), (12, 20))], [(254, (5, 6), (5, 6))]]


@pytest.fixture
def product(tmp_path):
    """A product with four good and four defective test images, its masks in folders."""
    root = make_product(tmp_path / "bottle", 16, 4, 4)
    truth = root / "ground_truth" / "square"
    for stem, files in zip(sorted(path.stem for path in truth.iterdir()), FILES):
        (truth / f"{stem}.png").unlink()
        folder = truth / stem.removesuffix("_mask")
        folder.mkdir()
        for n, (level, rows, columns) in enumerate(files):
            levels = np.zeros((SIZE, SIZE), np.uint8)
            levels[slice(*rows), slice(*columns)] = level
            Image.fromarray(levels).save(folder / f"{n:03}.png")
    (root / CONFIG).write_text(json.dumps(TABLE), encoding="utf-8")
    return root


def test_a_region_saturates_at_its_pixels_or_at_its_share(product):
    regions = read_regions(product, items_to_test(product), SIZE)
    # 128 of 256 pixels; of 64 all; all; half; all
    assert [one.saturation for one in regions] == [0.5, 1.0, 1.0, 0.5, 1.0]
    assert [one.image for one in regions] == [4, 5, 6, 6, 7]
    assert [one.mask.sum() for one in regions] == [256, 64, 64, 64, 1]
    assert regions[2].mask[8:16, 8:16].all() and regions[3].mask[8:16, 12:20].all()


def test_the_share_is_of_the_mask_as_it_is_distributed(product):
    regions = read_regions(product, items_to_test(product), SIZE // 4)
    # the single pixel is gone
    assert [one.saturation for one in regions] == [0.5, 1.0, 1.0, 0.5]
    assert [one.mask.sum() for one in regions] == [16, 4, 4, 4]


def test_regions_come_with_the_test_images_and_the_masks_stay_as_they_are(product):
    test = load_test(product, tiny())
    assert [one.image for one in test.regions] == [4, 5, 6, 6, 7]
    union = np.zeros(test.masks.shape, bool)
    for one in test.regions:
        union[one.image] |= one.mask
    assert np.array_equal(union, test.masks > 0.5)
    (product / CONFIG).unlink()
    assert load_test(product, tiny()).regions is None


def test_the_evaluation_has_spro_where_there_are_regions(fitted, product):
    test = load_test(product, fitted.settings)
    result, found = evaluate(fitted, test, bootstrap_repeats=3)
    assert 0 <= result["spro"] <= result["spro_030"] <= 1
    assert len(result["interval"]["spro"]) == 2 and "groups" not in result
    test.regions, test.groups = None, np.arange(8) // 2
    result, _ = evaluate(fitted, test, bootstrap_repeats=3, found=found)
    assert "spro" not in result and result["groups"] == 4


def test_masks_merged_into_one_file_have_no_saturation(tmp_path):
    root = make_product(tmp_path / "bottle", 4, 1, 1)
    (root / CONFIG).write_text(json.dumps(TABLE), encoding="utf-8")
    with pytest.warns(UserWarning, match="merged into one file an image"):
        assert load_test(root, tiny()).regions is None


@pytest.mark.parametrize("table", [
    "[", "{}", "[1]", '[{"pixel_value": 255}]',
    json.dumps([TABLE[0] | {"saturation_threshold": 0}]),
    json.dumps([TABLE[1] | {"saturation_threshold": 1.5}])])
def test_a_table_of_another_form_is_refused(product, table):
    (product / CONFIG).write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=r"defects_config\.json"):
        load_test(product, tiny())


@pytest.mark.parametrize("levels", [(252,), (255, 254), ()])
def test_a_mask_with_other_levels_is_refused(product, levels):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[0, : len(levels)] = levels
    file = sorted((product / "ground_truth").rglob("*.png"))[0]
    Image.fromarray(mask).save(file)
    with pytest.raises(DataError, match=f"{file.name} must be grey and hold one level"):
        read_regions(product, items_to_test(product), SIZE)
