"""Training and evaluation tell of copies, byte for byte, before their work begins."""
import json
import os
import shutil

import pytest
from conftest import TINY

from ddad.cli import main
from ddad.data.plausible import said_of_copies
from ddad.detector import Detector
from ddad.runtime.errors import DataError

SMALL = [f"{name}={json.dumps(value)}" for name, value in TINY.items()]


class Begun(Exception):
    """The work began."""


@pytest.fixture
def root(product, tmp_path):
    return shutil.copytree(product, tmp_path / "disc")


@pytest.fixture
def told(monkeypatch, capsys, fitted_folder, tmp_path):
    """What a command says before its work."""
    def stop(*_, **__):
        raise Begun

    monkeypatch.setattr(Detector, "fit", stop)
    monkeypatch.setattr("ddad.evaluation.scoring.evaluate", stop)

    def of(command, root):
        paths = {"train": [root, tmp_path / "out"], "evaluate": [fitted_folder, root]}
        more = ["--set", *SMALL] if command == "train" else []
        with pytest.raises(Begun):
            main([command, *map(str, paths[command]), "--device", "cpu", *more])
        return capsys.readouterr().err

    return of


def test_a_sound_folder_is_not_told_of(root, told):
    assert told("train", root) == told("evaluate", root) == ""
    assert said_of_copies(root) == []


def test_a_training_tells_of_copies_among_its_images(root, told):
    good, held_out = root / "train" / "good", root / "validation" / "good"
    shutil.copy(good / "000.png", good / "x.png")
    said = "warning: 1 images (train/good/x.png) are the same as another good image"
    assert told("train", root).startswith(said)
    shutil.copytree(good, held_out)
    assert "17 images (validation/good/000.png, " in told("train", root)
    assert "held out and trained on as well" in told("train", root)


def test_an_evaluation_tells_of_test_images_that_are_trained_on(root, told):
    shutil.copy(root / "train" / "good" / "000.png", root / "test" / "good")
    assert told("evaluate", root) == (
        "warning: 1 images (test/good/000.png) are trained on or held out as well, "
        "pixel for pixel: figures of them are too good.\n")
    assert told("train", root) == ""


def test_a_part_that_cannot_be_used_is_refused(root):
    shutil.rmtree(root / "train")
    with pytest.raises(DataError, match="train/good does not exist"):
        said_of_copies(root)
    assert said_of_copies(root, ("test",)) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
def test_what_is_no_file_is_refused(root):
    """A pipe would be waited for, also by the hash that comes next."""
    path = root / "train" / "good" / "x.png"
    path.symlink_to(root / "gone")
    with pytest.raises(DataError, match="x.png is a link to"):
        said_of_copies(root)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="x.png cannot be read .it is no plain file"):
        said_of_copies(root)
