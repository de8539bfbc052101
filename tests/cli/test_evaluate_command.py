"""`ddad evaluate` and `ddad show` on a tiny product."""
import json
import shutil

import pytest

from ddad.cli import main
from ddad.detector import Detector
from ddad.evaluation import regret
from ddad.reproduction.tables import BASELINES

pytest_plugins = ["cli_fixtures"]


@pytest.fixture
def evaluate(model, product):
    def run(*more):
        return main(["evaluate", str(model), str(product), "--device", "cpu",
                     *map(str, more)])
    return run


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
    assert "I-AUROC" in printed
    assert f"{report['result']['pro']:.4f}" in printed
    assert report["settings"]["preset"] == "clean"
    assert report["device"] == "cpu" and report["compiled"] is False


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


def test_evaluate_without_defects_or_masks(model, product, tmp_path, refused):
    copy, out = tmp_path / "disc", tmp_path / "r.json"
    shutil.copytree(product, copy)
    (copy / "ground_truth" / "square" / "001_mask.png").unlink()
    assert "has no mask" in refused("evaluate", model, copy)
    shutil.rmtree(copy / "test" / "square")
    assert "no defective image" in refused("evaluate", model, copy, "--out", out)
    assert not out.exists()
