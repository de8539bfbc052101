import pytest
from image_files import as_levels, mask_of, noise, save, save_product
from lookalikes import make_btad, make_loco, make_mvtec, make_visa

from ddad.data.check import check
from ddad.data.images import held_out_items, read_image, read_item, train_items
from ddad.data.images import test_items as items_to_test
from ddad.data.layouts import Item, list_images, scan
from ddad.runtime.errors import DataError

SUFFIXES = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp", "PNG", "Jpg", "TIFF"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_file_type_is_listed_and_read(tmp_path, suffix):
    grey = noise() * 0 + 200
    path = save(tmp_path / f"x.{suffix}", grey)
    assert list_images(tmp_path) == [path]
    assert list_images(str(path)) == [path]
    assert as_levels(read_image(path, 16)).sub(200).abs().max() <= 2


def test_list_is_sorted_and_leaves_out_what_is_no_image(tmp_path):
    names = ["10.png", "2.png", "B.png", "a.png", "ä ö.png"]
    for name in names:
        save(tmp_path / name)
    for name in (".hidden.png", "._a.png", "Thumbs.db", ".DS_Store", "notes.txt",
                 "x.gif"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == names


def test_list_refuses_missing_empty_and_wrong(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no image"):
        list_images(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(DataError, match=r"a\.txt cannot be read"):
        read_image(list_images(tmp_path / "a.txt")[0], 16)


def test_items(tmp_path):
    root = save_product(tmp_path / "my data ü")
    train = train_items(str(root))
    assert [item.path.name for item in train] == ["a.JPG", "b.png", "c é ü.bmp"]
    assert {(item.kind, item.mask) for item in train} == {("good", None)}
    items = items_to_test(root)
    assert [(item.kind, item.path.stem) for item in items] == [
        ("big dent", "000"), ("big dent", "001"), ("good", "000"),
        ("scratch", "000"), ("scratch", "001")]
    assert items[1].mask == root / "ground_truth" / "big dent" / "001_mask.png"
    assert items[2].mask is None


def test_another_part_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'valid' is unknown: use one of train"):
        scan(tmp_path, "valid")


@pytest.mark.parametrize("name", ["000_mask.png", "000.png", "000/000.png"])
def test_mask_names(tmp_path, name):
    save(tmp_path / "test" / "cut" / "000.jpg")
    mask = save(tmp_path / "ground_truth" / "cut" / name, mask_of())
    (item,) = items_to_test(tmp_path)
    assert item.mask == (mask.parent if "/" in name else mask)
    assert read_item(item, 16)[1].sum() == 4 * 16


@pytest.mark.parametrize("with_folder", [True, False])
def test_missing_mask_names_image_and_expected_mask(tmp_path, with_folder):
    root = save_product(tmp_path)
    image = root / "test" / "scratch" / "001.png"
    mask = root / "ground_truth" / "scratch" / "001_mask.png"
    mask.unlink()
    if not with_folder:
        image, mask = image.with_name("000.png"), mask.with_name("000_mask.png")
        mask.unlink()
        mask.parent.rmdir()
    with pytest.raises(DataError) as error:
        items_to_test(root)
    assert str(image) in str(error.value) and str(mask) in str(error.value)


def test_missing_parts(tmp_path):
    for items, part in ((train_items, "train.good"), (items_to_test, "test.good")):
        with pytest.raises(DataError, match=f"nowhere.{part} does not exist"):
            items(tmp_path / "nowhere")
    save(tmp_path / "bottle" / "train" / "good" / "0.png")
    with pytest.raises(DataError,
                       match="train.good does not exist: .* one product's folder"):
        train_items(tmp_path)
    with pytest.raises(DataError, match="test.good does not exist"):
        items_to_test(tmp_path / "bottle")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="good does not exist"):
        train_items(tmp_path)
    (tmp_path / "train" / "good").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        train_items(tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="test.good does not exist"):
        items_to_test(tmp_path)
    (tmp_path / "test" / "crack").mkdir()
    with pytest.raises(DataError, match="crack holds no image"):
        items_to_test(tmp_path)


# --- the data sets' own layouts


def test_btad_is_read(tmp_path):
    root = make_btad(tmp_path) / "BTech_Dataset_transformed"
    for category, mask in (("01", "png"), ("02", "png"), ("03", "bmp")):
        home = root / category
        train = [(i.path.parent.name, i.kind, i.mask) for i in train_items(home)]
        assert train == [("ok", "good", None)] * 4
        assert held_out_items(home) == []
        items = items_to_test(home)
        assert [(item.path.parent.name, item.kind) for item in items] == [
            ("ok", "good"), ("ok", "good"), ("ko", "ko"), ("ko", "ko")]
        assert items[2].mask == home / "ground_truth" / "ko" / f"0000.{mask}"
        assert read_item(items[2], 32)[1].sum() == 64
        report = check(home, 32)
        assert report["usable"] and report["ignored"] == []
        assert report["train"] == {"good": 4}
        assert report["test"] == {"good": 2, "ko": 2}


def test_a_kind_of_defect_may_be_called_ok_beside_good(tmp_path):
    root = make_mvtec(tmp_path) / "bottle"
    (root / "test" / "cut").rename(root / "test" / "ok")
    (root / "ground_truth" / "cut").rename(root / "ground_truth" / "ok")
    kinds = [item.kind for item in items_to_test(root)]
    assert kinds == ["good", "good", "ok", "ok"]


def test_visa_is_read(tmp_path, monkeypatch):
    root = make_visa(tmp_path, ("candle", "pcb1")) / "candle"
    images = root / "Data" / "Images"
    assert train_items(root) == [
        Item(images / "Normal" / f"000{i}.JPG", "good", None) for i in (2, 3, 4, 5)]
    assert held_out_items(root) == []
    items = items_to_test(root)
    assert [(item.kind, item.path.stem) for item in items] == [
        ("anomaly", "0000"), ("anomaly", "0001"), ("good", "0000"), ("good", "0001")]
    assert items[0].mask == root / "Data" / "Masks" / "Anomaly" / "0000.png"
    # levels 1 and 2 are defect
    areas = [int(read_item(item, 32)[1].sum()) for item in items]
    assert areas == [64, 100, 0, 0]
    report = check(root, 32)
    assert report["usable"] and report["ignored"] == []
    assert report["test"] == {"anomaly": 2, "good": 2}
    (images / "Normal" / "extra.JPG").write_bytes(b"x")
    assert check(root, 32)["ignored"] == [
        "Data/Images/Normal/extra.JPG: an image that no part uses"]
    monkeypatch.chdir(root)
    assert len(train_items(".")) == 4


def test_visa_names_what_is_wrong(tmp_path):
    root = make_visa(tmp_path) / "candle"
    table = tmp_path / "split_csv" / "1cls.csv"
    text = table.read_text()
    (root / "Data" / "Images" / "Normal" / "0003.JPG").unlink()
    gone = r"0003\.JPG is not there, though .*1cls\.csv lists it"
    with pytest.raises(DataError, match=gone):
        train_items(root)
    assert len(items_to_test(root)) == 4
    report = check(root, 32)
    assert report["usable_for"] == ["evaluate"] and report["train"] == {"good": 3}
    (root / "Data" / "Masks" / "Anomaly" / "0001.png").unlink()
    with pytest.raises(DataError,
                       match=r"0001\.JPG has no mask: add .*Anomaly.0001\.png"):
        items_to_test(root)
    assert check(root, 32)["masks"]["missing"] == ["Data/Images/Anomaly/0001.JPG"]
    third = "candle/Data/Images/Normal/0003"
    for part, instead, match in (
        (third, "candle/../../secret", "not in the folder candle"),
        (third, "pcb1/Data/Images/Normal/0003", "not in the folder candle"),
        ("train,normal", "train,anomaly", "which is no good image"),
        ("train,normal", "train,fine", "label 'fine'"),
        ("label", "name", "lacks one of the columns"),
        ("candle,", "lamp,", "no image for object candle, split train"),
    ):
        table.write_text(text.replace(part, instead))
        with pytest.raises(DataError, match=match):
            train_items(root)
        assert not check(root, 32)["usable"]
    table.unlink()
    with pytest.raises(DataError, match=r"1cls\.csv does not exist: .*copy the folder "
                                        "split_csv beside candle"):
        items_to_test(root)


def test_loco_is_read(tmp_path):
    root = make_loco(tmp_path) / "juice_bottle"
    assert len(held_out_items(root)) == 2
    assert items_to_test(root)[0].mask.is_dir() and check(root, 32)["usable"]
