"""Which images a product's folder holds, in each layout that data sets come in.

    MVTec AD, LOCO   train/good, test/good, test/<kind>,
                     ground_truth/<kind>/<stem>_mask.png; LOCO also has validation/good,
                     and for masks folders <stem>/, whose union counts
    BTAD             train/ok, test/ok, test/ko, ground_truth/ko/<stem>.png or
                     <stem>.bmp
    VisA             Data/Images/Normal, Data/Images/Anomaly,
                     Data/Masks/Anomaly/<stem>.png; ../split_csv/1cls.csv beside the
                     folder says which image trains and which tests
    none of these    the images that lie directly in the folder are good ones to train
                     on; nothing is there to test

Nothing is copied or renamed: the layout is told by what lies in the folder. A good
image's kind is "good" in each of them.
"""

import csv
import os  # not Path: see `on_disk`
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..runtime.errors import DataError
from .on_disk import lost_link

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp")
PARTS = ("train", "validation", "test")
SEARCHED = (*PARTS, "Data/Images")
GROUPS, CONFIG = "groups.csv", "defects_config.json"
# what a product's folder may hold, in MVTec AD's layout
NAMES = (*PARTS, "ground_truth", GROUPS, CONFIG, "validation/good")
COLUMNS = ("object", "split", "label", "image", "mask")  # of VisA's table


@dataclass(frozen=True)
class Item:
    """An image of the data set."""

    path: Path
    kind: str  # "good", or the name of the defect's folder; "anomaly" in VisA
    # None for a good image; else a file, or a folder of masks whose union counts
    mask: Path | None


def list_images(folder: str | Path) -> list[Path]:
    """The images lying directly in a folder, sorted; or the one that `folder` names. A
    link to nothing is one of them: reading it will say so.

    Raises DataError where it does not exist, cannot be listed, or holds no image.
    """
    folder = Path(folder)
    if os.path.isfile(folder):
        return [folder]
    is_image = lambda path: path.suffix.lower() in SUFFIXES and not os.path.isdir(path)
    images = [path for path in entries(folder) if is_image(path)]
    if not images:
        raise DataError(f"{folder} holds no image: put some directly in it, of the "
                        f"types {' '.join(SUFFIXES)}.")
    return images


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden entries (among them macOS's "._"
    twins of every file). Raises DataError.
    """
    return [path for path in _listed(folder) if path.name[0] != "."]


def _listed(folder: Path) -> list[Path]:
    """The same with hidden entries."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        for path in (folder, *folder.parents):
            if said := lost_link(path):
                raise DataError(said) from error
        missing = isinstance(error, FileNotFoundError)
        wrong = "does not exist" if missing else f"cannot be listed ({error.strerror})"
        raise DataError(
            f"The folder {folder} {wrong}: check the path (images lie directly in "
            "their folder; a data set is one product's folder, holding train/good and "
            "test).") from error


def beside(root: Path, name: str) -> Path | None:
    """The file of this name in a product's folder, None where there is none. DataError
    where it is a link to nothing.
    """
    if said := lost_link(root / name):
        raise DataError(said)
    return root / name if os.path.exists(root / name) else None


def scan(root: str | Path, part: str) -> tuple[list[Item], list[str]]:
    """The images of "train", "validation" or "test", and a sentence for each problem.

    A defect without a mask has None; that is a problem, unless there is no folder
    ground_truth at all. train and validation hold good images only; test is sorted by
    kind and name. Raises ValueError for another part.
    """
    if part not in PARTS:
        raise ValueError(
            f"The part {part!r} is unknown: use one of {', '.join(PARTS)}.")
    root = Path(root)
    if os.path.isdir(root / "Data" / "Images"):
        items, problems = _scan_table(root, part)
    else:
        has = lambda name: any(os.path.isdir(root / p / name) for p in PARTS)
        good = "ok" if has("ok") and not has("good") else "good"
        items, problems = _scan_folders(root, part, good)
    return sorted(items, key=lambda item: (item.kind, item.path)), problems


def _scan_folders(root: Path, part: str, good: str) -> tuple[list[Item], list[str]]:
    """MVTec AD's layout, LOCO's and BTAD's; `good` names the folders of good images."""
    items, problems = [], []
    folders = [root / part / good]
    if part == "train" and _is_plain(root):
        return [Item(path, "good", None) for path in list_images(root)], []
    if part == "validation" and not (os.path.lexists(folders[0])
                                     or lost_link(root / part)):
        return [], []
    if part == "test":
        listed = sorted((root / "test").glob("[!.]*"))
        folders = [path for path in listed
                   if os.path.isdir(path) or lost_link(path)] or folders
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
            endings = ("_mask.png", ".png", ".bmp", "")
            wanted = [truth / (path.stem + ending) for ending in endings]
            mask = next(filter(os.path.lexists, wanted), None)
            if mask is None and os.path.lexists(root / "ground_truth"):
                problems.append(_no_mask(path, wanted[0]))
            items.append(Item(path, folder.name, mask))
    return items, problems


def _is_plain(root: Path) -> bool:
    """Whether images lie in the folder itself, and no part of a layout does."""
    if any(os.path.lexists(root / name) for name in (*PARTS, "ground_truth")):
        return False
    return os.path.isdir(root) and any(
        path.suffix.lower() in SUFFIXES and os.path.isfile(path)
        for path in entries(root))


def _no_mask(image: Path, wanted: Path) -> str:
    near = _much_like(wanted)
    add = f"rename {near} to {wanted.name}" if near else (
        f"add {wanted}, black but for the defect")
    return f"{image} has no mask: {add}."


def _much_like(wanted: Path) -> Path | None:
    """A file that was meant by this name: of another case, of letters composed in
    another way, or of another type.
    """
    def plain(path: Path) -> str:
        letters = unicodedata.normalize("NFC", path.stem).casefold()
        return letters.removesuffix("_mask")

    if not os.path.isdir(wanted.parent):
        return None
    return next((path for path in entries(wanted.parent)
                 if plain(path) == plain(wanted)), None)


def ignored(root: Path, used: set[Path], parts: Sequence[str] = SEARCHED) -> list[str]:
    """What lies in the folders of `used`, or in those `parts` of `root`, and is not in
    use, hidden images among it; with `parts`, also what is named much like a part. Each
    name, relative to `root`, with the reason.
    """
    folders = {path.parent for path in used}
    searched = [folder for folder in (*(root / part for part in parts),
                                      *sorted(folders)) if folder.is_dir()]
    why = _misnamed(root) if parts else {}
    known = used | folders | why.keys()
    for path in (path for folder in searched for path in _listed(folder)):
        if path not in known and (reason := _unread(path)):
            why[path] = reason
    return [f"{path.relative_to(root).as_posix()}: {why[path]}" for path in why]


def _unread(path: Path) -> str:
    """Why an entry of a folder of images is not read; "" where that is no matter."""
    is_image = path.suffix.lower() in SUFFIXES
    if path.name[0] == ".":
        # macOS writes "._" beside each file
        told = is_image and path.name[:2] != "._" and not path.is_dir()
        return "a hidden image: rename it without the dot" if told else ""
    if path.is_dir():
        return "a folder, and images are read directly from theirs"
    return ("an image that no part uses" if is_image
            else f"no image of the types {' '.join(SUFFIXES)}")


def _misnamed(root: Path) -> dict[Path, str]:
    """What begins as one of NAMES that is not there, case aside, with a reason."""
    key = lambda path: (path.name[:3].casefold(), path.suffix.casefold())
    found = {}
    for name in NAMES:
        wanted = root / name
        if os.path.lexists(wanted) or not os.path.isdir(wanted.parent):
            continue
        found |= {path: f"no name that is read; is {name} meant?"
                  for path in entries(wanted.parent) if key(path) == key(wanted)
                  and os.path.isfile(path) == bool(wanted.suffix)}
    return found


def _scan_table(root: Path, part: str) -> tuple[list[Item], list[str]]:
    """VisA's layout: the rows of ../split_csv/1cls.csv whose object is this folder."""
    if part == "validation":
        return [], []
    product = Path(os.path.abspath(root))  # "." has neither a name nor a parent
    table = product.parent / "split_csv" / "1cls.csv"
    ours = lambda row: row.get("object") == product.name and row.get("split") == part
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.DictReader(file) if ours(row)]
    except (OSError, ValueError, csv.Error) as error:
        missing = isinstance(error, FileNotFoundError)
        wrong = "does not exist" if missing else f"cannot be read ({error})"
        return [], [f"{table} {wrong}: VisA's split is read from it, so copy the "
                    f"folder split_csv beside {product.name}."]
    if not rows:
        return [], [f"{table} lists no image for object {product.name}, split {part}: "
                    "give the folder its name in VisA, or copy the table again."]
    items, problems = [], []
    for row in rows:
        item, problem = _of_row(row, root, product.name, part, table)
        items += [item] if item else []
        problems += [problem] if problem else []
    return items, problems


def _of_row(row: dict, root: Path, product: str, part: str,
            table: Path) -> tuple[Item | None, str]:
    """The image that a row of VisA's table names, or None, and a problem, or ""."""
    try:
        label, mask = row["label"], row["mask"]
        image = _inside(root, row["image"], product)
        if label not in ("normal", "anomaly"):
            raise ValueError(f"has the label {label!r}, not normal or anomaly")
        mask = _inside(root, mask, product) if mask and label == "anomaly" else None
    except (KeyError, TypeError, ValueError) as error:
        lacking = f"lacks one of the columns {', '.join(COLUMNS)}"
        wrong = error if type(error) is ValueError else lacking
        return None, (f"{table}: the row of {row.get('image')} {wrong}; copy the table "
                      "again.")
    if label == "anomaly" and part == "train":
        return None, (f"{table} trains on {image}, which is no good image: copy the "
                      "table again.")
    if not os.path.isfile(image):
        return None, (f"{image} is not there, though {table} lists it: unpack the data "
                      "set again.")
    if label == "normal":
        return Item(image, "good", None), ""
    if mask and os.path.isfile(mask):
        return Item(image, "anomaly", mask), ""
    wanted = root / "Data" / "Masks" / "Anomaly" / f"{image.stem}.png"
    return Item(image, "anomaly", None), _no_mask(image, wanted)


def _inside(root: Path, name: str, product: str) -> Path:
    """A path of the table, which starts with the product's name, as one under `root`.

    Raises ValueError for any other.
    """
    path = PurePosixPath(name)
    if path.parts[:1] != (product,) or ".." in path.parts:
        raise ValueError(f"names {name!r}, which is not in the folder {product}")
    return root.joinpath(*path.parts[1:])
