"""The preset "official" against a straight transcription of the official steps, on the same weights; and each of its rows switched off alone."""

import numpy as np
import pytest
import torch
from conftest import good_images, tiny, tiny_vae
from official_steps import bins_of, level, official_evaluation

from ddad.data import read_mask
from ddad.detector import Detector
from ddad.evaluation import TestSet, evaluate
from ddad.settings import preset

TestSet.__test__ = False
N = 4


@pytest.fixture(scope="module")
def detector():
    """A U-Net trained for a few steps, so that it says something; guidance and steps large enough for each row to show."""
    settings = tiny("official", held_out=0.0, vae="given", tune_epochs=1, train_length="30 steps", T_max=250, neighbours=4, bins=10, smallest_bin=5)
    return Detector.fit(good_images(24), settings, vae=tiny_vae(), device="cpu")


@pytest.fixture(scope="module")
def test(tmp_path_factory):
    """Good and defective images whose masks were drawn larger and resized, so that their rims are grey."""
    from PIL import Image
    folder, masks = tmp_path_factory.mktemp("masks"), [torch.zeros(64, 64)] * N
    images = torch.cat([good_images(24)[:N], good_images(N, seed=70)])    # training images, their own neighbours, reach the low bins
    for n in range(N):
        drawn = np.zeros((150, 150), np.uint8)
        top, side = 20 + 13 * n, 9 + 17 * n
        drawn[top : top + side, 31 : 31 + side] = 255
        Image.fromarray(drawn).save(folder / f"{n}.png")
        masks.append(read_mask(folder / f"{n}.png", 64, "bilinear"))
        images[N + n] = torch.where(masks[-1] > 0.5, torch.tensor([-0.8, -0.8, 0.9]).view(3, 1, 1), images[N + n])
    return TestSet(images, torch.stack(masks).numpy(), np.repeat([0, 1], N), ["good"] * N + ["square"] * N, [])


def oracle(detector, test, settings=None):
    s = settings or detector.settings
    shape = detector.projection.posterior(test.images[:1])[0].shape[1:]
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(s.seed * 1_000_003 + n)) for n in range(len(test.labels))]
    return official_evaluation(detector.unet, detector.projection.vae, detector.phi, good_images(24), test.images, test.masks, test.labels, draws, s)


@pytest.mark.parametrize("dynamic", [True, False])
def test_maps_scores_and_figures_are_the_official_ones(detector, test, dynamic):
    ours = detector.under(detector.settings.change(dynamic=dynamic))
    result, found = evaluate(ours, test)
    theirs = oracle(ours, test)
    assert found.T_hat.tolist() == theirs["T_hat"] and found.bin.tolist() == theirs["bin"]
    assert (len(set(theirs["T_hat"])) > 1) == dynamic
    assert np.abs(found.map.numpy() - theirs["map"]).max() < 1e-4
    assert np.abs(found.score.numpy() - theirs["score"]).max() < 1e-4
    for name in ("i_auroc", "p_auroc", "pro"):
        assert result[name] == pytest.approx(theirs[name], abs=1e-4), name   # a pixel may lie within rounding of a threshold
    assert result["threshold"] == pytest.approx(np.nextafter(theirs["threshold"], -np.inf), abs=1e-4)   # Youden's may be infinite


# Rows that reach the evaluation: with ours in place of theirs, the maps must move. The others shape the networks that both sides are given.
ROWS = {"posterior": "mode", "first_call": "latent", "z0_from": "e", "align_corners": False, "clamp": True, "level_rounding": "floor",
        "guidance": 2.0, "lam": 0.5, "smallest_bin": 10}


@pytest.mark.parametrize("row", ROWS)
def test_without_one_row_the_maps_differ(detector, test, row):
    other = detector.under(detector.settings.change(**{row: ROWS[row]}))
    assert np.abs(other.predict(test.images).map.numpy() - oracle(detector, test)["map"]).max() > 1e-3


def test_the_static_samplers_fault_shows(detector, test):
    static = detector.under(detector.settings.change(dynamic=False))
    sound = detector.under(static.settings.change(static_first_step="same"))
    assert np.abs(sound.predict(test.images).map.numpy() - oracle(static, test)["map"]).max() > 1e-3


def test_ranges_thresholds_and_masks_of_another_rule_give_other_figures(detector, test):
    theirs = oracle(detector, test)
    for row, value in (("pro", "exact"), ("mask_rule", "area")):
        result, _ = evaluate(detector.under(detector.settings.change(**{row: value})), test)
        name = {"pro": "pro", "mask_rule": "p_auroc"}[row]
        assert abs(result[name] - theirs[name]) > 2e-5, row


def test_levels_and_edges_of_the_page():
    s = preset("official")
    assert [level(b, s) for b in range(2, 11)] == [20, 20, 30, 40, 50, 60, 60, 70, 80]
    training = np.arange(11.0)
    assert bins_of(training, np.array([-1, 0, 1, 1.001, 10, 11]), 10).tolist() == [1, 1, 1, 2, 10, 10]
