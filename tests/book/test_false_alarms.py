"""The record of false alarms, from scores whose spread is known."""
import json

import false_alarms
import pytest
import torch
from conftest import tiny

from ddad.synthetic.products import PRODUCTS


def scores(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


class Seeded:
    """A detector whose scores are drawn: those of training images are lower."""

    def __init__(self, shift=0.0):
        self.settings, self.record = tiny(false_alarms=0.05), {"images": 120}
        self.held_out_scores, self.shift = scores(60, seed=7) + shift, 0.0

    def under(self, settings):
        return Seeded()

    def set_banks(self, train, good):
        self.shift = -1.0

    def predict(self, images):
        class Found:
            score = scores(len(images), seed=8) + self.shift
        return Found


@pytest.mark.parametrize("M", [20, 40, 100])
def test_false_alarms_of_exchangeable_scores_are_within_their_interval(M):
    row = false_alarms.trials(scores(300), M, 0.05, 200, seed=1)
    assert row["mean"] <= row["promised"] == 0.05 and row["within"]
    assert row["false_alarms"] == pytest.approx(row["mean"], abs=0.01)
    assert row["spread"] == pytest.approx(row["expected_spread"], rel=0.2)
    low, high = row["interval"]
    assert high - low == pytest.approx(2 * 1.96 * row["expected_spread"] / 200**0.5)


def test_a_detector_that_breaks_its_word_is_told():
    fresh = scores(300, seed=3)
    kept = [false_alarms.own(fresh, scores(100, seed), 0.05)["within"]
            for seed in range(20, 60)]
    assert 34 <= sum(kept) <= 40
    broken = false_alarms.own(fresh, scores(100) - 1, 0.05)
    assert not broken["within"] and broken["false_alarms"] > 0.15


def test_the_program_writes_its_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(false_alarms.Detector, "from_pretrained",
                        lambda folder, device: Seeded())
    monkeypatch.setattr(false_alarms, "drawn",
                        lambda product, split, which, *_: torch.zeros(len(which), 1))
    out = tmp_path / "new" / "false_alarms.json"
    made = false_alarms.main(["--out", str(out), "--trials", "20", "--seed", "2"])
    kept = json.loads(out.read_text())
    assert kept == json.loads(json.dumps(made)) and kept["seed"] == 2
    assert kept["products"].keys() == set(PRODUCTS)
    for found in kept["products"].values():
        assert [row["held_out"] for row in found["trials"]] == [20, 40, 100]
        assert {row["held_out"] for row in found["own"]} == {60}
        assert all(row["within"] for row in found["own"])
        assert not any(row["within"] for row in found["training"])
        assert len(found["score"]["fresh"]) == 300
        # the networks have learnt 90 of the 120 images
        assert len(found["score"]["training"]) == 90
    assert "blister, trials: 40 held out, 5% asked" in capsys.readouterr().out


def test_images_are_fresh(tmp_path, capsys):
    for wrong in (["--seed", "0"], ["--images", "100"]):
        with pytest.raises(SystemExit):
            false_alarms.main(["--out", str(tmp_path / "x.json"), *wrong])
    first, second = (false_alarms.drawn("board", "test_good", [3], seed, 64)
                     for seed in (0, 1))
    assert first.shape == (1, 3, 64, 64) and first.abs().max() <= 1
    assert not torch.equal(first, second)
