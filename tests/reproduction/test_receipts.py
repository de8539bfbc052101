"""Receipts: one that was altered, and two set side by side; on recorded runs."""
import json
import shutil
from pathlib import Path

import pytest

from ddad.cli import main
from ddad.reproduction.receipts import compare, digest, make_receipt, read_receipt
from ddad.runtime.errors import ReceiptError

RECORDED = Path(__file__).parents[2] / "book" / "results" / "receipts"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the receipt of four of the recorded runs."""
    receipt = read_receipt(RECORDED / "products.json")
    cells = [("clean", 0), ("clean", 1), ("regional", 0), ("regional", 1)]
    receipt["runs"] = [run for run in receipt["runs"] if run["category"] == "blister"
                       and (run["preset"], run["seed"]) in cells]
    receipt["sha256"] = digest(receipt)
    out = tmp_path_factory.mktemp("receipt")
    (out / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    return out


@pytest.fixture
def receipt(folder):
    return read_receipt(folder)


def test_every_recorded_receipt_is_what_it_states():
    for path in RECORDED.glob("*.json"):
        assert read_receipt(path)["runs"], path.name


def test_an_altered_receipt_is_refused(receipt, tmp_path):
    receipt["runs"][0]["result"]["pro"] += 0.01
    (tmp_path / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    with pytest.raises(ReceiptError, match="altered"):
        read_receipt(tmp_path)
    # whoever alters it may hash it anew, but not change the scores' ranks
    receipt["runs"][0]["result"]["i_auroc"] -= 0.01
    receipt["sha256"] = digest(receipt)
    (tmp_path / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    with pytest.raises(ReceiptError, match="its images give"):
        read_receipt(tmp_path)
    with pytest.raises(ReceiptError, match="no receipt"):
        read_receipt(tmp_path / "nothing.json")


def rehashed(receipt, folder):
    """The receipt as a file, with the hash of what it holds."""
    receipt["sha256"] = digest(receipt)
    path = folder / "receipt.json"
    path.write_text(json.dumps(receipt), encoding="utf-8")
    return path


def test_an_answers_figures_are_those_of_its_images(receipt, tmp_path):
    asked = next(run for run in receipt["runs"] if "questions" in run)
    asked["questions"]["paths"]["static steps"]["pro"] += 0.01
    with pytest.raises(ReceiptError, match="static steps states pro"):
        read_receipt(rehashed(receipt, tmp_path))


def test_a_receipt_of_another_format_is_refused(receipt, tmp_path):
    with pytest.raises(ReceiptError, match="has format 3, this package reads 2"):
        read_receipt(rehashed(receipt | {"format": 3}, tmp_path))


def test_what_images_do_through_false_positives_is_checked(receipt, tmp_path):
    """As far as it can be: its shape, and that each third's sums to nothing."""
    receipt["format"] = 2
    images = receipt["runs"][0]["images"]
    n = len(images["score"])
    images["false"] = [[0.25, -0.25, *[0.0] * (n - 2)]] * 3
    assert read_receipt(rehashed(receipt, tmp_path))["format"] == 2
    rest = [0.0] * (n - 1)
    for false in ([[0.25, *rest]] * 3, [[0.0] * n] * 2, [rest] * 3,
                  [[float("nan"), *rest]] * 3):
        images["false"] = false
        with pytest.raises(ReceiptError, match="seed 0 has a `false` that is not"):
            read_receipt(rehashed(receipt, tmp_path))
    del images["false"]
    with pytest.raises(ReceiptError, match="is no receipt"):
        read_receipt(rehashed(receipt, tmp_path))


def test_groups_are_one_an_image(receipt, tmp_path):
    test = receipt["test"]["blister"]
    n = len(test["image"])
    test["group"] = ["a"] * n
    assert read_receipt(rehashed(receipt, tmp_path))
    test["group"] = ["a"] * (n - 1)
    with pytest.raises(ReceiptError, match="not as many areas, regions or groups"):
        read_receipt(rehashed(receipt, tmp_path))


def test_a_run_of_an_older_package_makes_no_receipt(receipt, tmp_path):
    run = receipt["runs"][0]
    run["images"] |= receipt["test"]["blister"]
    del run["images"]["false"], run["images"]["group"]
    path = tmp_path / "blister" / "clean-0" / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(ReceiptError, match="older package, without false, group: del"):
        make_receipt(tmp_path)


def test_there_is_no_receipt_of_nothing_or_of_other_test_images(receipt, tmp_path):
    with pytest.raises(ReceiptError, match="holds no finished run"):
        make_receipt(tmp_path)
    for n, run in enumerate(receipt["runs"][:2]):
        path = tmp_path / "blister" / f"clean-{n}" / "run.json"
        path.parent.mkdir(parents=True)
        test = receipt["test"]["blister"]
        test["image"] = [f"{n} {name}" for name in test["image"]]
        run["images"] |= test
        path.write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(ReceiptError, match="tested on different images"):
        make_receipt(tmp_path)


def changed(receipt, where, value):
    """A copy with one value of its first run changed."""
    other = json.loads(json.dumps(receipt))
    *path, last = where
    inner = other["runs"][0]
    for name in path:
        inner = inner[name]
    inner[last] = value
    return other


def test_compare_tells_same_from_near_from_different_from_not_comparable(receipt):
    def verdict(*where_and_value):
        return compare(receipt, changed(receipt, *where_and_value))[0]["verdict"]

    assert {row["verdict"] for row in compare(receipt, receipt)} == {"same"}
    pro = receipt["runs"][0]["result"]["pro"]
    assert verdict(("result", "pro"), pro + 0.005) == "within tolerance"
    assert verdict(("result", "pro"), pro + 0.02) == "different"
    data = verdict(("data", "sha256"), "0" * 64)
    assert data.startswith("not comparable: data or split")
    rule = verdict(("settings", "mask_rule"), "bilinear")
    assert rule.startswith("not comparable: mask_rule: area, bilinear")
    fewer = {**receipt, "runs": receipt["runs"][1:]}
    assert compare(receipt, fewer)[0]["verdict"] == "only in the first"
    assert compare(fewer, receipt)[0]["verdict"] == "only in the second"
    row = compare(receipt, changed(receipt, ("settings", "lam"), 0.1))[0]
    assert any("lam" in text for text in row["differs"])


def test_compare_sets_two_different_cells_side_by_side(receipt):
    one, two = ({**receipt, "runs": [receipt["runs"][n]]} for n in (0, 2))
    (row,) = compare(one, two)
    assert row["verdict"].startswith("not comparable")
    assert "preset: clean, regional" in row["verdict"]


def test_compare_on_the_command_line(folder, tmp_path, capsys):
    assert main(["compare", str(folder), str(folder / "receipt.json")]) == 0
    assert "blister, clean, seed 0: same" in capsys.readouterr().out
    shutil.copy(RECORDED / "mtd_by_tile.json", tmp_path / "receipt.json")
    assert main(["compare", str(folder), str(tmp_path)]) == 1
    assert "blister, clean, seed 0: only in the first" in capsys.readouterr().out
