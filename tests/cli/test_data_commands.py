"""`ddad data`; fetching is tested with the data sets."""
import json
from functools import partial

import pytest

from ddad.cli import main
from ddad.synthetic import products, surface


def test_check_data(product, tmp_path, capsys):
    assert main(["data", "check", str(product), "--size", "64"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] is True
    assert main(["data", "check", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]


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
