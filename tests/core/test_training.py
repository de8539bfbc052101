"""The training loop: its rates, its clipping, its seeds, and what it is trained on."""
import math

import pytest
import torch
from conftest import good_images, same_weights, tiny
from formulas import seeded
from torch import nn

from ddad import training
from ddad.detector import Detector
from ddad.noise_predictor import alpha_bar, build_unet, q_sample
from ddad.runtime.refused import enough_images
from ddad.settings import preset
from ddad.training import (
    FEW,
    STEPS,
    hold_out,
    learning_rate,
    optimise,
    split,
    train_noise_predictor,
)

CPU = torch.device("cpu")


# --- what is trained on ---------------------------------------------------------------

def test_a_share_of_the_images_is_held_out():
    images = torch.arange(10.0)
    held = lambda **changes: hold_out(images, tiny(**changes))
    train, good = held(held_out=0.3)
    assert len(good) == 3
    assert sorted([*train.tolist(), *good.tolist()]) == images.tolist()
    assert train.tolist() == sorted(train.tolist())
    assert good.tolist() == sorted(good.tolist())
    drawn = torch.randperm(10, generator=seeded())[:3]
    assert torch.equal(good, images[drawn.sort().values])
    assert not torch.equal(good, held(held_out=0.3, seed=1)[1])
    assert len(hold_out(images, tiny("official", held_out=0.0))[1]) == 0


def test_given_images_are_held_out_instead():
    images, given = torch.arange(10.0), torch.arange(3.0)
    train, good = hold_out(images, tiny(), given)
    assert train is images and good is given


@pytest.mark.parametrize("N, share, parts", [
    (100, 0.5, (50, 50)), (101, 0.5, (51, 50)), (100, 0.3, (70, 30)),
    (2 * FEW, 0.5, (FEW, FEW)),
    # as many as that would be too few for one of them
    (2 * FEW - 1, 0.5, None), (60, 0.3, None), (60, 0.7, None), (8, 0.5, None),
    (100, 0.0, None), (0, 0.5, None)])
def test_held_out_images_are_split_where_there_are_enough(N, share, parts):
    good = torch.arange(float(N))
    first, second = split(good, tiny(threshold_share=share))
    if parts is None:
        assert first is good and second is good
    else:
        assert (len(first), len(second)) == parts
        both = torch.cat([first, second])
        assert torch.equal(both.sort().values, good)    # drawn, each image once
        again = split(good, tiny(threshold_share=share))
        assert torch.equal(torch.cat(again), both)


def test_too_few_images_to_train():
    three = tiny(neighbours=3)
    enough_images(torch.zeros(4), torch.zeros(1), three)
    fewer = "3 training images are fewer than neighbours \\+ 1 = 4"
    with pytest.raises(ValueError, match=fewer):
        enough_images(torch.zeros(3), torch.zeros(1), three)


# --- one training ---------------------------------------------------------------------

def trained(mean, std=None, **changes):
    """A tiny U-Net trained on latents, from one set of weights; and the record."""
    torch.manual_seed(5)
    unet = build_unet(tiny(), 4, 4)
    record = train_noise_predictor(unet, mean, std, tiny(**changes), CPU)
    return unet, record


def test_seed_decides_the_weights():
    mean = torch.randn(8, 4, 4, 4, generator=seeded())
    runs = [trained(mean, seed=seed) for seed in (0, 0, 1)]
    for unet, record in runs:
        assert record["steps"] == 3 and math.isfinite(record["loss"])
        assert record["parameters"] == sum(p.numel() for p in unet.parameters())
        assert not unet.training and not any(p.requires_grad for p in unet.parameters())
    (one, _), (again, _), (other, _) = runs
    assert same_weights(one, again) and not same_weights(one, other)


def test_posterior_samples_reach_the_training():
    mean, std = torch.zeros(8, 4, 4, 4), torch.ones(8, 4, 4, 4)
    mode, sample = (trained(mean, std, posterior=one)[0] for one in ("mode", "sample"))
    assert not same_weights(mode, sample)


# --- noise on patches, and early steps alone ------------------------------------------

MEAN = torch.randn(8, 4, 4, 4, generator=seeded())


@pytest.fixture
def batches(monkeypatch):
    """z0, t and eps of each step that is trained."""
    seen, loss = [], training.epsilon_loss
    monkeypatch.setattr(training, "epsilon_loss", lambda eps_theta, z0, t, eps, abar: (
        seen.append((z0, t, eps)) or loss(eps_theta, z0, t, eps, abar)))
    return seen


def plain(i, s):
    """Step i of a training by the paper: rows, then t, then eps of one generator."""
    draws = seeded(s.seed * STEPS + i)
    rows = torch.randint(8, (s.train_batch,), generator=draws)
    t = torch.randint(1000, rows.shape, generator=draws)
    return MEAN[rows], t, torch.randn(len(rows), 4, 4, 4, generator=draws)


def test_without_masked_images_it_is_plain_training_to_the_bit(batches, monkeypatch):
    unet, _ = trained(MEAN, masked_share=0.0, train_timesteps=1000)
    assert len(batches) == 3
    for i, batch in enumerate(batches):
        assert all(map(torch.equal, batch, plain(i, tiny())))
    monkeypatch.setattr(training, "patch_mask", lambda *_: torch.ones(1))
    assert same_weights(trained(MEAN)[0], unet)
    # a mask of ones is none, whatever share is asked for
    assert same_weights(trained(MEAN, masked_share=1.0)[0], unet)


def test_masked_noise_is_taken_as_it_is_drawn(batches):
    unet, _ = trained(MEAN, masked_share=1.0)
    for i, (z0, t, eps) in enumerate(batches):
        whole = plain(i, tiny())
        assert torch.equal(z0, whole[0]) and torch.equal(t, whole[1])
        # all channels of a cell have their noise, or none
        m = eps != 0
        assert (m == m[:, :1]).all() and torch.equal(eps, whole[2] * m)
    assert 0 < torch.cat([(eps != 0).float() for *_, eps in batches]).mean() < 1
    assert not same_weights(unet, trained(MEAN)[0])


def test_steps_are_drawn_below_train_timesteps(batches):
    trained(MEAN, train_timesteps=10, train_batch=64)
    t = torch.cat([t for _, t, _ in batches])
    assert set(t.tolist()) == set(range(10))
    assert not same_weights(trained(MEAN, train_timesteps=10)[0], trained(MEAN)[0])


# --- what it learns -------------------------------------------------------------------

class Scale(nn.Module):
    """A network that can only scale."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1))


def test_training_learns():
    """The best scale is E[eps z_t] / E[z_t^2] = sqrt(1 - abar_t) for unit latents."""
    model, abar = Scale(), alpha_bar(preset())

    def batch_at(draws):
        return torch.randn(512, generator=draws), torch.randn(512, generator=draws)

    def loss_of(z0, eps):
        return (model.a * q_sample(z0, abar[300], eps) - eps).square().mean()

    optimise(model, batch_at, loss_of, 150, "test", tiny(learning_rate=0.05, ema=0.9))
    assert model.a.item() == pytest.approx((1 - abar[300]).sqrt().item(), abs=0.05)


# --- its steps ------------------------------------------------------------------------

def test_learning_rates():
    rates = [learning_rate(i, 200, 0.1, "one-cycle") for i in range(200)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) in (9, 10) and 0 < rates[-1] < 1e-4
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert {learning_rate(i, 200, 0.1, "constant") for i in range(200)} == {0.1}
    assert learning_rate(0, 1, 0.1, "one-cycle") == 0.1


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_gradients_are_clipped_where_it_is_set(limit):
    """Against the same steps of AdamW by hand, with gradients of norm 6 and 0.2 in
    turn.
    """
    settings = tiny(gradient_clip=limit, learning_rate=0.1, ema=0.0,
                    learning_rate_schedule="constant")
    model, by_hand = (nn.Linear(2, 1, bias=False) for _ in range(2))
    by_hand.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(by_hand.parameters(), lr=0.1,
                                  weight_decay=settings.weight_decay)
    slopes = [torch.tensor([[6.0, 0.0]]), torch.tensor([[-0.12, 0.16]])] * 2
    for slope in slopes:
        shorter = max(1, slope.norm().item()) if limit else 1
        by_hand.weight.grad = slope / shorter
        optimiser.step()
    left = iter(slopes)
    optimise(model, lambda draws: (next(left),),
             lambda slope: (model.weight * slope).sum(), 4, "test", settings)
    torch.testing.assert_close(model.weight, by_hand.weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", ({}, {"step_rule": "region"}))
def test_a_share_that_holds_no_image_out_is_refused(changes):
    with pytest.raises(ValueError, match="held_out: 0.01 of 12 images is none"):
        Detector.fit(good_images(12), tiny(held_out=0.01, **changes), device="cpu")
