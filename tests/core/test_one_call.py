"""One call of the U-Net as the whole method: what it finds, and leaves alone."""
import math

import pytest
import torch
from conftest import close, good_images, tiny, tiny_vae
from torch.nn import functional as F

from ddad import anomaly_map as maps
from ddad.detector import Detector
from ddad.evaluation.scoring import evaluate
from ddad.runtime.adapter import Networks
from ddad.training import hold_out


@pytest.fixture
def alone(monkeypatch):
    """No decoder and no features."""
    def called(*_, **__):
        raise AssertionError("the decoder or the features were called")

    monkeypatch.setattr(Networks, "features", called)
    monkeypatch.setattr("ddad.latent_projection.LatentProjection.decode", called)
    monkeypatch.setattr("ddad.networks.autoencoders.PixelSpace.decode", called)
    monkeypatch.setattr("ddad.networks.features.EfficientNetLite0.forward", called)


@torch.no_grad()
def noise_found(detector, images):
    """e of one call, (N, C, h, w), and its part of the residual."""
    t = detector.settings.T_max
    a = detector.abar[t].item()
    z0 = detector.projection.encode(images)
    steps = torch.full((len(z0),), t)
    return detector.networks.unet(math.sqrt(a) * z0, steps).sample, math.sqrt(1 / a - 1)


@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_the_map_is_the_noise_that_is_found(one_call, images, alone, blur):
    own = one_call.under(one_call.settings.change(latent_blur=blur))
    e, factor = noise_found(own, images)
    if blur:
        e = maps.smooth(e.flatten(0, 1), blur).unflatten(0, e.shape[:2])
    A_l = F.interpolate(e.abs().mean(1, keepdim=True), size=64, mode="bilinear")[:, 0]
    found = own.predict(images)
    torch.testing.assert_close(found.latent_map, factor * A_l, rtol=1e-3, atol=1e-4)
    low, high = own.ranges.latent
    A = maps.smooth((found.latent_map - low) / (high - low), own.settings.sigma / 4)
    torch.testing.assert_close(found.map, A, rtol=1e-4, atol=1e-4)
    assert found.score.tolist() == [one.max().item() for one in found.map]


def test_it_is_one_call(one_call, images, alone, monkeypatch):
    seen, real = [], one_call.networks._predict
    monkeypatch.setattr(Networks, "eps_theta", lambda self, z_t, t: (
        seen.append(t.tolist()) or real(z_t, t)))
    one_call.predict(images, batch=4)
    assert seen == [[20] * 4, [20] * 3]


def test_what_it_does_not_make_is_not_there(one_call, images, alone):
    found = one_call.predict(images)
    for name in ("feature_map", "reconstruction", "bin", "distance", "patch_map",
                 "step_map"):
        assert getattr(found, name) is None, name
    assert found.T_hat.tolist() == [20] * 7
    assert found.map.shape == found.latent_map.shape == (7, 64, 64)
    assert one_call.ranges.feature is None and one_call.patch_bank is None
    close(one_call.predict(images, batch=2), found)
    # a batch of nothing but one
    close(one_call.predict(images[3:4]), one_call.predict(images[3:4]), atol=0)


def test_it_is_evaluated_like_any_other(one_call, test_set, alone):
    result, found = evaluate(one_call, test_set, bootstrap_repeats=2)
    assert all(0 <= result[name] <= 1 for name in ("i_auroc", "p_auroc", "pro"))
    assert result["threshold"] == one_call.threshold
    again, _ = evaluate(one_call, test_set, found=found)
    assert again["pro"] == result["pro"]


def test_it_comes_back_from_a_folder(one_call, images, tmp_path, alone):
    one_call.save_pretrained(tmp_path / "model")
    loaded = Detector.from_pretrained(tmp_path / "model", device="cpu")
    close(loaded.predict(images), one_call.predict(images), atol=0)
    assert loaded.ranges == one_call.ranges
    assert loaded.threshold == one_call.threshold
    assert loaded.settings == one_call.settings and not loaded.settings.decode


def test_it_is_fitted_without_tuning_and_still_compares_held_out_images(one_call):
    """Features are looked at there, as they come."""
    record, images = one_call.record, good_images(16)
    assert record["tune_loss"] == []
    assert record["held_out_distances"]["alike"] is True
    _, good = hold_out(images, one_call.settings)
    assert torch.equal(one_call.held_out_scores, one_call.predict(good).score)


def test_a_posterior_sample_and_another_autoencoder_do(images):
    settings = tiny("one-call", tune_epochs=0, vae="given", posterior="sample")
    one = Detector.fit(good_images(12), settings, device="cpu", vae=tiny_vae())
    close(one.predict(images, 7), one.predict(images, 2))
    assert one.predict(images).score.isfinite().all()
