"""What a method has to stand above, on a tiny product: one table of all baselines."""

import math
from statistics import mean

import numpy as np
import pytest
import torch
from conftest import bad_images, good_images, tiny, tiny_vae
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from ddad import anomaly_map as maps
from ddad import calibration
from ddad.data import product
from ddad.detector import Detector
from ddad.evaluation import baselines, patches
from ddad.evaluation.scoring import summary
from ddad.latent_projection import LatentProjection
from ddad.networks.features import load_features
from ddad.settings import ONE_CALL
from ddad.training import hold_out

NAMES = ["neighbours", "local_neighbours", "patchcore", "padim", "one_call",
         "autoencoder_pixels", "autoencoder_features"]


@pytest.fixture(scope="module")
def detector():
    """A detector in pixels, hardly trained: the baselines ask for no more."""
    return Detector.fit(good_images(8), tiny(tune_epochs=0), device="cpu")


@pytest.fixture(scope="module")
def phi():
    return load_features(tiny())


def small_test_set(n=4):
    bad, masks = bad_images(n)
    images = torch.cat([good_images(n, seed=50), bad])
    masks = np.concatenate([np.zeros_like(masks), masks]).astype(np.float32)
    return product.TestSet(images, masks, np.repeat([0, 1], n),
                           ["good"] * n + ["square"] * n, [])


@pytest.fixture(scope="module")
def found(detector):
    return baselines.baselines(detector, good_images(12), small_test_set())


def test_baselines_are_finite_and_tell_the_square(found):
    assert [*found] == NAMES
    for name, row in found.items():
        assert all(math.isfinite(row[m]) for m in baselines.METRICS)
        assert row["seconds"] > 0
        if name in NAMES[:4]:
            assert row["i_auroc"] == 1 and row["p_auroc"] > 0.9
    # The pixels lose nothing, so nothing can be told.
    assert found["autoencoder_pixels"]["i_auroc"] == 0.5


def test_memory_banks_are_whole(found):
    """Of twelve images all are learnt from, the two that are held out included."""
    everything = 12 * 8 * 8
    assert found["neighbours"]["patches"] == everything
    assert found["local_neighbours"]["patches"] == everything
    assert found["patchcore"]["patches"] == round(0.1 * everything)


def test_the_scores_of_each_image_give_the_figure(found):
    labels = small_test_set().labels
    rows = [found["neighbours"], found["local_neighbours"],
            *found["patchcore"]["seeds"], *found["padim"]["seeds"]]
    assert all(roc_auc_score(labels, row["score"]) == row["i_auroc"] for row in rows)


@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_what_draws_has_three_seeds_and_their_mean(found, name):
    row = found[name]
    assert [each["seed"] for each in row["seeds"]] == [0, 1, 2]
    for m in baselines.METRICS:
        assert row[m] == pytest.approx(mean(each[m] for each in row["seeds"]))


def test_over_seeds():
    rows = [{"i_auroc": a, "p_auroc": .5, "pro": a / 2, "patches": 7, "seed": seed,
             "score": [a], "overlap": [a], "false": [[a]]}
            for seed, a in enumerate((0.5, 0.75, 1.0))]
    row = baselines.over_seeds(rows)
    assert (row["i_auroc"], row["pro"], row["patches"]) == (0.75, 0.375, 7)
    assert row["seeds"][2] == {"seed": 2, "i_auroc": 1, "p_auroc": .5, "pro": .5,
                               "score": [1], "overlap": [1], "false": [[1]]}
    assert not set(baselines.PARTS) & set(row)


def test_features_are_computed_once_for_all(phi, monkeypatch):
    asked, extract = [], patches.patch_features
    monkeypatch.setattr(patches, "patch_features", lambda phi, images, settings: (
        asked.append(len(images)) or extract(phi, images, settings)))
    test = small_test_set(2)
    baselines.of_patches(phi, [good_images(5)], test, tiny(), seeds=(0, 1))
    assert asked == [5, len(test.images)]


def test_every_seed_is_drawn_with_and_patchcore_scores_by_itself(phi, monkeypatch):
    seeds, learn = [], patches.gaussians
    monkeypatch.setattr(patches, "core", lambda known, seed: (
        seeds.append(seed) or patches.rows(known)[:9]))
    monkeypatch.setattr(patches, "gaussians", lambda known, seed: (
        seeds.append(seed) or learn(known, seed)))
    monkeypatch.setattr(patches, "patchcore", lambda core, asked: (     # bad ones first
        asked[..., 0], -torch.arange(len(asked)).float()))
    found = baselines.of_patches(phi, [good_images(4)], small_test_set(2), tiny(),
                                 (5, 7))
    assert seeds == [5, 5, 7, 7] and found["patchcore"]["i_auroc"] == 0
    assert [row["seed"] for row in found["padim"]["seeds"]] == [5, 7]


@torch.no_grad()
def test_neighbours_from_images_to_figures_by_brute_force(phi):
    train, test, s = good_images(2), small_test_set(), tiny(map_stages=(3,), sigma=0.1)
    row = baselines.of_patches(phi, [train], test, s)["neighbours"]
    bank, stage = (F.avg_pool2d(phi(images)[2], 3, 1, 1).permute(0, 2, 3, 1)
                   for images in (train, test.images))
    bank = bank.flatten(0, 2)
    distance = (stage.unsqueeze(3) - bank).norm(dim=-1).amin(-1)
    A = F.interpolate(distance.unsqueeze(1), size=64, mode="bilinear").squeeze(1)
    expected = summary(A.flatten(1).amax(1), A, test)
    assert set(expected) == {*baselines.METRICS, *baselines.PARTS}
    for name, value in expected.items():
        np.testing.assert_allclose(row[name], value, atol=1e-3)


# --- one call of the U-Net

@torch.no_grad()
@pytest.mark.parametrize("change", [
    {}, {"latent_blur": 1.0}, {"first_call": "below", "z0_from": "e"}, {"noise": True},
    {"step_rule": "region", "guidance": 9.0, "call_every": 4, "lam": 0.3}])
def test_one_call_is_the_formula(detector, change, monkeypatch):
    """Whatever the detector's own settings are."""
    seen, t = [], ONE_CALL["T_max"]
    monkeypatch.setattr(baselines, "summary", lambda score, A, test: (
        seen.append((score, A)) or summary(score, A, test)))
    test, own = small_test_set(9), detector.under(detector.settings.change(**change))
    row = baselines.one_call(own, good_images(7), test)        # too few to choose on
    blur = change.get("latent_blur", 0.0)
    assert (row["step"], row["latent_blur"]) == (t, blur)
    z0 = detector.projection.encode(test.images)
    e = detector.networks.unet(detector.abar[t] ** 0.5 * z0, t).sample
    if blur:
        e = maps.smooth(e.flatten(0, 1), blur).view(e.shape)
    A = F.interpolate(e.abs().mean(1, keepdim=True), size=64, mode="bilinear")[:, 0]
    A = maps.smooth((A - A.min()) / (A.max() - A.min()), detector.settings.sigma / 4)
    [(score, found)] = seen
    torch.testing.assert_close(found, A, atol=1e-4, rtol=1e-3)
    assert torch.equal(score, found.flatten(1).amax(1))


def telling(detector, usual, best, tried):
    """A network that tells a defect at one step only, and at the others nothing."""
    def eps_theta(z_t, t):
        tried.append(t[0].item())
        z0 = z_t / detector.abar[t[0]].sqrt()
        return z0 - usual if t[0] == best else torch.zeros_like(z_t)
    return eps_theta


def test_its_step_is_the_best_one_on_held_out_images(detector, monkeypatch):
    good, tried = good_images(8, seed=9), []
    usual, test = detector.projection.encode(good).mean(0), small_test_set(1)
    monkeypatch.setattr(calibration, "DEFECTS", 16)
    for best in (80, 20, 320):
        own = telling(detector, usual, best, tried)
        monkeypatch.setattr(detector.networks, "eps_theta", own)
        assert baselines.one_call(detector, good, test)["step"] == best
    assert set(tried) == set(calibration.ONE_CALL)


def test_its_step_does_not_see_the_test_set(detector, monkeypatch):
    """It is chosen before, from the images held out, and no label changes it."""
    given, real = [], baselines.Calibration
    monkeypatch.setattr(calibration, "DEFECTS", 8)
    monkeypatch.setattr(baselines, "Calibration", lambda pairs: (
        given.extend(good for _, good in pairs) or real(pairs)))
    own = detector.under(detector.settings.change(held_out=0.5))
    train, test = good_images(16), small_test_set(2)
    row = baselines.baselines(own, train, test, seeds=(0,))["one_call"]
    [held_out] = given
    assert torch.equal(held_out, hold_out(train, own.settings)[1])
    test.masks[:] = 1 - test.masks
    test.labels[:] = 1 - test.labels
    again = baselines.one_call(own, held_out, test)
    for name in ("step", "latent_blur"):
        assert again[name] == row[name]
    mine = good_images(8, seed=70)
    found = baselines.baselines(own, train, small_test_set(2), held_out=mine,
                                seeds=(0,))
    assert torch.equal(given[2], mine)
    # and those that compare patches learn from these as well
    assert found["neighbours"]["patches"] == (len(train) + len(mine)) * 8 * 8


# --- the autoencoder

def test_an_autoencoder_that_loses_something(phi):
    vae = tiny_vae()

    def encode(x0):
        posterior = vae.encode(x0).latent_dist
        return posterior.mean, posterior.std

    projection = LatentProjection(encode, lambda z: vae.decode(z).sample, 0.5)
    found = baselines.autoencoder(projection, phi, small_test_set(), tiny())
    assert [*found] == ["pixels", "features"]
    assert all(0 <= row[m] <= 1 for row in found.values() for m in baselines.METRICS)
