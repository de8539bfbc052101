"""Two processes on one CPU, started as a user would start them, against one: the same
losses, detector and metrics.
"""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, good_images, make_product, save_image, tiny
from safetensors.torch import load_file

from ddad import training
from ddad.cli import main
from ddad.data.product import load_test
from ddad.detector import Detector
from ddad.noise_predictor import build_unet
from ddad.runtime import processes
from ddad.runtime.devices import pick_device
from ddad.runtime.errors import SettingsError

# A batch that two processes cannot share evenly; added noise, whose draws belong to an
# image; and steps enough for unequal gradients to add up.
CHANGES = TINY | {"train_batch": 5, "train_length": "20 steps", "noise": True}
CHANGES = {name: list(value) if isinstance(value, tuple) else value
           for name, value in CHANGES.items()}
SET = ["--set", *(f"{name}={json.dumps(value)}" for name, value in CHANGES.items())]
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--nproc_per_node", "2",
                 "--master_addr", "127.0.0.1", "--master_port"),
    "accelerate": ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                   "--num_machines", "1", "--mixed_precision", "no",
                   "--dynamo_backend", "no", "--main_process_port"),
}


def two(launcher, *arguments):
    """`ddad ARGUMENTS` in two processes on the CPU; what they print."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
                   "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", *LAUNCHERS[launcher], port, "-m", "ddad"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True,
                          text=True, timeout=200, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A product with 7 test images, for one process 3 and for the other 4, and a single
    held-out image, for one of them none.
    """
    root = make_product(tmp_path_factory.mktemp("data") / "disc", good=4, bad=3)
    save_image(root / "validation" / "good" / "000.png", good_images(1, seed=7)[0])
    return root


@pytest.fixture(scope="module")
def models(uneven, tmp_path_factory):
    """The detector of one process, and that of two."""
    folder = tmp_path_factory.mktemp("models")
    one, other = folder / "one", folder / "two"
    assert main(["train", str(uneven), str(one), "--device", "cpu", *SET]) == 0
    printed = two("torchrun", "train", uneven, other, *SET)
    assert printed.count("saved ") == 1         # by the main process alone
    assert sorted(p.name for p in folder.iterdir()) == ["one", "two"]
    return one, other


def record(model):
    return json.loads((model / "manifest.json").read_text())["record"]


def test_two_processes_train_as_one(models, uneven):
    """AdamW turns a rounded gradient near zero into a step of either sign, so single
    weights differ by more than rounding.
    """
    one, other = map(record, models)
    alone, shared = one["training"], other["training"]
    assert shared | alone | {"loss": 0} == shared | {"loss": 0}
    assert (shared["processes"], shared["mixed_precision"]) == (2, "no")
    assert "processes" not in alone
    assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert other["tune_loss"] == pytest.approx(one["tune_loss"], rel=1e-5)
    for name in ("unet/diffusion_pytorch_model", "state"):
        a, b = (load_file(model / f"{name}.safetensors") for model in models)
        for key, value in a.items():
            torch.testing.assert_close(
                b[key], value, rtol=0, atol=2e-3,
                msg=lambda text, key=key: f"{key}: {text}")
    a, b = (Detector.from_pretrained(model, device="cpu") for model in models)
    assert b.threshold == pytest.approx(a.threshold, abs=1e-4)
    assert b.ranges.feature == pytest.approx(a.ranges.feature, abs=1e-4)
    images = load_test(uneven, a.settings).images
    torch.testing.assert_close(b.predict(images).score, a.predict(images).score, rtol=0,
                               atol=1e-4)


def test_two_processes_evaluate_as_one(models, uneven, tmp_path, capsys):
    model, out = models[1], [tmp_path / "one.json", tmp_path / "two.json"]
    printed = two("accelerate", "evaluate", model, uneven, "--out", out[1])
    assert main(["evaluate", str(model), str(uneven), "--device", "cpu",
                 "--out", str(out[0])]) == 0
    assert printed == capsys.readouterr().out   # one table, to four digits
    one, other = (json.loads(path.read_text()) for path in out)
    results = [report.pop("result") for report in (one, other)]
    images, same = (report.pop("images") for report in (one, other))
    assert other == one and same["image"] == images["image"]
    assert same["score"] == pytest.approx(images["score"], abs=1e-4)
    # by the defects' size, so by the order
    pro = [[size["pro"] for size in result.pop("by_size")] for result in results]
    assert pro[1] == pytest.approx(pro[0], abs=1e-6)
    assert results[1] == pytest.approx(results[0], abs=1e-6)


# --- without a second process


@pytest.fixture
def of_two(monkeypatch):
    """What a launcher sets for the second of two processes."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")


@pytest.mark.parametrize("P", [1, 2, 3, 8])
def test_shares_are_even_and_in_order(P, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(P))
    for n in (0, 1, 5, 16):
        rows = []
        for rank in range(P):
            monkeypatch.setenv("RANK", str(rank))
            first, end = processes.share(n)
            assert end - first in (n // P, -(-n // P))
            rows += range(first, end)
        assert rows == list(range(n))


def test_one_process_does_not_import_accelerate_for_it():
    code = ("import sys\n"
            "from ddad.runtime import processes as p\n"
            "p.gathered([1]), p.from_main(1), p.wait(), p.mean(1.0), p.share(3)\n"
            "p.prepare(None)\n"
            "assert not {'accelerate', 'torch'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_other_commands_are_refused(of_two, uneven, tmp_path, capsys):
    assert main(["detect", str(tmp_path), str(uneven), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("ddad detect: runs as one process; ")
    assert not list(tmp_path.iterdir())


def train(batch=4, checkpoint=None):
    """Training of a tiny U-Net on four empty latents; its record."""
    torch.manual_seed(0)
    settings, z0 = tiny(train_batch=batch), torch.zeros(4, 4, 4, 4)
    return training.train_noise_predictor(build_unet(settings, 4, 4), z0, None,
                                          settings, torch.device("cpu"), checkpoint)


def test_what_several_processes_cannot_use(of_two, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    used_by_all = "device 'cuda:1' would be used by all 2 processes"
    with pytest.raises(ValueError, match=used_by_all):
        pick_device("cuda:1")
    alone = SimpleNamespace(num_processes=1)
    monkeypatch.setattr("accelerate.PartialState", lambda cpu: alone)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but this .* is one of 1"):
        pick_device("auto")
    monkeypatch.setattr(processes, "prepare", lambda unet: (unet, {}))
    with pytest.raises(SettingsError, match="train_batch: 1 is less than the 2 proc"):
        train(batch=1)


def test_a_precision_that_is_not_supported(of_two, monkeypatch):
    fp16 = SimpleNamespace(mixed_precision="fp16")
    monkeypatch.setattr("accelerate.Accelerator", lambda: fp16)
    with pytest.raises(ValueError, match="mixed precision 'fp16' is not supported"):
        processes.prepare(torch.nn.Linear(1, 1))


def test_a_checkpoint_that_not_all_processes_see_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "gathered", lambda done: [*done, 250])
    refused = "state.safetensors is not the same file for all processes"
    with pytest.raises(SettingsError, match=refused):
        train(checkpoint=tmp_path / "state.safetensors")


def test_each_process_gets_its_own_device(of_two, monkeypatch):
    def state(cpu):
        device = torch.device("cpu" if cpu else "cuda:1")
        return SimpleNamespace(num_processes=2, device=device)

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("accelerate.PartialState", state)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda:1")
    assert pick_device("cpu") == torch.device("cpu")


def test_the_launcher_chooses_the_precision_of_training(monkeypatch):
    from accelerate.state import AcceleratorState

    records = []
    for precision in (None, "no", "bf16"):
        if precision:
            monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
        torch.manual_seed(0)
        unet, mean = build_unet(tiny(), 4, 4), torch.ones(8, 4, 4, 4)
        records.append(training.train_noise_predictor(unet, mean, None, tiny(),
                                                      pick_device("cpu")))
        assert {w.dtype for w in unet.parameters()} == {torch.float32}
        assert unet(mean, 1).sample.dtype == torch.float32
        AcceleratorState._reset_state(reset_partial_state=True)
    plain, same, low = records
    assert same == plain | {"processes": 1, "mixed_precision": "no"}
    assert low["mixed_precision"] == "bf16" and low["loss"] != plain["loss"]
    assert low["loss"] == pytest.approx(plain["loss"], rel=0.02)
