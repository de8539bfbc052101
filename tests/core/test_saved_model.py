"""A detector on disk: it says the same when it comes back, nothing recorded is run, and
nothing is lost.
"""
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import close, good_images, tiny, tiny_resnet, tiny_vae
from safetensors.torch import load_file

from ddad import saved_model
from ddad.detector import Detector
from ddad.networks.autoencoders import PixelSpace
from ddad.runtime.errors import ModelError
from ddad.runtime.files import sha256
from ddad.runtime.manifest import CARD, MANIFEST, STATE, UNET, bound, read_manifest


def load(folder, **given):
    return Detector.from_pretrained(folder, device="cpu", **given)


@pytest.fixture(scope="module")
def found(fitted, images):
    return fitted.predict(images)


def test_save_and_load(fitted, saved, images, found):
    files = [p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()]
    assert sorted(files) == [CARD, MANIFEST, STATE, "unet/config.json", UNET]
    loaded = load(saved)
    close(loaded.predict(images), found, atol=0)
    assert (loaded.settings, loaded.threshold) == (fitted.settings, fitted.threshold)
    assert torch.equal(loaded.held_out_scores, fitted.held_out_scores)
    assert loaded.ranges == fitted.ranges
    assert loaded.record == json.loads(json.dumps(fitted.record))
    networks = loaded.networks
    assert not any(p.requires_grad for network in (networks.unet, networks.phi)
                   for p in network.parameters())
    loaded.save_pretrained(saved)                   # over itself
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
    close(load(str(saved)).predict(images), found, atol=0)
    manifest = read_manifest(saved)
    assert manifest["format"] == 2
    assert set(manifest["versions"]) >= {"python", "torch", "ddad"}
    assert manifest["sha256"][UNET] == sha256(saved / UNET)


def test_float16_halves_the_files_and_hardly_changes_a_score(
        fitted, fitted_folder, images, found, tmp_path):
    half = tmp_path / "half"
    fitted.save_pretrained(half, torch.float16)
    loaded = load(half)
    assert loaded.networks.unet.dtype == torch.float32
    assert next(loaded.networks.phi.parameters()).dtype == torch.float32
    short = loaded.predict(images)
    assert (short.score - found.score).abs().max() < 0.03 * found.score.abs().max()
    assert (short.distance - found.distance).abs().max() < 0.02
    size = lambda folder, name: (folder / name).stat().st_size
    for name in (UNET, STATE):
        assert size(half, name) < 0.6 * size(fitted_folder, name)
    # the bins' edges stay exact, and the one saved is as it was
    assert load_file(half / STATE)["distances"].dtype == torch.float32
    assert next(fitted.networks.unet.parameters()).dtype == torch.float32


def test_a_bank_of_patches_comes_back_to_the_bit(regional, images, tmp_path):
    folder, half, found = tmp_path / "a", tmp_path / "b", regional.predict(images)
    regional.save_pretrained(folder)
    loaded, bank = load(folder), regional.patch_bank
    close(loaded.predict(images), found, atol=0)
    assert torch.equal(loaded.patch_bank.f, bank.f)
    assert torch.equal(loaded.patch_bank.low_high, bank.low_high)
    assert loaded.ranges == regional.ranges and loaded.ranges.patch is not None
    assert torch.equal(loaded.held_out_scores, regional.held_out_scores)
    assert loaded.threshold == regional.threshold
    regional.save_pretrained(half, torch.float16)
    again, state = load(half), load_file(half / STATE)
    assert state["patches"].dtype == torch.float16
    # the bins' edges stay exact
    assert torch.equal(state["patch_range"], bank.low_high)
    assert again.patch_bank.f.dtype == torch.float32
    short = again.predict(images)
    assert (short.step_map == found.step_map).float().mean() > 0.95
    torch.testing.assert_close(short.patch_map, found.patch_map, rtol=0.01, atol=0.05)


def test_false_alarms_can_be_set_on_a_detector_that_was_saved(saved):
    """All held-out scores are kept, so that the threshold needs no image."""
    loaded, thresholds = load(saved), []
    for rate in (0.05, 0.2, 0.4, 0.6, 0.8):
        settings = loaded.settings.change(false_alarms=rate)
        thresholds.append(loaded.under(settings).threshold)
    # of four scores: no rate below one in five can be promised
    expected = sorted(loaded.held_out_scores.tolist(), reverse=True)
    assert thresholds == [expected[0], *expected]


# --- networks that it does not bring --------------------------------------------------

def test_a_detector_with_resnet_features_and_a_given_autoencoder(tmp_path, images):
    resnet, folder = tmp_path / "resnet", tmp_path / "model"
    tiny_resnet(resnet)
    settings = tiny(features=str(resnet), vae="given")
    one = Detector.fit(good_images(12), settings, device="cpu", vae=tiny_vae())
    shutil.rmtree(resnet)                   # the saved detector brings its own
    one.save_pretrained(folder)
    ask = "model was made with the autoencoder 'given'.*pass it as vae"
    with pytest.raises(ModelError, match=ask):
        load(folder)
    again = load(folder, vae=tiny_vae())
    close(again.predict(images), one.predict(images), atol=0)


MINE = """from pathlib import Path
from ddad.networks.autoencoders import PixelSpace
def make():
    Path({!r}).touch()
    return PixelSpace()
"""


def test_a_recorded_python_file_is_not_run_on_load(fitted, tmp_path, images):
    ran, file, folder = (tmp_path / name for name in ("ran", "mine.py", "model"))
    file.write_text(MINE.format(str(ran)))
    own = f"{file}:make"
    one = Detector.fit(good_images(12), tiny(vae=own, tune_epochs=0), device="cpu",
                       unet=fitted.networks.unet)
    one.save_pretrained(folder)
    ran.unlink()
    with pytest.raises(ModelError, match="mine.py:make.*pass it as vae"):
        load(folder)
    assert not ran.exists()
    found = load(folder, vae=PixelSpace()).predict(images)
    close(found, one.predict(images), atol=0)
    manifest = read_manifest(folder)
    manifest["settings"]["train_vae"] = own
    manifest["sha256"]["bound"] = bound(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    load(folder, vae=PixelSpace())
    assert not ran.exists()


@pytest.mark.parametrize("change", [
    lambda manifest: manifest["settings"].update(lam=0.1),
    lambda manifest: manifest.update(threshold=0.3),
    lambda manifest: manifest["held_out_scores"].sort(),
    lambda manifest: manifest["ranges"]["latent"].__setitem__(1, 9.0)])
def test_scores_and_ranges_are_of_their_settings(fitted, tmp_path, change):
    fitted.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / MANIFEST
    manifest = read_manifest(tmp_path / "model")
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="belong together, and one was changed"):
        load(tmp_path / "model")
    del manifest["sha256"]["bound"]                             # an older one
    path.write_text(json.dumps(manifest))
    assert load(tmp_path / "model")


def test_an_autoencoder_of_other_weights_is_refused(fitted, tmp_path, images):
    one = Detector.fit(good_images(12), tiny(vae="given", tune_epochs=0), device="cpu",
                       vae=tiny_vae())
    one.save_pretrained(tmp_path / "model")
    other = tiny_vae()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    with pytest.raises(ModelError, match="model was made with an autoencoder of other"):
        load(tmp_path / "model", vae=other)
    # of an object that is no module nothing is known, nor of one in an older manifest
    assert load(tmp_path / "model", vae=PixelSpace())
    manifest = read_manifest(tmp_path / "model")
    del manifest["autoencoder"]
    (tmp_path / "model" / MANIFEST).write_text(json.dumps(manifest))
    assert load(tmp_path / "model", vae=other)


def test_features_that_could_not_be_read_again_are_not_saved(fitted, tmp_path):
    class Own(torch.nn.Conv2d):
        def forward(self, x0):
            return [super().forward(x0)] * 3

    torch.manual_seed(0)
    one = Detector.fit(good_images(12), tiny(tune_epochs=0), device="cpu",
                       unet=fitted.networks.unet, phi=Own(3, 32, 8, 8))
    with pytest.raises(ModelError, match="a network that no setting names"):
        one.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


# --- writing --------------------------------------------------------------------------

def test_a_disk_or_the_present_folder_is_not_replaced(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "mounted")
    for name in ("here", "mounted"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / "here")
        with pytest.raises(FileExistsError, match="a mounted disk, or the folder you"):
            fitted.save_pretrained(tmp_path / name)
        fitted.save_pretrained(tmp_path / name / "in it")


def test_a_foreign_folder_is_not_overwritten(fitted, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    foreign = "photos holds something that is no saved detector"
    with pytest.raises(FileExistsError, match=foreign):
        fitted.save_pretrained(folder)
    assert [p.name for p in folder.iterdir()] == ["holiday.jpg"]
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]
    new, empty = tmp_path / "a" / "new" / "folder", tmp_path / "empty"
    empty.mkdir()
    for free in (new, empty):
        fitted.save_pretrained(free)
        assert read_manifest(free)


def test_what_lies_beside_a_detector_is_not_deleted(fitted, saved):
    (saved / "notes.txt").write_text("x")
    beside = "holds notes.txt beside the saved detector, and saving would delete it"
    with pytest.raises(FileExistsError, match=beside):
        fitted.save_pretrained(saved)
    assert (saved / "notes.txt").exists() and load(saved)


@pytest.mark.parametrize("where", ["save_file", "versions"])
def test_nothing_is_lost_when_saving_fails(fitted, saved, monkeypatch, where):
    def fails(*_, **__):
        raise OSError("no space left on device")

    def files():
        return {path: sha256(path) for path in saved.rglob("*") if path.is_file()}

    other, before = fitted.under(fitted.settings.change(lam=0.1)), files()
    with monkeypatch.context() as patch:
        patch.setattr(saved_model, where, fails)
        with pytest.raises(OSError, match="no space"):
            other.save_pretrained(saved)
    assert files() == before and load(saved).settings.lam == fitted.settings.lam
    # what the failure left does not stand in the way
    other.save_pretrained(saved)
    assert load(saved).settings.lam == 0.1
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
