"""What people hold, a tensor, arrays, pictures, paths, becomes one tensor or one error.
"""
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import good_images, tiny
from image_files import noise, save
from PIL import Image

from ddad import Detector
from ddad.data.images import as_images, read_images
from ddad.runtime.errors import DataError


@pytest.fixture
def files(tmp_path):
    return [save(tmp_path / f"{n}.png", noise(20, 30, seed=n)) for n in range(3)]


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_all_that_people_hold_is_the_same_images(files):
    right = read_images(files, 16)
    pictures = [Image.open(path) for path in files]
    arrays = [np.array(picture) for picture in pictures]
    for given in (files, tuple(files), list(map(str, files)), pictures, arrays,
                  np.stack(arrays), right, right.numpy(), list(right),
                  [files[0], pictures[1], arrays[2]]):
        assert torch.equal(as_images(given, 16), right)
    for one in (files[0], str(files[0]), pictures[0], arrays[0]):
        assert torch.equal(as_images(one, 16), right[:1])


def test_a_picture_is_turned_and_its_colours_read_as_those_of_a_file(tmp_path):
    for mode in ("L", "P", "RGBA", "LA", "I;16"):
        picture = Image.fromarray(noise())
        if mode == "I;16":
            picture = Image.fromarray(np.full((16, 16), 30_000, np.uint16))
        else:
            picture = picture.convert(mode)
        exif = picture.getexif()
        exif[0x0112] = 6
        path = tmp_path / f"{mode.replace(';', '')}.png"
        picture.save(path, exif=exif)
        with Image.open(path) as opened:
            assert opened.getexif()[0x0112] == 6
            assert torch.equal(as_images(opened, 16), read_images([path], 16))
            assert opened.getexif()[0x0112] == 6        # the caller's own is left


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_become_float32(dtype):
    x = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
    assert as_images(x.to(dtype), 8).dtype == torch.float32
    torch.testing.assert_close(as_images(x.to(dtype), 8), x, rtol=0, atol=0.01)


@pytest.mark.parametrize("change, told", [
    (lambda x: (x + 1) * 127.5, "0 to 255"),
    (lambda x: x / 0.2, r"not levels in \[-1, 1\]"),
    (lambda x: x.mul(torch.nan), "hold nan"),
    (lambda x: ((x + 1) * 127.5).byte(), "uint8"),
    (lambda x: x[:0], r"not \(0, 3, 8, 8\)"),
    (lambda x: [], r"not \(0, 3, 8, 8\)"),
    (lambda x: x[0], r"not \(3, 8, 8\)"),
    (lambda x: x[..., :4], r"tensor \(N, 3, 8, 8\)"),
    (lambda x: x.permute(0, 2, 3, 1), r"not \(2, 8, 8, 3\)"),
    (lambda x: [3], "int is no image"),
    (lambda x: "nowhere.png", "nowhere.png"),
])
def test_what_is_something_else_is_told(change, told):
    x = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
    with pytest.raises((ValueError, DataError), match=told):
        as_images(change(x), 8)


def test_images_that_may_be_in_0_to_1_are_warned_of():
    x = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"2 \* x - 1"):
        assert torch.equal(as_images((x + 1) / 2, 8), (x + 1) / 2)


def test_a_fit_refuses_images_before_it_trains_and_takes_paths(
        tmp_path, monkeypatch):
    settings = tiny(image_size=32)
    for images, held_out in ((good_images(12), None),
                             (good_images(12, size=32), good_images(4))):
        with monkeypatch.context() as patch:
            patch.setattr("ddad.training.train_noise_predictor", lambda *a: 1 / 0)
            with pytest.raises(ValueError, match=r"\(N, 3, 32, 32\)"):
                Detector.fit(images, settings, held_out=held_out)
    paths = []
    for n, x in enumerate(good_images(12, size=32)):
        levels = ((x + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        paths.append(save(tmp_path / f"{n:02}.png", levels))
    fitted = Detector.fit(list(map(str, paths)), settings,
                          checkpoint=str(tmp_path / "state.safetensors"))
    assert (tmp_path / "state.safetensors").exists()
    found = fitted.predict(paths[:2])
    assert torch.equal(found.score, fitted.predict(read_images(paths[:2], 32)).score)
    assert isinstance(paths[0], Path)


@pytest.mark.parametrize("wrong", (
    np.zeros((2, 3, 64, 64), np.uint8), np.zeros((64, 64, 1), np.uint8)))
def test_arrays_of_another_layout_are_told_of(wrong):
    with pytest.raises(ValueError, match=r"ndarray is no image: give .*\(H, W, 3\)"):
        as_images(wrong, 64)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match="cannot be read .it is a folder"):
        as_images(str(tmp_path), 64)
