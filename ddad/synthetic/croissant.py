"""Croissant metadata of the drawn products: `croissant.json`, in JSON-LD, says what a
folder made by `products.make` holds, so that programs which know nothing of ddad read
it. https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html

Beside it `images.csv`, the table that it refers to, has a row for each image: path,
product, split, kind, logical, area_fraction, mask, sha256; area_fraction and logical
are those of each product's `defects.csv`.
"""
from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from ..data.layouts import scan
from ..runtime.errors import DataError
from ..runtime.files import sha256, write_json, write_text

METADATA, TABLE = "croissant.json", "images.csv"
COLUMNS = {
    "product": ("sc:Text", "Which product the image shows."),
    "split": ("sc:Text", "train, good images alone; or test."),
    "kind": ("sc:Text", "good, or the kind of the defect."),
    "logical": ("sc:Boolean", "Whether each small patch of the defect looks like "
                "something that is normal elsewhere; none for a good image."),
    "area_fraction": ("sc:Float", "The share of the pixels that are defective."),
    "mask": ("sc:Text", "The mask, a path in the record set masks; none for a good "
             "image."),
    "sha256": ("sc:Text", "SHA-256 of the image's file, in hex."),
}
CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/", "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {name: f"cr:{name}" for name in (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty",
    "fileObject", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key",
    "md5", "parentField", "path", "recordSet", "references", "regex", "repeated",
    "replace", "samplingRate", "separator", "source", "subField", "transform")}
AUTHORS = "The ddad authors"
CITE = """@software{{ddad,
  title = {{ddad: dynamic addition of noise in a latent diffusion model for anomaly \
detection}},
  author = {{{{{authors}}}}},
  version = {{{version}}},
  license = {{MIT}}
}}"""


def describe(root: Path) -> Path:
    """Write images.csv and croissant.json into a folder made by `products.make`, from
    what lies there; the path of the latter. Raises DataError where the folder was not
    made so, or lacks an image or a mask.
    """
    rows = list(table(root))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["path", *COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(root / TABLE, text.getvalue())
    write_json(root / METADATA, metadata(root))
    return root / METADATA


def table(root: Path):
    """A row of images.csv for each image."""
    if not (products := sorted(path.parent for path in root.glob("*/defects.csv"))):
        raise DataError(f"{root} holds no product with a defects.csv: make it with "
                        "`ddad data make`")
    for product in products:
        with (product / "defects.csv").open(encoding="utf-8", newline="") as file:
            defects = {row["image"]: row for row in csv.DictReader(file)}
        for split in ("train", "test"):
            items, problems = scan(product, split)
            if problems and (product / split).exists():
                raise DataError(problems[0])
            for item in items:
                yield _row(root, product, split, item, defects)


def _row(root: Path, product: Path, split: str, item, defects: dict) -> dict:
    name = item.path.relative_to(product).as_posix()
    row = {"path": item.path.relative_to(root).as_posix(), "product": product.name,
           "split": split, "kind": item.kind, "area_fraction": 0,
           "sha256": sha256(item.path)}
    if item.kind == "good":
        return row
    try:
        told = {key: defects[name][key] for key in ("logical", "area_fraction")}
    except KeyError as error:
        raise DataError(f"{product / 'defects.csv'} lacks {error} of {name}: make the "
                        "folder again with `ddad data make`") from error
    return row | told | {"mask": item.mask.relative_to(root).as_posix()}


# --- JSON-LD --------------------------------------------------------------------------

def metadata(root: Path) -> dict:
    """Croissant 1.0, of a folder that images.csv was written into."""
    made = json.loads((root / "make.json").read_text(encoding="utf-8"))
    tables = sorted(root.glob("*/defects.csv"))
    names = ", ".join(path.parent.name for path in tables)
    size = made["size"]
    return {
        "@context": CONTEXT, "@type": "sc:Dataset", "name": "ddad-products",
        "description": (
            f"Drawn images of products ({names}) for anomaly detection, {size} x {size}"
            " pixels: good ones to train on, good and defective ones to test on, with "
            "exact masks of the defects. Made by `ddad data make --size "
            f"{size} --seed {made['seed']}`, version {version('ddad')}."),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": "https://spdx.org/licenses/MIT.html",
        "creator": {"@type": "sc:Organization", "name": AUTHORS},
        "citeAs": CITE.format(authors=AUTHORS, version=version("ddad")),
        "datePublished": datetime.now(timezone.utc).date().isoformat(),
        "version": f"{made['version']}.0.0",
        "keywords": ["anomaly detection", "industrial inspection", "synthetic images"],
        "distribution": [
            _file_set("image-files", "The images.",
                      "*/train/*/*.png", "*/test/*/*.png"),
            _file_set("mask-files", "White where an image is defective.",
                      "*/ground_truth/*/*_mask.png"),
            _file(root, root / TABLE, "text/csv", "A row for each image."),
            *(_file(root, path, "text/csv", f"The defects of {path.parent.name}.")
              for path in tables),
            _file(root, root / "make.json", "application/json",
                  "What the folder was made with.")],
        "recordSet": [
            _record_set("images", "All images.", [
                _field("images/path", "sc:Text", "Where the image lies.",
                       _path_of("image-files"), references=_column("path")),
                _field("images/image", "sc:ImageObject", "The image.",
                       _content_of("image-files")),
                *(_field(f"images/{name}", kind, meaning, _column(name))
                  for name, (kind, meaning) in COLUMNS.items())]),
            _record_set("masks", "The masks of the defective images.", [
                _field("masks/path", "sc:Text", "Where the mask lies.",
                       _path_of("mask-files")),
                _field("masks/mask", ["sc:ImageObject", "cr:SegmentationMask"],
                       "White where the image is defective.",
                       _content_of("mask-files"))])]}


def _file_set(name: str, text: str, *includes: str) -> dict:
    return {"@type": "cr:FileSet", "@id": name, "name": name, "description": text,
            "encodingFormat": "image/png", "includes": list(includes)}


def _file(root: Path, path: Path, kind: str, text: str) -> dict:
    name = path.relative_to(root).as_posix()
    return {"@type": "cr:FileObject", "@id": name, "name": name, "description": text,
            "contentUrl": name, "contentSize": f"{path.stat().st_size} B",
            "encodingFormat": kind, "sha256": sha256(path)}


def _record_set(name: str, text: str, fields: list[dict]) -> dict:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": text,
            "key": {"@id": f"{name}/path"}, "field": fields}


def _field(name: str, kind: str | list[str], text: str, source: dict, **more) -> dict:
    return {"@type": "cr:Field", "@id": name, "name": name, "description": text,
            "dataType": kind, "source": source, **more}


def _column(name: str) -> dict:
    return {"fileObject": {"@id": TABLE}, "extract": {"column": name}}


def _content_of(file_set: str) -> dict:
    return {"fileSet": {"@id": file_set}, "extract": {"fileProperty": "content"}}


def _path_of(file_set: str) -> dict:
    # the expression makes text of it, as the table's column is
    return {"fileSet": {"@id": file_set}, "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": "(.+)"}}
