"""Where the networks compute, and how much memory that took."""
import subprocess
import sys

import pytest
import torch

from ddad.runtime import devices
from ddad.runtime.adapter import Networks, trainable
from ddad.runtime.devices import pick_device


@pytest.mark.skipif(sys.platform != "linux",
                    reason="getrusage is all there is elsewhere")
def test_a_process_is_not_charged_for_what_its_parent_held():
    held = bytearray(b"1") * 700_000_000
    code = ("from types import SimpleNamespace\n"
            "from ddad.runtime.devices import peak_memory\n"
            "print(peak_memory(SimpleNamespace(type='cpu')))")
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                           check=True)
    assert 1e6 < int(child.stdout) < 5e8 < len(held)     # torch alone is 2e8 of it


def test_devices_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == (
        "cuda" if torch.cuda.is_available() else "cpu")


def test_mps_has_to_be_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type != "mps" and pick_device("mps").type == "mps"


@pytest.mark.parametrize("name", ["tpu", "cuda:0", "cuda:99", "cpux", "cpu:x", "cpu:1"])
def test_a_device_that_this_machine_lacks(name):
    if name == "cuda:0" and torch.cuda.is_available():
        pytest.skip("it has one")
    with pytest.raises(ValueError, match=f"device '{name}' is not available"):
        pick_device(name)


def test_a_cpu_slow_in_bfloat16_is_told_of(monkeypatch, recwarn):
    assert 0 < devices.slower() < 1000
    monkeypatch.setattr(devices, "slower", lambda: 7.2)
    Networks(None, None, None, precision="float32")
    devices.tell_if_slow(torch.device("cuda"), "bfloat16")
    assert not recwarn
    with pytest.warns(UserWarning, match="7 times as long in bfloat16"):
        Networks(None, None, None, precision="bfloat16")
    with pytest.warns(UserWarning, match="train_precision to float32"):
        trainable(torch.nn.Identity(), torch.device("cpu"), "bfloat16")
    monkeypatch.setattr(devices, "slower", lambda: 0.3)
    Networks(None, None, None, precision="bfloat16")
    assert not recwarn
