"""The matrix of runs: complete, resumed, killed, drawn up by another engine."""
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, save_image, tiny
from PIL import Image, ImageOps

import ddad
from ddad.cli import main
from ddad.data.layouts import Item
from ddad.data.product import load_train
from ddad.detector import Detector
from ddad.evaluation.baselines import one_call
from ddad.networks.autoencoders import load_vae
from ddad.reproduction import intervals, tables
from ddad.reproduction import runs as module
from ddad.reproduction.receipts import make_receipt, read_receipt
from ddad.reproduction.runs import (
    BY_CATEGORY,
    SCALES,
    Run,
    by_category,
    categories_in,
    commit,
    reproduce,
    settings_of,
)
from ddad.runtime.errors import DataError, SettingsError
from ddad.settings import PHI, PRESETS, preset, shaping
from ddad.training import hold_out

CHANGED = {name: list(value) if isinstance(value, tuple) else value
           for name, value in TINY.items() if name != "held_out"}
SET = ["--set", *(f"{name}={json.dumps(value)}" for name, value in CHANGED.items())]
ON_CPU = ["--device", "cpu", "--vae", "pixels"]


def matrix(data, out, *extra, presets=("clean", "official"), seeds=("0", "1")):
    return main(["reproduce", "folder", str(data), str(out), "--presets", *presets,
                 "--seeds", *seeds, *ON_CPU, *extra, *SET])


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    """An interval of so few says little, and takes a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "REPEATS", 20)
        yield


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


def metrics_of(out):
    """By (preset, seed) the metrics, and what they are made of, of a folder's receipt.
    """
    seen = lambda run: (run["category"], run["result"], run["images"])
    made = read_receipt(out)["runs"]
    return {(run["preset"], run["seed"]): seen(run) for run in made}


def test_the_matrix_has_every_cell_and_all_it_takes_to_check_it(runs):
    receipt = read_receipt(runs)
    assert [*metrics_of(runs)] == [("clean", 0), ("clean", 1),
                                   ("official", 0), ("official", 1)]
    for run in receipt["runs"]:
        settings, cost = run["settings"], run["cost"]
        assert settings["preset"] == run["preset"] and settings["seed"] == run["seed"]
        stages = {"encode", "train", "fine-tune", "detect and score"}
        assert stages <= set(cost["seconds"]) and cost["peak_memory"] > 1e7
        assert cost["parameters"]["unet"] > 0 and len(run["data"]["sha256"]) == 64
        assert run["versions"]["torch"] and run["device"] == "cpu"
        assert ("questions" in run) == (run["preset"] == "clean")
    asked = {run["seed"]: run["questions"] for run in receipt["runs"]
             if "questions" in run}
    assert [seed for seed, answers in asked.items() if "baselines" in answers] == [0]
    # each good image once, those that are held out as well
    assert asked[0]["baselines"]["neighbours"]["patches"] == run["train"] * 8 * 8
    changed = {name for row in asked[0]["constants"] for name in row["changed"]}
    assert changed == {"bins", "neighbours", "smallest_bin", "T_max", "guidance", "lam"}


def test_a_finished_run_leaves_its_detector_and_nothing_of_its_training(runs):
    for run in ("clean-0", "official-1"):
        left = sorted(path.name for path in (runs / "disc" / run).iterdir())
        assert left == ["detector", "made_from.json", "run.json"]


def test_the_tables_come_from_the_receipt_alone(runs, tmp_path):
    shutil.copy(runs / "receipt.json", tmp_path)
    receipt = read_receipt(tmp_path)
    text = (runs / "tables.md").read_text(encoding="utf-8")
    for name, make in tables.TABLES.items():
        assert make(receipt) in text, name
    written = (runs / "figures.csv").read_text(encoding="utf-8")
    assert written == intervals.as_csv(receipt)
    mine = next(row for row in intervals.figures(receipt)
                if row["preset"] == "clean" and row["metric"] == "i_auroc")
    of = [run["result"]["i_auroc"] for run in receipt["runs"]
          if run["preset"] == "clean"]
    assert mine["ours"] == pytest.approx(sum(of) / 2) and mine["seeds"] == 2
    assert mine["low"] <= mine["ours"] <= mine["high"] and mine["paper"] is None


def test_a_finished_run_is_not_made_again_and_one_of_other_settings_is_refused(
        data, runs, tmp_path, capsys):
    out = tmp_path / "runs"
    shutil.copytree(runs, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    assert matrix(data, out) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    capsys.readouterr()
    assert matrix(data, out, "--calibrate") == 2
    assert "calibrate" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["train/good/000.png", "test/good/000.png",
                                   "ground_truth/square/000_mask.png"])
def test_a_finished_run_of_other_data_is_refused(data, runs, tmp_path, capsys, where):
    out, other = tmp_path / "runs", tmp_path / "data"
    shutil.copytree(runs, out)
    shutil.copytree(data, other)
    file = other / "disc" / where
    with Image.open(file) as image:
        ImageOps.mirror(image).save(file)
    assert matrix(other, out) == 2
    assert "other: images, masks and split" in capsys.readouterr().err
    file.unlink()
    assert matrix(other, out) == 2


def test_test_images_that_cannot_be_measured_are_told_of_before_the_training(
        data, tmp_path, monkeypatch):
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained"))
    for remove in ("test/good", "test/square", "ground_truth"):
        root = shutil.copytree(data / "disc", tmp_path / remove / "disc")
        shutil.rmtree(root / remove)
        with pytest.raises(DataError, match="a run needs good and defective images"):
            reproduce(Run("disc", "clean", 0), "folder", root, tmp_path / "out",
                      tiny(), device="cpu")


def test_what_cannot_be_asked_of_a_run_is_told_before_its_training(
        data, tmp_path, monkeypatch):
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(SettingsError, match="noise"):       # nor can noise be added
        reproduce(Run("disc", "clean", 0), "folder", data / "disc", tmp_path,
                  tiny(step_rule="region"), device="cpu")


def test_a_detector_without_a_decoder_has_a_receipt(data, tmp_path):
    run, s = Run("disc", "one-call", 0), tiny("one-call")
    made = reproduce(run, "folder", data / "disc", tmp_path, s, device="cpu")
    assert made["images"]["bin"] is made["images"]["distance"] is None
    assert set(made["images"]["T_hat"]) == {s.T_max} and "questions" not in made
    make_receipt(tmp_path)
    receipt = read_receipt(tmp_path)
    assert all(make(receipt) is not None for make in tables.TABLES.values())


def test_the_commit_is_dirty_where_files_of_the_package_differ(tmp_path, monkeypatch):
    module = tmp_path / "package" / "reproduction" / "runs.py"
    module.parent.mkdir(parents=True)
    init = tmp_path / "package" / "__init__.py"
    init.touch()
    monkeypatch.setattr("ddad.reproduction.runs.__file__", str(module))
    assert commit() is None                         # no checkout
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    module.write_text("1")
    made = "-c user.name=a -c user.email=a commit -m made"
    (tmp_path / "another.py").touch()
    for asked in ("init", "add another.py", made):
        git(["git", *asked.split()])
    assert commit() is None                         # a checkout of another project
    for asked in ("add .", made):
        git(["git", *asked.split()])
    clean = commit()
    assert len(clean) == 40
    (tmp_path / "record.json").write_text("{}")
    assert commit() == clean
    module.write_text("2")
    assert commit() == f"{clean}-dirty"


def test_presets_of_one_training_share_it(data, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("ddad.training.FEW", 1)     # else so few are not split in two
    given = []
    monkeypatch.setattr("ddad.reproduction.runs.one_call", lambda detector, good, test:
                        given.append(len(good)) or one_call(detector, good, test))
    shutil.copytree(runs / "disc" / "clean-1", tmp_path / "disc" / "clean-1")
    region = tiny("regional", seed=1, patch_bank=50)
    make = lambda settings, out: reproduce(
        Run("disc", settings.preset, settings.seed), "folder", data / "disc", out,
        settings, vae=load_vae("pixels"), device="cpu")
    [clean] = (run for run in read_receipt(runs)["runs"]
               if (run["preset"], run["seed"]) == ("clean", 1))
    region = region.change(**{name: clean["settings"][name] for name in shaping(PHI)})
    weights = "unet/diffusion_pytorch_model.safetensors"
    shared, alone = make(region, tmp_path), make(region, tmp_path / "alone")
    assert "train" not in shared["cost"]["seconds"]
    assert "train" in alone["cost"]["seconds"]
    assert shared["training"] == clean["training"] == alone["training"]
    # not trained again, and what a training of its own would have ended with
    assert shared["weights"][weights] == clean["weights"][weights]
    assert alone["weights"][weights] == clean["weights"][weights]
    for name in ("score", "overlap", "false"):      # the last digit is the machine's
        pair = [np.array(run["images"].pop(name)) for run in (shared, alone)]
        assert np.allclose(*pair, rtol=1e-6, atol=1e-6), name
    assert shared["images"] == alone["images"]
    # the baseline has all that is held out, as in the questions of `clean`
    assert given == [len(hold_out(load_train(data / "disc", region), region)[1])] * 2
    other = make(region.change(learning_rate=0.5, seed=1, preset="fast"), tmp_path)
    assert "train" in other["cost"]["seconds"]
    receipt = make_receipt(tmp_path)
    assert all(make(receipt) is not None for make in tables.TABLES.values())


def test_deleted_results_come_back_the_same(data, runs, tmp_path):
    """From the saved detector, or from nothing; seed 1 has the fewer questions."""
    out = tmp_path / "runs"
    shutil.copytree(runs / "disc" / "clean-1", out / "disc" / "clean-1")
    (out / "disc" / "clean-1" / "run.json").unlink()
    assert matrix(data, out, seeds=("1",)) == 0
    made, before = metrics_of(out), metrics_of(runs)
    assert made == {cell: before[cell] for cell in (("clean", 1), ("official", 1))}


@pytest.mark.parametrize("seen", ["detector.training.safetensors", "detector"])
def test_killed_and_started_again_it_ends_with_the_same_metrics(data, runs, tmp_path,
                                                                seen):
    """Killed once its training, or its detector, is on disk."""
    out, cell = tmp_path / "runs", ("--presets", "clean", "--seeds", "1")
    command = [sys.executable, "-m", "ddad", "reproduce", "folder", str(data), str(out),
               *cell, *ON_CPU, *SET]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"},
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + 120
        while not (out / "disc" / "clean-1" / seen).exists():
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        run.kill()
    assert not (out / "disc" / "clean-1" / "run.json").exists()
    assert matrix(data, out, presets=("clean",), seeds=("1",)) == 0
    assert metrics_of(out) == {("clean", 1): metrics_of(runs)["clean", 1]}


# --- categories, and settings by category


def test_the_categories_are_the_folders_that_hold_good_training_images(data, tmp_path):
    assert categories_in(data) == ["disc"]
    shutil.copytree(data / "disc" / "train", tmp_path / "b" / "train")
    shutil.copytree(data / "disc" / "train", tmp_path / "a" / "train")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    assert categories_in(tmp_path) == ["a", "b"]
    with pytest.raises(DataError, match="holds no category"):
        categories_in(tmp_path / "empty")


def test_every_shipped_table_is_whole_and_says_where_it_comes_from():
    shipped = sorted(path.stem for path in BY_CATEGORY.glob("*.json"))
    assert shipped == ["embedded", "visa_readers"]
    for name in shipped:
        table = by_category(name)
        assert table["provenance"] in ("paper", "official issue", "ours")
        assert table["test_data"].split(":")[0] in ("no", "yes", "likely", "unknown")
        for category in table["categories"]:    # every name and value is a setting
            settings_of(Run(category, "clean", 0), "laptop", table, [], None)


def test_settings_by_category_come_after_the_preset_and_before_a_change_by_hand():
    table = by_category("visa_readers")
    candle, pipe = Run("candle", "official", 2), Run("pipe_fryum", "official", 2)
    s = settings_of(candle, "paper", table, ["guidance=5"], "pixels")
    assert (s.guidance, s.tune_epochs, s.train_length) == (5.0, 0, "50 epochs")
    assert (s.seed, s.vae) == (2, "pixels")
    assert settings_of(pipe, "paper", table, [], None).guidance == 4.0


def test_a_table_that_is_none_is_refused(tmp_path):
    (tmp_path / "mine.json").write_text('{"categories": {}}', encoding="utf-8")
    for name in (str(tmp_path / "mine.json"), "nothing"):
        with pytest.raises(SettingsError, match="shipped are embedded, visa_readers"):
            by_category(name)


def test_a_scale_changes_sizes_and_no_row_of_the_comparison():
    laptop = SCALES["laptop"]
    for name, settings in PRESETS.items():
        of_preset = {k: getattr(settings, k) for k in settings.as_dict() if k in laptop}
        assert preset(name, **of_preset) == settings
    rows = {"edge_bin", "level_rounding", "self_neighbour", "first_call", "z0_from",
            "tune_level", "tune_cosine", "posterior", "map_range", "pro", "mask_rule",
            "threshold", "lam", "guidance", "T_max", "tune_epochs", "static_first_step",
            "tune_gradient", "tune_batch_norm", "align_corners", "clamp",
            "gradient_clip"}
    assert not rows & set(laptop)


# --- another engine


def test_snakemake_runs_the_matrix_as_independent_jobs(data, runs, tmp_path):
    here = Path(sys.executable).parent
    if not (here / "snakemake").exists():
        pytest.skip("snakemake is not installed: it needs Python 3.11 or newer")
    out = tmp_path / "runs"
    # Snakemake strips quotes at either end
    options = " ".join(["--device cpu", *(f"'{word}'" for word in SET), "--vae pixels"])
    rules = Path(ddad.__file__).parent / "reproduction" / "reproduce.smk"
    asked = ["name=folder", f"data={data}", f"out={out}", "presets=official",
             "seeds=0,1", f"options={options}"]
    command = [str(here / "snakemake"), "-s", str(rules), "--cores", "2", "--quiet",
               "--directory", str(tmp_path), "--config", *asked]
    path = f"{here}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300,
                          env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stderr[-2000:]
    made, before = metrics_of(out), metrics_of(runs)
    assert [*made] == [("official", 0), ("official", 1)]
    # not to the bit: the jobs set their own number of threads
    for cell, (category, result, images) in made.items():
        of_category, of_result, of_images = before[cell]
        assert (category, images["T_hat"]) == (of_category, of_images["T_hat"])
        assert images["score"] == pytest.approx(of_images["score"], abs=1e-3)
        for name in ("i_auroc", "p_auroc", "pro"):
            assert result[name] == pytest.approx(of_result[name], abs=5e-3)


def test_a_folder_of_masks_may_hold_another_folder(tmp_path):
    """As viewers of images leave them there; the masks' reader takes no notice."""
    mask = save_image(tmp_path / "masks" / "0.png", torch.zeros(3, 8, 8))
    (tmp_path / "masks" / ".thumbnails").mkdir(), (tmp_path / "masks" / "old").mkdir()
    item = Item(tmp_path / "image.png", "cut", tmp_path / "masks")
    assert [*module._files(item)] == [item.path, mask]
