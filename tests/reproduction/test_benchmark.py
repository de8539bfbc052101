"""The benchmark measures what it says, keeps its sections, and prints curves."""
import json
import shutil

import pytest
import torch
from conftest import good_images, tiny, tiny_vae

from ddad import calibration
from ddad.cli import main
from ddad.data.product import load_held_out, load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.baselines import of_patches, one_call
from ddad.evaluation.scoring import summary
from ddad.networks.features import load_features
from ddad.reproduction import benchmark, overheads, rivals, speed, timing
from ddad.settings import FAST
from ddad.training import hold_out


class Plain:
    """An autoencoder without a posterior: its latents need no draw."""

    def __init__(self):
        self.vae = tiny_vae()

    def encode(self, x0):
        return self.vae.encode(x0).latent_dist.mean

    def decode(self, z):
        return self.vae.decode(z).sample


@pytest.fixture(scope="module")
def fitted():
    settings = tiny(T_max=250, smallest_bin=5)
    return Detector.fit(good_images(24), settings, vae=Plain(), device="cpu")


def test_the_bare_calls_are_those_of_a_detection(fitted):
    counted, handles = {"unet": 0, "phi": 0}, []
    for name in counted:
        def count(*_, name=name):
            counted[name] += 1
        handles.append(getattr(fitted.networks, name).register_forward_hook(count))
    fitted.predict(good_images(3))
    of_predict = dict(counted)
    timing.bare(fitted, good_images(3))()
    fast = fitted.under(fitted.settings.change(**FAST))
    fast.predict(good_images(3))
    timing.bare(fast, good_images(3))()
    for handle in handles:
        handle.remove()
    assert of_predict == {"unet": 10, "phi": 2}
    assert counted == {"unet": 10 + 10 + 3 + 3, "phi": 8}


def test_rivals_stand_side_by_side(fitted, product, monkeypatch, tmp_path):
    monkeypatch.setattr(rivals, "make", lambda root: shutil.copytree(
        product, root / "board"))
    monkeypatch.setattr(rivals.Detector, "from_pretrained", lambda path, device: fitted)
    found = rivals.rivals(tmp_path / "images", "cpu", "laptop")
    rows, s = found["rows"], fitted.settings
    assert list(rows) == ["one call", "fast", "clean", "regional", "PatchCore"]
    assert all(row["seconds"] > 0 and row["alone"]["1"] > 0 for row in rows.values())
    train, test = load_train(product, s), load_test(product, s)
    whole = fitted.predict(test.images)
    assert rows["clean"] == rows["clean"] | {
        "pro": summary(whole.score, whole.map, test)["pro"]}
    alone = of_patches(load_features(s), [train], test, s, [s.seed])["patchcore"]
    assert rows["PatchCore"] == rows["PatchCore"] | {
        name: alone[name] for name in ("i_auroc", "pro")}
    single = one_call(fitted, hold_out(train, s, load_held_out(product, s))[1], test)
    assert rows["one call"]["pro"] == single["pro"]


def test_candidates_make_the_same_table_together(fitted, product, monkeypatch,
                                                 tmp_path):
    monkeypatch.setattr(rivals, "make", lambda root: root.exists() or shutil.copytree(
        product, root / "board"))
    monkeypatch.setattr(rivals.Detector, "from_pretrained", lambda path, device: fitted)
    for name, few in (("T_MAX", (40, 80)), ("BLUR", (0.0,)), ("LAMBDA", (0.0, 1.0)),
                      ("SMALLEST_BIN", (0.2,)), ("GUIDANCE", (0.33,)),
                      ("DEFECTS", 16)):
        monkeypatch.setattr(calibration, name, few)
    found = rivals.candidates(tmp_path / "images", "cpu", "laptop")
    assert [row["same"] for row in found["rows"].values()] == [True, True]
    assert min(row["together"] for row in found["rows"].values()) > 0


def test_seconds_takes_turns_and_leaves_the_first_round_out():
    order = []
    runs = (lambda: order.append("a"), lambda: order.append("b"))
    taken = timing.seconds(*runs, repeats=2)
    assert order == ["a", "b"] * 3 and len(taken) == 2 and min(taken) >= 0


def test_sections_are_kept_and_headlines_made(tmp_path, monkeypatch):
    metric = {"pro200_over_exact": 9.0}
    monkeypatch.setitem(benchmark.SECTIONS, "metric", lambda *_: dict(metric))
    monkeypatch.setitem(benchmark.SECTIONS, "start_up", lambda *_: {"help": 0.1})
    bench = lambda *asked: main(["bench", str(tmp_path), *asked, "--device", "cpu"])
    assert bench("--only", "metric") == 0 and bench("--only", "start_up") == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(found["sections"]) == {"metric", "start_up"}
    assert found["pro200_over_exact"] == 9.0
    made = found["sections"]["metric"]["made"]
    assert made["threads"] == torch.get_num_threads()
    assert bench("--only", "speed") == 2 and bench("--scale", "huge") == 2


def test_processes_are_told_of_threads_and_timed_together(monkeypatch, tmp_path):
    """What each is told, and the mean over both."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    started = []

    class Process:
        def __init__(self, command, *, env, **how):
            started.append({key: value for key, value in env.items()
                            if key.startswith("OMP_")})

        def communicate(self):
            return f"{len(started) / 10}\n", None

    monkeypatch.setattr(overheads.subprocess, "Popen", Process)
    found = overheads.together(tmp_path, "cpu", "laptop")
    assert started == [told for told in overheads.TOLD.values() for _ in range(2)]
    assert started[0] == {} and found["processes"] == 2
    assert [*found["rows"].values()] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_a_step_takes_time(monkeypatch):
    once = lambda *runs, repeats: timing.seconds(*runs, repeats=1)
    monkeypatch.setattr(overheads, "seconds", once)
    assert overheads.a_step() > 0


def test_detection_is_timed_in_every_precision_and_path(tmp_path, monkeypatch):
    """With networks as small as the tests' own, and one round each."""
    small = Detector.fit(good_images(8), tiny(tune_epochs=0), device="cpu",
                         held_out=good_images(2), vae=tiny_vae())

    def untrained(scale, images, device, **changes):
        return small.under(small.settings.change(**changes))

    monkeypatch.setattr(speed, "board", lambda drawn: drawn)
    monkeypatch.setattr(speed, "load_train", lambda *_: good_images(8))
    monkeypatch.setattr(speed, "untrained", untrained)
    once = lambda *runs, repeats: timing.seconds(*runs, repeats=1)
    monkeypatch.setattr(speed, "seconds", once)
    found = speed.detection(tmp_path, "cpu", "laptop")
    paths = ["float32", "bfloat16", "fast", "fast, bfloat16"]
    assert [*found["rows"]] == paths and (found["images"], found["size"]) == (8, 64)
    for row in found["rows"].values():
        alone = row.pop("alone")
        assert "1" in alone and min(row.values()) > 0 and min(alone.values()) > 0
    figures = benchmark.headline({"detection": found | {"made": {"gpu": None}}})
    over_networks = found["rows"]["float32"]["over_networks"]
    assert figures["detect_over_networks"] == over_networks
    assert figures["official_over_ours_cpu"] > 0


def test_calls_reports_each_path(fitted, product, monkeypatch):
    found = speed.calls(fitted, product)
    rows = found["rows"]
    path = lambda row: (row["steps"], row["calls"], row["precision"])
    assert path(rows[0]) == (10, 10, "float32")
    assert {(10, 3, "bfloat16"), (3, 3, "float32"), (10, 4, "float32")} <= {
        path(row) for row in rows}
    for row in rows:
        metrics = (row["i_auroc"], row["pro"], row["held_out"]["pro"])
        assert all(0 <= value <= 1 for value in metrics)
    assert found["images"] == 8 and found["held_out"] == 4 and found["every"] == 1
    assert all(row["alone"]["1"] > 0 for row in rows)
    monkeypatch.setattr(speed, "MOST", 3)
    monkeypatch.setattr(speed, "PATHS", speed.PATHS[:1])
    few = speed.calls(fitted, product)
    assert few["images"] == 3 and few["every"] == 3 and len(few["rows"]) == 3
    assert few["rows"][0]["held_out"] == rows[0]["held_out"]


def test_an_image_alone_is_timed_by_threads(monkeypatch):
    before, counted = torch.get_num_threads(), []
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 2)
    taken = timing.by_threads(lambda: counted.append(torch.get_num_threads()))
    assert [*taken] == ["1", "2"] and counted == [1] * 4 + [2] * 4
    assert torch.get_num_threads() == before


def test_a_curve_of_ones_own_is_printed(fitted, tmp_path, capsys, monkeypatch):
    fitted.save_pretrained(tmp_path / "model")
    row = {"precision": "float32", "steps": 10, "calls": 3, "seconds": 0.0124,
           "i_auroc": 0.91, "pro": 0.82, "held_out": {"i_auroc": 0.93, "pro": 0.84}}
    found = {"sections": {"calls, bottle": {"rows": [row]}}, "unet_calls_saved": 10 / 3}
    monkeypatch.setattr(benchmark, "bench", lambda *_: found)
    curve = ["--curve", str(tmp_path / "model"), str(tmp_path / "bottle")]
    assert main(["bench", str(tmp_path), *curve, "--device", "cpu",
                 "--vae", "pixels"]) == 0
    said = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(said) if line.startswith("bottle:"))
    assert said[head + 1].split() == ["10", "3", "12", "0.9100", "0.8200", "0.9300",
                                      "0.8400", "float32"]
