"""The regret of the calibrations: from a tiny run, and from planted rows."""
import json

import experiments
import pytest
import regrets

from ddad import calibration
from ddad.runtime.files import write_json


def row(category, preset, seed, i_auroc, pro):
    chosen = {"step_rule": "image", "T_max": 80, "smallest_bin": 2, "guidance": 4.0,
              "latent_blur": 0.0, "lam": 0.85, "i_auroc": 0.9, "pro": 0.8}
    best = chosen | {"T_max": 160, "i_auroc": 0.9 + i_auroc, "pro": 0.8 + pro}
    return {"category": category, "preset": preset, "seed": seed, "chosen": chosen,
            "best_on_test": best, "images": 4, "candidates": 9,
            "smallest_J": chosen | {"lam": 1.0, "i_auroc": 0.9 - i_auroc},
            "regret": {"i_auroc": i_auroc, "pro": pro}}


def test_the_answer_counts_the_sets_within_the_aim():
    rows = [row("nuts", "clean", 0, 0.0, 0.03), row("nuts", "clean", 1, 0.01, 0.0),
            row("loco_boards", "clean", 0, 0.02, 0.0),
            row("nuts", "regional", 0, 0.0, 0.0)]
    clean, regional, where, near = regrets.answer(rows).splitlines()
    assert where == ("- Of 4 detectors the best on the test images has a larger T max "
                     "in 4.")
    assert "*method*: of 2 real sets" in clean
    assert "I-AUROC on 1 (largest: boards, +0.020; aim: 0.01)" in clean
    assert "PRO on 2 (largest: nuts, +0.015; aim: 0.02)" in clean
    assert "*a step per region*: of 1 real sets" in regional
    assert "4 of 4 detectors would have other constants" in near
    assert ("*method* I-AUROC -0.013 (nuts -0.005, boards -0.020) and PRO +0.000 "
            in near)
    lines = regrets.by_run(rows).splitlines()[3:-1]
    assert len(lines) == 4 and all("| T max 160 |" in line for line in lines)


def test_a_detector_is_asked_once_and_what_is_done_is_kept(
        fitted, product, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "T_MAX", (40,))
    monkeypatch.setattr(calibration, "BLUR", (0.0,))
    monkeypatch.setattr(calibration, "FEWEST", 2)
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "disc").symlink_to(product)
    for preset, calibrate in (("clean", True), ("regional", False), ("paper", True)):
        folder = tmp_path / "runs" / "disc" / f"{preset}-3"
        fitted.save_pretrained(folder / "detector")
        write_json(folder / "run.json", {"category": "disc", "preset": preset,
                                         "seed": 3, "calibrate": calibrate})
    asked = [str(out), "--of", str(tmp_path / "runs"), str(data), "pixels",
             "--every", "2"]
    regrets.main(asked)
    path = out / "regret.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert [(one["preset"], one["seed"]) for one in rows] == [("clean", 3)]
    one, total = rows[0], lambda of: of["i_auroc"] + of["pro"]
    assert total(one["best_on_test"]) >= total(one["chosen"])
    assert one["weights"] and one["candidates"] > 1
    assert one["smallest_J"]["J"] <= one["smallest_J"]["J_of_chosen"]
    one["images"] = -1
    path.write_text(json.dumps(rows), encoding="utf-8")
    regrets.main(asked)
    assert json.loads(path.read_text(encoding="utf-8")) == rows


def test_the_record_is_of_the_receipts_detectors():
    if not experiments.BY_NAME["regret"].path.exists():
        pytest.skip("the record is not made yet")
    made = {(run["category"], run["preset"], run["seed"]): run["weights"]
            for name in experiments.RULED
            for run in regrets.load(f"receipts/{name}")["runs"]}
    for one in regrets.load("regret"):
        key = one["category"], one["preset"], one["seed"]
        assert one["weights"] == made[key], key
