"""Constants chosen without test data: what is tried, on which images, and what is
taken.
"""
import inspect
import itertools

import numpy as np
import pytest
import torch
from conftest import bad_images, good_images, tiny

from ddad import calibration
from ddad.calibration import CHOSEN
from ddad.detector import Detector
from ddad.evaluation.metrics import PixelRanking
from ddad.synthetic.defects import synthetic_defects


def both(row):
    return row["i_auroc"] + row["pro"]


def test_it_chooses_from_held_out_images(fitted, monkeypatch):
    monkeypatch.setattr(calibration, "T_MAX", (80, 400))
    monkeypatch.setattr(calibration, "SMALLEST_BIN", (0.2, 1.0))
    seen, real = [], calibration.sweep

    def sweep(detector, images, masks, candidates):
        seen.append(len(images))
        return real(detector, images, masks, candidates, (0.0, 1.0))

    monkeypatch.setattr(calibration, "sweep", sweep)
    # 32 images, of which eight are held out
    chosen = Detector.fit(good_images(32), tiny(tune_epochs=0), device="cpu",
                          unet=fitted.networks.unet, calibrate=True)
    table = chosen.record["calibration"]
    assert seen == [16, 16]             # the eight, and the eight with defects
    first, second = table[:16], table[16:]
    tried = itertools.product((80, 400), (2, 10), (0.0,), (0.0, 1.0), (0.0, 1.0))
    assert {tuple(row[name] for name in CHOSEN) for row in first} == set(tried)
    step = max(first, key=both)
    assert {(row["T_max"], row["smallest_bin"]) for row in second} == {
        (step["T_max"], step["smallest_bin"])}
    # guidance scales the first e by 1 - w (1 - abar) and must not turn it round
    noise = 1 - chosen.abar[step["T_max"]].item()
    assert {round(1 - row["guidance"] * noise, 1) for row in second} == {0.7, 0.3}
    best = max(table, key=both)
    assert all(getattr(chosen.settings, name) == best[name] for name in CHOSEN)
    assert all(0 <= row["i_auroc"] <= 1 and 0 <= row["pro"] <= 1 for row in table)


@pytest.mark.parametrize("function", [
    calibration.choose, calibration.sweep, calibration.grid, synthetic_defects,
    Detector.fit])
def test_nothing_asks_for_test_images(function):
    names = inspect.signature(function).parameters
    assert names and not any("test" in name for name in names)


@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_the_sweep_is_what_predict_gives(fitted, blur):
    defective, masks = bad_images(3)
    images = torch.cat([good_images(3, seed=50), defective])
    masks = np.concatenate([np.zeros_like(masks), masks])
    step = {"T_max": 160, "smallest_bin": 4, "guidance": 1.0}
    [row] = calibration.sweep(fitted, images, masks, [step], (0.4,), (blur,))
    chosen = step | {"latent_blur": blur, "lam": 0.4}
    other = fitted.under(fitted.settings.change(**chosen))
    other.set_ranges(images[:3])        # the sweep scales by its own good images
    pro = PixelRanking(other.predict(images).map.numpy(), masks).pro(0.3)
    assert row["pro"] == pytest.approx(pro, abs=1e-6)
    assert row == chosen | {"i_auroc": row["i_auroc"], "pro": row["pro"]}


def test_calibration_needs_eight_images(fitted):
    fewer = "at least 8 held-out good images, there are 7"
    with pytest.raises(ValueError, match=fewer):
        calibration.choose([(fitted, good_images(7))])


def test_best_takes_the_largest_mean_over_products():
    constants = {"smallest_bin": 2, "guidance": 1.0, "latent_blur": 0.0, "lam": 0.5}

    def table(*figures):
        return [{"T_max": T_max, **constants, "i_auroc": auroc, "pro": pro}
                for T_max, (auroc, pro) in zip((80, 160, 240), figures)]

    one = table((0.9, 0.9), (0.8, 0.8), (0.7, 1.0))
    two = table((0.5, 0.5), (0.8, 0.8), (0.6, 0.6))
    assert calibration.best(one) == {"T_max": 80, **constants}
    assert calibration.best(one, two)["T_max"] == 160
    assert calibration.best(table((0.2, 0.9), (0.9, 0.3)))["T_max"] == 160


def test_one_choice_for_all_products(fitted, monkeypatch):
    # step A then B of product 1, A then B of product 2, the guided ones of both
    figures = iter([0.9, 0.5, 0.6, 0.6, 0.1, 0.1])
    map_constants = {"latent_blur": 1.0, "lam": 0.5}

    def grid(settings):
        return [{"T_max": T, "smallest_bin": 2, "guidance": 0.0} for T in (80, 160)]

    def sweep(detector, images, masks, candidates):
        return [{**one, **map_constants, "i_auroc": (figure := next(figures)),
                 "pro": figure} for one in candidates]

    monkeypatch.setattr(calibration, "grid", grid)
    monkeypatch.setattr(calibration, "guided",
                        lambda chosen, detector: [chosen | {"guidance": 1.0}])
    monkeypatch.setattr(calibration, "sweep", sweep)
    products = [(fitted, good_images(8, seed=seed)) for seed in (0, 1)]
    chosen, tables = calibration.choose(products)
    assert chosen == grid(None)[0] | map_constants
    assert [len(table) for table in tables] == [3, 3]


def test_the_grid_fits_the_schedule():
    grid = calibration.grid(tiny(timesteps=100))
    assert {row["T_max"] for row in grid} == {80}
    assert [row["smallest_bin"] for row in grid] == [2, 6, 10]
    few = tiny(bins=3)
    assert all(few.change(**row) for row in calibration.grid(few))
    steps = {row["T_max"] for row in calibration.grid(tiny())}
    assert steps == {80, 160, 300, 400, 500, 650}
