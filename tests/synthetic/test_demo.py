"""The demo, on a few images of one product: what it prints and what results.json holds.
"""
import json
from functools import partial

import pytest
from records import incomplete

from ddad.cli import main
from ddad.reproduction.tables import BASELINES
from ddad.synthetic import demo, products

METRICS = ("i_auroc", "p_auroc", "pro")


def test_demo(tmp_path, monkeypatch, capsys):
    few = partial(products.make, products=["fabric"], train=10, test_good=3,
                  test_defect=3)
    monkeypatch.setattr(demo, "make", few)
    monkeypatch.setattr(demo, "PRODUCTS", ("fabric",))
    monkeypatch.setattr(products, "PRODUCTS", ("fabric",))
    assert main(["demo", str(tmp_path / "demo"), "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "demo" / "results.json").read_text())
    printed = capsys.readouterr().out
    for part in ("fabric", "mean"):
        rows = [report[part], *report[part]["baselines"].values()]
        assert list(report[part]["baselines"]) == list(BASELINES)
        assert all(0 <= row[m] <= 1 for row in rows for m in METRICS)
        for title, row in zip(["the method", *BASELINES.values()], rows):
            line = next(line for line in printed.splitlines()
                        if line.startswith(f"{part}: {title}  "))
            assert all(f"{row[m]:.4f}" in line for m in METRICS)
    assert not incomplete(report) and report["runs"][0]["category"] == "fabric"
    kinds = {path.stem for path in (tmp_path / "demo").glob("fabric_*.png")}
    assert "fabric_good" in kinds and len(kinds) > 1


def test_an_interrupted_demo_keeps_its_images(tmp_path, monkeypatch):
    """Those made before are not made again."""
    monkeypatch.setattr(demo, "make", partial(
        products.make, products=["fabric"], train=2, test_good=1, test_defect=1))

    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "load_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        demo.demo(tmp_path, device="cpu")
    images = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    with pytest.raises(KeyboardInterrupt):
        demo.demo(tmp_path, device="cpu")
    assert len(images) == 5 and images == {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}


def test_means_are_over_the_products():
    def figures(value):
        return {m: value for m in METRICS}

    results = {name: figures(value) | {"baselines": {"padim": figures(value / 2)}}
               for name, value in (("blister", 0.5), ("board", 1.0))}
    assert demo.mean_over(results) == figures(0.75) | {
        "baselines": {"padim": figures(0.375)}}
