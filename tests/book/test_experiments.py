"""Every record in book/results has a command, and stands as long as its code does what
it did; what is stale is listed, with the reason.
"""
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import experiments
import made
import probes
import pytest
from experiments import BY_NAME, EXPERIMENTS, TO_REMAKE
from records import figures, incomplete

from ddad.cli import parser

ROOT = made.ROOT
KEPT = {path.relative_to(made.RESULTS).with_suffix("").as_posix(): path
        for path in made.RESULTS.rglob("*.json") if path != made.NOTES}
IN_FULL = (experiments.DEMO, experiments.EVALUATE, experiments.REPRODUCE,
           experiments.ABLATE)


# --- the records

def test_no_record_is_an_orphan_and_none_is_missing():
    assert len(BY_NAME) == len(EXPERIMENTS)
    assert KEPT.keys() - BY_NAME.keys() == set()
    assert BY_NAME.keys() - KEPT.keys() - TO_REMAKE.keys() == set()
    assert TO_REMAKE.keys() <= BY_NAME.keys() and all(TO_REMAKE.values())
    assert made.notes().keys() <= KEPT.keys()


@pytest.mark.parametrize("one", EXPERIMENTS, ids=lambda one: one.name)
def test_only_what_is_to_be_remade_is_stale(one):
    why = made.stale(one)
    if one.name in TO_REMAKE:
        assert why, "it is fresh: take it out of TO_REMAKE"
    else:
        assert not why, f"`make experiments ONLY={one.name}`"


@pytest.mark.parametrize("one", EXPERIMENTS, ids=lambda one: one.name)
def test_a_record_has_the_form_of_a_receipt(one):
    if one.kind in IN_FULL and one.name not in TO_REMAKE:
        assert not incomplete(json.loads(one.path.read_text(encoding="utf-8")))


def test_the_demo_and_the_products_records_are_of_the_same_detectors():
    names = ("demo", *experiments.PRODUCTS)
    demo, *found = (json.loads(KEPT[name].read_text(encoding="utf-8"))
                    for name in names)
    if not TO_REMAKE.keys() & {*names}:
        for name, record in zip(experiments.PRODUCTS, found):
            for metric in ("i_auroc", "p_auroc", "pro"):
                apart = abs(demo[name][metric] - record["result"][metric])
                assert apart <= experiments.DEMO.tolerance, (name, metric)


# --- the list

@pytest.mark.parametrize("one", EXPERIMENTS, ids=lambda one: one.name)
def test_its_commands_can_be_given(one):
    given = {"data": "data", "taef2": "taef2.py:load", "taesd": "owner/taesd"}
    assert one.shows and one.minutes and (one.makes or one.kind.watch)
    assert all((ROOT / watched).is_file() for watched in one.kind.watch.split())
    assert {*one.after} <= BY_NAME.keys() and {*one.probes} <= probes.PROBES.keys()
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for line in made.lines(one, given):
        first, *arguments = shlex.split(line)
        if first == "ddad":
            parser().parse_args(arguments)
        elif first == "python":
            assert (ROOT / arguments[0]).is_file()
        else:
            assert first == "make" and arguments[0] in targets


def test_every_table_is_made_of_named_records():
    import ledger
    import make_results
    named = {title for one in EXPERIMENTS for title in one.tables}
    own = {"receipts", "experiments", *ledger.tables([])}
    receipts = {Path(one.name).name for one in EXPERIMENTS if "/" in one.name}
    assert named <= make_results.TABLES.keys()
    assert not [title for title in make_results.TABLES.keys() - named - own
                if title.split(".")[0].removesuffix("_taesd")
                not in {"real_sets", *receipts}]


def test_a_note_below_a_table_names_its_stale_records(monkeypatch):
    assert experiments.note("experiments") == experiments.note("notebooks") == ""
    monkeypatch.setattr(experiments, "TO_REMAKE", {"bench": "of another day"})
    assert experiments.note("speed_metric") == "*bench: of another day.*"
    assert experiments.note("demo") == ""


def test_what_cannot_run_here_is_skipped_with_one_line(tmp_path, monkeypatch, capsys):
    import torch
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiles, taesd = "receipts/mtd_by_tile", "receipts/hazelnut_taesd"
    run = lambda *names, **given: experiments.run([*names], given, 1)
    assert run(tiles, taesd, "bench_gpu") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" is skipped: it needs ")[0] for line in said] == [
        tiles, taesd, "bench_gpu"]
    assert "DATA=FOLDER" in said[0] and "a GPU" in said[2]
    assert run(tiles, data=str(tmp_path)) == 0
    assert "mtd_by_tile/mtd is not there" in capsys.readouterr().out
    (tmp_path / "mtd_by_tile" / "mtd").mkdir(parents=True)
    assert run(tiles, data=str(tmp_path)) == 0
    assert "TAEF2=FILE.py:CALLABLE" in capsys.readouterr().out


def test_snakemake_orders_the_jobs():
    pytest.importorskip("snakemake")
    names = "bench,receipts/loco_juice_bottle,receipts/mtd_by_tile"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", "book/tools/experiments.smk", "-n",
         "--cores", "1", "--quiet", "rules", "--config", f"names={names}"], cwd=ROOT,
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("kind, threads", [("PLAN", "1"), ("BENCH", None)])
def test_what_measures_time_has_all_threads(monkeypatch, kind, threads):
    told = []
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(made.subprocess, "run", lambda *_, env, **__: told.append(env))
    made.run(made.Experiment("a", "b", getattr(experiments, kind), ("c",), "d", 1), {})
    assert told[0].get("OMP_NUM_THREADS") == threads


# --- fresh and stale, on an experiment of its own

@pytest.fixture
def one(tmp_path, monkeypatch):
    """An experiment that is done in an instant, and whose record is kept."""
    monkeypatch.setattr(made, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(made, "NOTES", tmp_path / "results" / "made.json")
    monkeypatch.setattr(made, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(probes, "_run", lambda name: {"pro": 0.5, "score": 2.0})
    line = "echo x >> {out}/calls; echo '{{\"pro\": 0.75}}' > {out}/r.json"
    one = made.Experiment("of/mine", "a figure", experiments.PLAN, (line,), "r.json", 1)
    made.make(one, {})
    return one


def gives(**outcome):
    return lambda names: {f"{name}: {what}": value for name in names
                          for what, value in ({"pro": 0.5, "score": 2.0} | outcome
                                              ).items()}


def test_what_was_made_is_fresh_and_is_noted(one):
    assert made.stale(one, pytest.fail) == ""
    note = made.notes()["of/mine"]
    assert note["commands"] == [*one.commands] and len(note["code"]) == 64
    assert note["probe"] == gives()(["counted"])


def test_another_text_of_the_code_matters_only_if_its_outcome_does(one, monkeypatch):
    monkeypatch.setattr(made, "code", lambda one: "another")
    assert made.stale(one, gives()) == ""
    assert made.stale(one, gives(pro=0.5 + 1e-7)) == made.stale(one, gives(score=2))
    monkeypatch.setattr(probes, "EXACT", {})
    assert made.stale(one, gives(pro=0.5004)) == ""
    assert "pro was 0.5, is 0.5006" in made.stale(one, gives(pro=0.5006))
    assert "and 1 more" in made.stale(one, gives(pro=0.6, score=3.0))
    assert "in one outcome only" in made.stale(one, gives(more=1.0))


def test_a_record_that_was_changed_or_never_made_is_stale(one):
    assert "others now" in made.stale(replace(one, commands=("ddad demo {out}",)))
    one.path.write_text('{"pro": 0.8}')
    assert "changed after" in made.stale(one)
    made.write_json(made.NOTES, {})
    assert "not noted" in made.stale(one)
    one.path.unlink()
    assert "not there" in made.stale(one)


def test_a_killed_run_goes_on_unless_its_code_changed(one, monkeypatch):
    calls = made.RUNS / "of/mine" / "calls"
    made.make(one, {})
    assert calls.read_text() == "x\nx\n"
    monkeypatch.setattr(made, "code", lambda one: "another")
    made.make(one, {})
    assert calls.read_text() == "x\n" * 3
    monkeypatch.setattr(probes, "_run", lambda name: {"pro": 0.1, "score": 2.0})
    made.make(one, {})
    assert calls.read_text() == "x\n" and made.stale(one) == ""


def test_another_file_is_compared_figure_by_figure(one, tmp_path):
    one = replace(one, kind=experiments.DEMO)
    other = tmp_path / "other.json"
    made.write_json(one.path, {"pro": 0.75, "p_ap": 0.5, "i_auroc": 0.9, "seconds": 1,
                               "regret": {"table": [{"pro": 0.1}]}, "recall": 1})
    made.write_json(other, {"pro": 0.75, "p_ap": 0.504, "i_auroc": 0.91, "seconds": 9})
    assert made.compare(one, other) == [
        ("pro", "0.75", "0.75", "same"), ("p_ap", "0.5", "0.504", "within tolerance"),
        ("i_auroc", "0.9", "0.91", "different"),
        ("recall", "1", "", "in one of the two only")]
    relative = replace(one, kind=experiments.BENCH)
    assert [row[-1] for row in made.compare(relative, other)][2] == "within tolerance"


def test_the_command_says_which_figures_differ(tmp_path, capsys):
    name = "plan_btad"
    other = shutil.copy(BY_NAME[name].path, tmp_path / "plan.json")
    assert experiments.main(["compare", name, str(other)]) == 0
    assert "different" not in capsys.readouterr().out
    found = json.loads(Path(other).read_text())
    found["runs"][0]["steps"] += 1000
    Path(other).write_text(json.dumps(found))
    assert experiments.main(["compare", name, str(other)]) == 1
    assert "runs.0.steps: " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        experiments.main(["make", "nothing"])


# --- what is looked at

def test_probes_notice_a_change_of_what_is_drawn(monkeypatch):
    from ddad.synthetic import products
    then, draw = probes.outcome(("drawn",)), products.render
    probes._run.cache_clear()

    def brighter(product, size, seed, kind):
        image, mask, name = draw(product, size, seed, kind)
        image[:16, :16] |= 1
        return image, mask, name

    monkeypatch.setattr(products, "render", brighter)
    now = probes.outcome(("drawn",))
    probes._run.cache_clear()
    assert probes.apart(then, then) == [] and len(probes.apart(then, now)) > 20


def test_figures_leave_out_what_was_only_tried():
    record = {"runs": [{"result": {"pro": 1, "seconds": 3},
                        "regret": {"table": [{"pro": 0}]}}], "images": [1, 2]}
    assert figures(record) == {"runs.0.result.pro": 1.0}


def test_a_record_without_its_images_is_incomplete():
    run = {"settings": {}, "commit": "", "versions": {}, "device": "cpu", "data": {},
           "weights": {}, "result": {"i_auroc": 1.0, "pro_exact": 0.5},
           "images": {"kind": ["good", "cut"], "score": [0.1, 0.2], "false": [[]],
                      "overlap": [0.0, 1.0], "regions": [0, 2], "T_hat": [1, 2]}}
    assert incomplete(run) == []
    for name in ("commit", "weights", "data"):
        assert incomplete({k: v for k, v in run.items() if k != name}) == [name]
    run["images"]["score"] = [0.2, 0.1]
    run["images"]["overlap"] = [0.0, 1.2]
    assert incomplete(run) == ["i_auroc, pro_exact"]
    assert incomplete({"runs": [run | {"images": {}}], "test": {}}) == [
        "images.score", "images.overlap", "images.false", "images.T_hat"]
    assert incomplete([run])
