"""The tables of a receipt, on recorded runs with figures put in by hand."""
import json
from pathlib import Path

import numpy as np
import pytest

from ddad.reproduction import intervals, tables
from ddad.reproduction.published import PAPER
from ddad.reproduction.receipts import labels, read_receipt

RECORDED = Path(__file__).parents[2] / "book" / "results" / "receipts" / "products.json"


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "REPEATS", 20)


@pytest.fixture
def receipt():
    """Two seeds of two presets, of one category."""
    receipt = read_receipt(RECORDED)
    receipt["runs"] = [run for run in receipt["runs"] if run["category"] == "blister"
                       and run["preset"] != "paper" and run["seed"] < 2]
    receipt["test"] = {"blister": receipt["test"]["blister"]}
    return receipt


def cells(text):
    """The rows of a Markdown table as dicts by column; of two columns of one name, the
    last.
    """
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")]
                      for line in text.splitlines())
    return [dict(zip(head, row)) for row in rows]


def test_false_alarms_are_those_of_good_images(receipt):
    """By hand: one good image in two above its threshold, all defects below."""
    asked = [run for run in receipt["runs"] if "questions" in run]
    for run in asked:
        path = run["questions"]["paths"]["static steps"]
        path["threshold"], good = 1.0, iter(range(len(path["score"])))
        path["score"] = [2.0 * (next(good) % 2) if label == 0 else 0.5
                         for label in labels(receipt, run)]
    n = int((labels(receipt, asked[0]) == 0).sum())
    row = next(row for row in cells(tables.dynamic_against_static(receipt))
               if row["path"] == "static steps")
    assert float(row["false alarms"]) == pytest.approx(n // 2 / n, abs=1e-3)
    assert row["recall, large"] == "0.000"


def test_seeds_that_differ_are_all_told(receipt):
    for run, T_max in zip(receipt["runs"], (80, 70, 60, 60)):
        run["settings"]["T_max"] = T_max
    told = {row["`preset`"]: row["`T_max`"]
            for row in cells(tables.deviations(receipt))}
    assert told == {"clean": "80, 70", "regional": "60"}


def test_one_call_is_a_mean_over_the_seeds_and_the_receipt_is_as_it_was(receipt):
    before = json.dumps(receipt, sort_keys=True)
    row = next(row for row in cells(tables.baselines(receipt))
               if row["detector"] == "one U-Net call")
    calls = [run["one_call"]["pro"] for run in receipt["runs"] if "one_call" in run]
    assert len(calls) == 2 and row["seeds"] == "2"
    assert float(row["PRO"]) == pytest.approx(np.mean(calls), abs=1e-3)
    assert json.dumps(receipt, sort_keys=True) == before


def test_the_papers_figure_stands_beside_ours(receipt, monkeypatch):
    assert "paper in it" not in tables.against_paper(receipt)
    monkeypatch.setitem(PAPER, receipt["dataset"], {"blister": (50.0, 100.0)})
    rows = [row for row in intervals.figures(receipt) if row["preset"] == "clean"]
    assert [row["paper"] for row in rows] == [0.5, 1.0]
    for row in rows:
        assert row["difference"] == pytest.approx(row["ours"] - row["paper"])
        assert row["inside"] == (row["low"] <= row["paper"] <= row["high"])
    assert "paper in it" in tables.against_paper(receipt)


def test_the_mean_over_categories_is_that_of_each_seed():
    receipt = read_receipt(RECORDED)
    receipt["runs"] = [run for run in receipt["runs"] if run["preset"] == "clean"]
    row = next(row for row in intervals.figures(receipt)
               if (row["category"], row["metric"]) == ("mean", "pro"))
    by_seed = [np.mean([run["result"]["pro_exact"] for run in receipt["runs"]
                        if run["seed"] == seed]) for seed in range(3)]
    assert row["ours"] == pytest.approx(np.mean(by_seed)) and row["seeds"] == 3
    assert row["sd"] == pytest.approx(np.std(by_seed, ddof=1))


def test_a_folders_name_is_no_markup():
    text = tables.markdown(["category", "PRO"], [["a|b [c] <d>\n", 0.12345],
                                                 ["none", None]])
    head, _, *rows = text.splitlines()
    assert head == "| category | PRO |" and rows[1] == "| none |  |"
    assert rows[0] == r"| a\|b \[c\] &lt;d&gt; | 0.123 |"
