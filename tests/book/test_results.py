"""The page of results: what it opens with, how its intervals are made, and that the
figure is that of the records.
"""
import re

import detectors
import make_results
import pytest
import results_figure
import results_tables
from records import BOOK, load

PAGE = (BOOK / "results.md").read_text(encoding="utf-8")
FOLDED = re.compile(r"^:{5}\{dropdown\}.*?^:{5}$", re.M | re.S)
HEAD = re.compile(r"^\|(?: --- \|)+\n", re.M)
PHONE = 334             # pixels of a panel on a screen of 390


def rows(text):
    return sum(line.startswith("| ") for line in text.splitlines()) - 2 * len(
        HEAD.findall(text))


def test_a_reader_sees_a_screen_of_tables_and_unfolds_the_others():
    shown = FOLDED.sub("", PAGE)
    assert 10 < rows(shown) <= 60 < rows(PAGE)
    assert ":::::" not in shown


def test_it_opens_with_four_points_a_figure_and_a_table():
    first = PAGE.split("<!-- end -->")[0]
    assert len(re.findall("^- ", first, re.M)) == 4
    assert len(re.findall(r"!\[[^]]{100,}\]\(results_\w+\.svg\)", first)) == 2
    assert len(HEAD.findall(first)) == 1 and PAGE.index("## ") > len(first)


def test_a_table_of_many_columns_is_turned():
    wide = make_results.table(["category", "`vae`", "held out"],
                              [["board", "taesd", "1 of 4"], ["mtd", "taef2", "all"]])
    assert make_results.turned(wide) == make_results.table(
        ["category", "board", "mtd"],
        [["`vae`", "taesd", "taef2"], ["held out", "1 of 4", "all"]])


def test_an_interval_is_that_of_the_record_that_has_one():
    found = detectors.detectors("board")
    stated = load("board")["result"]["interval"]
    for metric in detectors.BOTH:
        made = found[detectors.METHOD]["intervals"][metric]
        assert made == pytest.approx(stated[metric], abs=2e-3)
    for name, row in found.items():
        for metric, (low, high) in row["intervals"].items():
            assert low <= row[metric] <= high, (name, metric)


def test_a_panel_is_stale_once_a_figure_is_another(tmp_path, monkeypatch):
    files = {metric: tmp_path / path.name
             for metric, path in results_figure.FILES.items()}
    assert results_figure.stale(files) == [path.name for path in files.values()]
    results_figure.draw(files)
    assert not results_figure.stale(files)
    drawn = files["pro"].read_text(encoding="utf-8")
    assert drawn == results_figure.FILES["pro"].read_text(encoding="utf-8")
    known = results_figure.figures

    def moved(metric):
        of = known(metric)
        value, interval = of["fabric"]["method"]
        of["fabric"]["method"] = (value + 0.001 * (metric == "pro"), interval)
        return of

    monkeypatch.setattr(results_figure, "figures", moved)
    assert results_figure.stale(files) == [files["pro"].name]


@pytest.mark.parametrize("path", results_figure.FILES.values(), ids=lambda p: p.name)
def test_letters_can_be_read_on_a_phone(path):
    drawn = path.read_text(encoding="utf-8")
    width = float(re.search(r'viewBox="0 0 ([\d.]+) ', drawn)[1])
    points = [100 * float(size) for size in re.findall(r"scale\(([\d.]+) -", drawn)]
    assert len(points) >= 20 and min(points) * PHONE / width >= 9


def row(i_auroc, pro):
    return {"i_auroc": i_auroc, "pro": pro, "intervals": {}}


def test_the_table_marks_the_best_and_the_sentence_counts_who_is_ahead():
    found = {"hazelnut": {"method": row(0.9, 0.8), "a step per region": row(0.99, 0.9),
                          "PatchCore": row(0.95, 0.7)},
             "deeppcb": {"method": row(0.9, 0.8), "PatchCore": row(0.9, 0.81)}}
    made = results_tables.beside(found)
    assert "| method | 0.900<br>0.800 | **0.900**<br>0.800 |" in made
    assert "| PatchCore | 0.950<br>0.700 | **0.900**<br>**0.810** |" in made
    said = results_tables.on_real_sets(found)
    assert "Of 2 sets" in said
    assert "a better I-AUROC on 1 and a better PRO on 1." in said


def test_rates_outside_their_interval_are_named(monkeypatch):
    one = {"rate": 0.05, "within": True}
    monkeypatch.setattr(results_tables, "load", lambda name: {"products": {
        "board": {"own": [one, one | {"within": False}]}}})
    said = results_tables.within("own")
    assert "Of 2 rates" in said and "1 are within" in said
    assert said.endswith("outside: board at 5%.")
