"""`ddad data`; fetching is tested with the data sets."""
import json
import shutil
from functools import partial

import pytest
from PIL import Image

from ddad.cli import main
from ddad.deploy.report import page
from ddad.synthetic import products, surface

pytest_plugins = ["cli_fixtures"]


def test_check_data(product, tmp_path, capsys):
    assert main(["data", "check", str(product), "--size", "64"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] is True
    assert main(["data", "check", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]


def test_a_folder_of_pictures_alone_is_checked_as_good_ones(product, tmp_path, capsys):
    photos = shutil.copytree(product / "train" / "good", tmp_path / "photos")
    (photos / "nothing.png").write_bytes(b"")
    with Image.open(photos / "000.png") as image:
        image.resize((80, 64)).save(photos / "wide.png")
    assert main(["data", "check", str(photos), "--size", "72"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["train"] == {"good": 18} and report["test"] == {}
    told = [one for one in report["problems"] if "nothing.png" in one]
    assert len(told) == 1 and "is empty (0 bytes)" in told[0]
    said = " ".join(report["warnings"])
    assert "1 images (wide.png) have another size than most good ones, 64 x 64" in said
    assert "17 images (000.png, 001.png, 002.png, ..) are smaller than the 72" in said
    (photos / "nothing.png").unlink()
    assert main(["data", "check", str(photos), "--size", "64"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable_for"] == ["train"] and "smaller than" not in str(report)
    (photos / "test").mkdir()                       # a layout after all
    assert main(["data", "check", str(photos)]) == 1
    assert json.loads(capsys.readouterr().out)["train"] == {}


def test_make_data_and_describe_them(tmp_path, monkeypatch, capsys):
    few = partial(products.make, train=1, test_good=1, test_defect=2)
    monkeypatch.setattr(products, "make", few)
    out = tmp_path / "data"
    for _ in range(2):                              # what is there is kept
        assert main(["data", "make", str(out), "--size", "32", "--seed", "3"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    names = ", ".join(products.PRODUCTS)
    assert told == f"made {out}: {names}; described in {out / 'croissant.json'}"
    metadata = json.loads((out / "croissant.json").read_text(encoding="utf-8"))
    assert "--size 32 --seed 3" in metadata["description"]
    rows = (out / "images.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 4 * len(products.PRODUCTS)


def test_make_a_photographed_surface(tmp_path, monkeypatch, capsys):
    pytest.importorskip("skimage", reason="scikit-image ships the pictures")
    few = partial(surface.make_surface, train=2, validation=1, test_good=1,
                  test_defect=1)
    monkeypatch.setattr(surface, "make_surface", few)
    assert main(["data", "make", str(tmp_path), "--surface", "grass"]) == 0
    assert capsys.readouterr().out == f"made {tmp_path / 'grass'}\n"
    assert main(["data", "check", str(tmp_path / "grass"), "--size", "96"]) == 0
    assert main(["data", "make", str(tmp_path), "--surface", "sand"]) == 2
    assert "unknown surface 'sand'" in capsys.readouterr().err


def test_a_report_does_not_take_the_place_of_the_data(product, refused, monkeypatch):
    monkeypatch.setattr("ddad.data.check.check",
                        lambda *_, **__: pytest.fail("read before it was refused"))
    assert "is a folder; give a file" in refused("data", "check", product, "--size", 64,
                                                 "--report", product)
    assert (product / "train" / "good").is_dir()


def test_a_report_takes_the_place_of_an_older_one_alone(product, tmp_path, refused,
                                                        capsys):
    copy, path = shutil.copytree(product, tmp_path / "disc"), tmp_path / "r.html"
    asked, own = ("data", "check", copy, "--size", 64, "--report"), tmp_path / "x.html"
    own.write_text("<!doctype html>\n<html><title>Data check of mine</title></html>")
    detected = tmp_path / "report.html"
    detected.write_text(page("What was found", []))
    for other in (own, detected, copy / "train" / "good" / "000.png"):
        before = other.read_bytes()
        assert f"{other.name} is none of `ddad data check`" in refused(*asked, other)
        assert other.read_bytes() == before
    for _ in range(2):
        assert main([*map(str, asked), str(path)]) == 0
    assert "Data check of disc" in path.read_text(encoding="utf-8")
