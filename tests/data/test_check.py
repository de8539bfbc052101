import json
import shutil

import numpy as np
import pytest
from image_files import mask_of, noise, save, save_product

from ddad.data.check import check
from ddad.data.images import held_out_items, read_item
from ddad.data.images import test_items as items_to_test
from ddad.data.layouts import Item
from ddad.runtime.errors import DataError


def test_check_of_a_sound_folder(tmp_path):
    root = save_product(tmp_path)
    save(root / "test" / "good" / "wide.png", noise(16, 32, 1))
    save(root / "train" / "good" / "old.gif")
    save(root / "train" / "bad" / "0.png")
    report = check(str(root), 16)
    assert json.loads(json.dumps(report)) == report
    assert report["root"] == str(root) and report["size"] == 16
    assert report["train"] == {"good": 3}
    assert report["test"] == {"big dent": 2, "good": 2, "scratch": 2}
    assert report["image_sizes"] == {"16x16": 8, "32x16": 1}
    assert report["image_modes"] == {"RGB": 8, "L": 1}
    assert report["masks"] == {
        "found": 4, "missing": [], "empty": [], "other_size": [], "vanishing": []}
    assert [one.split(":")[0] for one in report["ignored"]] == [
        "train/bad", "train/good/old.gif"]
    assert "a folder" in report["ignored"][0] and ".png" in report["ignored"][1]
    assert report["problems"] == [] and report["unreadable"] == []
    assert report["usable"] is True


def test_empty_mask_is_allowed(tmp_path):
    root = save_product(tmp_path)
    save(root / "ground_truth" / "scratch" / "000_mask.png", mask_of(value=0))
    assert read_item(items_to_test(root)[3], 16)[1].sum() == 0
    report = check(root, 16)
    assert report["masks"]["empty"] == ["test/scratch/000.png"] and report["usable"]


def test_validation_images_are_held_out(tmp_path):
    root = save_product(tmp_path)
    assert held_out_items(root) == [] and check(root, 16)["validation"] == 0
    path = save(root / "validation" / "good" / "0.png", noise(16, 16))
    save(root / "validation" / "odd" / "0.png", noise(16, 16))
    assert held_out_items(root) == [Item(path, "good", None)]
    report = check(root, 16)
    assert report["validation"] == 1 and "validation/odd:" in report["ignored"][0]
    assert report["usable"]
    path.unlink()
    report = check(root, 16)
    assert "validation" in report["problems"][0] and not report["usable"]
    assert report["train"] == {"good": 3}
    with pytest.raises(DataError, match="validation"):
        held_out_items(root)


def test_check_lists_all_problems_at_once(tmp_path):
    root = save_product(tmp_path)
    truth = root / "ground_truth"
    (root / "train" / "good" / "b.png").write_text("no image")
    (root / "test" / "good" / "000.png").write_bytes(b"")
    (truth / "scratch" / "000_mask.png").unlink()
    save(truth / "scratch" / "001_mask.png", mask_of(20, 16))
    (truth / "big dent" / "000_mask.png").write_text("x")
    save(root / "test" / "thin" / "0.png", noise(64, 64))
    save(truth / "thin" / "0.png", mask_of(64, 64, slice(3, 4)))
    save(root / "test" / "thin" / "float.tif", np.full((16, 16), 7, np.float32))
    save(truth / "thin" / "float.png", mask_of())
    (root / "test" / "void").mkdir()
    report = check(root, 16)
    json.dumps(report)
    assert report["masks"] == {
        "found": 5, "missing": ["test/scratch/000.png"], "empty": [],
        "other_size": ["test/scratch/001.png"], "vanishing": ["test/thin/0.png"]}
    assert report["unreadable"] == [
        "train/good/b.png",
        "ground_truth/big dent/000_mask.png",
        "test/good/000.png",
        "test/thin/float.tif",
    ]
    for word in ("b.png", "000.png cannot", "has no mask", "16 x 20",
                 "000_mask.png cannot", "float.tif", "void"):
        assert sum(word in problem for problem in report["problems"]) >= 1, word
    assert len(report["problems"]) == 7 and report["usable"] is False


def test_check_of_missing_parts(tmp_path):
    report = check(tmp_path / "nowhere", 16)
    # neither train nor test
    assert len(report["problems"]) == 2 and not report["usable"]
    save(tmp_path / "train" / "good" / "0.png")
    save(tmp_path / "test" / "good" / "0.png")
    (problem,) = check(tmp_path, 16)["problems"]
    assert "test holds only good: add defects" in problem
    (tmp_path / "test" / "good").rename(tmp_path / "test" / "cut")
    save(tmp_path / "ground_truth" / "cut" / "0.png", mask_of())
    (problem,) = check(tmp_path, 16)["problems"]
    assert "test holds only cut: add good" in problem


def test_check_says_which_command_a_problem_blocks(tmp_path):
    save(tmp_path / "train" / "good" / "0.png")
    report = check(tmp_path, 16)
    (problem,) = report["problems"]
    assert problem.startswith("evaluate: ") and report["usable_for"] == ["train"]
    assert report["usable"] is False
    root = save_product(tmp_path / "p")
    assert check(root, 16)["usable_for"] == ["train", "evaluate"]
    (root / "train" / "good" / "b.png").write_text("x")
    report = check(root, 16)
    (problem,) = report["problems"]
    assert problem.startswith("train: ") and "b.png" in problem
    assert report["usable_for"] == ["evaluate"]
    (root / "ground_truth" / "scratch" / "000_mask.png").write_text("x")
    assert check(root, 16)["usable_for"] == []


@pytest.mark.parametrize("count, held_out, warned", [
    (25, 0, True), (26, 0, False), (20, 1, True), (21, 1, False)])
def test_check_warns_of_too_few_good_images(tmp_path, count, held_out, warned):
    root = save_product(tmp_path)
    for i in range(count - 3):
        save(root / "train" / "good" / f"{i}.png")
    for i in range(held_out):
        save(root / "validation" / "good" / f"{i}.png")
    report = check(root, 16)
    told = [one for one in report["warnings"] if f"{count} good images to" in one]
    assert len(told) == warned and report["usable"]


def test_what_evaluate_refuses_is_not_called_usable_for_it(product, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(product, whole)
    (whole / "groups.csv").write_text("image,group\n")
    report = check(whole, 64)
    assert report["usable_for"] == ["train"]
    assert "groups.csv names no group for" in report["problems"][0]
    (whole / "groups.csv").unlink()
    shutil.rmtree(whole / "train")
    report = check(whole, 64)
    assert report["usable_for"] == []
    assert {line.partition(":")[0] for line in report["problems"]} == {
        "train", "evaluate"}
