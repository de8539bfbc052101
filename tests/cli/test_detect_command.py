"""The command line from end to end on a tiny product, and every wrong input: exit code 2 and one sentence."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import TINY, bad_images, good_images, save_picture
from PIL import Image

from ddad import cli, experiments
from ddad.cli import main
from ddad.detector import Detector

SET = ["--set", *(f"{name}={json.dumps(list(value) if isinstance(value, tuple) else value)}" for name, value in TINY.items())]


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def model(product, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "disc"
    assert main(["train", str(product), str(out), "--device", "cpu", *SET]) == 0
    return out


@pytest.fixture
def refused(capsys):
    """Runs a command that has to fail, and returns its one line."""
    def run(*arguments):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"ddad {arguments[0]}: ") and len(err.strip().splitlines()) == 1 and len(err) < 600, err
        return err
    return run


def lines_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


# --- without torch


def test_help_and_settings_do_not_import_torch():
    done = python("import sys, ddad, ddad.cli\n"
                  "ddad.cli.parser()\n"
                  "assert ddad.cli.main(['settings', '--preset', 'paper', '--set', 'lam=0.5']) == 0\n"
                  "try: ddad.cli.main(['train', '--help'])\n"
                  "except SystemExit as end: assert end.code == 0\n"
                  "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
                  "assert not heavy, heavy")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"z0_from": "e"' in done.stdout and '"lam": 0.5' in done.stdout


def test_python_m_is_not_needed_and_the_entry_point_exists():
    from importlib.metadata import entry_points

    [script] = [e for e in entry_points(group="console_scripts") if e.name == "ddad"]
    assert script.load() is cli.main


def test_usage(capsys):
    for arguments in ([], ["nonsense"], ["train"], ["detect", "a", "b", "c", "--maps", "jpg"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0 and "detect" in capsys.readouterr().out


def test_settings(capsys, refused):
    assert main(["settings", "--set", "T_max=160", "guidance=2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["T_max"] == 160 and printed["preset"] == "clean" and printed["unet_channels"] == [64, 96, 160]
    assert "lamda" in refused("settings", "--set", "lamda=1")
    assert "setting lam: 2.0 lies outside" in refused("settings", "--set", "lam=2")
    assert "name=value" in refused("settings", "--set", "lam")
    assert "no preset is called 'mine'" in refused("settings", "--preset", "mine")
    assert "'100' is neither 'N steps' nor 'N epochs'" in refused("settings", "--set", "train_length=100")


def test_a_full_gpu_is_one_sentence(monkeypatch, refused):
    def full(options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nand more lines")

    monkeypatch.setattr(cli, "show_settings", full)
    assert "the GPU's memory is full" in refused("settings")


def test_an_interruption_is_130(monkeypatch, capsys):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "show_settings", interrupt)
    assert main(["settings"]) == 130 and "goes on" in capsys.readouterr().err


# --- train, show, detect, evaluate


def test_train_leaves_a_detector_and_nothing_else(model):
    assert [p.name for p in model.parent.iterdir()] == ["disc"]
    loaded = Detector.from_pretrained(model, device="cpu")
    assert loaded.settings.vae == "pixels" and loaded.record["images"] == 16 and loaded.threshold is not None


def test_train_holds_out_validation_pictures_where_there_are_some(product, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(product, data)
    (data / "validation" / "good").mkdir(parents=True)
    kept = sorted((data / "train" / "good").iterdir())[::3]
    for path in kept:
        path.rename(data / "validation" / "good" / path.name)
    assert main(["train", str(data), str(tmp_path / "model"), "--device", "cpu", *SET]) == 0
    record = Detector.from_pretrained(tmp_path / "model", device="cpu").record
    assert record["held_out"] == len(kept) == 6 and record["images"] == 16


def test_show(model, capsys, refused, tmp_path):
    assert main(["show", str(model)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["unet_channels"] == [32] and shown["format"] == 1
    assert "holds no manifest.json" in refused("show", tmp_path)


def test_detect(model, product, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert main(["detect", str(model), str(product / "test" / "square"), str(out), "--device", "cpu"]) == 0
    found, threshold = lines_of(out), Detector.from_pretrained(model, device="cpu").threshold
    assert f"4 pictures, {sum(line['anomalous'] for line in found)} above" in capsys.readouterr().out
    assert [line["image"] for line in found] == [str(product / "test" / "square" / f"{i:03}.png") for i in range(4)]
    for line in found:
        assert set(line) == {"image", "sha256", "score", "threshold", "anomalous", "T_hat", "bin", "distance", "map"}
        assert line["threshold"] == threshold and line["anomalous"] == (line["score"] > threshold) and line["T_hat"] in range(20, 81, 10)
        with Image.open(out / "maps" / f"{line['map']}.png") as picture:
            assert picture.mode in ("I;16", "I") and picture.size == (64, 64)
            levels = np.array(picture).astype(np.uint16)             # Pillow before 10.3 opens it as 32-bit
        assert levels.dtype == np.uint16
        assert levels.max() / 65535 * 2 * threshold == pytest.approx(min(line["score"], 2 * threshold), abs=threshold / 16384)
        with Image.open(out / "overlays" / f"{line['map']}.png") as picture:
            assert picture.size == (4 * 192, 4 * 64)


def test_detect_goes_on_where_it_stopped(model, product, tmp_path, capsys, monkeypatch):
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(product / "test" / "square", images)
    run = ["detect", str(model), str(images), str(out), "--device", "cpu"]
    assert main(run) == 0
    before, made = (out / "results.jsonl").read_bytes(), {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    real = Detector.predict
    monkeypatch.setattr(Detector, "predict", lambda *a, **k: pytest.fail("detected again"))
    assert main(run) == 0 and (out / "results.jsonl").read_bytes() == before
    monkeypatch.setattr(Detector, "predict", real)
    save_picture(images / "000.bmp", good_images(1, seed=3)[0])  # sorts first, and has the name of one that is done
    assert main(run) == 0
    assert (out / "results.jsonl").read_bytes().startswith(before) and len(lines_of(out)) == 5
    assert {p: p.stat().st_mtime_ns for p in made} == made and len(list(out.rglob("*.png"))) == 10
    assert len({line["map"] for line in lines_of(out)}) == 5


def test_two_folders_with_the_same_names_keep_their_maps(model, product, tmp_path):
    for kind in ("good", "square"):
        assert main(["detect", str(model), str(product / "test" / kind), str(tmp_path), "--device", "cpu"]) == 0
    assert len(lines_of(tmp_path)) == 8 and len(list((tmp_path / "maps").iterdir())) == len(list((tmp_path / "overlays").iterdir())) == 8


def test_detect_one_picture_with_a_float_map(model, product, tmp_path):
    picture = product / "test" / "square" / "002.png"
    assert main(["detect", str(model), str(picture), str(tmp_path), "--device", "cpu", "--maps", "npy"]) == 0
    [line] = lines_of(tmp_path)
    A = np.load(tmp_path / "maps" / f"{line['map']}.npy")
    assert A.dtype == np.float32 and A.shape == (64, 64) and A.max() == pytest.approx(line["score"])


def test_a_broken_picture_is_named_and_the_others_are_done(model, tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    for i in range(17):
        save_picture(images / f"{i:03}.png", good_images(1, seed=i)[0])
    whole = (images / "003.png").read_bytes()
    (images / "003.png").write_bytes(whole[: len(whole) // 2])
    run = ["detect", str(model), str(images), str(out), "--device", "cpu"]
    assert main(run) == 2
    assert "003.png cannot be read" in capsys.readouterr().err
    scored, [refused] = [line for line in lines_of(out) if "score" in line], [line for line in lines_of(out) if "score" not in line]
    assert len(scored) == 16 and set(refused) == {"image", "error"} and "003.png" in refused["image"]
    (images / "003.png").write_bytes(whole)
    assert main(run) == 0
    assert lines_of(out)[:16] == scored and len(lines_of(out)) == 17 and "003.png" in lines_of(out)[16]["image"]


def test_nothing_but_broken_pictures(model, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    assert main(["detect", str(model), str(tmp_path / "images"), str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "a.png" in capsys.readouterr().err and [set(line) for line in lines_of(tmp_path / "out")] == [{"image", "error"}]


def test_a_picture_that_has_changed_is_scored_again(model, product, tmp_path, capsys):
    images, out, fresh = tmp_path / "images", tmp_path / "out", tmp_path / "fresh"
    shutil.copytree(product / "test" / "square", images)
    assert main(["detect", str(model), str(images), str(out), "--device", "cpu"]) == 0
    before = {line["image"]: line for line in lines_of(out)}
    shutil.copy(product / "test" / "good" / "000.png", images / "001.png")
    shutil.copy(product / "test" / "good" / "001.png", images / "zz.png")
    assert main(["detect", str(model), str(images), str(out), "--device", "cpu"]) == 0
    assert main(["detect", str(model), str(images), str(fresh), "--device", "cpu"]) == 0
    after, anew = ({line["image"]: line for line in lines_of(folder)} for folder in (out, fresh))
    assert len(after) == 5 and after[str(images / "000.png")] == before[str(images / "000.png")]
    for image in after:
        assert after[image]["score"] == pytest.approx(anew[image]["score"], abs=1e-6)
    assert after[str(images / "001.png")]["score"] != before[str(images / "001.png")]["score"]
    assert after[str(images / "001.png")]["map"] == before[str(images / "001.png")]["map"]
    assert len({line["map"] for line in after.values()}) == len(list((out / "maps").iterdir())) == 5
    gone = [line for line in lines_of(out) if not line["image"].endswith("001.png")]       # as a kill leaves it before 001.png is done again
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in gone))
    assert main(["detect", str(model), str(images), str(out), "--device", "cpu"]) == 0
    assert sorted(int(line["map"][:5]) for line in lines_of(out)) == [0, 2, 3, 4, 5]
    capsys.readouterr()
    assert main(["detect", str(model), str(images / "zz.png"), str(out), "--device", "cpu"]) == 0
    assert (said := capsys.readouterr().out).startswith("1 pictures, ") and "with 4 of earlier runs" in said


def test_a_finished_detector_is_neither_trained_again_nor_replaced_unasked(product, tmp_path, capsys, monkeypatch, refused):
    out = tmp_path / "model"
    train = ["train", str(product), str(out), "--device", "cpu", *SET]
    assert main(train) == 0
    before = (out / "manifest.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained again"))
        assert main(train) == 0 and "nothing to do" in capsys.readouterr().out
        (out / "results.json").write_text("{}")                        # as `ddad evaluate` leaves it there
        assert main(train) == 0 and "nothing to do" in capsys.readouterr().out
        assert "--overwrite" in refused(*train, "quantile=0.5")
        assert "--overwrite" in refused("train", product, out, "--device", "cpu", "--from", out, "--preset", "fast")
    assert (out / "manifest.json").read_bytes() == before
    assert "results.json beside a detector" in refused("train", product, out, "--device", "cpu", *SET, "quantile=0.5", "--overwrite")
    (out / "results.json").unlink()
    assert main([*train, "quantile=0.5", "--overwrite"]) == 0
    assert Detector.from_pretrained(out, device="cpu").settings.quantile == 0.5


def test_detect_refuses_a_folder_of_another_detector(model, product, tmp_path, refused):
    other, out, picture = tmp_path / "other", tmp_path / "out", product / "test" / "square" / "002.png"
    assert main(["train", str(product), str(other), "--device", "cpu", *SET, "quantile=0.5"]) == 0
    assert main(["detect", str(model), str(picture), str(out), "--device", "cpu"]) == 0
    before = (out / "results.jsonl").read_bytes()
    assert "another detector" in refused("detect", other, picture, out, "--device", "cpu")
    assert "another detector" in refused("detect", model, picture, out, "--device", "cpu", "--maps", "npy")
    assert "is a file" in refused("detect", model, picture, out / "results.jsonl", "--device", "cpu")
    assert (out / "results.jsonl").read_bytes() == before


def test_a_test_set_range_starts_anew_and_keeps_the_old_results_until_then(product, tmp_path, monkeypatch):
    model, images, out = tmp_path / "model", tmp_path / "images", tmp_path / "out"
    shutil.copytree(product / "test" / "square", images)
    run = ["detect", str(model), str(images), str(out), "--device", "cpu"]
    assert main(["train", str(product), str(model), "--device", "cpu", *SET, "map_range=test"]) == 0
    assert main(run) == 0
    before = lines_of(out)
    assert main(run) == 0
    assert [line["image"] for line in lines_of(out)] == [line["image"] for line in before]
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "predict", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(run) == 130 and len(lines_of(out)) == len(before)
    (images / "001.png").write_bytes((images / "001.png").read_bytes()[:200])
    assert main(run) == 2
    assert [("score" in line) for line in lines_of(out)] == [True] * (len(before) - 1) + [False]


def test_a_half_written_last_line_is_done_again(model, product, tmp_path):
    run = ["detect", str(model), str(product / "test" / "square"), str(tmp_path), "--device", "cpu"]
    assert main(run) == 0
    log = tmp_path / "results.jsonl"
    whole = lines_of(tmp_path)
    log.write_bytes(log.read_bytes()[:-40])  # the machine went down while it was written
    assert main(run) == 0
    again = lines_of(tmp_path)
    assert [line["image"] for line in again] == [line["image"] for line in whole]
    assert [line["score"] for line in again] == pytest.approx([line["score"] for line in whole], abs=1e-5)


def test_evaluate(model, product, tmp_path, capsys):
    out = tmp_path / "results.json"
    assert main(["evaluate", str(model), str(product), "--device", "cpu", "--out", str(out), "--floors", "--bootstrap", "3"]) == 0
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert set(report) == {"result", "settings", "record", "versions", "device", "compiled", "floors"} and len(report["result"]["interval"]) == 3
    assert "I-AUROC" in printed and "neighbours alone" in printed and f"{report['result']['pro']:.4f}" in printed
    assert report["settings"]["preset"] == "clean" and report["device"] == "cpu" and report["compiled"] is False
    assert main(["evaluate", str(model), str(product), "--device", "cpu"]) == 0
    assert json.loads((model / "results.json").read_text())["result"]["i_auroc"] == report["result"]["i_auroc"]
    Detector.from_pretrained(model, device="cpu")


def test_evaluate_with_regret(model, product, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiments, "regret", lambda detector, test, every: {"chosen": {}, "best_on_test": {}, "regret": {"pro": 0.25 * every}})
    assert main(["evaluate", str(model), str(product), "--device", "cpu", "--out", str(tmp_path / "r.json"), "--regret", "2"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["regret"]["regret"] == {"pro": 0.5} and "0.5" in capsys.readouterr().out


def test_ablate(product, tmp_path, capsys, monkeypatch):
    rows = [{"variant": v, "seed": s, "i_auroc": 0.5 + s / 10, "p_auroc": 0.5, "pro": 0.5, "p_ap": 0.5} for v in ("a", "b") for s in (0, 1)]
    given = {}

    def run(root, settings, seeds, out, **others):
        given.update(root=root, settings=settings, seeds=seeds, out=out, **others)
        return rows

    monkeypatch.setattr(experiments, "ablate", run)
    assert main(["ablate", str(product), str(tmp_path), "--seeds", "0", "1", "--device", "cpu", *SET]) == 0
    assert given["seeds"] == [0, 1] and given["root"] == product and given["settings"].unet_channels == (32,) and given["vae"] is None
    assert "0.5500" in capsys.readouterr().out


def test_an_autoencoder_of_ones_own_file(product, tmp_path, refused):
    file = tmp_path / "mine.py"
    file.write_text("from ddad.latent_projection import PixelSpace\n")
    model, vae = tmp_path / "model", ["--vae", f"{file}:PixelSpace"]
    assert main(["train", str(product), str(model), "--device", "cpu", *SET, *vae]) == 0
    assert "pass it as vae" in refused("detect", model, product / "test" / "good", tmp_path / "out", "--device", "cpu")
    assert main(["detect", str(model), str(product / "test" / "good"), str(tmp_path / "out"), "--device", "cpu", *vae]) == 0
    assert len(lines_of(tmp_path / "out")) == 4


def test_check_data(product, tmp_path, capsys):
    assert main(["data", "check", str(product), "--size", "64"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] is True
    assert main(["data", "check", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]


# --- wrong input


def test_train_on_what_is_not_there(product, tmp_path, refused):
    out = tmp_path / "out"
    assert "does not exist" in refused("train", tmp_path / "none", out, *SET)
    (tmp_path / "empty").mkdir()
    assert "does not exist" in refused("train", tmp_path / "empty", out, *SET)
    (tmp_path / "empty" / "train" / "good").mkdir(parents=True)
    assert "holds no picture" in refused("train", tmp_path / "empty", out, *SET)
    save_picture(tmp_path / "bad only" / "train" / "scratch" / "0.png", bad_images(1)[0][0])
    assert "good" in refused("train", tmp_path / "bad only", out, *SET)
    assert "train" in refused("train", product / "train" / "good" / "000.png", out, *SET)
    assert not out.exists()


def test_train_on_too_few_or_broken_pictures(product, tmp_path, refused):
    out = tmp_path / "out"
    assert "12 training images are fewer than neighbours + 1 = 31" in refused("train", product, out, "--device", "cpu", *SET, "neighbours=30")
    assert "at least 8 held-out good images, there are 4" in refused("train", product, out, "--device", "cpu", *SET, "--calibrate")
    shutil.copytree(product, tmp_path / "disc")
    broken = tmp_path / "disc" / "train" / "good" / "003.png"
    broken.write_bytes(broken.read_bytes()[:300])
    assert "003.png" in refused("train", tmp_path / "disc", tmp_path / "out", "--device", "cpu", *SET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disc"]


def test_train_with_what_cannot_be_had(product, tmp_path, refused):
    def run(*more):
        return refused("train", product, tmp_path / "out", "--device", "cpu", *SET, *more)

    assert "device 'cuba' is not available" in refused("train", product, tmp_path / "out", *SET, "--device", "cuba")
    assert "FILE.py:CALLABLE" in run("--vae", f"{tmp_path}/none.py:make")
    assert "setting image_size: 100" in run("image_size=100")


def test_an_unknown_network_says_what_to_pass_instead(product, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ddad.detector.train_noise_predictor", lambda *a, **k: pytest.fail("trained before it was looked for"))
    for more, hint in ((["--vae", "nobody/nothing"], "'embedded'"), (["features=nobody/nothing"], "efficientnet-lite0")):
        assert main(["train", str(product), str(tmp_path / "out"), "--device", "cpu", *SET, *more]) == 2
        assert "nobody/nothing" in (line := capsys.readouterr().err.strip().splitlines()[-1]) and line.startswith("ddad train: ") and hint in line


def test_a_foreign_folder_is_refused_before_the_training(product, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.jpg").write_bytes(b"x")
    assert "no saved detector" in refused("train", product, tmp_path / "out", "--device", "cpu", *SET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"] and [p.name for p in (tmp_path / "out").iterdir()] == ["holiday.jpg"]


def test_detect_with_what_cannot_be_used(model, product, tmp_path, refused):
    good, out = product / "test" / "good", tmp_path / "out"
    assert "holds no manifest.json" in refused("detect", tmp_path / "none", good, out)
    assert "holds no manifest.json" in refused("detect", product, good, out)
    assert "does not exist" in refused("detect", model, tmp_path / "none", out)
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in refused("detect", model, tmp_path / "empty", out)
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    (damaged / "state.safetensors").write_bytes(b"x")
    assert "state.safetensors" in refused("detect", damaged, good, out)


def test_evaluate_without_defects_or_masks(model, product, tmp_path, refused):
    shutil.copytree(product, tmp_path / "disc")
    (tmp_path / "disc" / "ground_truth" / "square" / "001_mask.png").unlink()
    assert "has no mask" in refused("evaluate", model, tmp_path / "disc")
    shutil.rmtree(tmp_path / "disc" / "test" / "square")
    assert "no defective image" in refused("evaluate", model, tmp_path / "disc", "--out", tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()
