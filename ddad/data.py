"""Reading a product's pictures and masks from a folder in MVTec AD's layout, or in one of those in `layouts`.

    root/train/good/*                        defect-free pictures, the only ones that training sees
    root/validation/good/*                   where given: the held-out good pictures; else a share of train/good is held out
    root/test/good/*, root/test/<kind>/*     test pictures; every folder but ``good`` holds one kind of defect
    root/ground_truth/<kind>/<stem>_mask.png their masks; also <stem>.png, or a folder <stem>/ of several masks (their
                                             union counts, as MVTec LOCO has it)

Pictures are squashed to a square by antialiased bilinear resampling, as the official code does it. A file is read
right or it is refused with a `DataError`; it is never clipped, cropped or skipped in silence.
"""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import reduce
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from .layouts import PARTS, DataError, Item, entries, list_images, scan

MASK_RULES = ("area", "bilinear")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # besides 16-bit and float grey
MAX_PIXELS, MAX_SIDE = 100_000_000, 65_536  # of a longer side, resizing alone would fill the memory
LARGE, ONE_LARGE = 8_000_000, Lock()  # pixels; pictures beyond are decoded one at a time, whatever the number of threads


def train_items(root: str | Path) -> list[Item]:
    """The good pictures to train on, sorted. Raises DataError where there are none or one is missing."""
    return _sound(root, "train")


def held_out_items(root: str | Path) -> list[Item]:
    """The pictures of validation/good, sorted; none where that folder does not exist. Raises DataError where it is empty."""
    return _sound(root, "validation")


def test_items(root: str | Path) -> list[Item]:
    """The test pictures, sorted by kind and name, each defective one with its mask.

    Raises DataError where there are none, where a folder of test/ is empty, or where a picture or a mask is missing.
    """
    return _sound(root, "test")


def _sound(root: str | Path, part: str) -> list[Item]:
    items, problems = scan(root, part)
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
    picture = _open(item.path)[0]
    image, extent = _to_tensor(picture, size), picture.size
    del picture  # a large one and its mask are not held at once
    defect = None if item.mask is None else _defect(item.mask)
    if problem := _size_problem(item, extent, defect):
        raise DataError(problem)
    return image, _resize_mask(defect, size, rule)


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
    unreadable: the files that were refused; ignored: entries of the folders of pictures, and of those above, that are not used
    problems: a sentence each, which starts with the command that it blocks, "train: " or "evaluate: "
    usable_for: those of these commands that nothing blocks; usable: whether that is both
    warnings: a sentence each about what blocks neither
    Files are named relative to `root`. Raises nothing for what is wrong in `root`.
    """
    root, sizes, modes = Path(root), Counter(), Counter()
    masks = {"found": 0, "missing": [], "empty": [], "other_size": [], "vanishing": []}
    unreadable, blocked, warnings = [], {"train": [], "evaluate": []}, []

    def scanned(part: str) -> list[Item]:
        items, problems = scan(root, part)
        blocked["evaluate" if part == "test" else "train"] += problems
        return items

    train, held_out, test = scanned("train"), scanned("validation"), scanned("test")
    kinds = Counter(item.kind for item in test)
    if test and not {"good"} < set(kinds):
        lacking = "defects" if "good" in kinds else "good"
        blocked["evaluate"].append(f"{root}: test holds only {', '.join(kinds)}: add {lacking} to tell good from bad.")
    needed = 21 if held_out else 26  # a picture and its 20 neighbours; where nothing is held out yet, a fifth will be
    if 0 < len(train) < needed:
        warnings.append(f"{root} has {len(train)} good pictures to train on; with the default settings training needs {needed}: "
                        "add some, or lower the setting neighbours.")  # fmt: skip
    name = lambda path: path.relative_to(root).as_posix()

    def attempt(read, path: Path, problems: list[str]):
        try:
            return read(path)
        except DataError as error:
            unreadable.append(name(path))
            problems.append(str(error))

    good = len(train) + len(held_out)
    for i, item in enumerate(tqdm(train + held_out + test, "checking", leave=False, delay=2)):
        problems = blocked["train" if i < good else "evaluate"]
        extent = None
        if opened := attempt(_open, item.path, problems):
            extent, mode = opened[0].size, opened[1]
            sizes["{}x{}".format(*extent)] += 1
            modes[mode] += 1
        del opened
        if item.mask is None:
            masks["missing"] += [name(item.path)] * (item.kind != "good")
            continue
        masks["found"] += 1
        defect = attempt(_defect, item.mask, problems)
        if defect is None:
            continue
        if not defect.any():
            masks["empty"].append(name(item.path))
        elif not _resize_mask(defect, size, "area").any():
            masks["vanishing"].append(name(item.path))
        if extent and (problem := _size_problem(item, extent, defect)):
            masks["other_size"].append(name(item.path))
            problems.append(problem)

    used = {item.path for item in train + held_out + test}
    folders = {path.parent for path in used}
    above = [root / part for part in (*PARTS, "Data/Images")]
    searched = [folder for folder in (*above, *sorted(folders)) if folder.is_dir()]
    usable_for = [command for command, problems in blocked.items() if not problems]
    return {
        "root": str(root), "size": size, "train": dict(Counter(item.kind for item in train)), "validation": len(held_out), "test": dict(kinds),
        "image_sizes": dict(sizes), "image_modes": dict(modes), "masks": masks, "unreadable": unreadable,
        "ignored": [name(path) for folder in searched for path in entries(folder) if path not in used | folders],
        "problems": [f"{command}: {problem}" for command, problems in blocked.items() for problem in problems],
        "warnings": warnings, "usable_for": usable_for, "usable": len(usable_for) == len(blocked),
    }  # fmt: skip


def _open(path: str | Path) -> tuple[Image.Image, str]:
    """The decoded picture, upright, and the file's own mode. Every way in which that fails is a DataError.

    The picture is in mode "L" or "RGB", or for 16-bit and float grey in mode "F" with levels from 0 to 255.
    """
    path = Path(path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for, a device may have no end
            raise OSError("it is no plain file")
        with Image.open(path, formats=FORMATS) as file:
            width, height = file.size  # from the header: nothing is decoded yet
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise DataError(f"{path} has {width} x {height} pixels, more than 100 million or {MAX_SIDE} a side: scale it down first.")
            # a phone's JPEG (MPO) may bring a second picture, for depth or a preview: the first is the photograph
            if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
                raise DataError(f"{path} holds {file.n_frames} pictures: save each as a file of its own.")
            with ONE_LARGE if width * height > LARGE else nullcontext():
                return _converted(file, path)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"{path} cannot be read ({error or type(error).__name__}): copy it again, convert it to PNG or delete it.") from error


def _converted(file: Image.Image, path: Path) -> tuple[Image.Image, str]:
    """As `_open` returns it. Of a large picture, no more copies are held than the step needs."""
    mode = file.mode
    ImageOps.exif_transpose(file, in_place=True)
    if mode[0] in "IF":  # I;16, I;16B, I, F: Pillow would clip these at 255
        levels, top = np.array(file, dtype=np.float32), 1 if mode == "F" else 65535
        if not (levels.min() >= 0 and levels.max() <= top):  # so written that NaN fails, too
            raise DataError(f"{path} has levels outside 0 to {top}: rescale it or save it as an 8-bit picture.")
        levels *= np.float32(255 / top)
        return Image.fromarray(levels), mode
    if mode not in MODES:  # LAB, for one, would be converted to nonsense
        raise DataError(f"{path} has colours of mode {mode}, not supported: save it as RGB.")
    if file.has_transparency_data:
        picture = file.convert("RGBA")
        file.close()
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
        return picture.convert("RGB"), mode
    return file.convert("L" if mode in ("1", "L") else "RGB"), mode


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
        defect = reduce(np.logical_or, np.moveaxis(levels.reshape(*levels.shape[:2], -1) > 0, 2, 0))
        if union is not None and defect.shape != union.shape:
            sizes = "{1} x {0} pixels, others in its folder {3} x {2}".format(*defect.shape, *union.shape)
            raise DataError(f"{file} has {sizes}: give all masks of one picture its size.")
        union = defect if union is None else union | defect
    return union


def _size_problem(item: Item, extent: tuple[int, int], defect: np.ndarray | None) -> str:
    """A sentence if the mask is not of the picture's size, `extent`, else ""."""
    if defect is None or extent == defect.shape[::-1]:
        return ""
    sizes = f"{defect.shape[1]} x {defect.shape[0]} pixels, its picture {item.path} {extent[0]} x {extent[1]}"
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
    # 1/size of a source pixel all overlaps are whole numbers.
    height, width = defect.shape

    def gathered(values: np.ndarray) -> np.ndarray:  # (side, n) -> (size, n): the sum over each target pixel's stretch of the side
        whole, part = np.divmod(np.arange(size + 1) * len(values), size)
        before = np.zeros((len(values) + 1, values.shape[1]), np.int64 if values.dtype == np.int64 else np.int32)
        np.cumsum(values, axis=0, out=before[1:])
        inner = values[np.minimum(whole, len(values) - 1)]
        return np.diff(before[whole].astype(np.int64) * size + part[:, None] * inner, axis=0)

    covered = gathered(gathered(defect).T).T
    return torch.from_numpy((2 * covered > height * width).astype(np.float32))
