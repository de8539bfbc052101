"""Tables of a chapter: columns, digits, and what is missing."""
import numpy as np
import pytest
import torch

from ddad.notebook import table


def cells(shown):
    return [line.split() for line in str(shown).splitlines()]


def test_rows_by_name_and_their_digits():
    rows = {
        "board": {"pro": np.float32(0.98761), "n": np.int64(3), "ms": 12.34567},
        "fabric": {"pro": 1.0, "n": 30, "ms": torch.tensor(80.0)},
    }
    assert cells(table(rows)) == [
        ["pro", "n", "ms"],
        ["board", "0.9876", "3", "12.35"],
        ["fabric", "1.0000", "30", "80.00"],
    ]


def test_columns_are_chosen_ordered_and_named():
    rows = [{"a": True, "b": "x", "c": 0}, {"a": np.bool_(False), "b": "yy"}]
    assert cells(table(rows, ["b", "a"])) == [["b", "a"], ["x", "yes"], ["yy", "no"]]
    shown = table(rows, {"c": "count", "b": "kind"})
    assert cells(shown) == [["count", "kind"], ["0", "x"], ["–", "yy"]]


def test_small_numbers_keep_their_digits():
    rows = [{"steps": 1.5}, {"steps": 2500.25}, {"steps": 123456.75}]
    assert cells(table(rows)) == [["steps"], ["1.5"], ["2500"], ["123457"]]
    rows = [{"p": 0.5}, {"p": 0.00012345}, {"p": None}, {"p": float("nan")}]
    assert cells(table(rows)) == [["p"], ["0.5"], ["0.000123"], ["–"], ["nan"]]


def test_markup_is_one_table_with_numbers_to_the_right():
    bundle = table([{"kind": "<b>", "score": 0.25}])._repr_mimebundle_()
    markup = bundle["text/html"]
    assert markup.count("<tr>") == 2 and markup.count("<th") == 3  # thead is one
    assert '<td style="text-align:left">&lt;b&gt;</td>' in markup
    assert '<td style="text-align:right">0.2500</td>' in markup
    assert bundle["text/plain"].splitlines() == ["kind   score", "<b>   0.2500"]


def test_refuses_what_is_no_table():
    for rows in ([], {}):
        with pytest.raises(ValueError, match="no rows"):
            table(rows)
    with pytest.raises(ValueError, match="column b of no row"):
        table([{"a": 1}], ["a", "b"])
