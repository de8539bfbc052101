"""The matrix of runs, its receipts and tables: resumed, compared, altered, and drawn up by another engine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY

from ddad import report
from ddad.cli import main
from ddad.reproduce import BY_CATEGORY, Run, by_category, settings_of
from ddad.settings import SettingsError

SET = ["--set", *(f"{name}={json.dumps(list(value) if isinstance(value, tuple) else value)}" for name, value in TINY.items() if name != "held_out")]


def matrix(data, out, *extra, presets=("clean", "official"), seeds=("0", "1")):
    chosen = ["--presets", *presets, "--seeds", *seeds, "--device", "cpu", "--vae", "pixels"]
    return main(["reproduce", "folder", str(data), str(out), *chosen, *extra, *SET])


@pytest.fixture(scope="module")
def data(product, tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    shutil.copytree(product, root / "disc")
    return root


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert matrix(data, out) == 0
    return out


def receipt_of(runs):
    return report.read_receipt(runs)


def metrics_of(receipt):
    return [(run["category"], run["preset"], run["seed"], run["result"], run["images"]) for run in receipt["runs"]]


def test_the_matrix_has_every_cell_and_all_it_takes_to_check_it(runs):
    receipt = receipt_of(runs)
    assert [(r["preset"], r["seed"]) for r in receipt["runs"]] == [("clean", 0), ("clean", 1), ("official", 0), ("official", 1)]
    for run in receipt["runs"]:
        assert run["settings"]["preset"] == run["preset"] and run["settings"]["seed"] == run["seed"]
        assert {"encode", "train", "fine-tune", "detect and score"} <= set(run["cost"]["seconds"]) and run["cost"]["peak_memory"] > 1e7
        assert run["cost"]["parameters"]["unet"] > 0 and len(run["data"]["sha256"]) == 64 and run["versions"]["torch"] and run["device"] == "cpu"
        assert ("questions" in run) == (run["preset"] == "clean")
    with_floors = [run for run in receipt["runs"] if "floors" in run.get("questions", {})]
    assert [run["seed"] for run in with_floors] == [0]
    changed = {name for row in with_floors[0]["questions"]["constants"] for name in row["changed"]}
    assert changed == {"bins", "neighbours", "smallest_bin", "T_max", "guidance", "lam"}


def test_the_tables_come_from_the_receipt_alone(runs, tmp_path):
    shutil.copy(runs / "receipt.json", tmp_path)
    receipt = receipt_of(tmp_path)
    text = (runs / "tables.md").read_text(encoding="utf-8")
    for name, make in report.TABLES.items():
        assert make(receipt) in text, name
    assert (runs / "figures.csv").read_text(encoding="utf-8") == report.as_csv(receipt)
    rows = report.figures(receipt)
    mine = next(r for r in rows if r["preset"] == "clean" and r["metric"] == "i_auroc")
    of = [r["result"]["i_auroc"] for r in receipt["runs"] if r["preset"] == "clean"]
    assert mine["ours"] == pytest.approx(sum(of) / 2) and mine["seeds"] == 2 and mine["low"] <= mine["ours"] <= mine["high"] and mine["paper"] is None


def cells(text):
    """The rows of a Markdown table as dicts by column; of two columns of one name, the last."""
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return [dict(zip(head, row)) for row in rows]


def test_false_alarms_are_those_of_good_pictures_and_seeds_that_differ_are_all_told(runs):
    receipt = receipt_of(runs)
    asked = [run for run in receipt["runs"] if "questions" in run]
    for run in asked:                                                  # by hand: one good picture in two above its threshold, all defects below
        path = run["questions"]["paths"]["static steps"]
        path["threshold"], good = 1.0, iter(range(len(path["score"])))
        path["score"] = [2.0 * (next(good) % 2) if label == 0 else 0.5 for label in report.labels(receipt, run)]
    n = int((report.labels(receipt, asked[0]) == 0).sum())
    row = next(row for row in cells(report.dynamic_against_static(receipt)) if row["path"] == "static steps")
    assert float(row["false alarms"]) == pytest.approx(n // 2 / n, abs=1e-3) and row["recall, large"] == "0.000"
    receipt["runs"][1]["settings"]["T_max"] = 70
    told = {row["`preset`"]: row["`T_max`"] for row in cells(report.deviations(receipt))}
    assert told == {"clean": "80, 70", "official": "80"}


def test_the_papers_figure_stands_beside_ours(runs, monkeypatch):
    receipt = receipt_of(runs)
    monkeypatch.setitem(report.PAPER, "folder", {"disc": (50.0, 100.0)})
    rows = [r for r in report.figures(receipt) if r["preset"] == "clean"]
    assert [r["paper"] for r in rows] == [0.5, 1.0]
    for r in rows:
        assert r["difference"] == pytest.approx(r["ours"] - r["paper"]) and r["inside"] == (r["low"] <= r["paper"] <= r["high"])
    assert "paper in it" in report.against_paper(receipt)


def test_a_finished_run_is_not_made_again_and_one_of_other_settings_is_refused(data, runs, tmp_path, capsys):
    out = tmp_path / "runs"
    shutil.copytree(runs, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    assert matrix(data, out) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    capsys.readouterr()
    assert matrix(data, out, "--calibrate") == 2
    assert "calibrate" in capsys.readouterr().err


def test_deleted_results_come_back_the_same(data, runs, tmp_path):
    out = tmp_path / "runs"
    shutil.copytree(runs, out)
    for path in out.rglob("run.json"):
        path.unlink()
    shutil.rmtree(out / "disc" / "official-1")
    assert matrix(data, out) == 0
    assert metrics_of(receipt_of(out)) == metrics_of(receipt_of(runs))


@pytest.mark.parametrize("after", [4.0, 7.0])
def test_killed_and_started_again_it_ends_with_the_same_metrics(data, runs, tmp_path, after):
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "ddad", "reproduce", "folder", str(data), str(out), "clean", "--seeds", "0", "--device", "cpu",
               "--vae", "pixels", *SET]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait()
    assert matrix(data, out, presets=("clean",), seeds=("0",)) == 0
    undisturbed = [cell for cell in metrics_of(receipt_of(runs)) if cell[1:3] == ("clean", 0)]
    assert metrics_of(receipt_of(out)) == undisturbed


# --- receipts


def test_an_altered_receipt_is_refused(runs, tmp_path):
    receipt = json.loads((runs / "receipt.json").read_text(encoding="utf-8"))
    receipt["runs"][0]["result"]["pro"] += 0.01
    (tmp_path / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    with pytest.raises(report.ReceiptError, match="altered"):
        report.read_receipt(tmp_path)
    receipt["runs"][0]["result"]["i_auroc"] -= 0.01
    receipt["sha256"] = report.digest(receipt)                          # whoever alters it may hash it anew, but not change the scores' ranks
    (tmp_path / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    with pytest.raises(report.ReceiptError, match="its images give"):
        report.read_receipt(tmp_path)
    with pytest.raises(report.ReceiptError, match="no receipt"):
        report.read_receipt(tmp_path / "nothing.json")


def changed(receipt, where, value):
    other = json.loads(json.dumps(receipt))
    *path, last = where
    inner = other["runs"][0]
    for name in path:
        inner = inner[name]
    inner[last] = value
    return other


def test_compare_tells_same_from_near_from_different_from_not_comparable(runs):
    receipt = receipt_of(runs)
    verdict = lambda other: report.compare(receipt, other)[0]["verdict"]
    assert {row["verdict"] for row in report.compare(receipt, receipt)} == {"same"}
    pro = receipt["runs"][0]["result"]["pro"]
    assert verdict(changed(receipt, ("result", "pro"), pro + 0.005)) == "within tolerance"
    assert verdict(changed(receipt, ("result", "pro"), pro + 0.02)) == "different"
    assert verdict(changed(receipt, ("data", "sha256"), "0" * 64)).startswith("not comparable: data or split")
    assert verdict(changed(receipt, ("settings", "mask_rule"), "bilinear")).startswith("not comparable: mask_rule: area, bilinear")
    fewer = json.loads(json.dumps(receipt))
    fewer["runs"].pop(0)
    assert verdict(fewer) == "only in the first"
    assert any("lam" in text for text in report.compare(receipt, changed(receipt, ("settings", "lam"), 0.1))[0]["differs"])


def test_compare_sets_two_different_cells_side_by_side(runs):
    receipt = receipt_of(runs)
    one, two = ({**receipt, "runs": [run]} for run in (receipt["runs"][0], receipt["runs"][2]))
    (row,) = report.compare(one, two)
    assert row["verdict"].startswith("not comparable") and "preset: clean, official" in row["verdict"]


def test_compare_on_the_command_line(runs, capsys):
    assert main(["compare", str(runs), str(runs / "receipt.json")]) == 0
    assert "disc, clean, seed 0: same" in capsys.readouterr().out


# --- settings by category


def test_every_shipped_table_is_whole_and_says_where_it_comes_from():
    assert sorted(p.stem for p in BY_CATEGORY.glob("*.json")) == ["embedded", "visa_readers"]
    for path in BY_CATEGORY.glob("*.json"):
        table = by_category(path.stem)
        assert table["provenance"] in ("paper", "official issue", "ours") and table["test_data"].split(":")[0] in ("no", "yes", "likely", "unknown")
        for category in table["categories"]:
            settings_of(Run(category, "clean", 0), "laptop", table, [], None)       # every name and value is a setting


def test_settings_by_category_come_after_the_preset_and_before_a_change_by_hand():
    table = by_category("visa_readers")
    settings = settings_of(Run("candle", "official", 2), "paper", table, ["guidance=5"], "pixels")
    assert (settings.guidance, settings.tune_epochs, settings.train_length, settings.seed, settings.vae) == (5.0, 0, "50 epochs", 2, "pixels")
    assert settings_of(Run("pipe_fryum", "official", 2), "paper", table, [], None).guidance == 4.0


def test_a_table_that_is_none_is_refused(tmp_path):
    (tmp_path / "mine.json").write_text('{"categories": {}}', encoding="utf-8")
    for name in (str(tmp_path / "mine.json"), "nothing"):
        with pytest.raises(SettingsError, match="shipped are embedded, visa_readers"):
            by_category(name)


def test_a_scale_changes_sizes_and_no_row_of_the_comparison():
    from ddad.reproduce import SCALES
    from ddad.settings import PRESETS, preset
    for name in PRESETS:
        same = preset(name, **{k: getattr(PRESETS[name], k) for k in PRESETS[name].as_dict() if k in SCALES["laptop"]})
        assert same == PRESETS[name]
    rows = {"edge_bin", "level_rounding", "self_neighbour", "first_call", "z0_from", "tune_level", "tune_cosine", "posterior", "map_range", "pro",
            "mask_rule", "threshold", "lam", "guidance", "T_max", "tune_epochs", "static_first_step", "tune_gradient", "tune_batch_norm",
            "align_corners", "clamp", "gradient_clip"}
    assert not rows & set(SCALES["laptop"])


# --- another engine


def test_snakemake_runs_the_matrix_as_independent_jobs(data, runs, tmp_path):
    snakemake = Path(sys.executable).with_name("snakemake")
    if not snakemake.exists():
        pytest.skip("snakemake is not installed: it needs Python 3.11 or newer")
    import ddad
    out = tmp_path / "runs"
    options = " ".join(["--device cpu", *(f"'{word}'" for word in SET), "--vae pixels"])    # Snakemake strips quotes at either end
    rules = Path(ddad.__file__).parent / "reproduce.smk"
    asked = ["name=folder", f"data={data}", f"out={out}", "presets=official", "seeds=0,1", f"options={options}"]
    done = subprocess.run([str(snakemake), "-s", str(rules), "--cores", "2", "--quiet", "--directory", str(tmp_path), "--config", *asked],
                          capture_output=True, text=True, timeout=300,
                          env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr[-2000:]
    theirs, ours = metrics_of(receipt_of(out)), [cell for cell in metrics_of(receipt_of(runs)) if cell[1] == "official"]
    assert [cell[:3] for cell in theirs] == [cell[:3] for cell in ours]
    for one, other in zip(theirs, ours):                               # not to the bit: the jobs set their own number of threads
        assert one[4]["T_hat"] == other[4]["T_hat"] and one[4]["score"] == pytest.approx(other[4]["score"], abs=1e-3)
        assert all(one[3][name] == pytest.approx(other[3][name], abs=5e-3) for name in ("i_auroc", "p_auroc", "pro"))
