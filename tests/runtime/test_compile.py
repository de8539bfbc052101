"""Compiled networks: short batches are filled up, and what happens without a
compiler.
"""
import pytest
import torch
import torch._inductor.config
from conftest import close, tiny_vae
from torch import nn

from ddad.detector import Detector
from ddad.runtime.adapter import Networks
from ddad.runtime.errors import ModelError

REFUSED = "torch.compile does not work on this machine.*C\\+\\+ compiler"


@pytest.fixture
def own(fitted_folder):
    """A detector that a test may change."""
    return Detector.from_pretrained(fitted_folder, device="cpu")


def test_a_compiled_detector_fills_its_batches_up(own, fitted, images, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: None)
    assert own.compile(batch=4) is own and own.networks.compiled == 4
    sizes, unet = [], own.networks.unet
    unet.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    found = own.predict(images, batch=4)
    close(found, fitted.predict(images, batch=4), atol=1e-6)
    assert len(images) % 4 and set(sizes) == {4}


def test_a_detector_whose_compiling_fails_is_as_before(own, fitted, images,
                                                       monkeypatch):
    def compiles_to_a_failure(network, **_):
        def fails(*_):
            raise RuntimeError("no compiler\nand more lines")
        network._compiled_call_impl = fails

    monkeypatch.setattr(nn.Module, "compile", compiles_to_a_failure)
    with pytest.raises(ModelError, match=r"machine \(RuntimeError: no compiler\);"):
        own.compile(batch=2)
    assert not own.networks.compiled
    close(own.predict(images), fitted.predict(images), atol=0)


class Phi(nn.Module):
    """One block, which takes a kernel of its own."""

    def forward(self, x0):
        return [x0.sin().cos()]


def test_a_machine_that_cannot_compile(monkeypatch, tmp_path):
    """torch itself fails; networks so small that it does so soon."""
    none = (str(tmp_path / "no-compiler"),)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", none)
    # what was compiled once would be found again
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    unet, vae, x0 = nn.Linear(2, 2), tiny_vae(), torch.randn(3, 3, 8, 8)
    networks = Networks(vae, unet, phi := Phi())
    before = networks.features(x0)
    with pytest.raises(ModelError, match=REFUSED):
        networks.compile(2, lambda: networks.features(x0))
    assert not networks.compiled
    for network in (unet, phi, vae.encoder, vae.decoder):
        assert network._compiled_call_impl is None
    assert torch.equal(*before, *networks.features(x0))
