"""Many images are decoded once, and read where they are needed: to the same bit, a few
at a time.
"""
import errno
import gc
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, good_images, same_weights, save_image, tiny, tiny_vae
from PIL import Image, ImageFile

from ddad import Detector, calibration, detector
from ddad.cli import main
from ddad.cli.detector import asked_of
from ddad.data import images as reading
from ddad.data.images import ImageFiles, as_images, read_images
from ddad.evaluation import patches
from ddad.networks.features import load_features
from ddad.runtime import latent_cache
from ddad.runtime.errors import DataError, WriteError
from ddad.training import adapt, hold_out, split

REGIONAL = dict(step_rule="region", T_max=160, patch_share=0.25, patch_bank=100,
                posterior="sample")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    images = good_images(60, 32)
    return [save_image(folder / f"{n}.png", x) for n, x in enumerate(images)]


@pytest.fixture
def few_at_once(monkeypatch):
    """No images are held, and parts are of few: how many each reading was of."""
    read, asked = ImageFiles.to, []
    monkeypatch.setattr(ImageFiles, "to", lambda self, device: (
        asked.append(len(self)) or read(self, device)))
    monkeypatch.setattr(reading, "HELD", 0)
    for module, name in ((reading, "TOGETHER"), (detector, "PART"),
                         (patches, "PART"), (latent_cache, "KEPT")):
        monkeypatch.setattr(module, name, 16)   # as many as a batch
    return asked


@pytest.fixture
def decodes(monkeypatch):
    """How often each file was decoded, by its name."""
    load, count = ImageFile.ImageFile.load, Counter()

    def counted(self):
        count[Path(self.filename).name] += bool(self.tile)      # none when it is done
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    return count


def learned(images, settings, **how):
    return Detector.fit(images, settings, device="cpu", vae=tiny_vae(), **how)


@pytest.mark.parametrize("change", [
    REGIONAL, dict(map_range="test"),
    dict(map_range="test", held_out=0.0, threshold="youden")])
def test_a_detector_is_the_same_to_the_bit(files, few_at_once, change):
    settings = tiny(**dict(image_size=32, held_out=0.3, train_batch=4, tune_batch=4)
                    | change)
    held = learned(read_images(files, 32), settings)
    few_at_once.clear()
    found = learned(files, settings)
    assert 0 < max(few_at_once) <= 32           # features are of 32 at once
    assert sum(few_at_once) >= 3 * len(files)   # encoded, tuned on, features
    for name in ("unet", "phi"):
        assert same_weights(getattr(found.networks, name), getattr(held.networks, name))
    assert torch.equal(found.memory_bank.y, held.memory_bank.y)
    assert found.ranges == held.ranges and found.threshold == held.threshold
    if held.held_out_scores is None:
        return
    assert torch.equal(found.held_out_scores, held.held_out_scores)
    if held.patch_bank:
        assert torch.equal(found.patch_bank.f, held.patch_bank.f)
        assert torch.equal(found.patch_bank.low_high, held.patch_bank.low_high)
    assert found.record["tune_loss"] == held.record["tune_loss"]
    again = adapt(found, as_images(files, 32), settings)
    assert again.threshold == found.threshold
    good = hold_out(read_images(files, 32), settings)[1]        # all at once
    assert held.set_ranges(good) and held.ranges == found.ranges
    found = found.predict(as_images(files, 32)[-len(good) :]).map
    assert torch.equal(found, held.predict(files[-len(good) :]).map)


def test_patches_are_drawn_as_from_all_of_them(files, few_at_once):
    settings = tiny(image_size=32)
    phi, images = load_features(settings), read_images(files[:20], 32)
    rows = patches.rows(patches.patch_features(phi, images, settings))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(5))
    for most in (7, 10**6):
        drawn = patches.drawn_patches(phi, as_images(files[:20], 32), settings, most, 5)
        torch.testing.assert_close(drawn, rows[order[:most]], rtol=0, atol=0)


def test_a_calibration_chooses_the_same(files, few_at_once, monkeypatch):
    for name, few in (("T_MAX", (80, 320)), ("LAMBDA", (0.0, 0.5)), ("DEFECTS", 16),
                      ("GUIDANCE", (0.33,))):
        monkeypatch.setattr(calibration, name, few)
    settings = tiny(image_size=32, held_out=0.3, calibration_images=8, tune_epochs=0)
    of = [learned(images, settings, calibrate=True).settings
          for images in (files, read_images(files, 32))]
    assert of[0] == of[1]


def test_rows_are_chosen_as_a_tensors(files, few_at_once):
    whole, some = read_images(files, 32), as_images(files, 32)
    assert isinstance(some, ImageFiles) and some.shape == whole.shape
    order = torch.tensor([7, 0, 7, 59])
    mask = torch.arange(60) % 3 == 1
    for rows in (slice(3, 9), slice(55, 99), order, mask):
        assert torch.equal(some[rows].to("cpu"), whole[rows])
        assert some[rows].shape == whole[rows].shape
    with pytest.raises(IndexError):
        some[torch.tensor([60])]
    with pytest.raises(TypeError, match=r"not by a number: \[3\] could be \[\[3\]\]"):
        some[3]
    assert torch.equal(some[[3]].to("cpu"), whole[[3]])
    for a, b in zip(some.split(16), whole.split(16), strict=True):
        assert torch.equal(a.to("cpu"), b)
    settings = tiny(image_size=32, threshold_share=0.5, held_out=0.5)
    for a, b in zip(hold_out(some, settings), hold_out(whole, settings)):
        assert torch.equal(a.to("cpu"), b)
        for c, d in zip(split(a, settings), split(b, settings)):
            assert torch.equal(c.to("cpu"), d)
    assert asked_of(settings, some, None, True) == asked_of(settings, whole, None, True)


def test_several_threads_read_at_once(files, few_at_once):
    whole, some = read_images(files, 32), as_images(files, 32)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: some[[n]].to("cpu")[0], [*range(60)] * 4))
    assert torch.equal(torch.stack(found), whole.repeat(4, 1, 1, 1))


def test_images_that_fit_are_held(files):
    assert isinstance(as_images(files, 32), torch.Tensor)


@pytest.mark.parametrize("calibrate", [False, True])
def test_a_fit_decodes_each_file_once(files, few_at_once, decodes, calibrate):
    settings = tiny(image_size=32, held_out=0.3, tune_epochs=2, calibration_images=8,
                    **REGIONAL)
    learned(files, settings, calibrate=calibrate)
    assert decodes == {path.name: 1 for path in files}


def test_a_training_and_its_hash_decode_each_file_once(product, tmp_path, few_at_once,
                                                       decodes):
    small = [f"{name}={json.dumps(value)}" for name, value in TINY.items()]
    assert main(["train", str(product), str(tmp_path / "out"), "--device", "cpu",
                 "--set", *small]) == 0
    assert set(decodes.values()) == {1} and len(decodes) == 16


@pytest.mark.parametrize("size", [32, 45])      # as they are, and resampled
def test_levels_of_each_kind_are_kept_to_the_bit(few_at_once, tmp_path, size):
    rng, own = np.random.default_rng(0), []
    for mode, depth in dict(L=255, RGB=255, I=65535, F=1).items():
        levels = rng.uniform(0, depth, (32, 32, 3)[: 3 if mode == "RGB" else 2])
        kind = dict(I=np.uint16, F=np.float32).get(mode, np.uint8)
        own.append(tmp_path / f"{mode}.tiff")
        Image.fromarray(levels.astype(kind)).save(own[-1])
    kept = as_images(own, size)
    assert isinstance(kept, ImageFiles)
    assert torch.equal(kept.to("cpu"), read_images(own, size))
    # a byte a level, and four of the two that have more than 256
    assert os.fstat(kept.file.fileno()).st_size < size**2 * (1 + 3 + 4 + 4) + 4 * 200


def test_a_file_that_changes_or_goes_later_means_nothing(few_at_once, tmp_path):
    own = [save_image(tmp_path / f"{n}.png", x) for n, x in enumerate(good_images(3))]
    images, before = as_images(own, 64), read_images(own, 64)
    save_image(own[1], good_images(1, seed=9)[0])
    own[2].unlink()
    assert torch.equal(images.to("cpu"), before)
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        as_images(own, 64)                      # at once, not after the training


def test_the_file_lives_as_long_as_any_row(files, few_at_once):
    images = as_images(files, 32)
    file, rows = images.file, images[:20][5:]
    del images
    gc.collect()
    assert torch.equal(rows.to("cpu"), read_images(files[5:20], 32))
    del rows
    gc.collect()
    assert file.closed


def test_no_room_is_told_of(files, few_at_once, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(WriteError, match=r"60 pictures .* \(No space left on device\): "
                                         "name in TMPDIR a folder that has 1 MB"):
        as_images(files, 32)


def test_another_size_is_refused(files, few_at_once):
    with pytest.raises(ValueError, match=r"not \(60, 3, 32, 32\)"):
        learned(as_images(files, 32), tiny())
