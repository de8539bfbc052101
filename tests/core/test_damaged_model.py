"""A saved detector that is missing, damaged or does not fit is refused by name."""
import json

import pytest
from conftest import tiny
from safetensors.torch import load_file, save_file

from ddad.detector import Detector
from ddad.noise_predictor import build_unet
from ddad.runtime.errors import ModelError
from ddad.runtime.files import sha256
from ddad.runtime.manifest import MANIFEST, STATE, UNET, read_manifest


def load(folder):
    return Detector.from_pretrained(folder, device="cpu")


def refused(folder, match):
    with pytest.raises(ModelError, match=match) as error:
        load(folder)
    return str(error.value)


def vouch_for(folder):
    """Make the manifest's hashes those of the files, damaged as they are."""
    manifest = read_manifest(folder)
    manifest["sha256"] = {name: sha256(folder / name) for name in (STATE, UNET)}
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", [STATE, UNET])
def test_a_damaged_file_is_named(saved, name):
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[:-4] + b"\1\2\3\4")
    refused(saved, f"{name}.*copy the folder again")
    (saved / name).write_bytes(whole[: len(whole) // 2])
    refused(saved, name)
    (saved / name).unlink()
    refused(saved, name)


def test_a_unet_of_other_channels(saved):
    other = build_unet(tiny(unet_channels=(64,)), 192, 8)
    save_file(other.state_dict(), saved / UNET)
    vouch_for(saved)
    told = refused(saved, "model.*cannot be read")
    assert UNET in told or "UNet2DModel" in told


def test_a_state_that_lacks_its_bank(saved):
    state = load_file(saved / STATE)
    del state["bank"]
    save_file(state, saved / STATE)
    vouch_for(saved)
    refused(saved, "bank")


def test_a_state_that_is_no_safetensors(saved):
    (saved / STATE).write_bytes(b"no safetensors")
    vouch_for(saved)
    refused(saved, "model")


@pytest.mark.parametrize("folder", ["none", "."])
def test_no_manifest(tmp_path, folder):
    refused(tmp_path / folder, "holds no manifest.json")


@pytest.mark.parametrize("text, reason", [
    (b"{", "no JSON"), (b"\xff", "no JSON"), (b"[]", "no manifest of format 1"),
    (b'{"format": 2}', "no manifest of format 1")])
def test_what_is_no_manifest(saved, text, reason):
    (saved / MANIFEST).write_bytes(text)
    refused(saved, f"manifest.json is {reason}")


def test_a_manifest_that_lacks_an_entry(saved):
    manifest = read_manifest(saved)
    for name in ("settings", "sha256", "latent", "ranges", "resnet", "threshold",
                 "scale"):
        less = {key: value for key, value in manifest.items() if key != name}
        (saved / MANIFEST).write_text(json.dumps(less))
        refused(saved, name)


WRONG = [
    ("settings", []), ("settings", {"preset": "clean", "lam": 3}),
    ("settings", {"preset": ["clean"]}), ("sha256", []), ("sha256", "x"),
    ("latent", 3), ("latent", ["a", "b"]), ("ranges", [1]), ("resnet", 5)]


def test_a_manifest_with_a_wrong_entry(saved):
    manifest = read_manifest(saved)
    for name, wrong in WRONG:
        (saved / MANIFEST).write_text(json.dumps(manifest | {name: wrong}))
        refused(saved, "model")
    (saved / MANIFEST).write_text(json.dumps(manifest))
    load(saved)
