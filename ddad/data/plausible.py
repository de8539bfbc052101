"""A product's folder as a colleague would look at it. Each of these is right in form,
is read without an error, and has spoiled somebody's figures: inverted masks, masks with
soft edges, a picture copied thirty times, test pictures that were trained on.

What is found is a warning, never an error: a product may well have a defect as large as
the picture, or a good picture unlike all others.
"""
from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..runtime.errors import DataError
from ..runtime.files import sha256
from .images import decoded, held_out_items, test_items, train_items
from .layouts import PARTS, Item, entries, list_images
from .on_disk import refuse_unfit

ORIENTATION = 0x0112                    # the EXIF tag
THUMBNAIL = 32                          # pixels a side
MOST_OF_IT, SOFT, CLASSES = 0.5, 1.1, 8
FLAT, ALIKE = 2.0, 2.0                  # levels of 255
QUARTER = 255 / 4
UNLIKE, FAR = 5.0, 8.0                  # times the usual distance, and levels of 255

SAID = {
    "large": "cover more than half of the image: are defect and background exchanged? "
             "Every level above 0 is defect",
    "soft": "have soft edges, as a JPEG's or after scaling, and every level above 0 is "
            "defect: the area is up to {most:.1f} times that of the levels above 127; "
            "make them black and white",
    "classes": "hold several levels above 0, and all of them are defect: are they "
               "classes, or what compression left?",
    "turned": "have an orientation tag, and their masks have none: is the mask drawn "
              "on the image as it is shown, or as it is stored?",
    "shared": "share a mask with another of the same name: rename one, and give each "
              "its own",
    "unmasked": "are defective and have no mask, as there is no folder ground_truth: "
                "figures of whole images alone can be measured",
    "empty": "are defective and have an empty mask: all their pixels count as good",
    "flat": "are nearly constant: is the camera covered?",
    "two levels": "hold two levels only: are they masks among the images?",
    "dark": "nowhere reach a quarter of full scale{bits}, and are read as almost "
            "black: do their files hold fewer bits than they have room for? Then "
            "multiply the levels of all images by one number",
    "copies": "are the same as another good image, pixel for pixel: each is counted, "
              "and of two alike one may be held out at random, the other trained on; "
              "keep one",
    "held out": "are held out and trained on as well, pixel for pixel: they score too "
                "low, and so the threshold is too low; hold out others",
    "almost held out": "are held out and almost the same as an image that is trained "
                       "on: where they show the same piece, the threshold is too low",
    "both": "are the same as another test image, pixel for pixel, one called good and "
            "one defective: delete the wrong one",
    "twice": "are the same as another test image, pixel for pixel: each is counted; "
             "keep one",
    "trained on": "are trained on or held out as well, pixel for pixel: figures of "
                  "them are too good",
    "almost": "are almost the same as a good image that is trained on: figures of them "
              "are too good where they show the same piece",
    "sizes": "have another size than most good ones, {usual}: does another camera or "
             "cut make them another shape? All become squares",
    "enlarged": "are smaller than the {size} pixels a side that they are used at: "
                "enlarging adds nothing; lower image_size",
    "unlike": "are unlike all other good images: do they belong here?",
}


class Seen(NamedTuple):
    """An image that was looked at."""

    name: str
    part: str           # of PARTS
    kind: str           # as in Item
    content: str        # a hash
    small: Tensor | None = None


class Plausible:
    """Notes what each file looks like while `check` reads it; then says what is odd."""

    def __init__(self, root: Path, size: int = 0):
        """size: pixels a side that images will be used at, if that is known."""
        self.root, self.size = root, size
        self.found: dict[str, list[str]] = defaultdict(list)
        self.softest = 1.0
        self.masks: dict[Path, list[str]] = defaultdict(list)
        self.seen: list[Seen] = []
        # of each part and mode of a file
        self.highest: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
        self.sizes: dict[str, tuple[int, int]] = {}     # of images to train on

    def image(self, name: str, part: str, item: Item, image: Image.Image,
              mode: str) -> None:
        """An image that could be read, upright, and the mode of its file."""
        levels = np.asarray(image)
        deviation, two = _spread(image)
        if part != "test":
            self.sizes[name] = image.size
        if min(image.size) < self.size:
            self.found["enlarged"].append(name)
        if deviation < FLAT:
            self.found["flat"].append(name)
        elif item.kind == "good" and two:
            self.found["two levels"].append(name)
        self.highest[part, mode].append((name, levels.max().item()))
        if item.mask is None and item.kind != "good":
            if not (self.root / "ground_truth").exists():
                self.found["unmasked"].append(name)
        elif item.mask is not None:
            self.masks[item.mask].append(name)
            if self._tag(item.path) != 1 and all(self._tag(file) == 1
                                                 for file in _files(item.mask)):
                self.found["turned"].append(name)
        content = hashlib.sha256(f"{levels.shape} ".encode())
        content.update(levels)
        small = Image.fromarray(_grey(levels)).resize(
            (THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        self.seen.append(Seen(name, part, item.kind, content.hexdigest(),
                              torch.from_numpy(np.array(small)).flatten()))

    def _tag(self, path: Path) -> int:
        with Image.open(path) as file:
            return file.getexif().get(ORIENTATION, 1)

    def mask(self, name: str, path: Path, defect: np.ndarray) -> None:
        """A defect's mask, (height, width) bool, and the files that it comes from."""
        if not defect.any():
            self.found["empty"].append(name)
        if defect.mean() > MOST_OF_IT:
            self.found["large"].append(name)
            return
        for file in _files(path):
            levels = np.asarray(decoded(file)[0])
            above = np.unique(levels[levels > 0])
            if len(above) <= 1:
                continue
            if len(above) <= CLASSES:
                self.found["classes"].append(name)
                return
            times = (levels > 0).sum() / max(1, (levels > 127).sum())
            if times > SOFT:
                self.softest = max(self.softest, times)
                self.found["soft"].append(name)
                return

    def doubts(self, tested: list[Item] | None = None) -> list[tuple[str, list[str]]]:
        """A sentence for each kind of oddity, and the names of the files it is of.
        tested: the test images, None where they were not looked at.
        """
        for names in self.masks.values():
            self.found["shared"] += names if len(names) > 1 else []
        self.found |= copies(self.seen)
        self._almost()
        self._unlike()
        usual = Counter(self.sizes.values()).most_common(1)
        self.found["sizes"] = [name for name, size in self.sizes.items()
                               if size != usual[0][0]]
        facts = {"most": self.softest, "size": self.size, "bits": self._dark(),
                 "usual": "{} x {}".format(*usual[0][0]) if usual else ""}
        said = [(_sentence(self.found[kind], why.format(**facts)), self.found[kind])
                for kind, why in SAID.items() if self.found[kind]]
        masks = {item.mask for item in tested or [] if item.mask}
        if tested is not None and (unused := _unused(self.root, masks)):
            said.append((_sentence(unused, "are no image's mask", "files"), unused))
        return said

    def _dark(self) -> str:
        """The bits in use, where 16-bit images nowhere reach a quarter of full scale;
        finds such images, of parts and modes that hold no other.
        """
        bits = 0
        for (_, mode), levels in self.highest.items():
            top = max(level for _, level in levels)
            if 0 < top < QUARTER:
                self.found["dark"] += [name for name, _ in levels]
                bits = max(bits, round(top * 257).bit_length() * (mode[0] == "I"))
        return f" ({bits} of 16 bits)" if bits else ""

    def _almost(self) -> None:
        """Held-out images almost as those trained on; test images as either of them."""
        of = lambda *parts: [one for one in self.seen if one.part in parts]
        for kind, these, others in (
                ("almost held out", of("validation"), of("train")),
                ("almost", of("test"), of("train", "validation"))):
            if not these or not others:
                continue
            same = {one.content for one in others}
            apart = _nearest(_small(these), _small(others))
            self.found[kind] += [one.name for one, d in zip(these, apart.tolist())
                                 if d < ALIKE and one.content not in same]

    def _unlike(self) -> None:
        """Good images whose nearest other one is far off."""
        trained = [one for one in self.seen if one.part != "test"]
        if len(trained) < 8:
            return
        small = _small(trained)
        apart = _nearest(small, small, itself=True)
        usual = apart.median().item()
        self.found["unlike"] += [one.name for one, d in zip(trained, apart.tolist())
                                 if d > max(FAR, UNLIKE * usual)]


def copies(seen: Iterable[Seen]) -> dict[str, list[str]]:
    """The names of images whose content is another's, by their kind in SAID."""
    found, of = defaultdict(list), defaultdict(list)
    for one in seen:
        of[one.content].append(one)
    for same in of.values():
        train, held_out, test = ([one.name for one in same if one.part == part]
                                 for part in PARTS)
        found["copies"] += train[1:] or held_out[1:] * (not train)
        found["held out"] += held_out * bool(train)
        if train or held_out:
            found["trained on"] += test
        elif len({one.kind == "good" for one in same}) == 2:
            found["both"] += test
        else:
            found["twice"] += test[1:]
    return found


def said_of_copies(root: str | Path, parts: Sequence[str] = PARTS) -> list[str]:
    """A sentence for each kind of `copies`, byte for byte, among these parts of a
    product's folder. DataError where one of the parts cannot be used.
    """
    items = {"train": train_items, "validation": held_out_items, "test": test_items}
    name = lambda path: path.relative_to(root).as_posix()
    found = copies(Seen(name(item.path), part, item.kind, _sha256(item.path))
                   for part in parts for item in items[part](root))
    return [_sentence(names, SAID[kind]) for kind, names in found.items() if names]


def _sha256(path: Path) -> str:
    """DataError for what is no file, such as a pipe, which would be waited for."""
    try:
        refuse_unfit(path)
    except OSError as error:
        said = f"{path} cannot be read ({error}): move it elsewhere."
        raise DataError(said) from error
    return sha256(path)


def look(items: list[Item], root: Path) -> tuple[list[tuple[str, list[str]]], int]:
    """The doubts about good images to train on, and their shortest side in pixels.
    DataError for the first that cannot be read.
    """
    looked, side = Plausible(root), []
    for item in tqdm(items, "checking", leave=False, delay=2):
        image, mode = decoded(item.path)
        side.append(min(image.size))
        name = item.path.relative_to(root).as_posix()
        part = "validation" if name.startswith("validation/") else "train"
        looked.image(name, part, item, image, mode)
    return looked.doubts(), min(side)


def _spread(image: Image.Image) -> tuple[float, bool]:
    """The standard deviation of an image's levels, and whether they are two at most."""
    if image.mode == "F":
        levels = np.asarray(image)
        low, high = levels.min(), levels.max()
        return levels.std(), bool(((levels == low) | (levels == high)).all())
    # counted: NumPy would take copies of 8 bytes a level, and sort them
    count, level = np.reshape(image.histogram(), (-1, 256)).sum(0), np.arange(256)
    mean = count @ level / count.sum()
    deviation = (count @ (level - mean) ** 2 / count.sum()) ** 0.5
    return deviation, np.count_nonzero(count) <= 2


def _grey(levels: np.ndarray) -> np.ndarray:
    """The mean of the colours, float32 (height, width), of levels (height, width[, 3]);
    a colour after the other, which takes less time and memory than their mean.
    """
    if levels.ndim == 2:
        return levels.astype(np.float32)
    grey = levels[..., 0].astype(np.float32)
    grey += levels[..., 1]
    grey += levels[..., 2]
    grey /= 3
    return grey


def _small(seen: list[Seen]) -> Tensor:
    return torch.stack([one.small for one in seen])


def _nearest(a: Tensor, b: Tensor, itself: bool = False) -> Tensor:
    """The root mean square distance of each row of a to its nearest row of b, or, with
    `itself`, to its nearest other one.
    """
    rows = []
    for part in a.split(256):
        apart = torch.cdist(part, b, compute_mode="donot_use_mm_for_euclid_dist")
        rows.append(apart.topk(2, largest=False).values[:, 1] if itself
                    else apart.amin(1))
    return torch.cat(rows) / THUMBNAIL


def _files(mask: Path) -> list[Path]:
    return list_images(mask) if mask.is_dir() else [mask]


def _unused(root: Path, used: set[Path]) -> list[str]:
    """Files below ground_truth that are no mask of an image."""
    truth = root / "ground_truth"
    if not truth.is_dir():
        return []
    kinds = [path for path in entries(truth) if path.is_dir()]
    return [path.relative_to(root).as_posix()
            for path in chain.from_iterable(map(entries, kinds)) if path not in used]


def _sentence(names: list[str], said: str, what: str = "images") -> str:
    shown = ", ".join(names[:3]) + (", .." if len(names) > 3 else "")
    end = "" if said.endswith("?") else "."
    return f"{len(names)} {what} ({shown}) {said}{end}"
