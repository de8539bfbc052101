"""Nearest neighbours, PatchCore and the autoencoder alone, against brute force."""

import math

import numpy as np
import pytest
import torch
from conftest import bad_images, good_images, tiny, tiny_vae
from torch.nn import functional as F

from ddad.data import product
from ddad.detector import Detector
from ddad.evaluation import baselines
from ddad.evaluation.scoring import summary
from ddad.latent_projection import LatentProjection
from ddad.networks.features import load_features

ONE_BLOCK = dict(map_stages=(3,), sigma=0.1)


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


def test_baselines_are_finite_and_tell_the_square(detector):
    found = baselines.baselines(detector, good_images(6), small_test_set())
    assert set(found) == {"neighbours", "patchcore", "vae"}
    assert set(found["vae"]) == {"pixels", "features"}
    rows = [found["neighbours"], found["patchcore"], *found["vae"].values()]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    for row in rows[:2]:
        assert row["i_auroc"] == 1 and row["p_auroc"] > 0.9
    # The pixels lose nothing, so nothing can be told.
    assert found["vae"]["pixels"]["i_auroc"] == 0.5


@torch.no_grad()
def test_neighbours_by_brute_force(phi):
    """With more patches allowed than there are, each meets all that there are."""
    train, test, settings = good_images(2), small_test_set(), tiny(**ONE_BLOCK)
    found = baselines.neighbours(phi, train, test, settings, patches=10_000)
    bank, stage = (F.avg_pool2d(phi(images)[2], 3, 1, 1).permute(0, 2, 3, 1)
                   for images in (train, test.images))
    bank = bank.flatten(0, 2)
    distance = (stage.unsqueeze(3) - bank).norm(dim=-1).amin(-1)
    A = F.interpolate(distance.unsqueeze(1), size=64, mode="bilinear").squeeze(1)
    assert found.pop("seconds") > 0 and found.pop("patches") == len(bank)
    assert found == pytest.approx(summary(A.flatten(1).amax(1), A, test), abs=1e-3)


def test_an_autoencoder_that_loses_something(phi):
    vae = tiny_vae()

    def encode(x0):
        posterior = vae.encode(x0).latent_dist
        return posterior.mean, posterior.std

    projection = LatentProjection(encode, lambda z: vae.decode(z).sample, 0.5)
    found = baselines.autoencoder(projection, phi, small_test_set(), tiny())
    assert all(0 <= value <= 1 for row in found.values() for value in row.values())


def greedy_by_brute_force(pool, size, first):
    chosen = [first]
    while len(chosen) < size:
        gaps = [min(math.dist(point, pool[c]) for c in chosen)
                for point in pool.tolist()]
        chosen.append(int(np.argmax(gaps)))
    return chosen


def test_core_set_is_the_greedy_cover():
    pool = torch.randn(60, 5, generator=torch.Generator().manual_seed(3))
    chosen = baselines.core_set(pool, 12, seed=4).tolist()
    assert chosen == greedy_by_brute_force(pool, 12, chosen[0])
    assert len(set(chosen)) == 12


def test_core_set_in_a_projection_covers_almost_as_well():
    pool = torch.randn(300, 400, generator=torch.Generator().manual_seed(5))
    pool *= torch.linspace(2, 0.01, 400)

    def reach(dimensions):
        chosen = baselines.core_set(pool, 40, seed=0, dimensions=dimensions)
        return torch.cdist(pool, pool[chosen]).amin(1).max().item()

    assert reach(64) < 1.25 * reach(400)


@torch.no_grad()
def test_patchcore_score_by_hand(phi, monkeypatch):
    train, test, settings = good_images(3), small_test_set(2), tiny(**ONE_BLOCK)
    seen = {}
    monkeypatch.setattr(baselines, "summary",
                        lambda scores, A, test: seen.update(scores=scores) or {})
    found = baselines.patchcore(phi, train, test, settings)
    pool = baselines._patches(phi, train, settings, baselines.POOL)
    bank = pool[baselines.core_set(pool, found["patches"], settings.seed)]
    for image, score in zip(test.images, seen["scores"]):
        y = baselines.patch_features(phi, image[None], settings).flatten(2)[0].T
        worst = max(y, key=lambda p: (bank - p).norm(dim=1).min())
        d = (bank - worst).norm(dim=1)
        m = bank[d.argmin()]
        near = (bank - m).norm(dim=1).argsort()[: baselines.NEAREST]
        weight = 1 - math.exp(d.min()) / sum(math.exp(d[n]) for n in near)
        assert score.item() == pytest.approx(weight * d.min().item(), rel=1e-3)


def test_patchcore_is_seeded(phi):
    train, test = good_images(4), small_test_set(2)

    def found(seed):
        row = baselines.patchcore(phi, train, test, tiny(seed=seed))
        return {name: value for name, value in row.items() if name != "seconds"}

    assert found(1) == found(1)
