"""Data that are right in form and wrong in substance: each kind is warned of, and sound
data are not.
"""
import io
import shutil
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from image_files import mask_of, noise, save
from PIL import Image

from ddad.data.check import check
from ddad.data.images import held_out_items, train_items
from ddad.data.layouts import Item
from ddad.data.plausible import _grey, _spread, look

SIZE = 64


def photograph(n, defect=False):
    """A disc on grainy ground, each time a little elsewhere; a dark bar for a defect.
    """
    rng = np.random.default_rng(n)
    yy, xx = np.mgrid[:SIZE, :SIZE]
    cy, cx = 32 + rng.integers(-6, 7, 2)
    inside = np.hypot(yy - cy, xx - cx) < 18
    levels = np.where(inside, 170.0, 90.0) + rng.integers(-9, 9)
    if defect:
        levels[20:28] = 20
    levels = levels[..., None] + rng.normal(0, 6, (SIZE, SIZE, 3))
    return levels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound")
    for n in range(30):
        save(root / "train" / "good" / f"{n:03}.png", photograph(n))
    for n in range(4):
        save(root / "test" / "good" / f"{n:03}.png", photograph(100 + n))
        save(root / "test" / "bar" / f"{n:03}.png", photograph(200 + n, True))
        save(root / "ground_truth" / "bar" / f"{n:03}_mask.png", bar())
    return root


@pytest.fixture
def root(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "product")


def bar(value=255):
    return mask_of(SIZE, SIZE, slice(20, 28), value)


def first_mask(root):
    return root / "ground_truth" / "bar" / "000_mask.png"


def warned(root):
    report = check(root, 32)
    assert report["usable"], report["problems"]
    return report["warnings"]


def test_sound_data_are_not_warned_of(root):
    assert warned(root) == []
    # nor is what is sound, if not usual
    save(first_mask(root), bar(1))                      # labels, not grey levels
    save(root / "train" / "good" / "grey.png", photograph(300)[..., 0])
    deep = photograph(301)[..., 0].astype(np.uint16) * 257
    save(root / "test" / "good" / "deep.png", deep)
    assert warned(root) == []


MASKS = {
    "inverted": (lambda m: 255 - m, "more than half"),
    "all white": (lambda m: m * 0 + 255, "more than half"),
    "background of level 1": (lambda m: np.maximum(m, 1), "more than half"),
    "background of level 7, defect black": (lambda m: (255 - m) // 2 + 7,
                                            "more than half"),
    "classes": (lambda m: m + other_class(128), "several levels"),
    "labels 1 and 2": (lambda m: m // 255 + other_class(2), "several levels"),
    "a JPEG once": (lambda m: as_jpeg(m), "several levels"),
    "a JPEG of a finer mask": (lambda m: as_jpeg(m * (noise(SIZE, SIZE, 1) > 99)),
                               "soft edges"),
    "scaled smoothly": (lambda m: np.array(
        Image.fromarray(m).resize((9, 9), Image.Resampling.BILINEAR).resize(
            (SIZE, SIZE), Image.Resampling.BICUBIC)), "soft edges"),
    "black": (lambda m: m * 0, "empty mask"),
}


def other_class(value):
    return mask_of(SIZE, SIZE, slice(40, 44), value)


def as_jpeg(levels):
    with io.BytesIO() as file:
        Image.fromarray(levels).save(file, "JPEG", quality=30)
        return np.array(Image.open(file))


@pytest.mark.parametrize("change, told", MASKS.values(), ids=MASKS)
def test_masks_that_are_hardly_meant_so(root, change, told):
    save(first_mask(root), change(bar()).astype(np.uint8))
    [warning] = warned(root)
    assert told in warning and "test/bar/000.png" in warning


def test_a_mask_that_was_not_turned_with_its_image(root):
    path = root / "test" / "bar" / "000.jpg"
    (root / "test" / "bar" / "000.png").unlink()
    for orientation, expected in ((1, 0), (3, 1), (6, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(path, photograph(200, True), exif=exif, quality=95)
        found = warned(root)
        assert len(found) == expected
        assert all("orientation tag" in one for one in found)


def test_images_that_are_hardly_meant_so(root):
    good = root / "train" / "good"
    save(good / "covered.png", np.full((SIZE, SIZE, 3), 3, np.uint8))
    save(good / "mask.png", bar())
    save(good / "dark.png", (photograph(300)[..., 0].astype(np.uint16) * 16))
    save(good / "other.png", np.roll(255 - photograph(301), 20, 0))
    found = warned(root)
    for told, name in (("nearly constant", "covered"), ("two levels", "mask"),
                       ("12 of 16 bits", "dark"), ("unlike all other", "other")):
        [warning] = [one for one in found if told in one]
        assert name in warning


def test_the_quick_ways_are_the_plain_ones_to_the_bit():
    r, g, b = (part.ravel() for part in np.mgrid[:256, :256, :256:15])
    levels = np.stack([r, g, b], 1).astype(np.uint8)[None]      # with every sum
    assert np.array_equal(_grey(levels), levels.mean(2).astype(np.float32))


@pytest.mark.parametrize("levels, two", [
    (photograph(0), False), (photograph(0)[..., 0], False),
    (photograph(0)[..., 0].astype(np.float32) / 7, False),
    (np.eye(9, dtype=np.uint8) * 200 + 7, True), (np.eye(9, dtype=np.float32), True),
    (np.arange(3, dtype=np.uint8)[None], False),
    (np.arange(3, dtype=np.float32)[None], False)])
def test_deviation_and_two_levels(levels, two):
    deviation, found = _spread(Image.fromarray(levels))
    assert deviation == pytest.approx(levels.std(), rel=1e-9) and found == two
    assert two == (len(np.unique(levels)) == 2)


def test_a_look_takes_little_more_than_the_picture(tmp_path):
    """A photograph of 100 megapixels may be looked at, too."""
    item = Item(save(tmp_path / "0.png", noise(1000, 1000)), "good", None)
    tracemalloc.start()
    try:
        look([item], tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * 10**6        # bytes: 7 a pixel; NumPy alone took 27


def test_copies_and_images_on_both_sides(root):
    good, first = root / "train" / "good", root / "train" / "good" / "000.png"
    for n in range(5):
        shutil.copy(first, good / f"copy_{n}.png")
    shutil.copy(good / "001.png", root / "test" / "good" / "again.png")
    with Image.open(good / "002.png") as again:
        save(root / "test" / "good" / "almost.jpg", again, quality=95)
    copies, both, almost = warned(root)
    assert copies.startswith("5 images") and "copy_0" in copies
    assert "again.png" in both and "trained on or held out as well" in both
    assert "almost.jpg" in almost and "almost the same" in almost
    shutil.copytree(good, root / "validation" / "good")
    copies, held_out = warned(root)[:2]
    assert copies.startswith("5 images") and "train/good/copy_0" in copies
    assert held_out.startswith("35 images") and "threshold is too low" in held_out


def test_held_out_images_almost_as_those_trained_on(root):
    for n in range(8):
        with Image.open(root / "train" / "good" / f"{n:03}.png") as again:
            save(root / "validation" / "good" / f"{n:03}.jpg", again, quality=95)
    [warning] = warned(root)
    assert warning.startswith("8 images (validation/good/000.jpg,")
    assert "almost the same as an image that is trained on" in warning
    # a folder of pictures is looked at before a training, too
    assert [warning] == [said for said, _ in look(
        [*train_items(root), *held_out_items(root)], root)[0]]


def test_test_images_that_are_there_twice(root):
    test = root / "test"
    shutil.copy(test / "bar" / "000.png", test / "good" / "bad.png")
    shutil.copy(test / "good" / "001.png", test / "good" / "again.png")
    both, twice = warned(root)
    assert both.startswith("2 images (test/bar/000.png, test/good/bad.png)")
    assert "one called good and one defective" in both
    assert twice.startswith("1 images (test/good/again.png)") or (
        twice.startswith("1 images (test/good/001.png)"))
    assert "each is counted" in twice


def in_a_deeper_file(path, levels):
    """A PNG of 16-bit colours, (H, W, 3), which Pillow cannot write."""
    chunk = lambda kind, content: (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content)))
    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("grey", [True, False])
def test_images_of_fewer_bits_than_their_files(root, bits, grey):
    for n in range(30):
        levels = photograph(n).astype(np.uint16) * 2 ** (bits - 8)
        path = root / "train" / "good" / f"{n:03}.png"
        if grey:
            save(path, levels[..., 0])
        else:
            in_a_deeper_file(path, levels)
    [warning] = [one for one in warned(root) if "quarter of full scale" in one]
    assert warning.startswith("30 images (train/good/000.png")
    assert "multiply the levels" in warning
    assert (f"({bits} of 16 bits)" in warning) == grey


def test_one_bright_image_says_that_a_part_is_in_full_scale(root):
    for n in range(29):
        save(root / "train" / "good" / f"{n:03}.png", photograph(n) // 5)
    assert not any("quarter" in one for one in warned(root))
    save(root / "train" / "good" / "029.png", photograph(29) // 5)
    assert any("quarter" in one for one in warned(root))


def test_names_that_share_a_mask_and_masks_of_nobody(root):
    save(root / "test" / "bar" / "000.bmp", photograph(210, True))
    save(root / "ground_truth" / "bar" / "new_mask.png", bar())
    save(root / "ground_truth" / "dent" / "000_mask.png", bar())
    shared, unused = warned(root)
    assert "share a mask" in shared and "000.bmp" in shared and "000.png" in shared
    assert unused.startswith("2 files") and "new_mask.png" in unused


def test_defects_without_any_masks_are_told_of(root):
    shutil.rmtree(root / "ground_truth")
    [warning] = warned(root)
    assert warning.startswith("4 images") and "whole images alone" in warning


@pytest.mark.parametrize("name", ["000_MASK.png", "000.PNG", "000_mask.jpg", "000.tif"])
def test_a_mask_of_almost_the_name_is_pointed_to(root, name):
    first_mask(root).rename(first_mask(root).with_name(name))
    [problem] = check(root, 32)["problems"]
    assert f"rename {first_mask(root).with_name(name)} to 000_mask.png" in problem


def test_a_mask_whose_name_has_its_accents_composed_otherwise(root):
    (root / "test" / "bar" / "000.png").rename(root / "test" / "bar" / "pi\u00e8ce.png")
    other = first_mask(root).with_name("pie\u0300ce_mask.png")
    first_mask(root).rename(other)
    if first_mask(root).with_name("pi\u00e8ce_mask.png").exists():
        pytest.skip("this file system takes them for one name")
    [problem] = check(root, 32)["problems"]
    assert "rename" in problem and other.name in problem
