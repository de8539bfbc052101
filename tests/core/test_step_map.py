"""A step for each region: the bank of patches, the map of steps, and what denoising
makes of it.
"""
import math

import pytest
import torch
from conftest import bad_images, close, good_images, tiny
from formulas import made_up, regions_by_hand, seeded
from torch.nn import functional as F

from ddad import step_map
from ddad.dynamic_noise import select_step
from ddad.evaluation.patches import patch_features
from ddad.noise_predictor import alpha_bar
from ddad.runtime.errors import ModelError
from ddad.scaled_denoising import call_every, scaled_denoising, timesteps
from ddad.step_map import PatchBank, widened
from ddad.training import adapt, hold_out

ABAR = alpha_bar(tiny())


# --- Algorithm 1 with a map of steps --------------------------------------------------

@pytest.mark.parametrize("w", [0.0, 4.0])
@pytest.mark.parametrize("path", [
    {}, {"first_call": "below"}, {"steps": 25}, {"every": 4}, {"z0_from": "e"}])
def test_a_map_of_one_step_an_image_is_the_papers_to_the_bit(w, path):
    """And so is one step for all."""
    own = {name: path[name] for name in ("steps", "first_call") if name in path}
    z0 = torch.randn(5, 2, 4, 4, generator=seeded())
    for T_hat in ([80] * 5, [10, 20, 80, 160, 400]):
        T_hat = torch.tensor(T_hat)
        denoised = [scaled_denoising(
            call_every(made_up, path.get("every", 1), ABAR), z0, T_hat, ABAR, w,
            step_map=steps, path=timesteps(T_hat, **own),
            z0_from=path.get("z0_from", "e_hat"))
            for steps in (None, T_hat.view(-1, 1, 1).expand(5, 4, 4))]
        assert torch.equal(*denoised) and (denoised[0] - z0).abs().max() > 0.01


@pytest.mark.parametrize("w", [0.0, 2.5])
def test_mixed_maps_against_a_loop_by_hand(w):
    z0 = torch.randn(6, 2, 4, 4, generator=seeded())
    tens = torch.randint(1, 33, (6, 4, 4), generator=seeded(1))
    T, found = 10 * tens, []
    T[0, :, :3] = 10                    # one column late, all else as early as can be
    T[1] = T[1, 0, 0]
    assert len(set(T.flatten(1).amax(1).tolist())) > 3
    found = scaled_denoising(made_up, z0, T.flatten(1).amax(1), ABAR, w, step_map=T)
    for n in range(6):
        expected = regions_by_hand(z0[n : n + 1].double(), T[n].tolist(), w)
        torch.testing.assert_close(found[n : n + 1].double(), expected, rtol=1e-4,
                                   atol=1e-4)
    whole = scaled_denoising(made_up, z0, T.flatten(1).amax(1), ABAR, w)
    changed = (whole - found).abs().flatten(1).amax(1) > 1e-3
    assert changed.tolist() == [True, False, True, True, True, True]


def test_a_position_is_the_scaled_input_until_its_turn():
    z0, seen = torch.randn(1, 2, 4, 4, generator=seeded()), []
    T = torch.full((1, 4, 4), 300)
    T[0, 1, 2], T[0, 3, 3] = 100, 120
    scaled_denoising(made_up, z0, torch.tensor([300]), ABAR, 1.0, step_map=T,
                     callback=seen.append)
    as_it_was = lambda step: step["z_t"] == ABAR[step["t"]].sqrt() * z0
    # at 300, 270, .. it is put back while its own step lies below
    for place, last in (((1, 2), 120), ((3, 3), 150), ((0, 0), 300)):
        for step in seen:
            same = as_it_was(step)[0, :, place[0], place[1]].all().item()
            assert same == (step["t"].item() >= last), (place, step["t"])


# --- the bank of patches --------------------------------------------------------------

def patches(*shape, seed=0):
    return 3 + torch.randn(*shape, generator=seeded(seed))


def nearest(f, bank):
    """The distance of each patch (.., D) to the nearest of the bank, by brute force."""
    d = f.double().unsqueeze(-2) - bank.double()
    return d.square().sum(-1).sqrt().amin(-1)


def test_distances_against_brute_force():
    bank = PatchBank(patches(70, 12), torch.tensor([0.0, 1.0]))
    f = patches(3, 4, 4, 12, seed=1)
    d = nearest(f, bank.f)
    torch.testing.assert_close(bank.distance(f, 4).double(), d, rtol=1e-5, atol=1e-5)
    # at another side than the features have: between their centres, along a line
    finer = bank.distance(f, 8)
    assert finer.shape == (3, 8, 8) and finer.dtype == torch.float32
    torch.testing.assert_close(finer[:, 0, 0].double(), d[:, 0, 0], rtol=1e-5,
                               atol=1e-5)
    between = 0.75 * d[:, 0, 1] + 0.25 * d[:, 0, 2]
    torch.testing.assert_close(finer[:, 0, 3].double(), between, rtol=1e-5, atol=1e-5)


def test_the_core_set_is_capped_and_of_training_patches(monkeypatch):
    train, good = patches(8, 5, 5, 12), patches(3, 5, 5, 12, seed=1)
    rows = {tuple(row) for row in train.flatten(0, 2).tolist()}
    drawn, real = [], step_map.core_set
    monkeypatch.setattr(step_map, "core_set", lambda bank, *given: (
        drawn.append(len(bank)) or real(bank, *given)))
    few = lambda seed=0: PatchBank.fit(train.flatten(0, 2)[:80], [good], 10, seed)
    bank = few()
    kept = {tuple(row) for row in bank.f.tolist()}
    assert len(bank.f) == len(kept) == 10 and kept < rows
    assert drawn == [80]
    whole = PatchBank.fit(train.flatten(0, 2), [good], 5000, 0)
    assert {tuple(row) for row in whole.f.tolist()} == rows and len(whole.f) == 200
    again, other = few(), few(1)
    assert torch.equal(again.f, bank.f) and not torch.equal(other.f, bank.f)
    # it covers the patches: nearer to them than ten at random
    far = lambda f: nearest(train.flatten(0, 2), f).max()
    assert far(bank.f) < far(train.flatten(0, 2)[:10])


def test_the_range_is_that_of_held_out_patches():
    train, good = patches(8, 5, 5, 12), patches(4, 5, 5, 12, seed=1)
    rows = train.flatten(0, 2)
    bank = PatchBank.fit(rows, good.split(3), 50, 0)
    d = sorted(nearest(good, bank.f).flatten().tolist())
    low, high = bank.low_high.tolist()
    assert low == pytest.approx(d[4], rel=1e-5)         # 0.05 of 99
    assert high == pytest.approx(d[-1], rel=1e-5)
    other = PatchBank.fit(rows, [good + 1], 50, 0)
    assert torch.equal(other.f, bank.f) and (other.low_high > bank.low_high).all()


def test_widened_is_the_largest_of_nine():
    T = 10 * torch.randint(1, 40, (3, 5, 6), generator=seeded())
    found = widened(T)
    assert found.dtype == torch.int64 and found.shape == T.shape
    for n in range(3):
        for y in range(5):
            for x in range(6):
                around = T[n, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                assert found[n, y, x] == around.max()


# --- the whole detector ---------------------------------------------------------------

@pytest.fixture(scope="module")
def by_region(fitted):
    """The networks of `fitted`, with a step for each region."""
    settings = fitted.settings.change(step_rule="region", T_max=160, patch_bank=100)
    return adapt(fitted, good_images(16), settings)


def under(detector, **changes):
    return detector.under(detector.settings.change(**changes))


def same(a, b, *but):
    """Whether two predictions are the same to the bit, but for these."""
    for name, one in vars(a).items():
        other = getattr(b, name)
        assert name in but or one is other is None or torch.equal(one, other), name


@pytest.mark.parametrize("guidance", [0.0, 4.0])
def test_a_constant_map_is_the_static_method_to_the_bit(by_region, images, guidance):
    # the smallest bin is the last: every region gets T_max
    change = {"smallest_bin": 10, "guidance": guidance}
    found = under(by_region, **change).predict(images)
    static = under(by_region, step_rule="static", **change).predict(images)
    assert (found.step_map == 160).all() and (static.T_hat == 160).all()
    same(found, static, "bin", "step_map", "patch_map")
    assert (found.score - by_region.predict(images).score).abs().max() > 1e-3


def test_one_step_an_image_is_the_papers_method_to_the_bit(
        by_region, images, monkeypatch):
    image, h = under(by_region, step_rule="image"), 8
    found = image.predict(images)
    assert len(set(found.T_hat.tolist())) > 1

    def of_the_image(seen):
        T, b = image.step_map(seen)
        return T.view(-1, 1, 1).expand(-1, h, h), b

    other = under(by_region)
    monkeypatch.setattr(other, "step_map", of_the_image)
    mapped = other.predict(images)
    assert mapped.step_map.shape == (7, h, h)
    same(mapped, found, "step_map", "patch_map")


@torch.no_grad()
def test_the_steps_are_those_of_the_formula(by_region, images):
    """Each patch by brute force, its bin by comparing, its step, and the nine's
    largest.
    """
    s, bank = by_region.settings, by_region.patch_bank
    found = by_region.predict(images)
    d = nearest(patch_features(by_region.networks.phi, images, s), bank.f)
    low, high = bank.low_high.tolist()
    b = torch.ones(7, 8, 8, dtype=torch.long)
    for k in range(1, 10):
        b += d >= low + (high - low) * k / 10
    T = select_step(b, 160)
    around = F.pad(T, (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1).flatten(3).amax(3)
    assert torch.equal(found.step_map, around) and found.step_map.dtype == torch.int64
    assert torch.equal(found.T_hat, around.flatten(1).amax(1))
    assert torch.equal(found.bin, b.flatten(1).amax(1))
    assert len(set(found.step_map.flatten().tolist())) > 3
    enlarged = F.interpolate(d.float().unsqueeze(1), size=64, mode="bilinear")
    torch.testing.assert_close(found.patch_map, enlarged[:, 0], rtol=1e-4, atol=1e-4)
    # the square is seen where it lies
    square = torch.from_numpy(bad_images(3)[1][2])
    assert found.patch_map[6][square].mean() > 1.2 * found.patch_map[6][~square].mean()


def test_batch_and_order_do_not_change_a_region(by_region, images):
    found = by_region.predict(images)
    close(by_region.predict(images, 2), found)
    order = torch.tensor([6, 0, 3, 5, 1, 4, 2])
    shuffled = by_region.predict(images[order])
    assert torch.equal(shuffled.step_map, found.step_map[order])


def test_the_bank_is_of_training_images_and_its_range_of_held_out_ones(
        by_region, fitted):
    s, phi = by_region.settings, fitted.networks.phi
    train, good = hold_out(good_images(16), s)
    rows = patch_features(phi, train, s).flatten(0, 2)
    bank = by_region.patch_bank
    assert len(bank.f) == 100 and nearest(bank.f, rows).max() < 1e-4
    held_out = nearest(patch_features(phi, good, s), bank.f)
    assert bank.low_high[1].item() == pytest.approx(held_out.max().item(), rel=1e-4)


def test_it_has_a_bank_of_patches_only_where_that_is_asked_for(
        by_region, fitted, images):
    assert fitted.patch_bank is None
    images_of = good_images(16)
    again = adapt(by_region, images_of, fitted.settings)
    assert again.patch_bank is None
    close(again.predict(images), fitted.predict(images), atol=0)
    third = adapt(fitted, images_of, fitted.settings.change(patch_share=0.5))
    assert third.patch_bank is not None and third.ranges.patch is not None
    for change in ({"step_rule": "region"}, {"patch_share": 0.5}):
        with pytest.raises(ModelError, match="no bank of patches"):
            under(fitted, **change).predict(images)
    with pytest.raises(ModelError, match="patches are .* is for"):
        under(by_region, map_stages=(2,)).predict(images)


def test_the_third_map_takes_its_share(by_region, images):
    third = adapt(by_region, good_images(16),
                  by_region.settings.change(patch_share=0.25))
    found, plain = third.predict(images), by_region.predict(images)
    same(found, plain, "map", "score")
    low, high = third.ranges.patch
    _, good = hold_out(good_images(16), third.settings)
    assert (low, high) == pytest.approx((
        (of := third.predict(good).patch_map).min().item(), of.max().item()))
    only = under(third, patch_share=1.0).predict(images).map
    torch.testing.assert_close(found.map, 0.75 * plain.map + 0.25 * only, rtol=0,
                               atol=1e-5)
    assert (found.score - plain.score).abs().max() > 1e-3
    assert math.isfinite(third.threshold)
