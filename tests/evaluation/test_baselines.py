"""Nearest neighbours, PatchCore and the autoencoder alone, against brute force."""

import math

import numpy as np
import pytest
import torch
from conftest import bad_images, good_images, tiny, tiny_vae

from ddad import evaluation, floors
from ddad.detector import Detector
from ddad.features import load_features
from ddad.latent_projection import LatentProjection


@pytest.fixture(scope="module")
def fitted():
    return Detector.fit(good_images(12), tiny(), device="cpu")


def small_test_set(n=4):
    bad, masks = bad_images(n)
    return evaluation.TestSet(torch.cat([good_images(n, seed=50), bad]), np.concatenate([np.zeros_like(masks), masks]).astype(np.float32),
                              np.repeat([0, 1], n), ["good"] * n + ["square"] * n, [])


def test_floors_are_finite_and_tell_the_square(fitted):
    found = floors.floors(fitted, good_images(6), small_test_set())
    values = [found["neighbours"], found["patchcore"], *found["vae"].values()]
    assert set(found["vae"]) == {"pixels", "features"} and all(math.isfinite(v) for row in values for v in row.values())
    assert all(found[name]["i_auroc"] == 1 and found[name]["p_auroc"] > 0.9 for name in ("neighbours", "patchcore"))
    assert found["vae"]["pixels"]["i_auroc"] == 0.5  # the pixels lose nothing, so nothing can be told


def test_neighbour_floor_by_brute_force(fitted):
    """With more patches allowed than there are, each patch meets all of the training images'."""
    train, test, settings = good_images(2), small_test_set(), tiny(map_stages=(3,), sigma=0.1)
    found = floors.neighbour_floor(fitted.phi, train, test, settings, patches=10_000)
    with torch.no_grad():
        bank = torch.nn.functional.avg_pool2d(fitted.phi(train)[2], 3, 1, 1).permute(0, 2, 3, 1).flatten(0, 2)
        stage = torch.nn.functional.avg_pool2d(fitted.phi(test.images)[2], 3, 1, 1)
    distance = (stage.permute(0, 2, 3, 1).unsqueeze(3) - bank).norm(dim=-1).amin(-1)
    A = torch.nn.functional.interpolate(distance.unsqueeze(1), size=64, mode="bilinear").squeeze(1)
    assert found.pop("seconds") > 0 and found.pop("patches") == len(bank)
    assert found == pytest.approx(evaluation.summary(A.flatten(1).amax(1), A, test), abs=1e-3)


def test_vae_floor_with_an_autoencoder_that_loses_something(fitted):
    found = floors.vae_floor(LatentProjection(tiny_vae()), fitted.phi, small_test_set(), fitted.settings)
    assert all(0 <= v <= 1 for row in found.values() for v in row.values())


def greedy_by_brute_force(pool, size, first):
    chosen = [first]
    while len(chosen) < size:
        gaps = [min(math.dist(point, pool[c]) for c in chosen) for point in pool.tolist()]
        chosen.append(int(np.argmax(gaps)))
    return chosen


def test_core_set_is_the_greedy_cover():
    pool = torch.randn(60, 5, generator=torch.Generator().manual_seed(3))
    chosen = floors.core_set(pool, 12, seed=4).tolist()
    assert chosen == greedy_by_brute_force(pool, 12, chosen[0]) and len(set(chosen)) == 12


def test_core_set_in_a_projection_covers_almost_as_well():
    pool = torch.randn(300, 400, generator=torch.Generator().manual_seed(5)) * torch.linspace(2, 0.01, 400)
    reach = lambda chosen: torch.cdist(pool, pool[chosen]).amin(1).max().item()
    assert reach(floors.core_set(pool, 40, seed=0, dimensions=64)) < 1.25 * reach(floors.core_set(pool, 40, seed=0, dimensions=400))


def test_patchcore_score_by_hand(fitted, monkeypatch):
    train, test, settings = good_images(3), small_test_set(2), tiny(map_stages=(3,), sigma=0.1)
    seen = {}
    monkeypatch.setattr(floors, "summary", lambda scores, A, test: seen.update(scores=scores) or {})
    found = floors.patchcore(fitted.phi, train, test, settings)
    with torch.no_grad():
        pool = floors._patches(fitted.phi, train, settings, floors.POOL)
        bank = pool[floors.core_set(pool, found["patches"], settings.seed)]
        for image, score in zip(test.images, seen["scores"]):
            y = floors.patch_features(fitted.phi, image[None], settings).flatten(2)[0].T
            worst = max(y, key=lambda p: (bank - p).norm(dim=1).min())
            d = (bank - worst).norm(dim=1)
            m = bank[d.argmin()]
            near = (bank - m).norm(dim=1).argsort()[: floors.NEAREST]
            weight = 1 - math.exp(d.min()) / sum(math.exp(d[n]) for n in near)
            assert score.item() == pytest.approx(weight * d.min().item(), rel=1e-3)


def test_patchcore_is_seeded():
    phi, train, test = load_features(tiny()), good_images(4), small_test_set(2)
    of = lambda seed: {k: v for k, v in floors.patchcore(phi, train, test, tiny(seed=seed)).items() if k != "seconds"}
    assert of(1) == of(1)
