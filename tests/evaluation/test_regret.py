"""How far the chosen constants are from the best of the calibration's own candidates.
"""
from dataclasses import replace

import numpy as np
import pytest
from conftest import good_images

from ddad import calibration
from ddad.calibration import CHOSEN
from ddad.evaluation.regret import regret
from ddad.training import adapt


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(calibration, "T_MAX", (80, 160))
    monkeypatch.setattr(calibration, "LAMBDA", (0.0, 0.5))
    monkeypatch.setattr(calibration, "SMALLEST_BIN", (0.2,))


def test_regret(fitted, test_set):
    found = regret(fitted, test_set)
    assert found["images"] == 8
    assert {name: found["chosen"][name] for name in CHOSEN} == {
        "step_rule": "image", "T_max": 80, "smallest_bin": 2, "guidance": 4.0,
        "latent_blur": 0.0, "lam": 0.85}
    table = found["table"]
    # every path with the chosen weighing, two blurs and two lambdas
    tried = {tuple(row[name] for name in CHOSEN) for row in table}
    paths = {one[:4] for one in tried}
    assert {path[:2] for path in paths} == {
        (rule, T) for rule in ("image", "static") for T in (80, 160)}
    assert {one[4:] for one in tried} == {
        (0.0, 0.85), *((blur, lam) for blur in (0, 1) for lam in (0.0, 0.5))}
    assert len(tried) == 5 * len(paths)
    best = max(table, key=lambda row: row["i_auroc"] + row["pro"])
    assert found["best_on_test"] == best and found["chosen"] in table
    for name in ("i_auroc", "pro"):
        lost = best[name] - found["chosen"][name]
        assert found["regret"][name] == pytest.approx(lost)
    assert regret(fitted, test_set, every=4)["images"] == 2


def test_regret_of_a_step_a_region_tries_no_other_rule(fitted, test_set):
    settings = fitted.settings.change(step_rule="region", patch_share=0.25, guidance=0,
                                      patch_bank=50)
    found = regret(adapt(fitted, good_images(16), settings), test_set, every=2)
    assert found["chosen"]["step_rule"] == "region"
    rules = {row["step_rule"] for row in found["table"]}
    assert rules == {"region"}


def test_a_defect_whose_mask_has_vanished_is_no_good_image(fitted, test_set):
    masks = test_set.masks.copy()
    masks[np.flatnonzero(test_set.labels)[0]] = 0
    assert regret(fitted, replace(test_set, masks=masks))["images"] == 7
    with pytest.raises(ValueError, match="of each 1-th test image none is good"):
        regret(fitted, replace(test_set, labels=np.ones_like(test_set.labels)))
