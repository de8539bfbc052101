"""Neighbours, PatchCore and PaDiM on made-up features, against brute force."""

import math

import numpy as np
import pytest
import torch
from conftest import good_images, tiny
from scipy.spatial.distance import cdist, mahalanobis
from torch.nn import functional as F

from ddad.evaluation import patches
from ddad.networks.features import load_features


def drawn(*shape, seed=0):
    """Features, positive and not centred, as a network's are."""
    draws = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(*shape, generator=draws)


TRAIN, TEST = drawn(12, 6, 6, 10), drawn(5, 6, 6, 10, seed=1)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(patches, "QUERIES", 7)
    monkeypatch.setattr(patches, "BANK", 50)


def test_patch_features_are_the_blocks_averaged_enlarged_and_stacked():
    s, images = tiny(map_stages=(2, 3)), good_images(17)    # one more than a batch
    phi = load_features(s)
    with torch.no_grad():
        found, stages = patches.patch_features(phi, images, s), phi(images)
    fine, coarse = (F.avg_pool2d(stage, 3, 1, 1) for stage in stages[1:3])
    assert found.shape == (17, 8, 8, fine.shape[1] + coarse.shape[1])
    coarse = F.interpolate(coarse, scale_factor=2, mode="bilinear")
    expected = torch.cat([fine, coarse], 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# --- nearest neighbours

def test_nearest_by_brute_force(small_blocks):
    q, bank = (patches.rows(one) for one in (TEST, TRAIN))
    all_distances = cdist(q.double(), bank.double())
    distance, index = patches.nearest(q, bank)
    assert index.tolist() == all_distances.argmin(1).tolist()
    np.testing.assert_allclose(distance, all_distances.min(1), rtol=1e-5)
    A = patches.neighbours(bank, TEST)
    assert A.shape == TEST.shape[:3] and torch.equal(A.flatten(), distance)


def test_a_patch_that_is_in_the_bank_is_found_and_has_no_distance_at_all():
    """Though squares of 40 million are known to a few units only."""
    bank = 2000 + drawn(300, 10)
    distance, index = patches.nearest(bank[40:60], bank)
    assert distance.tolist() == [0] * 20 and index.tolist() == [*range(40, 60)]


def test_results_depend_neither_on_blocks_nor_on_batches(monkeypatch):
    bank, core = patches.rows(TRAIN), patches.core(TRAIN, 0)
    density = patches.gaussians(TRAIN, 0)

    def found(test):
        A, score = patches.patchcore(core, test)
        return {"neighbours": patches.neighbours(bank, test), "patchcore": A,
                "local": patches.local_neighbours(TRAIN, test), "score": score,
                "padim": patches.padim(density, test)}

    whole = found(TEST)
    monkeypatch.setattr(patches, "QUERIES", 7)
    monkeypatch.setattr(patches, "BANK", 50)
    assert torch.equal(patches.core(TRAIN, 0), core)
    each = [found(one) for one in TEST.split(1)]
    for name, value in whole.items():
        apart = torch.cat([one[name] for one in each])
        torch.testing.assert_close(apart, value, atol=1e-5, rtol=1e-5)


def test_local_neighbours_by_brute_force():
    A = patches.local_neighbours(TRAIN, TEST)
    for n, y, x in ((0, 0, 0), (1, 3, 2), (4, 5, 1)):
        near = [TRAIN[:, i, j] for i in range(6) for j in range(6)
                if abs(i - y) <= 2 and abs(j - x) <= 2]
        expected = (torch.cat(near) - TEST[n, y, x]).norm(dim=1).min()
        assert A[n, y, x].item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_neighbours_in_place_see_a_good_part_in_a_wrong_place():
    train = 0.1 * drawn(12, 8, 8, 10)
    train[:, 1, 1] += 5                                     # a part, always there
    test = train[:2].clone()
    test[1, 6, 6], test[1, 1, 1] = train[1, 1, 1], train[1, 3, 1]     # it moved
    everywhere = patches.neighbours(patches.rows(train), test)
    in_place = patches.local_neighbours(train, test)
    assert everywhere.max() == 0 and in_place[0].max() == 0
    assert in_place[1, 6, 6] > 10
    assert (in_place > 0).sum() <= 2


# --- PatchCore

def greedy_by_brute_force(bank, size, first):
    chosen = [first]
    while len(chosen) < size:
        gaps = [min(math.dist(point, bank[c]) for c in chosen)
                for point in bank.tolist()]
        chosen.append(int(np.argmax(gaps)))
    return chosen


@pytest.mark.parametrize("kind", ["one cloud", "clouds"])
def test_core_set_is_the_greedy_cover(kind):
    bank = drawn(120, 5, seed=3)
    if kind == "clouds":
        bank[:80] = 50 + 0.1 * bank[:80]
    chosen = patches.core_set(bank, 30, seed=4).tolist()
    assert chosen == greedy_by_brute_force(bank, 30, chosen[0])
    assert len(set(chosen)) == 30


def test_core_set_in_a_projection_covers_almost_as_well():
    bank = drawn(300, 400, seed=5) - 3
    bank *= torch.linspace(2, 0.01, 400)

    def reach(dimensions):
        chosen = patches.core_set(bank, 40, seed=0, dimensions=dimensions)
        return torch.cdist(bank, bank[chosen]).amin(1).max().item()

    assert reach(64) < 1.25 * reach(400)


def test_the_core_set_is_a_tenth_of_all_patches_and_can_be_any_of_them():
    """The three odd patches of 25,600 are chosen, wherever they lie."""
    train, odd = drawn(100, 16, 16, 4), ((0, 0, 0), (57, 9, 3), (99, 15, 15))
    for k, place in enumerate(odd):
        train[place] = 100 * (k + 1)
    core = patches.core(train, seed=0)
    assert len(core) == 2560 and {100, 200, 300} <= set(core[:, 0].tolist())


def test_patchcore_score_by_hand():
    core = patches.core(TRAIN, seed=0)
    A, scores = patches.patchcore(core, TEST)
    for image, grid, score in zip(TEST, A, scores):
        y = image.flatten(0, 1)
        worst = max(y, key=lambda p: (core - p).norm(dim=1).min())
        d = (core - worst).norm(dim=1)
        assert grid.max().item() == pytest.approx(d.min().item(), rel=1e-5)
        m = core[d.argmin()]
        near = (core - m).norm(dim=1).argsort()[: patches.NEAREST]
        weight = 1 - math.exp(d.min()) / sum(math.exp(d[n]) for n in near)
        assert score.item() == pytest.approx(weight * d.min().item(), rel=1e-4)


def test_what_draws_is_seeded():
    def seen(seed):
        return patches.core(TRAIN, seed), patches.gaussians(drawn(9, 2, 2, 120), seed)

    (core, density), (again, same), (other, another) = seen(1), seen(1), seen(2)
    assert torch.equal(core, again) and not torch.equal(core, other)
    assert torch.equal(density.kept, same.kept) and len(density.kept) == 100
    assert not torch.equal(density.kept, another.kept)


# --- PaDiM

def test_padim_by_the_formula():
    density = patches.gaussians(TRAIN, seed=0)
    A, kept = patches.padim(density, TEST), density.kept
    assert sorted(kept.tolist()) == [*range(10)] and A.shape == TEST.shape[:3]
    for n, y, x in ((0, 0, 0), (1, 3, 2), (4, 5, 1)):
        known = TRAIN[:, y, x, kept].double().numpy()
        covariance = np.cov(known, rowvar=False) + 0.01 * np.eye(10)
        expected = mahalanobis(TEST[n, y, x, kept].double(), known.mean(0),
                               np.linalg.inv(covariance))
        assert A[n, y, x].item() == pytest.approx(expected, rel=1e-3)


def test_padim_takes_fewer_images_than_dimensions():
    train = drawn(6, 4, 4, 150)
    A = patches.padim(patches.gaussians(train, 0), train)
    assert A.isfinite().all() and A.min() > 0
