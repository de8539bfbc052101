"""The preset "official" against the transcription, and the transcription by hand.

Also each of the preset's rows switched off alone.
"""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import good_images, tiny, tiny_vae
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score, roc_curve

from ddad.data import product
from ddad.data.images import read_mask
from ddad.detector import Detector
from ddad.evaluation import official
from ddad.evaluation.scoring import evaluate
from ddad.latent_projection import draws_of
from ddad.settings import preset

N = 4


@pytest.fixture(scope="module")
def detector():
    """A U-Net trained for a few steps, so that it says something.

    Guidance and steps are large enough for each row to show.
    """
    settings = tiny("official", held_out=0.0, vae="given", tune_epochs=1,
                    train_length="30 steps", T_max=250, neighbours=4, bins=10,
                    smallest_bin=5)
    return Detector.fit(good_images(24), settings, vae=tiny_vae(), device="cpu")


@pytest.fixture(scope="module")
def test(tmp_path_factory):
    """Good and defective images; masks drawn larger and resized, so with grey rims."""
    folder, masks = tmp_path_factory.mktemp("masks"), [torch.zeros(64, 64)] * N
    # Training images, their own neighbours, reach the low bins.
    images = torch.cat([good_images(24)[:N], good_images(N, seed=70)])
    blue = torch.tensor([-0.8, -0.8, 0.9]).view(3, 1, 1)
    for n in range(N):
        drawn = np.zeros((150, 150), np.uint8)
        top, side = 20 + 13 * n, 9 + 17 * n
        drawn[top : top + side, 31 : 31 + side] = 255
        Image.fromarray(drawn).save(folder / f"{n}.png")
        masks.append(read_mask(folder / f"{n}.png", 64, "bilinear"))
        images[N + n] = torch.where(masks[-1] > 0.5, blue, images[N + n])
    return product.TestSet(images, torch.stack(masks).numpy(), np.repeat([0, 1], N),
                   ["good"] * N + ["square"] * N, [])


def oracle(detector, test):
    """What the official code finds, with the draws of the detector's own images."""
    s, networks = detector.settings, detector.networks
    scale = float(networks.vae.config.scaling_factor)
    draws = []
    for x0 in test.images:
        draws.append(torch.randn(4, 8, 8, generator=draws_of(x0, s.seed)))
    memory = official.remember(networks.phi, good_images(24), s)
    found = official.official_evaluation(
        networks.unet, networks.vae, networks.phi, scale, memory, test.images, s,
        draws=torch.stack(draws), batch=3)
    A, scores = found["map"], found["score"]
    false, true, thresholds = roc_curve(test.labels, scores)
    return found | {
        "i_auroc": roc_auc_score(test.labels, scores),
        "p_auroc": roc_auc_score((test.masks > 0).ravel(), A.ravel()),
        "pro": official.pro(A, test.masks),
        "threshold": thresholds[np.argmax(true - false)],
    }


@pytest.fixture(scope="module")
def theirs(detector, test):
    """What the official code finds with the dynamic sampler."""
    return oracle(detector, test)


def test_the_transcription_imports_nothing_of_the_method():
    tree = ast.parse(Path(official.__file__).read_text(encoding="utf-8"))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
    roots = {name.split(".")[0] for name in names}
    assert roots == {"__future__", "numpy", "scipy", "sklearn", "torch"}


@pytest.mark.parametrize("dynamic", [True, False])
def test_maps_scores_and_figures_are_the_official_ones(detector, test, dynamic):
    rule = "image" if dynamic else "static"
    ours = detector.under(detector.settings.change(step_rule=rule))
    result, found = evaluate(ours, test)
    theirs = oracle(ours, test)
    assert found.T_hat.tolist() == theirs["T_hat"].tolist()
    assert found.bin.tolist() == theirs["bin"].tolist()
    assert (len(set(theirs["T_hat"])) > 1) == dynamic
    assert np.abs(found.map.numpy() - theirs["map"]).max() < 1e-4
    assert np.abs(found.score.numpy() - theirs["score"]).max() < 1e-4
    # A pixel may lie within rounding of a threshold.
    for name in ("i_auroc", "p_auroc", "pro"):
        assert result[name] == pytest.approx(theirs[name], abs=1e-4), name
    # Youden's may be infinite.
    threshold = np.nextafter(np.float32(theirs["threshold"]), np.float32(-np.inf))
    assert result["threshold"] == pytest.approx(threshold, abs=1e-4)


# Rows that reach the evaluation: with ours in place of theirs, the maps must move. The
# others shape the networks that both sides are given.
ROWS = {"posterior": "mode", "first_call": "latent", "z0_from": "e",
        "align_corners": False, "clamp": True, "level_rounding": "floor",
        "guidance": 2.0, "lam": 0.5, "smallest_bin": 10}


@pytest.mark.parametrize("row", ROWS)
def test_without_one_row_the_maps_differ(detector, test, theirs, row):
    other = detector.under(detector.settings.change(**{row: ROWS[row]}))
    found = other.predict(test.images)
    assert np.abs(found.map.numpy() - theirs["map"]).max() > 1e-3


def test_the_static_samplers_fault_shows(detector, test):
    static = detector.under(detector.settings.change(step_rule="static"))
    sound = detector.under(static.settings.change(static_first_step="same"))
    found, theirs = sound.predict(test.images), oracle(static, test)
    assert np.abs(found.map.numpy() - theirs["map"]).max() > 1e-3


@pytest.mark.parametrize("row, value, name",
                         [("pro", "exact", "pro"), ("mask_rule", "area", "p_auroc")])
def test_another_rule_gives_other_figures(detector, test, theirs, row, value, name):
    other = detector.under(detector.settings.change(**{row: value}))
    result, _ = evaluate(other, test)
    assert abs(result[name] - theirs[name]) > 2e-5


def test_levels_and_edges_of_the_page():
    s, training = preset("official"), np.arange(11.0)
    levels = official.level(np.arange(2, 11), s)
    assert levels.tolist() == [20, 20, 30, 40, 50, 60, 60, 70, 80]
    tested = np.array([-1, 0, 1, 1.001, 10, 11])
    assert official.bins_of(training, tested, 10).tolist() == [1, 1, 1, 2, 10, 10]


def test_a_training_image_is_its_own_nearest():
    bank = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    assert official.nearest(bank, bank, 2).tolist() == [0.5, 0.5, 2.0]


def test_an_autoencoder_without_posterior_needs_no_draw():
    class Plain:
        def encode(self, x0):
            return x0[:, :, ::8, ::8]

    x0 = good_images(2)
    assert torch.equal(official.encode(Plain(), x0), x0[:, :, ::8, ::8])


def pooled(stage, side):
    """Average over a side x side grid; the stage's own side where that is smaller."""
    h, side = stage.shape[-1], min(side, stage.shape[-1])
    edges = [(i * h // side, -(-(i + 1) * h // side)) for i in range(side)]
    rows = [np.stack([stage[:, a:b, c:d].mean((1, 2)) for c, d in edges], -1)
            for a, b in edges]
    return np.stack(rows, -2).flatten()


@pytest.mark.parametrize("pool", [3, 4, 16])
def test_features_by_hand(detector, pool):
    x0, phi = good_images(2), detector.networks.phi
    with torch.no_grad():
        stages = phi(x0)[1].numpy()
        y = official.features(phi, x0, detector.settings.change(neighbour_pool=pool))
    assert np.abs(y - [pooled(stage, pool) for stage in stages]).max() < 1e-6


def enlarged(values, size):
    """Bilinear with aligned corners: (h, w) -> (size, size)."""
    h = values.shape[0]
    at = np.arange(size) * (h - 1) / (size - 1)
    low = np.minimum(at.astype(int), max(h - 2, 0))
    high, part = np.minimum(low + 1, h - 1), at - low
    rows = values[low] * (1 - part)[:, None] + values[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def cosine_distance(a, b):
    """1 - cosine at each position of two feature maps (C, h, w)."""
    norms = [np.maximum(np.linalg.norm(one, axis=0), 1e-8) for one in (a, b)]
    return 1 - (a * b).sum(0) / (norms[0] * norms[1])


def test_maps_by_hand(detector):
    x0, x0_hat = good_images(2), good_images(2, seed=9)
    s, phi = detector.settings, detector.networks.phi
    with torch.no_grad():
        A_l = official.latent_distance(x0, x0_hat, 100).squeeze(1).numpy()
        A_f = official.feature_distance(phi, x0, x0_hat, s).squeeze(1).numpy()
        pairs = [(a.double().numpy(), b.double().numpy())
                 for a, b in zip(phi(x0), phi(x0_hat))]
    for n in range(2):
        latent = (x0 - x0_hat)[n].double().abs().mean(0).numpy()
        cosine = [cosine_distance(*(one[n] for one in pairs[j - 1]))
                  for j in s.map_stages]
        assert np.abs(A_l[n] - enlarged(latent, 100)).max() < 1e-5
        assert np.abs(A_f[n] - sum(enlarged(one, 64) for one in cosine)).max() < 1e-5


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_smoothing_is_scipys(sigma):
    A = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    found = official.blurred(A, sigma).squeeze(1)
    for one, smooth in zip(A.squeeze(1).double().numpy(), found.numpy()):
        expected = gaussian_filter(one, sigma, mode="mirror", truncate=4.0)
        assert np.abs(smooth - expected).max() < 1e-6
