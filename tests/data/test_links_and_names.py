"""What lies there under a name that leads nowhere, or that is not quite the name, is
told of: it is never taken for absent.
"""
import json
import shutil

import pytest
from conftest import tiny
from image_files import save, save_product

from ddad.data.check import check
from ddad.data.images import held_out_items, train_items
from ddad.data.images import test_items as items_to_test
from ddad.data.layouts import ignored
from ddad.data.product import load_test
from ddad.runtime.errors import DataError

PARTS = {"train": train_items, "validation": held_out_items, "test": items_to_test}


@pytest.fixture
def root(tmp_path):
    product = save_product(tmp_path / "bottle")
    save(product / "validation" / "good" / "0.png")
    return product


@pytest.mark.parametrize("name", ["train", "train/good", "validation", "test",
                                  "validation/good", "test/good", "test/scratch"])
def test_a_folder_that_is_a_link_to_nothing_is_refused(root, name):
    shutil.rmtree(root / name)
    (root / name).symlink_to(root / "gone")
    said = f"{root / name} is a link to {root / 'gone'}, which is not there: fetch it"
    with pytest.raises(DataError, match=said):
        PARTS[name.partition("/")[0]](root)
    assert any(said in problem for problem in check(root, 16)["problems"])


@pytest.mark.parametrize("name", ["groups.csv", "defects_config.json"])
def test_a_table_that_is_a_link_to_nothing_is_refused(root, name):
    (root / name).symlink_to(root / "gone")
    said = f"{name} is a link to {root / 'gone'}, which is not there"
    with pytest.raises(DataError, match=said):
        load_test(root, tiny(image_size=32))
    report = check(root, 16)
    assert report["usable_for"] == ["train"] and said in report["problems"][0]


def test_links_to_what_is_there_are_followed(root):
    for name in ("train", "validation/good", "test/scratch"):
        (root / name).rename(root / "elsewhere")
        (root / "elsewhere").rename(root.parent / name.replace("/", " "))
        (root / name).symlink_to(root.parent / name.replace("/", " "))
    report = check(root, 16)
    assert report["usable"] and report["validation"] == 1 and not report["ignored"]


@pytest.mark.parametrize("name, meant", [
    ("Groups.csv", "groups.csv"), ("group.csv", "groups.csv"), ("val", "validation"),
    ("Defects_config.json", "defects_config.json"), ("Validation", "validation"),
    ("validate/good", "validation"), ("validation/Good", "validation/good")])
def test_a_name_that_is_almost_one_is_told_of(root, name, meant):
    shutil.rmtree(root / "validation")
    if name.endswith(("csv", "json")):
        (root / name).write_text(json.dumps([]))
    else:
        save(root / name / "0.png")
    [told] = check(root, 16)["ignored"]
    assert told.endswith(f": no name that is read; is {meant} meant?")
    assert name.startswith(told.partition(":")[0])
    used = {item.path for item in train_items(root)}
    assert ignored(root, used, ("train", "validation")) == [told]
    assert ignored(root, used, ()) == []        # new images are of no product's folder


def test_names_that_only_begin_alike_are_no_matter(root):
    """Beside what is meant; or files, where a folder is."""
    (root / "validation.txt").write_text("x")
    (root / "train_old").mkdir()
    (root / "tests.zip").write_bytes(b"x")
    save(root / "group.png")
    assert check(root, 16)["ignored"] == []
    plain = save(root.parent / "plain" / "group 1.png").parent
    save(plain / "train 2.png")
    assert len(train_items(plain)) == 2 and check(plain, 16)["ignored"] == []


def test_a_hidden_image_is_told_of_and_what_a_system_hides_is_not(root):
    good = root / "train" / "good"
    save(good / ".hid.png")
    for name in (".DS_Store", "._b.png", "._.hid.png", ".b.png.x1y2"):
        (good / name).write_bytes(b"x")
    (good / ".cache.png").mkdir()
    assert check(root, 16)["ignored"] == [
        "train/good/.hid.png: a hidden image: rename it without the dot"]
