"""Reading a product's pictures and masks from a folder in MVTec AD's layout, or in BTAD's or VisA's.

    root/train/good/*                        defect-free pictures, the only ones that training sees
    root/validation/good/*                   where given: the held-out good pictures; else a share of train/good is held out
    root/test/good/*, root/test/<kind>/*     test pictures; every folder but ``good`` holds one kind of defect
    root/ground_truth/<kind>/<stem>_mask.png their masks; also <stem>.png, or a folder <stem>/ of several masks (their
                                             union counts, as MVTec LOCO has it)

BTAD says "ok" for good, and has masks in BMP. VisA's categories lie beside split_csv/1cls.csv, which says what each picture is for.
Pictures are squashed to a square by antialiased bilinear resampling, as the official code does it. A file is read
right or it is refused with a `DataError`; it is never clipped, cropped or skipped in silence.
"""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

MASK_RULES = ("area", "bilinear")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # besides 16-bit and float grey
MAX_PIXELS = 100_000_000


class DataError(ValueError):
    """A file or folder that cannot be used; one sentence says which, what is wrong and what to do."""


@dataclass(frozen=True)
class Item:
    """A picture of the data set."""

    path: Path
    kind: str  # "good", or the name of the defect's folder
    mask: Path | None  # None for a good picture; else a file, or a folder of masks whose union counts


def list_images(folder: str | Path) -> list[Path]:
    """The pictures lying directly in a folder, sorted; or the one picture that `folder` itself names.

    Raises DataError where it does not exist, cannot be listed, or holds no picture.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    images = [path for path in _entries(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not images:
        raise DataError(f"{folder} holds no picture: put some directly in it, of the types {' '.join(SUFFIXES)}.")
    return images


def train_items(root: str | Path) -> list[Item]:
    """The good training pictures, sorted. Raises DataError where there are none."""
    root = Path(root)
    if _is_visa(root):
        items, problems = _scan_visa(root)
        if problems:
            raise DataError(problems[0])
        return [item for use, item in items if use == "train"]
    return [Item(path, "good", None) for path in list_images(_good(root / "train"))]


def held_out_items(root: str | Path) -> list[Item]:
    """The pictures of validation/good, sorted; none where that folder does not exist. Raises DataError where it is empty."""
    folder = Path(root) / "validation" / "good"
    return [Item(path, "good", None) for path in list_images(folder)] if folder.exists() else []


def test_items(root: str | Path) -> list[Item]:
    """The test pictures, sorted by kind and name, each defective one with its mask.

    Raises DataError where there are none, where a folder of test/ is empty, or where a mask is missing.
    """
    items, problems = _scan_test(root)
    if problems:
        raise DataError(problems[0])
    return items


def read_image(path: str | Path, size: int) -> Tensor:
    """One picture as (3, size, size), float32 in [-1, 1]; grey is repeated to three channels.

    The EXIF orientation is applied. Transparent pictures are composited over black, colour profiles are ignored.
    16-bit grey is divided by 257 (so 65535 is white: a 12-bit camera's raw values come out dark), 32-bit float grey
    must lie in [0, 1]. A picture that is `size` x `size` already is not resampled. Raises DataError.
    """
    return _to_tensor(_open(path)[0], size)


def read_mask(path: str | Path | None, size: int, rule: str = "area") -> Tensor:
    """A mask (a file, a folder of files, or None for no defect) as (size, size), float32 in [0, 1].

    Every level above 0 is defect. The rule says how that is brought to `size`:
    "area": 1 where more than half of the target pixel's area is defect, else 0, computed exactly. Defects thinner
    than half a target pixel vanish;
    "bilinear": antialiased bilinear, left grey, as the official code has it: a thin defect stays above 0 but may
    nowhere reach 1. Raises DataError, and ValueError for another rule.
    """
    return _resize_mask(None if path is None else _defect(Path(path)), size, rule)


def read_item(item: Item, size: int, rule: str = "area") -> tuple[Tensor, Tensor]:
    """The item's picture and mask as `read_image` and `read_mask` give them.

    Raises what they raise, and DataError where the mask's size is not the picture's.
    """
    picture, defect = _open(item.path)[0], None if item.mask is None else _defect(item.mask)
    if problem := _size_problem(item, picture, defect):
        raise DataError(problem)
    return _to_tensor(picture, size), _resize_mask(defect, size, rule)


def read_images(paths: Sequence[str | Path], size: int) -> Tensor:
    """Pictures as (N, 3, size, size), float32 in [-1, 1], in the order given.

    Raises DataError for the first that cannot be read.
    """
    images = torch.empty(len(paths), 3, size, size)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes and resizes outside the GIL
        read = pool.map(lambda path: read_image(path, size), paths)
        for i, image in enumerate(tqdm(read, "reading", len(paths), leave=False, delay=2)):
            images[i] = image
    return images


def check(root: str | Path, size: int) -> dict:
    """Reads every file and reports, ready for JSON, what is there and all that is wrong, not only the first of it.

    train, test: number of pictures of each kind; validation: number of good pictures held out
    image_sizes, image_modes: number of readable pictures of each "WIDTHxHEIGHT" (upright) and of each Pillow mode
    masks: found (a number), and the pictures with a mask that is missing, empty, of another size (other_size), or not
        empty but gone at `size` by the rule "area" (vanishing); empty and vanishing masks are no problem in themselves
    unreadable: the files that were refused; ignored: entries of train/, validation/, test/ and their folders that are not used
    problems: a sentence each; usable: whether there are none
    Files are named relative to `root`. Raises nothing for what is wrong in `root`.
    """
    root, sizes, modes = Path(root), Counter(), Counter()
    masks = {"found": 0, "missing": [], "empty": [], "other_size": [], "vanishing": []}
    unreadable, (test, problems) = [], _scan_test(root)
    good = []
    for items in (held_out_items, train_items):
        try:
            good.append(items(root))
        except DataError as error:
            good.append([])
            problems = [str(error), *(problem for problem in problems if problem != str(error))]
    held_out, train = good
    kinds = Counter(item.kind for item in test)
    if test and not {"good"} < set(kinds):
        problems.append(f"{root / 'test'} holds only {', '.join(kinds)}: add {'defects' if 'good' in kinds else 'good'} to tell good from bad.")
    name = lambda path: path.relative_to(root).as_posix()

    def attempt(read, path: Path):
        try:
            return read(path)
        except DataError as error:
            unreadable.append(name(path))
            problems.append(str(error))

    for item in tqdm(train + held_out + test, "checking", leave=False, delay=2):
        picture, mode = attempt(_open, item.path) or (None, None)
        if picture:
            sizes[f"{picture.width}x{picture.height}"] += 1
            modes[mode] += 1
        if item.mask is None:
            masks["missing"] += [name(item.path)] * (item.kind != "good")
            continue
        masks["found"] += 1
        defect = attempt(_defect, item.mask)
        if defect is None:
            continue
        if not defect.any():
            masks["empty"].append(name(item.path))
        elif not _resize_mask(defect, size, "area").any():
            masks["vanishing"].append(name(item.path))
        if picture and (problem := _size_problem(item, picture, defect)):
            masks["other_size"].append(name(item.path))
            problems.append(problem)

    used = {item.path for item in train + held_out + test}
    folders = {path.parent for path in used}
    searched = [folder for folder in (root / "train", root / "validation", root / "test", *sorted(folders)) if folder.is_dir()]
    return {
        "root": str(root), "size": size, "train": dict(Counter(item.kind for item in train)), "validation": len(held_out), "test": dict(kinds),
        "image_sizes": dict(sizes), "image_modes": dict(modes), "masks": masks, "unreadable": unreadable,
        "ignored": [name(path) for folder in searched for path in _entries(folder) if path not in used | folders],
        "problems": problems, "usable": not problems,
    }  # fmt: skip


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden entries (among them macOS's "._" twins of every file)."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        wrong = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be listed ({error.strerror})"
        raise DataError(f"The folder {folder} {wrong}: check the path (a data set is one product's folder, holding train/good and test).") from error


def _good(folder: Path) -> Path:
    """The folder of good pictures: "good", or, as BTAD has it, "ok"."""
    return folder / "ok" if (folder / "ok").is_dir() and not (folder / "good").is_dir() else folder / "good"


def _is_visa(root: Path) -> bool:
    return (root / "Data" / "Images").is_dir()


def _scan_visa(root: Path) -> tuple[list[tuple[str, Item]], list[str]]:
    """Use ("train" or "test") and item of each picture that VisA's split file lists for this category, sorted; and every problem found."""
    table, items, problems = root.parent / "split_csv" / "1cls.csv", [], []
    if not table.is_file():
        return [], [f"{table} is missing: VisA's split lies beside its categories' folders; unpack the whole archive."]
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("object") == root.name]
    if not rows or not {"split", "label", "image", "mask"} <= set(rows[0]):
        return [], [f"{table} lists no picture of {root.name} with split, label, image and mask: is the folder named as VisA names it?"]
    for row in rows:
        path, mask = root.parent / row["image"], root.parent / row["mask"] if row["mask"] else None
        kind = "good" if row["label"] == "normal" else "anomaly"
        if not path.is_file():
            problems.append(f"{path} is listed in {table} and missing: unpack the archive again.")
            continue
        if kind != "good" and (mask is None or not mask.is_file()):
            problems.append(f"{path} has no mask: {table} lists {row['mask'] or 'none'}; unpack the archive again.")
            mask = None
        items.append((row["split"], Item(path, kind, mask)))
    return sorted(items, key=lambda one: (one[0], one[1].kind != "good", one[1].path)), problems


def _scan_test(root: str | Path) -> tuple[list[Item], list[str]]:
    """The test pictures, and every problem found on the way; a defective one without a mask is listed with None."""
    items, problems, root = [], [], Path(root)
    if _is_visa(root):
        listed, problems = _scan_visa(root)
        return [item for use, item in listed if use == "test"], problems
    folders = [path for path in sorted((root / "test").glob("[!.]*")) if path.is_dir()]
    for folder in folders or [root / "test" / "good"]:
        try:
            images = list_images(folder)
        except DataError as error:
            problems.append(str(error))
            continue
        kind = "good" if folder == _good(root / "test") else folder.name
        for path in images:
            mask = None
            if kind != "good":
                truth = root / "ground_truth" / folder.name
                wanted = [truth / f"{path.stem}_mask.png", truth / f"{path.stem}.png", truth / f"{path.stem}.bmp", truth / path.stem]
                mask = next((candidate for candidate in wanted if candidate.exists()), None)
                if mask is None:
                    problems.append(f"{path} has no mask: add {wanted[0]}, black but for the defect.")
            items.append(Item(path, kind, mask))
    return items, problems


def _open(path: str | Path) -> tuple[Image.Image, str]:
    """The decoded picture, upright, and the file's own mode. Every way in which that fails is a DataError.

    The picture is in mode "L" or "RGB", or for 16-bit and float grey in mode "F" with levels from 0 to 255.
    """
    path = Path(path)
    try:
        with Image.open(path, formats=FORMATS) as file:
            width, height = file.size  # from the header: nothing is decoded yet
            if width * height > MAX_PIXELS:
                raise DataError(f"{path} has {width} x {height} pixels, more than 100 million: scale it down first.")
            # a phone's JPEG (MPO) may bring a second picture, for depth or a preview: the first is the photograph
            if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
                raise DataError(f"{path} holds {file.n_frames} pictures: save each as a file of its own.")
            picture = ImageOps.exif_transpose(file)
        mode = picture.mode
        if mode[0] in "IF":  # I;16, I;16B, I, F: Pillow would clip these at 255
            levels, top = np.asarray(picture, dtype=np.float32), 1 if mode == "F" else 65535
            if not (levels.min() >= 0 and levels.max() <= top):  # so written that NaN fails, too
                raise DataError(f"{path} has levels outside 0 to {top}: rescale it or save it as an 8-bit picture.")
            return Image.fromarray(levels * np.float32(255 / top)), mode
        if mode not in MODES:  # LAB, for one, would be converted to nonsense
            raise DataError(f"{path} has colours of mode {mode}, not supported: save it as RGB.")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
        return picture.convert("L" if mode in ("1", "L") and picture.mode == mode else "RGB"), mode
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"{path} cannot be read ({error}): copy it again, convert it to PNG or delete it.") from error


def _to_tensor(picture: Image.Image, size: int) -> Tensor:
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    levels = torch.from_numpy(np.array(picture, dtype=np.float32)).reshape(size, size, -1)
    # mode "F" may pass 0 and 255 by a rounding error
    return (levels.permute(2, 0, 1) / 127.5 - 1).clamp(-1, 1).expand(3, size, size).contiguous()


def _defect(path: Path) -> np.ndarray:
    """The union of a mask file, or of all in a folder, as bool (height, width)."""
    union = None
    for file in list_images(path) if path.is_dir() else [path]:
        levels = np.asarray(_open(file)[0])
        defect = levels.reshape(*levels.shape[:2], -1).max(axis=2) > 0
        if union is not None and defect.shape != union.shape:
            sizes = "{1} x {0} pixels, others in its folder {3} x {2}".format(*defect.shape, *union.shape)
            raise DataError(f"{file} has {sizes}: give all masks of one picture its size.")
        union = defect if union is None else union | defect
    return union


def _size_problem(item: Item, picture: Image.Image, defect: np.ndarray | None) -> str:
    """A sentence if the mask is not of the picture's size, else ""."""
    if defect is None or picture.size == defect.shape[::-1]:
        return ""
    sizes = f"{defect.shape[1]} x {defect.shape[0]} pixels, its picture {item.path} {picture.width} x {picture.height}"
    return f"The mask {item.mask} has {sizes}: redraw or resize the mask to the picture's size."


def _resize_mask(defect: np.ndarray | None, size: int, rule: str) -> Tensor:
    if rule not in MASK_RULES:
        raise ValueError(f"The mask rule {rule!r} is unknown: use one of {', '.join(MASK_RULES)}.")
    if defect is None:
        return torch.zeros(size, size)
    if rule == "bilinear":
        picture = Image.fromarray(defect.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    # Pillow's own BOX filter takes whole pixels only, so at a ratio like 1.27 it would not measure areas. In units of
    # 1/size of a source pixel all overlaps are whole numbers, which float64 adds without rounding.
    height, width = defect.shape

    def shared(side: int) -> np.ndarray:  # (size, side): the length that target pixel i and source pixel j share
        i, j = np.arange(size)[:, None] * side, np.arange(side) * size
        return np.clip(np.minimum(i + side, j + size) - np.maximum(i, j), 0, None).astype(np.float64)

    covered = shared(height) @ defect.astype(np.float64) @ shared(width).T
    return torch.from_numpy((2 * covered > height * width).astype(np.float32))
