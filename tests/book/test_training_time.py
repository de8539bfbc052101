"""Trainings compared: what is asked of each, the other objective, and the answer."""
from pathlib import Path

import pytest
import torch
import training_time
from training_time import COMBINED, THIRD, WHOLE

from ddad.noise_predictor import alpha_bar, epsilon_loss
from ddad.settings import preset


def test_every_other_training_sees_a_third_of_the_images():
    s = preset("clean", train_length="30 epochs", train_batch=16)
    asked = training_time.trainings(s, 1500)
    assert asked[WHOLE, 1] == s.change(train_length="1500 steps")
    for (name, share), one in asked.items():
        assert one.steps_for(100) * one.train_batch == pytest.approx(
            1500 * 16 * share, abs=8), name
    assert asked["the lower half of t", THIRD].train_timesteps == 500
    assert asked["half the batch", THIRD].train_batch == 8
    assert asked[COMBINED, 2 / 3].train_length == "2000 steps"
    assert asked["twice the rate", THIRD].learning_rate == 2 * s.learning_rate


def test_combined_asks_for_no_other_training(monkeypatch):
    s = preset("clean", train_length="1500 steps", seed=3)
    monkeypatch.setattr(training_time, "load_train", lambda *_: range(100))
    monkeypatch.setattr(training_time.Today, "of", lambda *_: pytest.fail("one more"))
    done = [{"category": "nut", "seed": 3, "way": way, "share": share} for way, share in
            ((WHOLE, 1), (COMBINED, 2 / 3), (COMBINED, THIRD))]
    rows_of = lambda some, **how: list(training_time.rows_of(
        Path("nut"), s, None, Path("out"), some, **how))
    assert rows_of(done, combined=True) == []
    for some, how in ((done, {}), (done[1:], {"combined": True}),
                      (done[:2], {"combined": True})):
        with pytest.raises(pytest.fail.Exception, match="one more"):
            rows_of(some, **how)


def test_min_snr_lowers_the_weight_of_little_noise_alone():
    abar = alpha_bar(preset("clean"))
    z0, eps = torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)
    eps_theta = lambda z_t, t: torch.zeros_like(z_t)
    for t in (0, 500, 999):
        t = torch.tensor([t])
        snr = (abar[t] / (1 - abar[t])).item()
        plain = epsilon_loss(eps_theta, z0, t, eps, abar)
        weighed = training_time.min_snr_loss(eps_theta, z0, t, eps, abar)
        assert (weighed / plain).item() == pytest.approx(min(1, 5 / snr))


def test_only_its_training_has_the_other_objective():
    s = preset("clean", unet_channels=(32,), unet_layers=1, train_length="20 steps",
               train_batch=4, seed=3)
    z0 = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(0)), None
    plain, other, again = (
        torch.cat([w.flatten() for w in training_time.trained(name, z0, s)[0]
                   .parameters()]) for name in (WHOLE, training_time.MIN_SNR, WHOLE))
    assert torch.equal(plain, again) and not torch.equal(plain, other)


def row(way, share, i_auroc, seconds, seed=0):
    return {"category": "loco_boards", "seed": seed, "way": way, "share": share,
            "training": {"cpu_seconds": seconds},
            "on_held_out": {"i_auroc": i_auroc, "pro": 0.8},
            "on_test": {"i_auroc": 0.9, "pro": 0.7 + i_auroc / 10}}


def test_a_table_has_the_seeds_of_every_training_and_another_pairs_them():
    rows = [row(WHOLE, 1, 0.9, 60), row("noised patches", THIRD, 0.8, 21),
            row(COMBINED, THIRD, 0.95, 30), row(WHOLE, 1, 0.6, 60, 1),
            row(COMBINED, THIRD, 0.5, 33, 1)]
    assert training_time.complete(rows) == rows[:3]
    assert len(training_time.by_way(rows).splitlines()) == 7
    first, second = training_time.combined(rows).splitlines()[-2:]
    assert first == "| 33% | boards | 0 | 0.50 | +0.050 | +0.000 | +0.000 | +0.005 |"
    assert second == "| 33% | boards | 1 | 0.55 | -0.100 | +0.000 | +0.000 | -0.010 |"
    longer = [one | {"share": 2 / 3} if one["way"] == COMBINED else one for one in rows]
    same = training_time.in_the_same_time(longer)
    assert "In 0.53 of" in same and "1 data sets and 2 pairs" in same
    assert "I-AUROC -0.025 (-0.100 to +0.050) and PRO +0.000" in same
    other = [one | {"category": "nut"} for one in longer[-2:]]
    assert "I-AUROC -0.062 (-0.100 to" in training_time.in_the_same_time(longer + other)


def test_the_best_is_chosen_on_held_out_images():
    rows = [row(WHOLE, 1, 0.9, 60), row(WHOLE, 1, 0.8, 60, 1),
            row(WHOLE, THIRD, 0.7, 20), row(WHOLE, THIRD, 0.7, 22, 1),
            row("noised patches", THIRD, 0.8, 21), row("noised patches", THIRD, 0.8, 21,
                                                       1)]
    third, best = training_time.answer(rows).splitlines()
    assert "in 0.35 of the time" in third
    assert "held-out images: boards -0.150 / +0.000. On the test images: boards " \
           "+0.000 / -0.015." in third
    assert "Of 2 trainings" in best
    assert "*noised patches*, in 0.35 of the whole training's time: boards -0" in best
    assert len(training_time.by_way(rows).splitlines()) == 7
