"""The pages: presets as they are, tables of the recorded runs, no path of a machine."""
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import check_pages
import pytest

from ddad.reproduction.published import PAPER, PAPER_MEAN
from ddad.settings import PRESETS, Settings

ROOT = Path(__file__).parents[2]
BOOK, COMPARED = ROOT / "book", ("paper", "official", "clean")
PAGE = (BOOK / "paper_against_code.md").read_text(encoding="utf-8")
CELLS = [[cell.strip() for cell in line.strip("|").split("|")]
         for line in PAGE.splitlines() if line.startswith("|")]
HEAD = ["#", "setting", "`paper`", "`official`", "`clean`"]
ROWS = [[cell.strip("`") for cell in cells]
        for cells in CELLS[CELLS.index(HEAD) + 2 :]]


def test_a_table_that_is_not_set_is_found():
    typed = "| category | preset | | --- | --- |"
    assert check_pages.UNSET.findall(f"<p>{typed}</p>") == ["| category | preset |"]
    assert not check_pages.UNSET.findall("<td>| a | b |</td><p>|q - b|^2 = |q|^2</p>")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_row_states_each_preset(row):
    _, name, *values = row
    for chosen, value in zip(COMPARED, values, strict=True):
        preset = PRESETS[chosen]
        assert preset.parse([f"{name}={value}"]) == preset, (
            f"{name} of {chosen} is {getattr(preset, name)!r}")


def test_every_difference_has_a_row():
    values = {f.name: {getattr(PRESETS[name], f.name) for name in COMPARED}
              for f in fields(Settings)}
    differing = {name for name, found in values.items() if len(found) > 1}
    assert differing - {"preset"} <= {row[1] for row in ROWS}


def test_all_21_differences_are_explained_and_set():
    numbered = lambda rows: {row[0] for row in rows if row[0].isdigit()}
    explained = CELLS[: CELLS.index(HEAD)]
    assert {str(n) for n in range(1, 22)} == numbered(explained) == numbered(ROWS)


def test_numbers_in_the_settings_are_those_of_the_page():
    noted = {(f.name, str(f.metadata.get("row"))) for f in fields(Settings)}
    noted = {(name, number) for name, number in noted if number.isdigit()}
    assert noted and noted <= {(name, number) for number, name, *_ in ROWS}


def test_tables_are_those_of_the_recorded_runs():
    script = BOOK / "tools/make_results.py"
    done = subprocess.run([sys.executable, str(script), "--check"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_published_means_are_those_of_their_categories():
    for name, categories in PAPER.items():
        for k, printed in enumerate(PAPER_MEAN[name]):
            total = sum(figures[k] for figures in categories.values())
            assert abs(total / len(categories) - printed) <= 0.051, (name, k)


def test_filling_a_table_leaves_the_prose_alone():
    import make_results
    page = ("before\n<!-- table demo -->\n<!-- end -->\nbetween\n"
            "<!-- table demo -->\nold\nrows\n<!-- end -->\nafter\n")
    filled = make_results.filled(page)
    assert [filled.count(word) for word in ("before", "between", "after", "old",
                                            "<!-- end -->")] == [1, 1, 1, 0, 2]
    assert make_results.filled(filled) == filled


TEXTS = sorted([*BOOK.rglob("*.md"), *(BOOK / "results").rglob("*.json")])
# also a value that is a path from the root: "/data/vae.py:load"
OF_A_MACHINE = re.compile(
    r"(/tmp/|/home/|/root/|/Users/|site-packages|[A-Z]:\\\\Users|\"/\w)")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_pages_and_records_name_no_path_of_a_machine(path):
    assert not OF_A_MACHINE.search(path.read_text(encoding="utf-8"))


FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.M | re.S)


@pytest.mark.parametrize("path", sorted([*BOOK.rglob("*.md"), ROOT / "README.md"]),
                         ids=lambda path: path.name)
def test_code_on_pages_does_not_scroll_sideways(path):
    blocks = FENCE.findall(path.read_text(encoding="utf-8"))
    wide = [line for block in blocks for line in block.splitlines() if len(line) > 88]
    assert not wide, "wider than 88 columns"
