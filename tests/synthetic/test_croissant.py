"""The drawn products' metadata: valid to mlcroissant, which reads from them as many
images as the tables tell; and broken ones are refused.
"""
import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ddad.runtime.errors import DataError
from ddad.runtime.files import sha256
from ddad.synthetic.croissant import METADATA, TABLE, describe
from ddad.synthetic.products import PRODUCTS, make

# rdflib's own, below mlcroissant
pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph")
COUNTS = {"train": 3, "test_good": 2, "test_defect": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder that no test may change."""
    root = tmp_path_factory.mktemp("made") / "data"
    make(root, size=32, seed=1, **COUNTS)
    assert describe(root) == root / METADATA
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy of it that a test may break."""
    return shutil.copytree(made, tmp_path / "data")


@pytest.fixture
def croissant():
    return pytest.importorskip("mlcroissant")


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def defects_of(root):
    return {f"{product}/{row['image']}": row for product in PRODUCTS
            for row in table(root / product / "defects.csv")}


def records(croissant, root, name):
    """The records of a record set: short names of the fields, text as text."""
    found = croissant.Dataset(root / METADATA).records(name)
    text = lambda value: value.decode() if isinstance(value, bytes) else value
    return [{key.partition("/")[2]: text(value) for key, value in record.items()}
            for record in found]


# --- what it says ---------------------------------------------------------------------

def test_mlcroissant_finds_no_fault(croissant, made):
    metadata = croissant.Dataset(made / METADATA).metadata
    assert metadata.ctx.issues.report() == ""
    assert metadata.license == ["https://spdx.org/licenses/MIT.html"]
    assert "The ddad authors" in metadata.cite_as
    assert {one.id for one in metadata.record_sets} == {"images", "masks"}


def test_it_reads_as_many_images_as_the_tables_tell(croissant, made):
    defects, found = defects_of(made), records(croissant, made, "images")
    assert len(defects) == len(PRODUCTS) * COUNTS["test_defect"]
    assert len(found) == len(PRODUCTS) * sum(COUNTS.values())
    bad = {one["path"]: one for one in found if one["kind"] != "good"}
    assert bad.keys() == defects.keys()
    for path, row in defects.items():
        one = bad[path]
        assert (one["kind"], one["split"]) == (row["kind"], "test")
        assert one["product"] == path.partition("/")[0]
        assert one["area_fraction"] == float(row["area_fraction"])
        assert one["logical"] is (row["logical"] == "True")
    for split, good in (("train", COUNTS["train"]), ("test", COUNTS["test_good"])):
        here = [one for one in found if one["split"] == split and one["kind"] == "good"]
        assert len(here) == good * len(PRODUCTS)
        assert all(one["area_fraction"] == 0 and one["mask"] is one["logical"] is None
                   for one in here)


def test_images_and_masks_are_those_of_the_files(croissant, made):
    masks = {one["path"]: one["mask"] for one in records(croissant, made, "masks")}
    found = records(croissant, made, "images")
    assert masks.keys() == {one["mask"] for one in found} - {None}
    for one in found:
        assert sha256(made / one["path"]) == one["sha256"]
        assert np.array_equal(one["image"], Image.open(made / one["path"]))
        if one["mask"]:
            levels = np.asarray(masks[one["mask"]])
            assert set(np.unique(levels)) <= {0, 255}
            assert (levels[..., 0] > 0).mean() == pytest.approx(one["area_fraction"],
                                                                abs=1e-5)


def test_every_file_is_vouched_for(made):
    told = json.loads((made / METADATA).read_text(encoding="utf-8"))
    files = {one["contentUrl"]: one["sha256"] for one in told["distribution"]
             if one["@type"] == "cr:FileObject"}
    assert files == {name: sha256(made / name) for name in (
        TABLE, "make.json", *(f"{product}/defects.csv" for product in PRODUCTS))}
    images = {row["path"] for row in table(made / TABLE)}
    drawn = {path.relative_to(made).as_posix() for path in made.rglob("*.png")}
    assert images == {path for path in drawn if "/ground_truth/" not in path}


def test_it_is_the_same_again(made, root):
    describe(root)
    assert sha256(root / TABLE) == sha256(made / TABLE)
    first, again = (json.loads((one / METADATA).read_text()) for one in (made, root))
    assert first | {"datePublished": again["datePublished"]} == again


def test_products_without_images_to_train_on(croissant, tmp_path):
    make(tmp_path / "data", products=["board"], size=32, train=0, test_good=1,
         test_defect=2)
    describe(tmp_path / "data")
    assert len(records(croissant, tmp_path / "data", "images")) == 3


# --- what is broken is noticed --------------------------------------------------------

def without(key):
    return lambda told: told.pop(key)


def change(place, key, value):
    def broken(told):
        one = told
        for step in place:
            one = one[step]
        one[key] = value
    return broken


FIELDS = ("recordSet", 0, "field")
BREAKS = {
    "no data set": change((), "@type", "sc:Thing"),
    "no context": without("@context"),
    "no such version": change((), "conformsTo", "http://mlcommons.org/croissant/9.9"),
    "no includes": change(("distribution", 0), "includes", None),
    "no format": change(("distribution", 2), "encodingFormat", None),
    "no hash": change(("distribution", 2), "sha256", None),
    "no table": lambda told: told["distribution"].pop(2),
    "no join": lambda told: told["recordSet"][0]["field"][0].pop("references"),
    "another join": change((*FIELDS, 0, "references", "fileObject"), "@id", "none.csv"),
    "no type": change((*FIELDS, 1), "dataType", None),
    "one name twice": change(("distribution", 0), "@id", "images"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_metadata_are_refused(croissant, root, name):
    told = json.loads((root / METADATA).read_text(encoding="utf-8"))
    BREAKS[name](told)
    (root / METADATA).write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises((croissant.ValidationError, ValueError, KeyError)):
        croissant.Dataset(root / METADATA)


def change_table(root):
    with (root / TABLE).open("a") as file:
        file.write("\n")


def cut_image(root):
    path = next(root.glob("*/test/good/*.png"))
    path.write_bytes(path.read_bytes()[:100])


def rename_column(root):
    text = (root / TABLE).read_text().replace("area_fraction", "area", 1)
    (root / TABLE).write_text(text)
    told = json.loads((root / METADATA).read_text())
    told["distribution"][2]["sha256"] = sha256(root / TABLE)
    (root / METADATA).write_text(json.dumps(told))


@pytest.mark.parametrize("spoil", [change_table, cut_image, rename_column])
def test_spoiled_files_are_refused(croissant, root, spoil):
    spoil(root)
    with pytest.raises(croissant.GenerationError):
        records(croissant, root, "images")


def test_a_missing_image_is_missed(croissant, root):
    next(root.glob("*/train/good/*.png")).unlink()
    assert len(records(croissant, root, "images")) == len(table(root / TABLE)) - 1


def remove_mask(root):
    next(root.glob("*/ground_truth/*/*.png")).unlink()


def remove_row(root):
    path = root / "board" / "defects.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def remove_column(root):
    path = root / "board" / "defects.csv"
    path.write_text(path.read_text().replace("logical", "illogical", 1))


def remove_tables(root):
    for path in root.glob("*/defects.csv"):
        path.unlink()


@pytest.mark.parametrize("spoil, says", [
    (remove_mask, "has no mask"), (remove_row, "defects.csv lacks 'test/"),
    (remove_column, "defects.csv lacks 'logical' of"),
    (remove_tables, "holds no product with a defects.csv")])
def test_a_folder_that_is_not_whole_is_not_described(root, spoil, says):
    (root / METADATA).unlink()
    spoil(root)
    with pytest.raises(DataError, match=says):
        describe(root)
    assert not (root / METADATA).exists()
