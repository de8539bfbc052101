"""Whole files, one writer, and nothing that is written past them."""

import os
import re
import sys
from pathlib import Path

import pytest

import ddad
from ddad.runtime.errors import WriteError
from ddad.runtime.files import (
    replaceable_file,
    sole_writer,
    table_in,
    whole,
    write_text,
)


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with whole(path) as aside:
        aside.write_text("old")
    refusal = r"new cannot be written to \(No space left on device\): make room"
    with pytest.raises(WriteError, match=refusal):
        with whole(path) as aside:
            aside.write_text("half")
            raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt):
        with whole(path) as aside:
            aside.mkdir()
            (aside / "part").write_text("half")
            raise KeyboardInterrupt
    assert names_in(path.parent) == ["file.txt"] and path.read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a lock may stay")
def test_one_writer_at_a_time_and_leftovers_are_swept(tmp_path):
    out, lock = tmp_path / "models" / "a.b", tmp_path / "models" / "a.b.lock"
    mine = lock.with_name(".a.b.0123abcd.partial")
    other = lock.with_name(".a.b.c.0123abcd.partial")
    mine.mkdir(parents=True), other.mkdir()
    with sole_writer(lock, out):
        # the other may be written at this moment
        assert not mine.exists() and other.exists()
        with pytest.raises(WriteError, match="another process writes to .*a.b: wait"):
            with sole_writer(lock, out):
                pass
        assert lock.exists()
    assert not lock.exists()
    lock.write_text("")  # of a process that was killed: the system has let go of it
    with sole_writer(lock, out):
        pass


def written(folder, text):
    with whole(folder) as aside:
        aside.mkdir()
        (aside / "file").write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "model"
    written(folder, "first"), written(folder, "second")
    assert (folder / "file").read_text() == "second"
    assert names_in(tmp_path) == ["model"]


def test_a_folder_is_put_back_after_a_failure_or_a_kill(tmp_path, monkeypatch):
    folder, real, renames = tmp_path / "model", os.replace, []
    written(folder, "second")

    def fails_at_the_second(source, target):
        renames.append(target)
        if len(renames) == 2:
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_second)
    with pytest.raises(WriteError):
        written(folder, "third")
    monkeypatch.undo()
    assert (folder / "file").read_text() == "second"
    assert names_in(tmp_path) == ["model"]
    # as a process leaves it that is killed between the two renames
    folder.rename(tmp_path / ".model.replaced")
    with pytest.raises(ValueError), whole(folder):
        raise ValueError
    assert (folder / "file").read_text() == "second"


def test_a_folder_that_a_user_put_beside_it_is_left_alone(tmp_path):
    folder, mine = tmp_path / "model", tmp_path / "model.old"
    mine.mkdir(), (mine / "file").write_text("mine")
    written(folder, "first"), written(folder, "second")
    assert (mine / "file").read_text() == "mine"
    assert sorted(names_in(tmp_path)) == ["model", "model.old"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path):
    link, disk = tmp_path / "model", tmp_path / "disk"
    written(disk / "here", "first")
    link.symlink_to(disk / "here")
    written(link, "second"), written(link, "third")
    assert link.is_symlink() and (disk / "here" / "file").read_text() == "third"
    assert names_in(disk) == ["here"]
    assert sorted(names_in(tmp_path)) == ["disk", "model"]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    with pytest.raises(WriteError, match="data is a folder; give a file"):
        write_text(tmp_path / "data", "x")
    assert names_in(tmp_path / "data") == ["train"] and names_in(tmp_path) == ["data"]


def test_a_file_takes_the_place_of_its_own_kind_alone(tmp_path):
    own, path = (lambda path: "result" in table_in(path)), tmp_path / "r.json"
    replaceable_file(path, own, "ddad x")
    path.write_text('{"result": 1}')
    replaceable_file(path, own, "ddad x")
    others = ["", "[1]", "{", '{"results": 1}', '"result"', "[" * 10**5]
    for text in others:
        path.write_text(text)
        with pytest.raises(FileExistsError, match="r.json is none of `ddad x`, and"):
            replaceable_file(path, own, "ddad x")
        assert path.read_text() == text
    if hasattr(os, "mkfifo"):
        path.unlink(), os.mkfifo(path)
        with pytest.raises(FileExistsError):
            replaceable_file(path, own, "ddad x")
    with pytest.raises(WriteError, match="is a folder; give a file"):
        replaceable_file(tmp_path, own, "ddad x")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_folder_that_a_lost_link_leads_to_is_not_written_to(tmp_path):
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "gone")
    for folder in (link, link / "deeper"):
        with pytest.raises(WriteError, match="out is a link to .*gone, which is not"):
            with sole_writer(folder / ".lock", folder):
                pass
    assert names_in(tmp_path) == ["out"]


def test_what_a_library_leaves_beside_its_file_goes_too(tmp_path):
    """safetensors writes to a file of its own name and renames it: a process killed
    meanwhile must leave it where the next one clears up.
    """
    path = tmp_path / "model.training.safetensors"
    with whole(path) as aside:
        (aside.parent / ".tmpABC123").write_text("half")
        aside.write_text("whole")
    assert names_in(tmp_path) == [path.name]
    # as a killed process leaves it
    left = tmp_path / f".{path.name}.0123abcd.partial"
    left.mkdir()
    (left / ".tmpABC123").write_text("half")
    with sole_writer(tmp_path / "model.lock", tmp_path / "model", path):
        assert not left.exists()


# what writes, renames or copies a file; `write_text` and `write_json` of runtime.files
# are whole, and may be called
WRITES = re.compile(
    r"\.write_(?:text|bytes)\(|save_file\(|\.save\(|\.save_pretrained\(|os\.replace\("
    r"|open\([^)]*\"[wax]b?\"|shutil\.(?:copy2?|copyfile|copytree|move)\(")
# those in here write inside the block of `whole` or to a folder that is renamed, before
# a record that ends it, to memory, to a scratch folder, or on from where it broke off
ALLOWED = {
    "data/fetch.py": 5,
    "data/images.py": 1,                # a temporary file, which has no name
    "data/magnetic_tiles.py": 3,
    "deploy/export.py": 2,
    "deploy/folder.py": 4,
    "deploy/overlays.py": 1,
    "deploy/report.py": 1,
    "notebook/frames.py": 2,
    "reproduction/ablation.py": 1,
    "reproduction/overheads.py": 3,
    "reproduction/runs.py": 2,
    "runtime/checkpoints.py": 2,
    "runtime/files.py": 5,
    "runtime/latent_cache.py": 1,
    "saved_model.py": 3,
    "synthetic/autoencoder.py": 1,
    "synthetic/products.py": 2,
    "synthetic/surface.py": 1,
    "synthetic/weights.py": 2,
}


def test_nothing_is_written_past_the_one_place_that_renames():
    """A writer that a new module adds has to go through `whole`."""
    home = Path(ddad.__file__).parent
    found = {}
    for path in sorted(home.rglob("*.py")):
        if n := len(WRITES.findall(path.read_text(encoding="utf-8"))):
            found[path.relative_to(home).as_posix()] = n
    assert found == ALLOWED
