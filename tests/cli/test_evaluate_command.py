"""`ddad evaluate` and `ddad show` on a tiny product."""
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ddad import conformal
from ddad.cli import main
from ddad.cli.printing import best, kept
from ddad.data.product import load_test, load_train
from ddad.detector import Detector
from ddad.evaluation import baselines, regret
from ddad.evaluation.metrics import MEASURED
from ddad.reproduction.tables import BASELINES

pytest_plugins = ["cli_fixtures"]


@pytest.fixture
def evaluate(model, product):
    def run(*more):
        return main(["evaluate", str(model), str(product), "--device", "cpu",
                     *map(str, more)])
    return run


def baselines_of(product, model) -> dict:
    detector = Detector.from_pretrained(model, device="cpu")
    s = detector.settings
    return baselines.baselines(detector, load_train(product, s), load_test(product, s))


def test_show(model, capsys, refused, tmp_path):
    assert main(["show", str(model)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["unet_channels"] == [32] and shown["format"] == 2
    assert "holds no manifest.json" in refused("show", tmp_path)


def test_evaluate(evaluate, tmp_path, capsys):
    out = tmp_path / "results.json"
    assert evaluate("--out", out, "--baselines", "--bootstrap", "3") == 0
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert set(report) == {
        "result", "images", "settings", "data", "weights", "held_out_from", "train",
        "held_out", "training", "record", "versions", "device", "commit", "compiled",
        "baselines"}
    assert len(report["images"]["score"]) == report["result"]["images"]
    assert set(report["baselines"]) == set(BASELINES)
    for name, title in BASELINES.items():
        row = next(line for line in printed.splitlines() if line.startswith(title))
        assert f"{report['baselines'][name]['pro']:.4f}" in row
    assert [row["seed"] for row in report["baselines"]["padim"]["seeds"]] == [0, 1, 2]
    assert len(report["result"]["interval"]) == 3
    assert "I-AUROC" in printed and "\nthis detector " in printed
    assert printed.splitlines()[-1].startswith("ahead: by I-AUROC ")
    measured = round(4 * report["result"]["false_positive_rate"])
    assert f"promised 20.0% on average, measured {measured / 4:.1%}, " in printed
    assert f"{report['result']['pro']:.4f}" in printed
    assert report["settings"]["preset"] == "clean"
    assert report["device"] == "cpu" and report["compiled"] is False


def test_the_best_is_named_and_of_equal_ones_the_simpler():
    rows = {"this detector": {"i_auroc": 0.9, "pro": 0.8},
            "PatchCore": {"i_auroc": 0.9, "pro": 0.7},
            "PaDiM": {"i_auroc": 0.8, "pro": 0.1}}
    assert best(rows) == ("ahead: by I-AUROC PatchCore, 0.9000, level with 1 more; by "
                          "PRO this detector, 0.8000. Where a simpler method is ahead "
                          "in what you need, use that one")


@pytest.mark.parametrize("held_out", [19, 40])
def test_more_false_alarms_than_promised_are_called_that_seldom_by_chance(held_out):
    """Of scores drawn alike, 19 of 20 verdicts or more say that the promise is kept."""
    draws, above, trials = torch.Generator().manual_seed(0), 0, 2000
    said = {}
    for _ in range(trials):
        scores = torch.randn(held_out + 50, generator=draws)
        detector = SimpleNamespace(held_out_scores=scores[:held_out],
                                   settings=SimpleNamespace(false_alarms=0.05))
        limit = conformal.threshold(scores[:held_out], 0.05)
        flagged = int((scores[held_out:] > limit).sum())
        if flagged not in said:
            said[flagged] = kept(detector, flagged, 50)
        above += "more than the promise" in said[flagged]
    assert 0.01 < above / trials < 0.06
    assert "measured 0.0%, 0 of 50 good images; within what" in said[0]


def test_the_results_lie_beside_the_detector_unless_told_otherwise(
        evaluate, model, product, tmp_path):
    copy, out = tmp_path / "disc", tmp_path / "results.json"
    shutil.copytree(model, copy)
    assert evaluate("--out", out) == 0
    assert main(["evaluate", str(copy), str(product), "--device", "cpu"]) == 0
    beside, told = (json.loads(path.read_text())["result"]["i_auroc"]
                    for path in (copy / "results.json", out))
    assert beside == told
    Detector.from_pretrained(copy, device="cpu")


def test_evaluate_with_regret(evaluate, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(regret, "regret", lambda detector, test, every: {
        "chosen": {}, "best_on_test": {}, "regret": {"pro": 0.25 * every}})
    out = tmp_path / "r.json"
    assert evaluate("--out", out, "--regret", "2") == 0
    assert json.loads(out.read_text())["regret"]["regret"] == {"pro": 0.5}
    assert "0.5" in capsys.readouterr().out


def test_a_mask_that_is_missing_among_others_is_refused(
        model, product, tmp_path, refused):
    copy, out = shutil.copytree(product, tmp_path / "disc"), tmp_path / "r.json"
    (copy / "ground_truth" / "square" / "001_mask.png").unlink()
    assert "has no mask" in refused("evaluate", model, copy, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("without, defined, told", [
    ("ground_truth", {"i_auroc", "i_ap", "i_f1_max", "recall", "false_positive_rate"},
     "no defect has a mask"),
    ("test/square", {"false_positive_rate"}, "no defective image"),
    ("test/good", {"recall"}, "no good image")])
def test_what_is_defined_is_given_and_what_is_not_is_told(
        model, product, tmp_path, capsys, refused, without, defined, told):
    copy, out = shutil.copytree(product, tmp_path / "disc"), tmp_path / "r.json"
    whole = tmp_path / "whole.json"
    shutil.rmtree(copy / without)
    run = ["evaluate", str(model), str(copy), "--device", "cpu"]
    assert main([*run, "--out", str(out)]) == 0
    assert told in capsys.readouterr().err
    report = json.loads(out.read_text())
    result = report["result"]
    assert told in result["undefined"]
    rates = {*MEASURED, "recall", "false_positive_rate"}
    assert {name for name in rates if result[name] is not None} == defined
    assert main(["evaluate", str(model), str(product), "--device", "cpu", "--out",
                 str(whole)]) == 0
    right = json.loads(whole.read_text())
    assert all(result[name] == right["result"][name] for name in defined)
    scores = dict(zip(right["images"]["image"], right["images"]["score"]))
    for name, score in zip(report["images"]["image"], report["images"]["score"]):
        assert score == pytest.approx(scores[name], rel=1e-5)
    if without == "ground_truth":
        assert told in refused(*run, "--baselines", "--regret")
        assert main([*run, "--out", str(out), "--baselines"]) == 0
        assert "ahead: by I-AUROC " in capsys.readouterr().out
        found = json.loads(out.read_text())["baselines"]
        for name, row in baselines_of(product, model).items():
            assert found[name]["i_auroc"] == pytest.approx(row["i_auroc"])
            assert found[name]["pro"] is None and "overlap" not in found[name]
    else:
        assert told in refused(*run, "--baselines")


def test_without_the_good_images_it_ends_before_the_work(
        model, product, tmp_path, monkeypatch, refused):
    copy = shutil.copytree(product, tmp_path / "disc")
    shutil.rmtree(copy / "train")
    monkeypatch.setattr(Detector, "predict", lambda *a, **k: pytest.fail("predicted"))
    assert "train/good does not exist" in refused("evaluate", model, copy)


def test_empty_masks_are_told_of(model, product, tmp_path, capsys):
    copy = shutil.copytree(product, tmp_path / "disc")
    mask = copy / "ground_truth" / "square" / "000_mask.png"
    with Image.open(mask) as image:
        Image.new("L", image.size).save(mask)
    assert main(["evaluate", str(model), str(copy), "--device", "cpu", "--out",
                 str(tmp_path / "r.json")]) == 0
    said = capsys.readouterr().err
    assert "1 of 4 defective images without a mark in the mask" in said


def test_an_evaluation_is_on_disk_before_anything_else_can_fail(
        evaluate, tmp_path, monkeypatch):
    out = tmp_path / "r.json"
    monkeypatch.setattr(baselines, "baselines", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate("--out", out, "--baselines")
    assert json.loads(out.read_text())["result"]["pro"] > 0


def test_what_stands_in_the_way_is_said_before_the_prediction(
        model, product, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(Detector, "predict", lambda *a, **k: pytest.fail("predicted"))
    out, data = tmp_path / "results", tmp_path / "data"
    out.mkdir()
    asked = ("evaluate", model, product, "--device", "cpu", "--out", out)
    assert "results is a folder; give a file" in refused(*asked)
    copy = shutil.copytree(model, tmp_path / "disc")
    for name in ("manifest.json", "README.md", "state.safetensors"):
        before = (copy / name).read_bytes()
        assert f"{name} is none of `ddad evaluate`, and would be replaced" in refused(
            *asked[:-1], copy / name)
        assert (copy / name).read_bytes() == before
    shutil.copytree(product, data)
    (data / "validation" / "good").mkdir(parents=True)
    assert "holds no image" in refused("evaluate", model, data, "--device", "cpu")
