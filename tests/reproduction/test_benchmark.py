"""The benchmark measures what it says: the transcription gives the official answer, memory is counted, sections are kept; and `adapt`."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import good_images, tiny, tiny_vae

from ddad import bench, metrics, official
from ddad.cli import main
from ddad.detector import Detector
from ddad.memory import Alive, reckon
from ddad.noise_predictor import build_unet
from ddad.settings import FAST, SettingsError


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
    return Detector.fit(good_images(24), tiny(T_max=250, smallest_bin=5, train_length="30 steps"), vae=Plain(), device="cpu")


def test_the_transcription_gives_the_official_maps_scores_and_pro():
    settings = tiny("official", held_out=0.0, train_length="30 steps", T_max=250, neighbours=4, smallest_bin=5)
    detector = Detector.fit(good_images(24), settings, vae=Plain(), device="cpu")
    images = torch.cat([good_images(4), good_images(4, seed=70)])
    A, scores = official.evaluate(detector, images, batch=3)
    found = detector.predict(images)
    assert len(set(found.bin.tolist())) > 1
    torch.testing.assert_close(A, found.map, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, found.score, rtol=0, atol=1e-4)
    masks = np.zeros(A.shape)
    masks[4:, 20:40, 20:40] = 1
    assert official.pro(A.numpy(), masks) == pytest.approx(metrics.pro_200(A.numpy(), masks), abs=1e-4)


def test_the_bare_calls_are_those_of_a_detection(fitted):
    counted = {"unet": 0, "phi": 0}
    handles = [getattr(fitted, name).register_forward_hook(lambda *_, name=name: counted.update({name: counted[name] + 1})) for name in counted]
    fitted.predict(good_images(3))
    of_predict = dict(counted)
    bench.bare(fitted, good_images(3))()
    fast = fitted.under(fitted.settings.change(**FAST))
    fast.predict(good_images(3)), bench.bare(fast, good_images(3))()
    for handle in handles:
        handle.remove()
    assert of_predict == {"unet": 10, "phi": 2} and counted == {"unet": 10 + 10 + 3 + 3, "phi": 8}


def test_seconds_takes_turns_and_leaves_the_first_round_out():
    order = []
    taken = bench.seconds(lambda: order.append("a"), lambda: order.append("b"), repeats=2)
    assert order == ["a", "b"] * 3 and len(taken) == 2 and min(taken) >= 0


def test_memory_counts_what_is_alive():
    with Alive() as alive:
        a = torch.ones(1000)
        b = a + 1
        del a
        c = b.view(10, 100) * 2                                        # a view is no new memory
        del b, c
    assert alive.peak == 8000 and alive.now == 0


def test_memory_of_training_is_what_autograd_keeps():
    unet, kept = build_unet(tiny(unet_channels=(32, 64)), 4, 16), {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        unet(torch.randn(16, 4, 16, 16), torch.zeros(16, dtype=torch.long))
    # The largest batch that fits is reckoned for 256 x 256; here the picture is 128 x 128 for latents of 16 x 16.
    found = reckon(lambda: (tiny_vae(), build_unet(tiny(unet_channels=(32, 64)), 4, 16), torch.nn.Conv2d(3, 8, 3)), size=128)["train"]
    saved = sum(kept.values()) - sum(4 * p.numel() for p in unet.parameters())
    assert found["an_image"] == pytest.approx(saved / 16, rel=0.35)
    assert found["largest_batch"]["8 GB"] < found["largest_batch"]["24 GB"]


def test_sections_are_kept_and_headlines_made(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "make", lambda *_, **__: None)
    monkeypatch.setitem(bench.SECTIONS, "metric", lambda *_: {"pro200_over_exact": 9.0})
    monkeypatch.setitem(bench.SECTIONS, "start_up", lambda *_: {"help": 0.1})
    assert main(["bench", str(tmp_path), "--only", "metric", "--device", "cpu"]) == 0
    assert main(["bench", str(tmp_path), "--only", "start_up", "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(found["sections"]) == {"metric", "start_up"} and found["pro200_over_exact"] == 9.0
    assert found["sections"]["metric"]["made"]["threads"] == torch.get_num_threads()
    assert main(["bench", str(tmp_path), "--only", "speed"]) == 2 and main(["bench", str(tmp_path), "--scale", "huge"]) == 2


def test_calls_reports_each_path(product, tmp_path):
    detector = Detector.fit(good_images(16), tiny(), vae=Plain(), device="cpu")
    found = bench.calls(detector, product)
    ten = found["rows"][0]
    assert (ten["steps"], ten["calls"], ten["precision"]) == (10, 10, "float32")
    assert {(10, 3, "bfloat16"), (3, 3, "float32"), (10, 4, "float32")} <= {(r["steps"], r["calls"], r["precision"]) for r in found["rows"]}
    assert all(0 <= row[name] <= 1 for row in found["rows"] for name in ("i_auroc", "pro")) and found["images"] == 8
    assert all(0 <= row["held_out"]["pro"] <= 1 for row in found["rows"]) and found["held_out"] == 4


def test_a_curve_of_ones_own_is_printed(fitted, tmp_path, capsys, monkeypatch):
    fitted.save_pretrained(tmp_path / "model")
    row = {"precision": "float32", "steps": 10, "calls": 3, "seconds": 0.0124, "i_auroc": 0.91, "pro": 0.82,
           "held_out": {"i_auroc": 0.93, "pro": 0.84}}
    monkeypatch.setattr("ddad.bench.bench", lambda *a: {"sections": {"calls, bottle": {"rows": [row]}}, "unet_calls_saved": 10 / 3})
    assert main(["bench", str(tmp_path), "--curve", str(tmp_path / "model"), str(tmp_path / "bottle"), "--device", "cpu", "--vae", "pixels"]) == 0
    said = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(said) if line.startswith("bottle:"))
    assert said[head + 1].split() == ["10", "3", "12", "0.9100", "0.8200", "0.9300", "0.8400", "float32"]


def test_adapt_keeps_the_networks_and_makes_the_rest_anew(fitted):
    fast = fitted.adapt(good_images(24), fitted.settings.change(**FAST))
    assert fast.unet is fitted.unet and fast.settings.call_every == 4 and fitted.settings.call_every == 1
    assert fast.threshold != fitted.threshold and torch.equal(fast.dynamic_noise.bank, fitted.dynamic_noise.bank)
    same = fitted.adapt(good_images(24), fitted.settings)
    assert same.threshold == fitted.threshold and same.ranges == fitted.ranges
    assert fitted.adapt(good_images(24), fitted.settings.change(neighbour_stage=1)).dynamic_noise.bank.shape != fitted.dynamic_noise.bank.shape
    with pytest.raises(SettingsError, match="unet_channels.*train anew"):
        fitted.adapt(good_images(24), fitted.settings.change(unet_channels=(64,)))
    with pytest.warns(UserWarning, match="unlike the .* training images"):
        fitted.adapt(-good_images(24), fitted.settings.change(**FAST))


def test_train_from_a_detector(product, tmp_path):
    small = "image_size=64", "vae=pixels", "unet_channels=[32]", "train_length=3 steps", "neighbours=3", "neighbour_pool=4", "tune_epochs=0"
    assert main(["train", str(product), str(tmp_path / "one"), "--device", "cpu", "--set", *small]) == 0
    assert main(["train", str(product), str(tmp_path / "two"), "--device", "cpu", "--from", str(tmp_path / "one"), "--preset", "fast"]) == 0
    one, two = (Detector.from_pretrained(tmp_path / name, device="cpu") for name in ("one", "two"))
    assert two.settings.call_every == 4 and one.settings.call_every == 1
    assert all(torch.equal(a, b) for a, b in zip(one.unet.state_dict().values(), two.unet.state_dict().values(), strict=True))
    assert main(["train", str(product), str(tmp_path / "three"), "--from", str(tmp_path / "one"), "--set", "unet_channels=[64]"]) == 2
    for other in (["--preset", "paper"], ["--calibrate"]):
        assert main(["train", str(product), str(tmp_path / "three"), "--from", str(tmp_path / "one"), *other]) == 2
    assert not (tmp_path / "three").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="getrusage is all there is elsewhere")
def test_a_process_is_not_charged_for_what_its_parent_held():
    held = bytearray(b"1") * 500_000_000
    code = "from types import SimpleNamespace; from ddad.manifest import peak_memory; print(peak_memory(SimpleNamespace(type='cpu')))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1e6 < int(child.stdout) < 2e8 < len(held)
