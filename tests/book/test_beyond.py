"""The extension's figures: from planted receipts, and the record from those there are.
"""
import json
from statistics import mean

import beyond
import numpy as np
import pytest
from paired import OURS, PAIRS, differences, rows
from sklearn.metrics import roc_auc_score
from test_ledger import AREA, N, images, receipt


@pytest.fixture
def planted():
    """The extension finds 0.9 in two seeds, the paper's method and neighbours 0.5."""
    weak = images(0.5, 7)
    asked = {"baselines": {"neighbours": weak, "padim": weak, "patchcore": {"seeds": [
        {"seed": 3} | images(0.5, 8), {"seed": 4} | images(0.6, 9)]}}}
    runs = [{"preset": "regional", "seed": seed, "images": images(0.9, seed),
             "one_call": images(0.7, seed)} for seed in (0, 1)]
    runs += [{"preset": "clean", "seed": 0, "images": weak, "questions": asked},
             {"preset": "paper", "seed": 0, "images": weak}]
    return receipt("nuts", runs)


def test_there_is_a_row_for_each_training_and_drawing(planted):
    found = {(row["method"], row["seed"]): row for row in rows(planted)}
    assert found.keys() == {
        ("regional", 0), ("regional", 1), ("one_call", 0), ("one_call", 1),
        ("clean", 0), ("neighbours", 0), ("padim", 0),
        ("patchcore", 3), ("patchcore", 4)}
    bad = np.array(AREA) > 0
    assert found["regional", 1]["i_auroc"] == pytest.approx(
        roc_auc_score(bad, images(0.9, 1)["score"]))
    assert found["patchcore", 4]["pro"] == pytest.approx(
        np.sum(images(0.6, 9)["overlap"]) / bad.sum())


def test_a_difference_is_paired_and_its_interval_holds_it(planted):
    made = differences(planted)
    assert {(row["one"], row["other"]) for row in made} == set(PAIRS)
    [apart] = (row for row in made
               if (row["one"], row["metric"]) == ("one_call", "pro"))
    assert apart["difference"] == pytest.approx(
        mean(np.sum(images(0.7, seed)["overlap"]) - np.sum(images(0.5, 7)["overlap"])
             for seed in (0, 1)) / (np.array(AREA) > 0).sum())
    found = {(row["other"], row["metric"]): row for row in made if row["one"] == OURS}
    for row in found.values():
        assert row["low"] <= row["difference"] <= row["high"]
    assert found["clean", "pro"]["low"] > 0
    # against itself nothing is left, in any resample
    same = [run | {"preset": preset} for run in planted["runs"][:1]
            for preset in ("regional", "clean")]
    for row in differences(planted | {"runs": same}):
        if (row["one"], row["other"]) == (OURS, "clean"):
            assert row["difference"] == row["low"] == row["high"] == 0


def test_the_record_is_what_its_receipts_give():
    path = beyond.RESULTS / "beyond.json"
    if not path.exists():
        pytest.skip("the record is not made yet")
    kept = json.loads(path.read_text(encoding="utf-8"))
    made = json.loads(json.dumps(beyond.collected()))
    assert kept["receipts"] == made["receipts"]
    for part in ("rows", "differences"):        # the last digit is the machine's
        assert len(kept[part]) == len(made[part])
        for one, other in zip(kept[part], made[part]):
            assert one.keys() == other.keys()
            for name, value in one.items():
                alike = (pytest.approx(value, rel=1e-9, abs=1e-12)
                         if isinstance(value, float) else value)
                assert other[name] == alike, (one, other)
    assert N and beyond.figures().count("\n") == 1 + len(
        {row["data"] for row in kept["rows"]})
