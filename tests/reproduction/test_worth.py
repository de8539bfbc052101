"""What a part is worth, from records of the older form and from receipts."""
import json

import pytest

from ddad.reproduction import worth as module
from ddad.reproduction.variants import FULL, NOISE, PIXELS, STATIC
from ddad.reproduction.verdicts import Effect
from ddad.reproduction.worth import Worth, of_older, told, worth

ROWS = {FULL: (0.9, 0.8), NOISE: (0.9, 0.5), STATIC: (0.8, 0.9), PIXELS: (0.1, 0.1)}


@pytest.fixture()
def records(tmp_path):
    """Two data sets, two seeds of each."""
    for data in "ab":
        rows = [{"variant": name, "seed": seed, "i_auroc": i_auroc, "pro": pro}
                for name, (i_auroc, pro) in ROWS.items() for seed in (0, 1)]
        (tmp_path / f"ablation_{data}.json").write_text(json.dumps(rows))
    return tmp_path


def test_a_part_is_worth_what_is_lost_without_it(records):
    found = {(row.part, row.metric): row for row in worth(records)}
    noise = found["a scaled start", "PRO"]
    assert [one.data for one in noise.effects] == ["a", "b"] and noise.older
    assert noise.across.value == pytest.approx(0.3) and len(noise.runs) == 4
    assert found["a scaled start", "I-AUROC"].across.value == 0
    # the part with the most PRO first; one without a record is not there, nor are the
    # older records' pixels
    parts = list(dict.fromkeys(part for part, _ in found))
    assert parts == ["a scaled start", "a step for each image"]
    assert not of_older(records, PIXELS, "pro")


def test_receipts_take_the_place_of_older_records(records, monkeypatch):
    of_receipts = [Effect("c", (0.25,))]
    monkeypatch.setattr(module, "of_variant", lambda receipts, variant, measure:
                        of_receipts if variant == NOISE else [])
    found = {(row.part, row.metric): row for row in worth(records)}
    assert found["a scaled start", "PRO"].effects == of_receipts
    assert not found["a scaled start", "PRO"].older
    assert found["a step for each image", "PRO"].older


def row(part, metric, *by_set):
    return Worth(part, metric, [Effect(str(n), runs) for n, runs in enumerate(by_set)],
                 True)


def test_three_sentences_say_what_the_rows_hold():
    sure, mixed = ((0.1, 0.11), (0.1, 0.12)), ((0.2, 0.1), (-0.1, 0.1))
    loss = tuple(tuple(-value for value in runs) for runs in sure)
    text = told([row("first", "PRO", *sure), row("first", "I-AUROC", *mixed),
                 row("second", "PRO", *loss), row("second", "I-AUROC", *mixed)])
    assert text.startswith("On the mean of 2 data sets the parts are worth, in points "
                           "of PRO (and of I-AUROC): first +10.8 (+7.5); second -10.8 "
                           "(+7.5). ")
    assert "Of these 4 figures, those above zero in every single run are: " in text
    assert "every single run are: first (PRO); those below in every run: second" in text
    assert "lie above zero for: first (PRO); below zero for: second (PRO);" in text
    assert "above zero for: none; below zero for: none" in told(
        [row("third", name, *mixed) for name in ("PRO", "I-AUROC")])
