"""Fitting warns where the held-out images are unlike the training images."""

import warnings

import pytest
import torch
from conftest import good_images, tiny

from ddad.detector import Detector
from ddad.dynamic_noise import MemoryBank
from ddad.evaluation import likeness
from ddad.evaluation.likeness import compare_distances

K = 5


@pytest.fixture(scope="module")
def y():
    return torch.randn(120, 8, generator=torch.Generator().manual_seed(0))


def compared(bank, features):
    return compare_distances(bank.distance(features, K), bank.distances)


def test_features_drawn_alike_are_alike_and_others_are_told(y):
    bank = MemoryBank.fit(y[:90], K)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compared(bank, y[90:])
    assert found["alike"] and found["p"] > 0.01
    # farther off; and copies of training images, which are too near
    for other in (y[90:] + 1.5, y[:30]):
        said = "30 held-out good images are unlike the 90 training images"
        with pytest.warns(UserWarning, match=said):
            assert not compared(bank, other)["alike"]


def test_each_training_image_is_compared_without_itself(y, fitted):
    """Also where the settings count an image as its own neighbour."""
    found = []
    for own in (False, True):
        settings = fitted.settings.change(neighbours=K, self_neighbour=own)
        detector = fitted.under(settings)
        detector.memory_bank = MemoryBank.fit(y[:90], K, own)
        detector.features = lambda images: images       # each its own features
        found.append(likeness.compared(detector, detector, y[90:]))
    assert found[0] == found[1] and found[0]["alike"]
    assert not torch.equal(detector.memory_bank.distances,
                           MemoryBank.fit(y[:90], K).distances)


def test_fit_warns_of_other_held_out_images_and_records_it():
    images = good_images(24)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        record = Detector.fit(images, tiny(), device="cpu").record
    assert record["held_out_distances"]["alike"]
    with pytest.warns(UserWarning, match="unlike"):
        fitted = Detector.fit(images[:18], tiny(), held_out=-images[18:], device="cpu")
    assert fitted.record["held_out_distances"]["alike"] is False
    assert fitted.threshold is not None


def test_without_held_out_images_nothing_is_compared():
    none = tiny("official", held_out=0.0)
    record = Detector.fit(good_images(16), none, device="cpu").record
    assert record["held_out_distances"] is None


def test_all_held_out_images_are_compared_once(monkeypatch):
    """Those that the threshold is made from as well."""
    seen = []
    monkeypatch.setattr("ddad.training.FEW", 2)
    monkeypatch.setattr("ddad.training.compared",
                        lambda first, detector, good: seen.append(len(good)))
    settings = tiny(threshold_share=0.5, held_out=0.5)
    Detector.fit(good_images(16), settings, device="cpu")
    assert seen == [8]
