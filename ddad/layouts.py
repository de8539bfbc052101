"""Which pictures a product's folder holds, in each layout that data sets come in. Nothing is copied or renamed.

    MVTec AD, LOCO   train/good, test/good, test/<kind>, ground_truth/<kind>/<stem>_mask.png; LOCO also has validation/good,
                     and for masks folders <stem>/, whose union counts
    BTAD             train/ok, test/ok, test/ko, ground_truth/ko/<stem>.png or <stem>.bmp
    VisA             Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly/<stem>.png; ../split_csv/1cls.csv beside the
                     folder says which picture trains and which tests

The layout is told by what lies in the folder. A good picture's kind is "good" in each of them.
"""

import csv
import os  # os.path, for it answers False where a Path raises: of a name too long, or in a loop of links
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
PARTS = ("train", "validation", "test")
COLUMNS = ("object", "split", "label", "image", "mask")  # of VisA's table


class DataError(ValueError):
    """A file or folder that cannot be used; one sentence says which, what is wrong and what to do."""


@dataclass(frozen=True)
class Item:
    """A picture of the data set."""

    path: Path
    kind: str  # "good", or the name of the defect's folder; "anomaly" in VisA
    mask: Path | None  # None for a good picture; else a file, or a folder of masks whose union counts


def list_images(folder: str | Path) -> list[Path]:
    """The pictures lying directly in a folder, sorted; or the one picture that `folder` itself names.

    Raises DataError where it does not exist, cannot be listed, or holds no picture.
    """
    folder = Path(folder)
    if os.path.isfile(folder):
        return [folder]
    images = [path for path in entries(folder) if path.suffix.lower() in SUFFIXES and os.path.isfile(path)]
    if not images:
        raise DataError(f"{folder} holds no picture: put some directly in it, of the types {' '.join(SUFFIXES)}.")
    return images


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden entries (among them macOS's "._" twins of every file). Raises DataError."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        wrong = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be listed ({error.strerror})"
        raise DataError(f"The folder {folder} {wrong}: check the path "
                        "(pictures lie directly in their folder; a data set is one product's folder, holding train/good and test).") from error


def scan(root: str | Path, part: str) -> tuple[list[Item], list[str]]:
    """The pictures of "train", "validation" or "test", and a sentence for each problem; a defect without a mask has None.

    train and validation hold good pictures only; test is sorted by kind and name. Raises ValueError for another part.
    """
    if part not in PARTS:
        raise ValueError(f"The part {part!r} is unknown: use one of {', '.join(PARTS)}.")
    root = Path(root)
    if os.path.isdir(root / "Data" / "Images"):
        items, problems = _scan_table(root, part)
    else:
        has = lambda name: any(os.path.isdir(root / p / name) for p in PARTS)
        items, problems = _scan_folders(root, part, "ok" if has("ok") and not has("good") else "good")
    return sorted(items, key=lambda item: (item.kind, item.path)), problems


def _scan_folders(root: Path, part: str, good: str) -> tuple[list[Item], list[str]]:
    """MVTec AD's layout, LOCO's and BTAD's; `good` is what the folders of good pictures are called."""
    items, problems = [], []
    folders = [root / part / good]
    if part == "validation" and not os.path.exists(folders[0]):
        return [], []
    if part == "test":
        folders = [path for path in sorted((root / "test").glob("[!.]*")) if os.path.isdir(path)] or folders
    for folder in folders:
        try:
            images = list_images(folder)
        except DataError as error:
            problems.append(str(error))
            continue
        if folder.name == good:
            items += [Item(path, "good", None) for path in images]
            continue
        truth = root / "ground_truth" / folder.name
        for path in images:
            wanted = [truth / name for name in (f"{path.stem}_mask.png", f"{path.stem}.png", f"{path.stem}.bmp", path.stem)]
            mask = next((candidate for candidate in wanted if os.path.exists(candidate)), None)
            if mask is None:
                problems.append(f"{path} has no mask: add {wanted[0]}, black but for the defect.")
            items.append(Item(path, folder.name, mask))
    return items, problems


def _scan_table(root: Path, part: str) -> tuple[list[Item], list[str]]:
    """VisA's layout: the rows of ../split_csv/1cls.csv whose object is this folder."""
    if part == "validation":
        return [], []
    product = Path(os.path.abspath(root))  # "." has neither a name nor a parent
    table = product.parent / "split_csv" / "1cls.csv"
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.DictReader(file) if row.get("object") == product.name and row.get("split") == part]
    except (OSError, ValueError, csv.Error) as error:
        wrong = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        return [], [f"{table} {wrong}: VisA's split is read from it, so copy the folder split_csv beside {product.name}."]
    if not rows:
        return [], [f"{table} lists no picture for object {product.name}, split {part}: give the folder its name in VisA, or copy the table again."]
    items, problems = [], []
    for row in rows:
        try:
            label, image, mask = row["label"], _inside(root, row["image"], product.name), row["mask"]
            if label not in ("normal", "anomaly"):
                raise ValueError(f"has the label {label!r}, not normal or anomaly")
            mask = _inside(root, mask, product.name) if mask and label == "anomaly" else None
        except (KeyError, TypeError, ValueError) as error:
            wrong = error if type(error) is ValueError else f"lacks one of the columns {', '.join(COLUMNS)}"
            problems.append(f"{table}: the row of {row.get('image')} {wrong}; copy the table again.")
            continue
        if label == "anomaly" and part == "train":
            problems.append(f"{table} trains on {image}, which is no good picture: copy the table again.")
        elif not os.path.isfile(image):
            problems.append(f"{image} is not there, though {table} lists it: unpack the data set again.")
        else:
            if mask and not os.path.isfile(mask):
                mask = None
            if label == "anomaly" and not mask:
                problems.append(f"{image} has no mask: add {root / 'Data' / 'Masks' / 'Anomaly' / image.stem}.png, black but for the defect.")
            items.append(Item(image, "good" if label == "normal" else "anomaly", mask))
    return items, problems


def _inside(root: Path, name: str, product: str) -> Path:
    """A path of the table, which starts with the product's name, as one under `root`; ValueError for any other."""
    path = PurePosixPath(name)
    if path.parts[:1] != (product,) or ".." in path.parts:
        raise ValueError(f"names {name!r}, which is not in the folder {product}")
    return root.joinpath(*path.parts[1:])
