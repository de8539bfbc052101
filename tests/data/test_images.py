import random
import struct
import zlib

import numpy as np
import pytest
import torch
from image_files import as_levels, mask_of, noise, save
from PIL import Image

from ddad.data.images import read_image, read_images
from ddad.runtime.errors import DataError


def test_image_of_the_right_size_is_kept_exactly(tmp_path):
    levels = noise(24, 24)
    image = read_image(save(tmp_path / "x.png", levels), 24)
    assert image.shape == (3, 24, 24) and image.dtype == torch.float32
    assert image.is_contiguous()
    assert torch.equal(image, torch.from_numpy(levels).permute(2, 0, 1) / 127.5 - 1)


def test_range_reaches_both_ends_exactly(tmp_path):
    image = read_image(save(tmp_path / "x.png", mask_of()), 16)
    assert image.min() == -1 and image.max() == 1


def test_resize_is_antialiased_bilinear_and_squashes(tmp_path):
    levels = noise(40, 60)
    image = read_image(save(tmp_path / "x.png", levels), 16)
    full = torch.from_numpy(levels).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(
        full, size=(16, 16), mode="bilinear", antialias=True)[0]
    # Pillow rounds to whole levels, once for each direction
    assert (as_levels(image) - expected).abs().max() <= 1.01
    stripes = (np.arange(64) % 2 * 255).astype(np.uint8)[:, None].repeat(64, 1)
    grey = as_levels(read_image(save(tmp_path / "y.png", stripes), 16))
    assert grey.sub(127.5).abs().max() < 20


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes_are_read_as_colours(tmp_path, mode):
    source = Image.fromarray(noise(16, 16))
    source = source.quantize(8) if mode == "P" else source.convert(mode)
    path = save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), source)
    assert Image.open(path).mode == mode
    expected = np.asarray(source.convert("RGB"), dtype=np.float32)
    found = as_levels(read_image(path, 16)).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 0.001


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_parts_are_black(tmp_path, mode):
    image = Image.new("RGBA", (16, 16), (200, 200, 200, 255))
    image.paste((255, 255, 255, 0), (0, 0, 16, 8))
    image.paste((255, 255, 255, 128), (0, 8, 4, 16))
    options = {}
    if mode in ("P", "RGB"):  # one colour stands for "transparent"
        image = image.convert("RGB")
        image = image.quantize(4) if mode == "P" else image
        options = {"transparency": image.getpixel((0, 0))}
    path = save(tmp_path / "x.png", image.convert(mode), **options)
    levels = as_levels(read_image(path, 16))
    assert levels[:, :8].max() == 0
    assert (levels[:, 8:, 4:] - 200).abs().max() < 0.001
    if mode in ("RGBA", "LA"):
        assert (levels[:, 8:, :4] - 128).abs().max() < 0.001


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    path = save(tmp_path / f"x.{suffix}", levels)
    image = read_image(path, 16)
    assert np.abs(as_levels(image).numpy() - levels / 257).max() < 0.001
    assert image.min() == -1 and image.max() == 1 and torch.equal(image[0], image[2])
    assert read_image(path, 8).shape == (3, 8, 8)


def test_other_16_bit_containers(tmp_path):
    levels = np.linspace(0, 65535, 256).round().reshape(16, 16)
    as_i = save(tmp_path / "i.tif", levels.astype(np.int32))
    big = Image.frombytes("I;16B", (16, 16), levels.astype(">u2").tobytes())
    as_big = save(tmp_path / "b.tif", big)
    assert Image.open(as_i).mode == "I" and Image.open(as_big).mode == "I;16B"
    for path in (as_i, as_big):
        found = as_levels(read_image(path, 16)).numpy()
        assert np.abs(found - levels / 257).max() < 0.001
    for wrong in (-1, 65536):
        path = save(tmp_path / "w.tif", np.full((16, 16), wrong, np.int32))
        with pytest.raises(DataError, match=r"w\.tif has levels outside 0 to 65535"):
            read_image(path, 16)


def test_float_is_read_from_0_to_1_only(tmp_path):
    levels = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    image = read_image(save(tmp_path / "x.tif", levels), 16)
    assert np.abs(image.numpy() - (levels * 2 - 1)).max() < 1e-6
    for wrong in (-0.1, 1.1, 255, np.nan, np.inf):
        levels[3, 3] = wrong
        with pytest.raises(DataError, match=r"x\.tif has levels outside 0 to 1:"):
            read_image(save(tmp_path / "x.tif", levels), 16)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation, angle", [(1, 0), (3, 180), (6, 90), (8, 270)])
def test_orientation_is_applied(tmp_path, suffix, orientation, angle):
    upright = np.zeros((32, 32), np.uint8)
    upright[:16, :8] = 255
    stored = Image.fromarray(upright).rotate(angle, expand=True).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"x.{suffix}", stored, exif=exif)
    found = as_levels(read_image(path, 32))[0].numpy()
    assert np.abs(found - upright).mean() < 6


def test_phone_image_with_a_preview_is_read(tmp_path):
    first, preview = Image.new("RGB", (16, 16), (90, 90, 90)), Image.new("RGB", (8, 8))
    path = save(tmp_path / "x.jpg", first, format="MPO", save_all=True,
                append_images=[preview])
    assert as_levels(read_image(path, 16)).sub(90).abs().max() < 3


@pytest.mark.parametrize("suffix", ["tif", "webp", "png"])
def test_several_images_in_a_file_are_refused(tmp_path, suffix):
    second = Image.fromarray(noise(seed=1))
    path = save(tmp_path / f"x.{suffix}", save_all=True, append_images=[second])
    with pytest.raises(DataError, match="holds 2 images"):
        read_image(path, 16)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_file_is_refused(tmp_path, suffix):
    path = save(tmp_path / f"my x.{suffix}", noise(64, 64))
    content = path.read_bytes()
    for part in (0.6, 0.1):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(DataError, match=rf"my x\.{suffix}"):
            read_image(path, 16)


def test_damaged_png_is_refused(tmp_path):
    path = save(tmp_path / "x.png", noise(64, 64))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png cannot be read \("):
        read_image(path, 16)


def test_files_that_are_no_images_are_refused(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(DataError, match=r"x\.png cannot be read \(.*No such file"):
        read_image(path, 16)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.png cannot be read"):
        read_image(str(path), 16)
    path.write_text("this is no image")
    with pytest.raises(DataError, match=r"x\.png cannot be read \(cannot identify"):
        read_image(path, 16)
    save(tmp_path / "y.gif").rename(path)
    with pytest.raises(DataError, match=r"x\.png cannot be read \(cannot identify"):
        read_image(path, 16)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path, 16)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("width, height",
                         [(20000, 6000), (10001, 10000), (40000, 40000)])
def test_huge_images_are_refused_before_decoding(tmp_path, width, height):
    def chunk(kind, content):
        length, check = len(content), zlib.crc32(kind + content)
        return struct.pack(">I", length) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    refusal = r"x\.png (has .* 100 million|cannot be read \(Image size)"
    with pytest.raises(DataError, match=refusal):
        read_image(path, 16)


def test_colours_that_cannot_be_converted_are_refused(tmp_path):
    path = save(tmp_path / "x.tif", Image.new("LAB", (16, 16)))
    with pytest.raises(DataError, match="mode LAB"):
        read_image(path, 16)


@pytest.mark.parametrize("count", [0, 3, 70])
def test_read_images_keeps_the_order(tmp_path, count, capsys):
    paths = [save(tmp_path / f"{i}.png", np.full((16, 16), i, np.uint8))
             for i in range(count)]
    random.Random(0).shuffle(paths)
    images = read_images(paths, 8)
    assert images.shape == (count, 3, 8, 8) and images.dtype == torch.float32
    levels = as_levels(images[:, 0, 0, 0]).round().tolist()
    assert levels == [int(path.stem) for path in paths]
    assert capsys.readouterr().err == ""  # a bar only where it takes over two seconds


def test_read_images_names_the_bad_file(tmp_path):
    paths = [save(tmp_path / f"{i}.png") for i in range(20)]
    paths[7].write_text("x")
    with pytest.raises(DataError, match=r"7\.png"):
        read_images(paths, 8)
