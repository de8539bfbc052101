"""A detector under other settings without a new training: `adapt`, `ddad train --from`.
"""
import pytest
import torch
from conftest import good_images, tiny

from ddad.cli import main
from ddad.detector import Detector
from ddad.runtime.errors import SettingsError
from ddad.settings import FAST
from ddad.training import adapt


def test_adapt_keeps_the_networks_and_makes_the_rest_anew():
    images, settings = good_images(24), tiny(T_max=250, smallest_bin=5)
    fitted = Detector.fit(images, settings, device="cpu")
    fast = adapt(fitted, images, settings.change(**FAST))
    assert fast.networks.unet is fitted.networks.unet
    assert fast.settings.call_every == 4 and fitted.settings.call_every == 1
    assert fast.threshold != fitted.threshold
    assert torch.equal(fast.memory_bank.y, fitted.memory_bank.y)
    same = adapt(fitted, images, settings)
    assert same.threshold == fitted.threshold and same.ranges == fitted.ranges
    other = adapt(fitted, images, settings.change(neighbour_stage=1))
    assert other.memory_bank.y.shape != fitted.memory_bank.y.shape
    with pytest.raises(SettingsError, match="unet_channels.*train anew"):
        adapt(fitted, images, settings.change(unet_channels=(64,)))
    with pytest.warns(UserWarning, match="unlike the .* training images"):
        adapt(fitted, -images, settings.change(**FAST))


def test_a_unet_serves_another_detector(fitted, monkeypatch):
    """Its own is not trained, and no autoencoder is loaded again; held-out images are
    compared with those that the U-Net saw.
    """
    images = good_images(16)
    other = fitted.settings.change(neighbour_stage=1, tune_epochs=0)
    for name in ("load_vae", "train_noise_predictor"):
        monkeypatch.setattr(f"ddad.training.{name}", lambda *a: pytest.fail("again"))
    found = Detector.fit(images, other, like=fitted)
    assert found.networks.unet is fitted.networks.unet and found.settings == other
    assert found.networks.phi is not fitted.networks.phi
    assert found.record["training"] == fitted.record["training"]
    own, first = (one.record["held_out_distances"] for one in (found, fitted))
    seen = ("ks", "p", "median_held_out", "median_training", "alike")
    assert all(own[name] == first[name] for name in seen)
    assert own["far"] != first["far"] or own["far"] is None
    with pytest.raises(SettingsError, match="unet_channels.*train anew"):
        Detector.fit(images, other.change(unet_channels=(64,)), like=fitted)
    for own in ({"vae": fitted.networks.vae}, {"unet": fitted.networks.unet}):
        with pytest.raises(ValueError, match="beside like, which has both"):
            Detector.fit(images, other, like=fitted, **own)
    with pytest.warns(UserWarning, match="unlike the .* training images"):
        found = Detector.fit(-images, other, held_out=-good_images(16, seed=1),
                             like=fitted)
    assert found.record["held_out_distances"]["alike"] is False


def test_train_from_a_detector(product, tmp_path):
    small = ("image_size=64", "vae=pixels", "unet_channels=[32]",
             "train_length=3 steps", "neighbours=3", "neighbour_pool=4",
             "tune_epochs=0")
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    train = lambda out, *options: main(["train", str(product), str(out), *options])
    from_one = ["--from", str(one)]
    assert train(one, "--device", "cpu", "--set", *small) == 0
    assert train(two, "--device", "cpu", *from_one, "--preset", "fast") == 0
    a, b = (Detector.from_pretrained(model, device="cpu") for model in (one, two))
    assert b.settings.call_every == 4 and a.settings.call_every == 1
    weights = (one.networks.unet.state_dict().values() for one in (a, b))
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    assert train(three, *from_one, "--set", "unet_channels=[64]") == 2
    for other in (["--preset", "paper"], ["--calibrate"]):
        assert train(three, *from_one, *other) == 2
    assert not three.exists()
