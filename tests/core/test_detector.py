"""Learning a product: what a fit holds, what it is made from, and what decides it."""
import json
import math
from copy import deepcopy

import pytest
import torch
from conftest import close, good_images, same_weights, tiny, tiny_vae

from ddad import detector, training
from ddad.detector import Detector
from ddad.networks.autoencoders import PixelSpace
from ddad.runtime.errors import ModelError
from ddad.settings import Settings
from ddad.training import hold_out


def fit(n=12, **given):
    """A fit whose networks are not changed: `given` brings them, or they are not
    needed.
    """
    changes = given.pop("changes", {})
    return Detector.fit(good_images(n), tiny(tune_epochs=0, **changes), device="cpu",
                        **given)


def test_what_a_fit_records(fitted):
    record = fitted.record
    assert record["images"] == 16 and record["held_out"] == 4
    assert record["training"]["steps"] == 3 and len(record["tune_loss"]) == 1
    assert len(fitted.memory_bank.y) == len(fitted.memory_bank.distances) == 12
    assert math.isfinite(fitted.threshold) and json.dumps(record)
    for seen in (record["seconds"], record["peak_memory"]):
        assert list(seen) == ["encode", "train", "fine-tune",
                              "banks, ranges, threshold"]


def test_the_seed_decides_everything(fitted, images):
    torch.manual_seed(123)
    found = fitted.predict(images)
    again = Detector.fit(good_images(16), tiny(), device="cpu")
    close(again.predict(images), found, atol=0)
    other = Detector.fit(good_images(16), tiny(seed=1), device="cpu")
    assert (other.predict(images).score - found.score).abs().max() > 1e-4


def test_given_held_out_images_take_the_place_of_a_share(fitted):
    settings, unet = fitted.settings, fitted.networks.unet
    train, held_out = hold_out(good_images(16), settings)
    again = Detector.fit(train, settings, held_out=held_out, device="cpu", unet=unet)
    assert again.record["images"] == 16
    assert again.record["held_out"] == len(held_out) == 4
    assert len(again.memory_bank.y) == 12
    assert again.record["held_out_from"] == "images given"
    assert again.threshold == fitted.threshold and again.ranges == fitted.ranges
    other = Detector.fit(
        train, settings.change(tune_epochs=0), held_out=good_images(4, seed=9),
        device="cpu", unet=unet, phi=again.networks.phi)
    assert other.threshold != fitted.threshold
    assert torch.equal(other.memory_bank.y, again.memory_bank.y)


def test_ranges_and_threshold_come_from_held_out_images_alone(fitted):
    _, held_out = hold_out(good_images(16), fitted.settings)
    found = fitted.predict(held_out)
    for low_high, A in ((fitted.ranges.latent, found.latent_map),
                        (fitted.ranges.feature, found.feature_map)):
        assert low_high == pytest.approx((A.min().item(), A.max().item()))
    assert torch.equal(fitted.held_out_scores, found.score)
    # four images cannot promise 5%: the largest of them
    assert fitted.threshold == found.score.max().item()


def test_too_few_images_say_so_before_training(monkeypatch):
    began = lambda *_: pytest.fail("training began")
    monkeypatch.setattr(training, "train_noise_predictor", began)
    fewer = "3 training images are fewer than neighbours \\+ 1 = 4"
    with pytest.raises(ValueError, match=fewer):
        Detector.fit(good_images(4), tiny(), device="cpu")
    with pytest.raises(ValueError, match="at least 8 held-out good images"):
        Detector.fit(good_images(16), tiny(), device="cpu", calibrate=True)


def test_networks_of_ones_own(fitted):
    unet, phi = fitted.networks.unet, fitted.networks.phi
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    own = fit(unet=unet, phi=phi)
    assert own.networks.unet is unet and own.networks.phi is phi
    assert "training" not in own.record and same_weights(unet, before)


def test_an_autoencoder_of_ones_own_has_no_name(fitted):
    vae = tiny_vae()
    own = fit(changes={"vae": Settings.vae, "train_length": "1 steps"}, vae=vae)
    assert own.networks.vae is vae and own.settings.vae == "given"
    named = fit(vae=PixelSpace(), unet=fitted.networks.unet)
    assert named.settings.vae == "pixels"


def test_networks_that_do_not_fit_together_are_told_of(fitted, images):
    other = fitted.under(fitted.settings)
    other.networks.vae = tiny_vae()
    with pytest.raises(ModelError, match="autoencoder's latents are .* is for"):
        other.predict(images)
    other = fitted.under(fitted.settings.change(neighbour_stage=1))
    with pytest.raises(ModelError, match="features are .* is for"):
        other.predict(images)


# --- other settings -------------------------------------------------------------------

def test_under_changes_nothing_in_the_original(fitted, images):
    before = fitted.predict(images)
    other = fitted.under(fitted.settings.change(step_rule="static", lam=0.0))
    other.set_ranges(good_images(4, seed=9))
    assert other.predict(images).T_hat.tolist() == [80] * 7
    close(fitted.predict(images), before, atol=0)


def test_static_steps_are_T_max(fitted, images):
    b, step = torch.arange(1, 11), [20, 20, 20, 30, 40, 50, 60, 60, 70, 80]
    assert fitted.step(b).tolist() == step
    static = fitted.under(fitted.settings.change(step_rule="static", T_max=120))
    T_hat, bins = static.step_map(fitted.observe(images))
    assert T_hat.tolist() == [120] * 7
    assert torch.equal(bins, fitted.predict(images).bin) and len(set(bins.tolist())) > 1


def test_the_zeroed_first_step_is_for_static_runs_only(fitted, monkeypatch):
    seen, real = [], detector.scaled_denoising

    def watched(*arguments, **path):
        seen.append(path["zero_first"])
        return real(*arguments, **path)

    monkeypatch.setattr(detector, "scaled_denoising", watched)
    x0 = good_images(1)
    zeroed, static = {"static_first_step": "zeroed"}, {"step_rule": "static"}
    for change, expected in (({}, False), (zeroed, False), (zeroed | static, True),
                             (static, False)):
        fitted.under(fitted.settings.change(**change)).predict(x0)
        assert seen.pop() is expected
    z0, T_hat = fitted.projection.posterior(x0), torch.tensor([30])
    for first_step in ("zeroed", "same"):       # fine-tuning counts as static
        other = fitted.under(fitted.settings.change(static_first_step=first_step))
        reconstruct = training.reconstruct_rows(other, *z0)
        reconstruct(torch.tensor([0]), T_hat, torch.tensor([24]))
        assert seen.pop() is (first_step == "zeroed")


def test_what_is_reconstructed_keeps_no_gradients(fitted):
    """Not even of a U-Net that wants them: fine-tuning's memory is that of phi."""
    other, z0 = fitted.under(fitted.settings), fitted.observe(good_images(1)).z0
    other.networks.unet = deepcopy(fitted.networks.unet).requires_grad_(True)
    assert not other.denoise(z0, torch.tensor([30])).requires_grad


def test_maps_weighed_anew_are_those_of_a_new_prediction(fitted, images):
    found = fitted.predict(images)
    for change in ({"lam": 0.0}, {"lam": 1.0, "sigma": 8.0}, {"map_range": "test"}):
        other = fitted.under(fitted.settings.change(**change))
        weighed = other.weigh(found)
        close(weighed, other.predict(images), atol=1e-6)
        assert (weighed.map - found.map).abs().max() > 1e-3
    close(fitted.weigh(found), found, atol=0)


@pytest.mark.parametrize("change", [{"noise": True}, {"posterior": "sample"}])
def test_draws_depend_on_the_image_and_not_on_its_place(change):
    """The same score first, last, alone and repeated; another with another seed."""
    images, detector = good_images(3), fit(vae=tiny_vae(), changes=change)
    score = detector.predict(images).score
    same = dict(rtol=0, atol=1e-5)
    torch.testing.assert_close(detector.predict(images.flip(0)).score.flip(0), score,
                               **same)
    torch.testing.assert_close(detector.predict(images[1:2]).score, score[1:2], **same)
    repeated = detector.predict(images[1:2].expand(5, -1, -1, -1)).score
    torch.testing.assert_close(repeated, score[1:2].expand(5), **same)
    other = detector.under(detector.settings.change(seed=1))
    assert (other.predict(images).score - score).abs().max() > 1e-4


def test_nothing_is_hashed_where_nothing_is_drawn(fitted, images, monkeypatch):
    """It would wait for the device, image by image."""
    monkeypatch.setattr(detector, "draws_of", lambda *a: pytest.fail("hashed"))
    fitted.predict(images)
