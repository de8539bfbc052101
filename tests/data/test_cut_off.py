"""A copy that broke off in room made for all of it: the end of the file is zero."""
import numpy as np
import pytest
from image_files import noise, save
from PIL import Image

from ddad.data.images import decoded
from ddad.runtime.errors import DataError

ENCODED = {"a.webp": dict(quality=80), "b.webp": dict(lossless=True), "c.jpg": {},
           "d.png": {}, "e.jpg": dict(progressive=True)}


def picture(grain=True):
    """Smooth colours, with grain or without."""
    smooth = Image.fromarray(noise(9, 12)).resize((240, 180), Image.Resampling.BICUBIC)
    levels = np.asarray(smooth).astype(float)
    levels += np.random.default_rng(1).normal(0, 4 * grain, levels.shape)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_file_whose_end_is_zero_is_refused(tmp_path, name, kept):
    path = save(tmp_path / name, picture(), **ENCODED[name])
    assert decoded(path)[0].size == (240, 180)
    content = path.read_bytes()
    there = round(len(content) * kept)
    path.write_bytes(content[:there] + bytes(len(content) - there))
    said = rf"{name} ends in zero bytes, as if its copy broke off: copy it again"
    with pytest.raises(DataError, match=said):
        decoded(path)


@pytest.mark.parametrize("quality, method, lossless", [
    (30, 4, False), (80, 4, False), (100, 4, False), (50, 0, True)])
def test_a_sound_webp_over_one_colour_ends_in_zeros_and_is_read(
        tmp_path, quality, method, lossless):
    levels = np.full((1200, 1000, 3), 90, np.uint8)
    levels[:200] = noise(200, 1000)
    path = save(tmp_path / "x.webp", levels, quality=quality, method=method,
                lossless=lossless)
    assert not any(path.read_bytes()[-64:])
    assert np.abs(np.asarray(decoded(path)[0])[-1].astype(int) - 90).max() <= 8


def test_what_may_end_in_zeros_and_what_is_small_is_read(tmp_path):
    black = np.zeros((99, 99), np.uint8)
    for name in ("x.bmp", "x.tif", "x.png", "x.jpg", "x.webp"):
        assert not np.any(decoded(save(tmp_path / name, black))[0])
    dot = save(tmp_path / "dot.png", black[:1, :1], optimize=True)
    assert dot.stat().st_size < 99 and decoded(dot)[0].size == (1, 1)
