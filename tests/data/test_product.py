import shutil

import numpy as np
import pytest
import torch
from conftest import make_product, save_image, tiny

from ddad.data.check import check
from ddad.data.images import read_image, read_item, train_items
from ddad.data.images import test_items as items_to_test
from ddad.data.product import load_good, load_held_out, load_test, load_train
from ddad.runtime.errors import DataError
from ddad.training import hold_out


@pytest.fixture(scope="module")
def settings():
    return tiny(image_size=32)


@pytest.fixture(scope="module")
def with_validation(tmp_path_factory):
    """A product's folder with two images in validation/good."""
    root = make_product(tmp_path_factory.mktemp("data") / "disc", 6, 1, 1)
    for i in range(2):
        path = root / "validation" / "good" / f"{i}.png"
        save_image(path, torch.full((3, 32, 32), i / 2))
    return root


def test_training_images_are_read_in_order(product, settings):
    images = load_train(product, settings)
    assert images.shape == (16, 3, 32, 32)
    for item, image in zip(train_items(product), images, strict=True):
        assert torch.equal(image, read_image(item.path, 32))


def test_a_share_is_held_out_where_none_are_given(product, settings):
    assert load_held_out(product, settings) is None
    train, held_out = load_good(product, settings)
    expected = hold_out(load_train(product, settings), settings)
    assert torch.equal(train, expected[0]) and torch.equal(held_out, expected[1])
    assert (len(train), len(held_out)) == (12, 4)


def test_held_out_images_that_are_given_are_taken(with_validation, settings):
    train, held_out = load_good(with_validation, settings)
    assert torch.equal(train, load_train(with_validation, settings))
    assert torch.equal(held_out, load_held_out(with_validation, settings))
    assert held_out.shape == (2, 3, 32, 32) and held_out[0].abs().max() < 0.01


@pytest.mark.parametrize("rule", ["area", "bilinear"])
def test_test_images_come_with_masks_labels_and_kinds(product, settings, rule):
    test = load_test(product, settings.change(mask_rule=rule))
    items = items_to_test(product)
    assert test.paths == [item.path for item in items]
    assert test.kinds == ["good"] * 4 + ["square"] * 4
    assert test.labels.tolist() == [0] * 4 + [1] * 4
    assert test.masks.dtype == np.float32 and test.masks.shape == (8, 32, 32)
    for n, item in enumerate(items):
        image, mask = read_item(item, 32, rule)
        assert torch.equal(test.images[n], image)
        assert np.array_equal(test.masks[n], mask.numpy())


def test_a_folder_without_images_is_refused(tmp_path, settings):
    for load in (load_train, load_good, load_test):
        with pytest.raises(DataError, match="does not exist"):
            load(tmp_path, settings)
    (tmp_path / "validation" / "good").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no image"):
        load_held_out(tmp_path, settings)


# --- groups of test images


def grouped(product, root, rows, head="image,group"):
    """A copy of the product with these lines in groups.csv."""
    shutil.copytree(product, root)
    (root / "groups.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return root


def test_groups_are_those_of_the_file_beside_the_images(product, settings, tmp_path):
    assert load_test(product, settings).groups is None
    names = [item.path.relative_to(product).as_posix()
             for item in items_to_test(product)]
    rows = [f"{name},part {n // 3}" for n, name in enumerate(names)]
    of_training = "train/good/000.png,part 9"
    root = grouped(product, tmp_path / "disc", [of_training, *reversed(rows)])
    expected = [f"part {n // 3}" for n in range(8)]
    assert load_test(root, settings).groups.tolist() == expected
    assert load_test(str(root), settings).groups.tolist() == expected


def test_a_table_of_groups_that_lacks_an_image_or_a_column_is_refused(
        product, settings, tmp_path):
    one = items_to_test(product)[0].path.relative_to(product).as_posix()
    for n, (row, head) in enumerate([("a.png,1", "image,group"), (one, "image,group")]):
        root = grouped(product, tmp_path / str(n), [row], head)
        with pytest.raises(DataError, match=f"names no group for {one}"):
            load_test(root, settings)
    root = grouped(product, tmp_path / "head", ["a.png,1"], "picture,group")
    with pytest.raises(DataError, match="needs the columns image and group"):
        load_test(root, settings)
    (root / "groups.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"groups\.csv cannot be read"):
        load_test(root, settings)


def test_a_table_of_groups_that_contradicts_itself_or_the_folder_is_refused(
        product, settings, tmp_path):
    names = [item.path.relative_to(product).as_posix()
             for item in items_to_test(product)]
    rows = [f"{name},part {n // 3}" for n, name in enumerate(names)]
    for n, (added, said) in enumerate([
            (f"{names[1]},part 7", f"{names[1]} in two groups, part 0 and part 7: "),
            ("test/good/900.png,part 0", "lists test/good/900.png, which is not the")]):
        root = grouped(product, tmp_path / str(n), [*rows, added])
        with pytest.raises(DataError, match=f"groups.csv .*{said}"):
            load_test(root, settings)
        assert said in check(root, 32)["problems"][0]
    root = grouped(product, tmp_path / "again", [*rows, rows[1]])
    assert len(load_test(root, settings).groups) == 8
