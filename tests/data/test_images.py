import json
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ddad import data
from ddad.data import DataError, Item


def noise(height=16, width=16, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, levels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = levels if isinstance(levels, Image.Image) else Image.fromarray(noise() if levels is None else levels)
    image.save(path, **options)
    return path


def mask_of(height=16, width=16, rows=slice(4, 8), value=255):
    mask = np.zeros((height, width), np.uint8)
    mask[rows] = value
    return mask


def product(root):
    for name in ("b.png", "a.JPG", "c é ü.bmp"):
        save(root / "train" / "good" / name)
    save(root / "test" / "good" / "000.png")
    for kind in ("scratch", "big dent"):
        for name in ("001", "000"):
            save(root / "test" / kind / f"{name}.png")
            save(root / "ground_truth" / kind / f"{name}_mask.png", mask_of())
    return root


def as_levels(image):
    return (image + 1) * 127.5


# --- which files


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp", "PNG", "Jpg", "TIFF"])
def test_every_file_type_is_listed_and_read(tmp_path, suffix):
    path = save(tmp_path / f"x.{suffix}", np.full((16, 16, 3), 200, np.uint8))
    assert data.list_images(tmp_path) == [path]
    assert data.list_images(str(path)) == [path]
    assert as_levels(data.read_image(path, 16)).sub(200).abs().max() <= 2


def test_list_is_sorted_and_leaves_out_what_is_no_picture(tmp_path):
    for name in ("10.png", "2.png", "B.png", "a.png", "ä ö.png"):
        save(tmp_path / name)
    for name in (".hidden.png", "._a.png", "Thumbs.db", ".DS_Store", "notes.txt", "x.gif"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in data.list_images(tmp_path)] == ["10.png", "2.png", "B.png", "a.png", "ä ö.png"]


def test_list_refuses_missing_empty_and_wrong(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        data.list_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no picture"):
        data.list_images(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="holds no picture"):
        data.list_images(tmp_path)
    with pytest.raises(DataError, match=r"a\.txt cannot be read"):
        data.read_image(data.list_images(tmp_path / "a.txt")[0], 16)


def test_items(tmp_path):
    root = product(tmp_path / "my data ü")
    assert [i.path.name for i in data.train_items(str(root))] == ["a.JPG", "b.png", "c é ü.bmp"]
    assert {(i.kind, i.mask) for i in data.train_items(root)} == {("good", None)}
    items = data.test_items(root)
    expected = [("big dent", "000"), ("big dent", "001"), ("good", "000"), ("scratch", "000"), ("scratch", "001")]
    assert [(i.kind, i.path.stem) for i in items] == expected
    assert items[1].mask == root / "ground_truth" / "big dent" / "001_mask.png"
    assert items[2].mask is None


@pytest.mark.parametrize("name", ["000_mask.png", "000.png", "000/000.png"])
def test_mask_names(tmp_path, name):
    save(tmp_path / "test" / "cut" / "000.jpg")
    mask = save(tmp_path / "ground_truth" / "cut" / name, mask_of())
    (item,) = data.test_items(tmp_path)
    assert item.mask == (mask.parent if "/" in name else mask)
    assert data.read_item(item, 16)[1].sum() == 4 * 16


@pytest.mark.parametrize("with_folder", [True, False])
def test_missing_mask_names_picture_and_expected_mask(tmp_path, with_folder):
    root = product(tmp_path)
    image, mask = root / "test" / "scratch" / "001.png", root / "ground_truth" / "scratch" / "001_mask.png"
    mask.unlink()
    if not with_folder:
        (mask.parent / "000_mask.png").unlink()
        mask.parent.rmdir()
        image = image.with_name("000.png")
        mask = mask.with_name("000_mask.png")
    with pytest.raises(DataError) as error:
        data.test_items(root)
    assert str(image) in str(error.value) and str(mask) in str(error.value)


def test_missing_parts(tmp_path):
    for items, part in ((data.train_items, "train.good"), (data.test_items, "test.good")):
        with pytest.raises(DataError, match=f"nowhere.{part} does not exist"):
            items(tmp_path / "nowhere")
    save(tmp_path / "bottle" / "train" / "good" / "0.png")
    with pytest.raises(DataError, match="train.good does not exist: .* one product's folder"):
        data.train_items(tmp_path)
    with pytest.raises(DataError, match="test.good does not exist"):
        data.test_items(tmp_path / "bottle")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="good does not exist"):
        data.train_items(tmp_path)
    (tmp_path / "train" / "good").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        data.train_items(tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="test.good does not exist"):
        data.test_items(tmp_path)
    (tmp_path / "test" / "crack").mkdir()
    with pytest.raises(DataError, match="crack holds no picture"):
        data.test_items(tmp_path)


# --- pictures


def test_picture_of_the_right_size_is_kept_exactly(tmp_path):
    levels = noise(24, 24)
    image = data.read_image(save(tmp_path / "x.png", levels), 24)
    assert image.shape == (3, 24, 24) and image.dtype == torch.float32 and image.is_contiguous()
    assert torch.equal(image, torch.from_numpy(levels).permute(2, 0, 1) / 127.5 - 1)


def test_range_reaches_both_ends_exactly(tmp_path):
    image = data.read_image(save(tmp_path / "x.png", mask_of()), 16)
    assert image.min() == -1 and image.max() == 1


def test_resize_is_antialiased_bilinear_and_squashes(tmp_path):
    levels = noise(40, 60)
    image = data.read_image(save(tmp_path / "x.png", levels), 16)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(levels).permute(2, 0, 1)[None].double(), size=(16, 16), mode="bilinear", antialias=True
    )[0]
    assert (as_levels(image) - expected).abs().max() <= 1.01  # Pillow rounds to whole levels, once for each direction
    stripes = (np.arange(64) % 2 * 255).astype(np.uint8)[:, None].repeat(64, 1)
    assert as_levels(data.read_image(save(tmp_path / "y.png", stripes), 16)).sub(127.5).abs().max() < 20


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes_are_read_as_colours(tmp_path, mode):
    source = Image.fromarray(noise(16, 16)).quantize(8) if mode == "P" else Image.fromarray(noise(16, 16)).convert(mode)
    path = save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), source)
    assert Image.open(path).mode == mode
    expected = np.asarray(source.convert("RGB"), dtype=np.float32)
    assert np.abs(as_levels(data.read_image(path, 16)).permute(1, 2, 0).numpy() - expected).max() < 0.001


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_parts_are_black(tmp_path, mode):
    image = Image.new("RGBA", (16, 16), (200, 200, 200, 255))
    image.paste((255, 255, 255, 0), (0, 0, 16, 8))
    image.paste((255, 255, 255, 128), (0, 8, 4, 16))
    options = {}
    if mode in ("P", "RGB"):  # one colour stands for "transparent"
        image = image.convert("RGB").quantize(4) if mode == "P" else image.convert("RGB")
        options = {"transparency": image.getpixel((0, 0))}
    path = save(tmp_path / "x.png", image.convert(mode), **options)
    levels = as_levels(data.read_image(path, 16))
    assert levels[:, :8].max() == 0
    assert (levels[:, 8:, 4:] - 200).abs().max() < 0.001
    if mode in ("RGBA", "LA"):
        assert (levels[:, 8:, :4] - 128).abs().max() < 0.001


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    path = save(tmp_path / f"x.{suffix}", levels)
    image = data.read_image(path, 16)
    assert np.abs(as_levels(image).numpy() - levels / 257).max() < 0.001
    assert image.min() == -1 and image.max() == 1 and torch.equal(image[0], image[2])
    assert data.read_image(path, 8).shape == (3, 8, 8)


def test_other_16_bit_containers(tmp_path):
    levels = np.linspace(0, 65535, 256).round().reshape(16, 16)
    as_i = save(tmp_path / "i.tif", levels.astype(np.int32))
    big = Image.frombytes("I;16B", (16, 16), levels.astype(">u2").tobytes())
    as_big = save(tmp_path / "b.tif", big)
    assert Image.open(as_i).mode == "I" and Image.open(as_big).mode == "I;16B"
    for path in (as_i, as_big):
        assert np.abs(as_levels(data.read_image(path, 16)).numpy() - levels / 257).max() < 0.001
    for wrong in (-1, 65536):
        with pytest.raises(DataError, match=r"w\.tif has levels outside 0 to 65535"):
            data.read_image(save(tmp_path / "w.tif", np.full((16, 16), wrong, np.int32)), 16)


def test_float_is_read_from_0_to_1_only(tmp_path):
    levels = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    image = data.read_image(save(tmp_path / "x.tif", levels), 16)
    assert np.abs(image.numpy() - (levels * 2 - 1)).max() < 1e-6
    for wrong in (-0.1, 1.1, 255, np.nan, np.inf):
        levels[3, 3] = wrong
        with pytest.raises(DataError, match=r"x\.tif has levels outside 0 to 1:"):
            data.read_image(save(tmp_path / "x.tif", levels), 16)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied(tmp_path, suffix, orientation):
    upright = np.zeros((32, 32), np.uint8)
    upright[:16, :8] = 255
    stored = Image.fromarray(upright).rotate({1: 0, 3: 180, 6: 90, 8: 270}[orientation], expand=True).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"x.{suffix}", stored, exif=exif)
    assert np.abs(as_levels(data.read_image(path, 32))[0].numpy() - upright).mean() < 6


def test_phone_picture_with_a_preview_is_read(tmp_path):
    first = Image.new("RGB", (16, 16), (90, 90, 90))
    path = save(tmp_path / "x.jpg", first, format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert as_levels(data.read_image(path, 16)).sub(90).abs().max() < 3


@pytest.mark.parametrize("suffix", ["tif", "webp", "png"])
def test_several_pictures_in_a_file_are_refused(tmp_path, suffix):
    path = save(tmp_path / f"x.{suffix}", None, save_all=True, append_images=[Image.fromarray(noise(seed=1))])
    with pytest.raises(DataError, match="holds 2 pictures"):
        data.read_image(path, 16)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_file_is_refused(tmp_path, suffix):
    path = save(tmp_path / f"my x.{suffix}", noise(64, 64))
    content = path.read_bytes()
    for part in (0.6, 0.1):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(DataError, match=rf"my x\.{suffix}"):
            data.read_image(path, 16)


def test_damaged_png_is_refused(tmp_path):
    path = save(tmp_path / "x.png", noise(64, 64))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png cannot be read \("):
        data.read_image(path, 16)


def test_files_that_are_no_pictures_are_refused(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(DataError, match=r"x\.png cannot be read \(.*No such file"):
        data.read_image(path, 16)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.png cannot be read"):
        data.read_image(str(path), 16)
    path.write_text("this is no picture")
    with pytest.raises(DataError, match=r"x\.png cannot be read \(cannot identify"):
        data.read_image(path, 16)
    save(tmp_path / "y.gif").rename(path)
    with pytest.raises(DataError, match=r"x\.png cannot be read \(cannot identify"):
        data.read_image(path, 16)
    with pytest.raises(DataError, match="cannot be read"):
        data.read_image(tmp_path, 16)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("width, height", [(20000, 6000), (10001, 10000), (40000, 40000)])
def test_huge_pictures_are_refused_before_decoding(tmp_path, width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DataError, match=r"x\.png (has .* 100 million|cannot be read \(Image size)"):
        data.read_image(tmp_path / "x.png", 16)


def test_colours_that_cannot_be_converted_are_refused(tmp_path):
    path = save(tmp_path / "x.tif", Image.new("LAB", (16, 16)))
    with pytest.raises(DataError, match="mode LAB"):
        data.read_image(path, 16)


@pytest.mark.parametrize("count", [0, 3, 70])
def test_read_images_keeps_the_order(tmp_path, count, capsys):
    paths = [save(tmp_path / f"{i}.png", np.full((16, 16), i, np.uint8)) for i in range(count)]
    random.Random(0).shuffle(paths)
    images = data.read_images(paths, 8)
    assert images.shape == (count, 3, 8, 8) and images.dtype == torch.float32
    assert as_levels(images[:, 0, 0, 0]).round().tolist() == [int(p.stem) for p in paths]
    assert capsys.readouterr().err == ""                 # a bar only where it takes more than two seconds


def test_read_images_names_the_bad_file(tmp_path):
    paths = [save(tmp_path / f"{i}.png") for i in range(20)]
    paths[7].write_text("x")
    with pytest.raises(DataError, match=r"7\.png"):
        data.read_images(paths, 8)


# --- masks


def test_masks_of_right_size_are_the_same_by_both_rules(tmp_path):
    path = save(tmp_path / "x.png", mask_of())
    for rule in data.MASK_RULES:
        mask = data.read_mask(path, 16, rule)
        assert mask.shape == (16, 16) and mask.dtype == torch.float32
        assert np.array_equal(mask.numpy(), mask_of() / 255)


def test_no_mask_is_zero_and_an_unknown_rule_is_an_error():
    for rule in data.MASK_RULES:
        assert torch.equal(data.read_mask(None, 8, rule), torch.zeros(8, 8))
    with pytest.raises(ValueError, match="nearest"):
        data.read_mask(None, 8, "nearest")


@pytest.mark.parametrize("value", [1, 251, 255])
def test_any_level_above_0_is_defect(tmp_path, value):
    path = save(tmp_path / "x.png", mask_of(32, 32, slice(8, 16), value))
    for rule in data.MASK_RULES:
        mask = data.read_mask(path, 16, rule)
        assert mask[6].min() == 1 and mask[12:].max() == 0 and mask[0].max() == 0


@pytest.mark.parametrize("kind", ["1", "P", "RGB", "RGBA", "16 bit", "float"])
def test_modes_of_masks(tmp_path, kind):
    mask = mask_of(value=1)
    if kind == "P":  # levels are colours, not indices into the palette: here index 0 is the defect
        image = Image.fromarray(1 - mask, "L").convert("P")
        image.putpalette([0, 0, 9, 0, 0, 0])
    elif kind in ("RGB", "RGBA"):
        image = Image.merge(kind, [Image.fromarray(mask * c) for c in (255, 0, 0, 255)[: len(kind)]])
    elif kind == "1":
        image = Image.fromarray(mask * 255).convert("1")
    else:
        image = Image.fromarray(mask.astype(np.uint16 if kind == "16 bit" else np.float32))
    path = save(tmp_path / "x.tif" if kind == "float" else tmp_path / "x.png", image)
    assert np.array_equal(data.read_mask(path, 16).numpy(), mask)


def test_thin_line_by_both_rules(tmp_path):
    """From 64 to 16: a line of 1 or 2 of 4 rows dies by area, of 3 lives; by bilinear it lives, but nowhere at 1."""
    for thickness, area in ((1, 0), (2, 0), (3, 16)):
        path = save(tmp_path / f"{thickness}.png", mask_of(64, 64, slice(20, 20 + thickness)))
        assert data.read_mask(path, 16, "area").sum() == area
        grey = data.read_mask(path, 16, "bilinear")
        assert 0 < grey.max() < 1 and (grey > 0).sum() >= 16


@pytest.mark.parametrize("height, width, size", [(37, 50, 16), (20, 20, 16), (16, 24, 16), (11, 9, 16), (324, 270, 64)])
def test_area_rule_is_exact(tmp_path, height, width, size):
    """Against every source pixel repeated `size` times, where the areas become plain counts."""
    mask = (noise(height, width, 1) > 128).astype(np.uint8)
    fine = mask.repeat(size, 0).astype(np.int64)
    rows = fine.reshape(size, height, width).sum(1)
    count = rows.repeat(size, 1).reshape(size, size, width).sum(2)
    small = data.read_mask(save(tmp_path / "x.png", mask), size)
    assert np.array_equal(small.numpy(), 2 * count > height * width)


def test_bilinear_rule_is_pillows_resize(tmp_path):
    mask = (noise(37, 50, 1) > 128).astype(np.uint8) * 255
    expected = np.asarray(Image.fromarray(mask).resize((16, 16), Image.Resampling.BILINEAR)) / np.float32(255)
    small = data.read_mask(save(tmp_path / "x.png", mask), 16, "bilinear")
    assert np.array_equal(small.numpy(), expected)


def test_folder_of_masks_is_their_union(tmp_path):
    save(tmp_path / "m" / "000.png", mask_of(rows=slice(0, 3), value=251))
    save(tmp_path / "m" / "001.png", mask_of(rows=slice(2, 5), value=255))
    assert data.read_mask(tmp_path / "m", 16).sum(1).tolist() == [16.0] * 5 + [0.0] * 11
    save(tmp_path / "m" / "002.png", mask_of(16, 18))
    with pytest.raises(DataError, match=r"002\.png has 18 x 16 pixels, others in its folder 16 x 16"):
        data.read_mask(tmp_path / "m", 16)


def test_read_item(tmp_path):
    image = save(tmp_path / "x.png", noise(20, 30))
    picture, mask = data.read_item(Item(image, "good", None), 16)
    assert torch.equal(picture, data.read_image(image, 16)) and mask.shape == (16, 16) and mask.sum() == 0
    right = save(tmp_path / "m.png", mask_of(20, 30, slice(10, 20)))
    for rule in data.MASK_RULES:
        assert torch.equal(data.read_item(Item(image, "cut", right), 16, rule)[1], data.read_mask(right, 16, rule))
    wrong = save(tmp_path / "w.png", mask_of(30, 20))
    with pytest.raises(DataError, match=r"w\.png has 20 x 30 pixels, its picture .*x\.png 30 x 20"):
        data.read_item(Item(image, "cut", wrong), 16)


def test_empty_mask_is_allowed(tmp_path):
    root = product(tmp_path)
    save(root / "ground_truth" / "scratch" / "000_mask.png", mask_of(value=0))
    assert data.read_item(data.test_items(root)[3], 16)[1].sum() == 0
    report = data.check(root, 16)
    assert report["masks"]["empty"] == ["test/scratch/000.png"] and report["usable"]


# --- the report


def test_check_of_a_sound_folder(tmp_path):
    root = product(tmp_path)
    save(root / "test" / "good" / "wide.png", noise(16, 32, 1))
    save(root / "train" / "good" / "old.gif")
    save(root / "train" / "bad" / "0.png")
    report = data.check(str(root), 16)
    assert json.loads(json.dumps(report)) == report
    assert report["train"] == {"good": 3}
    assert report["test"] == {"big dent": 2, "good": 2, "scratch": 2}
    assert report["image_sizes"] == {"16x16": 8, "32x16": 1} and report["image_modes"] == {"RGB": 8, "L": 1}
    assert report["masks"] == {"found": 4, "missing": [], "empty": [], "other_size": [], "vanishing": []}
    assert report["ignored"] == ["train/bad", "train/good/old.gif"]
    assert report["problems"] == [] and report["unreadable"] == [] and report["usable"] is True


def test_validation_pictures_are_held_out(tmp_path):
    root = product(tmp_path)
    assert data.held_out_items(root) == [] and data.check(root, 16)["validation"] == 0
    path = save(root / "validation" / "good" / "0.png", noise(16, 16))
    save(root / "validation" / "odd" / "0.png", noise(16, 16))
    assert data.held_out_items(root) == [data.Item(path, "good", None)]
    report = data.check(root, 16)
    assert report["validation"] == 1 and report["ignored"] == ["validation/odd"] and report["usable"]
    path.unlink()
    report = data.check(root, 16)
    assert "validation" in report["problems"][0] and report["train"] == {"good": 3} and not report["usable"]
    with pytest.raises(DataError, match="validation"):
        data.held_out_items(root)


def test_check_lists_all_problems_at_once(tmp_path):
    root = product(tmp_path)
    (root / "train" / "good" / "b.png").write_text("no picture")
    (root / "test" / "good" / "000.png").write_bytes(b"")
    (root / "ground_truth" / "scratch" / "000_mask.png").unlink()
    save(root / "ground_truth" / "scratch" / "001_mask.png", mask_of(20, 16))
    (root / "ground_truth" / "big dent" / "000_mask.png").write_text("x")
    save(root / "test" / "thin" / "0.png", noise(64, 64))
    save(root / "ground_truth" / "thin" / "0.png", mask_of(64, 64, slice(3, 4)))
    save(root / "test" / "thin" / "float.tif", np.full((16, 16), 7, np.float32))
    save(root / "ground_truth" / "thin" / "float.png", mask_of())
    (root / "test" / "void").mkdir()
    report = data.check(root, 16)
    json.dumps(report)
    masks = report["masks"]
    assert masks["missing"] == ["test/scratch/000.png"] and masks["other_size"] == ["test/scratch/001.png"]
    assert masks["vanishing"] == ["test/thin/0.png"] and masks["empty"] == [] and masks["found"] == 5
    assert report["unreadable"] == [
        "train/good/b.png", "ground_truth/big dent/000_mask.png", "test/good/000.png", "test/thin/float.tif",
    ]  # fmt: skip
    for word in ("b.png", "000.png cannot", "has no mask", "16 x 20", "000_mask.png cannot", "float.tif", "void"):
        assert sum(word in problem for problem in report["problems"]) >= 1, word
    assert len(report["problems"]) == 7 and report["usable"] is False


def test_check_of_missing_parts(tmp_path):
    report = data.check(tmp_path / "nowhere", 16)
    assert len(report["problems"]) == 2 and not report["usable"]  # neither train nor test
    save(tmp_path / "train" / "good" / "0.png")
    save(tmp_path / "test" / "good" / "0.png")
    (problem,) = data.check(tmp_path, 16)["problems"]
    assert "test holds only good: add defects" in problem
    (tmp_path / "test" / "good").rename(tmp_path / "test" / "cut")
    save(tmp_path / "ground_truth" / "cut" / "0.png", mask_of())
    (problem,) = data.check(tmp_path, 16)["problems"]
    assert "test holds only cut: add good" in problem


def test_check_says_which_command_a_problem_blocks(tmp_path):
    save(tmp_path / "train" / "good" / "0.png")
    report = data.check(tmp_path, 16)
    (problem,) = report["problems"]
    assert problem.startswith("evaluate: ") and report["usable_for"] == ["train"] and report["usable"] is False
    root = product(tmp_path / "p")
    assert data.check(root, 16)["usable_for"] == ["train", "evaluate"]
    (root / "train" / "good" / "b.png").write_text("x")
    report = data.check(root, 16)
    (problem,) = report["problems"]
    assert problem.startswith("train: ") and "b.png" in problem and report["usable_for"] == ["evaluate"]
    (root / "ground_truth" / "scratch" / "000_mask.png").write_text("x")
    assert data.check(root, 16)["usable_for"] == []


@pytest.mark.parametrize("count, held_out, warned", [(25, 0, True), (26, 0, False), (20, 1, True), (21, 1, False)])
def test_check_warns_of_too_few_good_pictures(tmp_path, count, held_out, warned):
    root = product(tmp_path)
    for i in range(count - 3):
        save(root / "train" / "good" / f"{i}.png")
    for i in range(held_out):
        save(root / "validation" / "good" / f"{i}.png")
    report = data.check(root, 16)
    assert [f"{count} good pictures" in warning for warning in report["warnings"]] == [True] * warned and report["usable"]
