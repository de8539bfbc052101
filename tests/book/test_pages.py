"""The page paper_against_code states the presets as they are, and every table the recorded runs."""
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from ddad.published import PAPER, PAPER_MEAN
from ddad.settings import PRESETS, Settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "book/paper_against_code.md").read_text(encoding="utf-8")
CELLS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
HEAD = ["#", "setting", "`paper`", "`official`", "`clean`"]
ROWS = [[cell.strip("`") for cell in cells] for cells in CELLS[CELLS.index(HEAD) + 2:]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_row_states_each_preset(row):
    _, name, *values = row
    for chosen, value in zip(("paper", "official", "clean"), values, strict=True):
        assert PRESETS[chosen].parse([f"{name}={value}"]) == PRESETS[chosen], f"{name} of {chosen} is {getattr(PRESETS[chosen], name)!r}"


def test_every_difference_has_a_row():
    differing = {f.name for f in fields(Settings) if len({getattr(PRESETS[name], f.name) for name in ("paper", "official", "clean")}) > 1}
    assert differing - {"preset"} <= {row[1] for row in ROWS}


def test_all_21_differences_are_explained_and_set():
    numbers = {str(n) for n in range(1, 22)}
    explained = CELLS[: CELLS.index(HEAD)]
    assert numbers == {cells[0] for cells in explained if cells[0].isdigit()} == {row[0] for row in ROWS if row[0].isdigit()}


def test_numbers_in_the_settings_are_those_of_the_page():
    source = (ROOT / "ddad/settings.py").read_text(encoding="utf-8")
    noted = re.findall(r"^    (\w+): .*# \((\d+)\)", source, re.M)
    assert noted and set(noted) <= {(name, number) for number, name, *_ in ROWS}


def test_tables_are_those_of_the_recorded_runs():
    done = subprocess.run([sys.executable, str(ROOT / "book" / "make_results.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_published_means_are_those_of_their_categories():
    for name, categories in PAPER.items():
        for k, printed in enumerate(PAPER_MEAN[name]):
            assert abs(sum(figures[k] for figures in categories.values()) / len(categories) - printed) <= 0.051, (name, k)


def test_filling_a_table_leaves_the_prose_alone(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    import make_results
    page = "before\n<!-- table demo -->\n<!-- end -->\nbetween\n<!-- table demo -->\nold\nrows\n<!-- end -->\nafter\n"
    filled = make_results.filled(page)
    assert [filled.count(word) for word in ("before", "between", "after", "old", "<!-- end -->")] == [1, 1, 1, 0, 2]
    assert make_results.filled(filled) == filled


@pytest.mark.parametrize("path", sorted([*(ROOT / "book").glob("*.md"), *(ROOT / "book/results").rglob("*.json")]), ids=lambda path: path.name)
def test_pages_and_records_name_no_path_of_a_machine(path):
    assert not re.search(r"(/tmp/|/home/|/root/|/Users/|site-packages|[A-Z]:\\\\Users)", path.read_text(encoding="utf-8"))
