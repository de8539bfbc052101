"""A saved detector that is missing, damaged or does not fit is refused by name."""
import json

import pytest
import torch
from conftest import good_images, tiny
from safetensors.torch import load_file, save_file

from ddad.detector import Detector
from ddad.noise_predictor import build_unet
from ddad.runtime.errors import ModelError
from ddad.runtime.files import sha256
from ddad.runtime.manifest import MANIFEST, STATE, UNET, bound, read_manifest


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
    (b"{", "no JSON"), (b"\xff", "no JSON"), (b"[]", "no manifest of format 2"),
    (b'{"format": 1}', "no manifest of format 2")])
def test_what_is_no_manifest(saved, text, reason):
    (saved / MANIFEST).write_bytes(text)
    refused(saved, f"manifest.json is {reason}")


def test_a_manifest_that_lacks_an_entry(saved):
    manifest = read_manifest(saved)
    for name in ("settings", "sha256", "latent", "ranges", "resnet", "scale",
                 "held_out_scores"):
        less = {key: value for key, value in manifest.items() if key != name}
        (saved / MANIFEST).write_text(json.dumps(less))
        refused(saved, name)


OTHERS = [0.0, 1.0]
WRONG = [
    *(("held_out_scores", wrong) for wrong in (
        [], {}, "12", 5, True, [None], ["1"], [[1.0]], [True], [float("nan")],
        [float("inf")], [10**400], [2**70])),
    *(("ranges", wrong) for wrong in (
        {}, [], {"latent": OTHERS}, {"latent": None, "feature": OTHERS},
        {"latent": OTHERS, "feature": None}, {"latent": OTHERS, "feature": []},
        {"latent": OTHERS, "feature": [0.0]}, {"latent": OTHERS, "feature": [0, "1"]},
        {"latent": OTHERS, "feature": OTHERS, "patch": [0.0]},
        {"latent": OTHERS, "feature": OTHERS, "patch": 0},
        {"latent": OTHERS, "feature": OTHERS, "more": OTHERS})),
    ("settings", []), ("settings", {"preset": "clean", "lam": 3}),
    ("settings", {"preset": ["clean"]}), ("sha256", []), ("sha256", "x"),
    ("latent", 3), ("latent", ["a", "b"]), ("ranges", [1]), ("resnet", 5)]


def test_a_manifest_with_a_wrong_entry(saved):
    manifest = read_manifest(saved)
    for name, wrong in WRONG:
        (saved / MANIFEST).write_text(json.dumps(manifest | {name: wrong}))
        refused(saved, "model.*cannot be read")
    (saved / MANIFEST).write_text(json.dumps(manifest))
    load(saved)


# --- what only a step for each region has ---------------------------------------------

@pytest.mark.parametrize("changes", [
    {"step_rule": "region"}, {"patch_share": 0.5}, {"decode": False},
    {"dynamic": True}, {"quantile": 0.95}, {"false_alarms": 0.0}])
def test_settings_that_the_detector_has_nothing_for(saved, changes):
    manifest = read_manifest(saved)
    manifest["settings"] |= changes
    (saved / MANIFEST).write_text(json.dumps(manifest))
    refused(saved, "model.*cannot be read")


def test_without_held_out_scores_there_is_no_threshold(saved):
    manifest = read_manifest(saved) | {"held_out_scores": None}
    manifest["sha256"]["bound"] = bound(manifest)
    (saved / MANIFEST).write_text(json.dumps(manifest))
    assert load(saved).threshold is None


@pytest.fixture
def by_region(regional, tmp_path):
    regional.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_ranges_that_lack_that_of_the_third_map(by_region):
    manifest = read_manifest(by_region)
    manifest["ranges"]["patch"] = None
    (by_region / MANIFEST).write_text(json.dumps(manifest))
    refused(by_region, "ranges are no pairs of numbers, one for each map")


DAMAGE = {
    "patches": (None, lambda f: f[:0], lambda f: f[0], lambda f: f.view(1, *f.shape),
                lambda f: f * torch.inf),
    "patch_range": (None, lambda r: r[:1], lambda r: r[0], lambda r: r.repeat(2),
                    lambda r: r * torch.nan)}


@pytest.mark.parametrize("name, n", [(name, n) for name in DAMAGE for n in range(5)])
def test_a_damaged_bank_of_patches(by_region, name, n):
    state, damage = load_file(by_region / STATE), DAMAGE[name][n]
    value = state.pop(name)
    if damage is not None:
        state[name] = damage(value).contiguous()
    save_file(state, by_region / STATE)
    vouch_for(by_region)
    refused(by_region, "model.*cannot be read.*patch")


def test_patches_of_other_features(by_region):
    state = load_file(by_region / STATE)
    state["patches"] = state["patches"][:, 1:].contiguous()
    save_file(state, by_region / STATE)
    vouch_for(by_region)
    with pytest.raises(ModelError, match="patches are .* is for"):
        load(by_region).predict(good_images(1))
