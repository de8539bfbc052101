import numpy as np
import pytest
import torch
from image_files import mask_of, noise, save
from PIL import Image

from ddad.data.images import read_image, read_item, read_mask
from ddad.data.layouts import Item
from ddad.data.masks import MASK_RULES
from ddad.runtime.errors import DataError


def test_masks_of_right_size_are_the_same_by_both_rules(tmp_path):
    path = save(tmp_path / "x.png", mask_of())
    for rule in MASK_RULES:
        mask = read_mask(path, 16, rule)
        assert mask.shape == (16, 16) and mask.dtype == torch.float32
        assert np.array_equal(mask.numpy(), mask_of() / 255)


def test_no_mask_is_zero_and_an_unknown_rule_is_an_error():
    for rule in MASK_RULES:
        assert torch.equal(read_mask(None, 8, rule), torch.zeros(8, 8))
    with pytest.raises(ValueError, match="nearest"):
        read_mask(None, 8, "nearest")


@pytest.mark.parametrize("value", [1, 251, 255])
def test_any_level_above_0_is_defect(tmp_path, value):
    path = save(tmp_path / "x.png", mask_of(32, 32, slice(8, 16), value))
    for rule in MASK_RULES:
        mask = read_mask(path, 16, rule)
        assert mask[6].min() == 1 and mask[12:].max() == 0 and mask[0].max() == 0


@pytest.mark.parametrize("kind", ["1", "P", "RGB", "RGBA", "16 bit", "float"])
def test_modes_of_masks(tmp_path, kind):
    mask = mask_of(value=1)
    if kind == "P":  # levels are colours, not indices: here index 0 is the defect
        image = Image.fromarray(1 - mask, "L").convert("P")
        image.putpalette([0, 0, 9, 0, 0, 0])
    elif kind in ("RGB", "RGBA"):
        channels = [mask * c for c in (255, 0, 0, 255)[: len(kind)]]
        image = Image.merge(kind, [Image.fromarray(channel) for channel in channels])
    elif kind == "1":
        image = Image.fromarray(mask * 255).convert("1")
    else:
        dtype = np.uint16 if kind == "16 bit" else np.float32
        image = Image.fromarray(mask.astype(dtype))
    path = save(tmp_path / ("x.tif" if kind == "float" else "x.png"), image)
    assert np.array_equal(read_mask(path, 16).numpy(), mask)


def test_thin_line_by_both_rules(tmp_path):
    """From 64 to 16: a line of 1 or 2 of 4 rows dies by area, of 3 lives; by bilinear
    it lives, but nowhere at 1.
    """
    for thickness, area in ((1, 0), (2, 0), (3, 16)):
        line = mask_of(64, 64, slice(20, 20 + thickness))
        path = save(tmp_path / f"{thickness}.png", line)
        assert read_mask(path, 16, "area").sum() == area
        grey = read_mask(path, 16, "bilinear")
        assert 0 < grey.max() < 1 and (grey > 0).sum() >= 16


@pytest.mark.parametrize("height, width, size", [
    (37, 50, 16), (20, 20, 16), (16, 24, 16), (11, 9, 16), (324, 270, 64)])
def test_area_rule_is_exact(tmp_path, height, width, size):
    """Against each source pixel repeated `size` times, where areas are plain counts."""
    mask = (noise(height, width, 1) > 128).astype(np.uint8)
    fine = mask.repeat(size, 0).astype(np.int64)
    rows = fine.reshape(size, height, width).sum(1)
    count = rows.repeat(size, 1).reshape(size, size, width).sum(2)
    small = read_mask(save(tmp_path / "x.png", mask), size)
    assert np.array_equal(small.numpy(), 2 * count > height * width)


def test_bilinear_rule_is_pillows_resize(tmp_path):
    mask = (noise(37, 50, 1) > 128).astype(np.uint8) * 255
    resized = Image.fromarray(mask).resize((16, 16), Image.Resampling.BILINEAR)
    small = read_mask(save(tmp_path / "x.png", mask), 16, "bilinear")
    assert np.array_equal(small.numpy(), np.asarray(resized) / np.float32(255))


def test_folder_of_masks_is_their_union(tmp_path):
    folder = tmp_path / "m"
    save(folder / "000.png", mask_of(rows=slice(0, 3), value=251))
    save(folder / "001.png", mask_of(rows=slice(2, 5), value=255))
    assert read_mask(folder, 16).sum(1).tolist() == [16.0] * 5 + [0.0] * 11
    save(folder / "002.png", mask_of(16, 18))
    differs = r"002\.png has 18 x 16 pixels, others in its folder 16 x 16: .* one image"
    with pytest.raises(DataError, match=differs):
        read_mask(folder, 16)


def test_read_item(tmp_path):
    path = save(tmp_path / "x.png", noise(20, 30))
    image, mask = read_item(Item(path, "good", None), 16)
    assert torch.equal(image, read_image(path, 16))
    assert mask.shape == (16, 16) and mask.sum() == 0
    right = save(tmp_path / "m.png", mask_of(20, 30, slice(10, 20)))
    for rule in MASK_RULES:
        found = read_item(Item(path, "cut", right), 16, rule)[1]
        assert torch.equal(found, read_mask(right, 16, rule))
    wrong = save(tmp_path / "w.png", mask_of(30, 20))
    differs = r"w\.png has 20 x 30 pixels, its image .*x\.png 30 x 20"
    with pytest.raises(DataError, match=differs):
        read_item(Item(path, "cut", wrong), 16)
