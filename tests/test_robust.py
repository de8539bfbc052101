"""Short versions of the long checks in tests/robust, and what they rest on: whole files, one writer, kept latents."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import good_images, save_picture, tiny, tiny_vae

from ddad import latent_projection
from ddad.cli import main
from ddad.detector import Detector
from ddad.dynamic_noise import DynamicNoise
from ddad.latent_projection import LatentProjection
from ddad.writing import WriteError, sole_writer, whole

ROBUST = Path(__file__).parent / "robust"
linux = pytest.mark.skipif(sys.platform != "linux", reason="the checks use fork and /proc")


@linux
def test_short_versions_hold(tmp_path):
    out, names = tmp_path / "record.json", ["killed-encode", "killed-train", "many-pictures", "one-folder", "read-only"]
    done = subprocess.run([sys.executable, ROBUST / "run.py", "--only", *names, "--count", "2", "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads(out.read_text())
    assert list(records) == names
    for record in records.values():
        assert record["passed"] and record["count"] == 2 and record["counts"] and record["versions"]["torch"]


@linux
def test_a_check_that_fails_or_dies_is_recorded(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROBUST))
    import run
    for check, said in ((lambda count, seed: ({"made": 1}, ["it broke"]), "it broke"), (lambda count, seed: 1 / 0, "ZeroDivisionError"),
                        (lambda count, seed: sys.exit(3), "died")):
        found = run.outcome(run.Check("x", 1, "nothing", check), 1)
        assert not found["passed"] and found["failed"] == 1 and said in found["failures"][0]


# --- files


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with whole(path) as aside:
        aside.write_text("old")
    with pytest.raises(WriteError, match=r"new cannot be written to \(No space left on device\): make room"):
        with whole(path) as aside:
            aside.write_text("half")
            raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt):
        with whole(path) as aside:
            aside.mkdir()
            (aside / "part").write_text("half")
            raise KeyboardInterrupt
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"] and path.read_text() == "old"


@linux
def test_one_writer_at_a_time_and_leftovers_are_swept(tmp_path):
    out, lock = tmp_path / "models" / "a.b", tmp_path / "models" / "a.b.lock"
    mine, other = lock.with_name(".a.b.0123abcd.partial"), lock.with_name(".a.b.c.0123abcd.partial")
    mine.mkdir(parents=True), other.mkdir()
    with sole_writer(lock, out):
        assert not mine.exists() and other.exists()                  # the other may be written at this moment
        with pytest.raises(WriteError, match="another process writes to .*a.b: wait"):
            with sole_writer(lock, out):
                pass
        assert lock.exists()
    assert not lock.exists()
    lock.write_text("")                                                # of a process that was killed: the system has let go of it
    with sole_writer(lock, out):
        pass


def test_a_folder_is_replaced_as_a_whole_and_put_back_after_a_failure_or_a_kill(tmp_path, monkeypatch):
    folder = tmp_path / "model"

    def written(text):
        with whole(folder) as aside:
            aside.mkdir()
            (aside / "file").write_text(text)

    written("first"), written("second")
    assert (folder / "file").read_text() == "second" and [path.name for path in tmp_path.iterdir()] == ["model"]
    real, renames = os.replace, []

    def fails_at_the_second(source, target):
        renames.append(target)
        if len(renames) == 2:
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_second)
    with pytest.raises(WriteError):
        written("third")
    monkeypatch.undo()
    assert (folder / "file").read_text() == "second" and [path.name for path in tmp_path.iterdir()] == ["model"]
    folder.rename(tmp_path / "model.old")                              # as a process leaves it that is killed between the two renames
    with pytest.raises(ValueError), whole(folder):
        raise ValueError
    assert (folder / "file").read_text() == "second"


def test_what_a_library_leaves_beside_its_file_goes_too(tmp_path):
    """safetensors writes to a file of its own name and renames it: a process killed meanwhile must leave it where the next one clears up."""
    path = tmp_path / "model.training.safetensors"
    with whole(path) as aside:
        (aside.parent / ".tmpABC123").write_text("half")
        aside.write_text("whole")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    left = tmp_path / f".{path.name}.0123abcd.partial"                 # as a killed process leaves it
    left.mkdir()
    (left / ".tmpABC123").write_text("half")
    with sole_writer(tmp_path / "model.lock", tmp_path / "model", path):
        assert not left.exists()


def test_nothing_is_written_past_the_one_place_that_renames():
    """A writer that a new module adds has to go through `whole`; those named here write inside its block, to memory, or resume."""
    allowed = {"writing.py": 2, "manifest.py": 1, "report.py": 1, "products.py": 2, "plots.py": 1, "training.py": 1, "saved_model.py": 3,
               "inspection.py": 5, "reproduce.py": 2, "latent_projection.py": 1, "magnetic_tiles.py": 1, "lesson.py": 2,
               "embedded.py": 1, "export.py": 1}
    writes = re.compile(r"write_text\(|write_bytes\(|save_file\(|np\.save\(|\)\.save\(|\.save_pretrained\(aside|save_pretrained\(out / \"vae\"|"
                        r"open\(lock|os\.replace\(aside / \"new\", path|open\(\"[wa]")
    found = {path.name: len(writes.findall(path.read_text(encoding="utf-8"))) for path in Path(latent_projection.__file__).parent.glob("*.py")}
    assert {name: n for name, n in found.items() if n} == allowed


# --- latents


def test_latents_are_encoded_once_and_again_for_other_images_or_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(latent_projection, "KEPT", 16)
    images, calls = good_images(40), []
    real = LatentProjection.posterior
    monkeypatch.setattr(LatentProjection, "posterior", lambda self, x0: calls.append(len(x0)) or real(self, x0))

    def encoded(images, vae, **changed):
        calls.clear()
        return LatentProjection(vae, **changed).encode_all(images, keep=tmp_path), sum(calls)

    first, n = encoded(images, tiny_vae())
    assert n == 40 and len(list(tmp_path.iterdir())) == 3
    again, n = encoded(images, tiny_vae())
    assert n == 0 and all(torch.equal(a, b) for a, b in zip(first, again))
    assert all(torch.equal(a, b) for a, b in zip(first, LatentProjection(tiny_vae()).encode_all(images)))
    changed = images.clone()
    changed[20] += 0.1
    assert encoded(changed, tiny_vae())[1] == 16
    for vae, changed in ((tiny_vae(seed=1), {}), (tiny_vae(), {"scale": 2.0}), (tiny_vae(), {"precision": "bfloat16"})):
        assert encoded(images, vae, **changed)[1] == 40
    before = len(list(tmp_path.iterdir()))
    assert LatentProjection(latent_projection.PixelSpace()).encode_all(images, keep=tmp_path)[1] is None and len(list(tmp_path.iterdir())) == before


# --- numbers


def test_held_out_images_are_compared_with_the_training_images():
    y, settings = torch.randn(120, 8, generator=torch.Generator().manual_seed(0)), tiny(neighbours=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = DynamicNoise.fit(y[:90], settings).compare(DynamicNoise.fit(y[:90], settings).distance(y[90:]))
        own = DynamicNoise.fit(y[:90], settings.change(self_neighbour=True))
        assert own.compare(own.distance(y[90:])) == found            # each training image without itself either way
    assert found["alike"] and found["p"] > 0.01
    for other in (y[90:] + 1.5, y[:30]):                             # farther off; and copies of training images, which are too near
        noise = DynamicNoise.fit(y[:90], settings)
        with pytest.warns(UserWarning, match="30 held-out good images are unlike the 90 training images"):
            assert not noise.compare(noise.distance(other))["alike"]


def test_fit_warns_of_other_held_out_images_and_records_it():
    images = good_images(48)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert Detector.fit(images, tiny(), device="cpu").record["held_out_distances"]["alike"]
    with pytest.warns(UserWarning, match="unlike"):
        fitted = Detector.fit(images[:36], tiny(), held_out=-images[36:], device="cpu")
    assert fitted.record["held_out_distances"]["alike"] is False and fitted.threshold is not None
    none = tiny("official", held_out=0.0)
    assert Detector.fit(images, none, device="cpu").record["held_out_distances"] is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_odd_pictures_get_finite_scores(tmp_path, precision, monkeypatch):
    for folder in (ROBUST, ROBUST.parent):
        monkeypatch.syspath_prepend(str(folder))
    import run  # noqa: F401
    from finite import _odd
    fitted = Detector.fit(good_images(16), tiny(precision=precision, train_precision=precision, vae="given"), vae=tiny_vae(), device="cpu")
    fitted.save_pretrained(tmp_path / "half", torch.float16)
    for detector in (fitted, Detector.from_pretrained(tmp_path / "half", vae=tiny_vae(), device="cpu")):
        found = detector.predict(_odd(2, 64, 0))
        assert found.score.isfinite().all() and found.map.isfinite().all() and found.reconstruction.isfinite().all()


# --- detect


def test_bad_pictures_are_skipped_on_request(product, tmp_path, capsys):
    assert main(["train", str(product), str(tmp_path / "model"), "--device", "cpu", "--vae", "pixels", "--set", "image_size=64", "unet_channels=[32]",
                 "train_length=2 steps", "neighbours=3", "neighbour_pool=4", "tune_epochs=0"]) == 0
    save_picture(tmp_path / "images" / "good.png", good_images(1)[0])
    (tmp_path / "images" / "bad.png").write_bytes(b"no picture")
    run = ["detect", str(tmp_path / "model"), str(tmp_path / "images"), str(tmp_path / "out"), "--device", "cpu"]
    assert main([*run, "--skip-bad"]) == 0 and "bad.png cannot be read" in capsys.readouterr().err
    assert main(run) == 2 and len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2
