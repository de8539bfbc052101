"""A product's folder as a colleague would look at it. Each of these is right in form,
is read without an error, and has spoiled somebody's figures: inverted masks, masks with
soft edges, a picture copied thirty times, test pictures that were trained on.

What is found is a warning, never an error: a product may well have a defect as large as
the picture, or a good picture unlike all others.
"""
from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from .images import decoded
from .layouts import Item, entries, list_images

ORIENTATION = 0x0112                    # the EXIF tag
THUMBNAIL = 32                          # pixels a side
MOST_OF_IT, SOFT, CLASSES = 0.5, 1.1, 8
FLAT, ALIKE = 2.0, 2.0                  # levels of 255
TWELVE_BIT = 4095 / 65535 * 255
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
    "dark": "have 16 bits, and use 12 of them: they are read as almost black; multiply "
            "the levels by 16",
    "copies": "are the same as another, pixel for pixel: an image counts once",
    "trained on": "are trained on as well, pixel for pixel: figures of them are too "
                  "good",
    "almost": "are almost the same as a good image that is trained on: figures of them "
              "are too good where they show the same piece",
    "sizes": "have another size than most good ones, {usual}: does another camera or "
             "cut make them another shape? All become squares",
    "enlarged": "are smaller than the {size} pixels a side that they are used at: "
                "enlarging adds nothing; lower image_size",
    "unlike": "are unlike all other good images: do they belong here?",
}


class Plausible:
    """Notes what each file looks like while `check` reads it; then says what is odd."""

    def __init__(self, root: Path, size: int = 0):
        """size: pixels a side that images will be used at, if that is known."""
        self.root, self.size = root, size
        self.found: dict[str, list[str]] = defaultdict(list)
        self.softest = 1.0
        self.masks: dict[Path, list[str]] = defaultdict(list)
        self.seen: list[tuple[str, str, str, Tensor]] = []
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
        if mode[0] == "I" and 0 < levels.max() <= TWELVE_BIT:
            self.found["dark"].append(name)
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
        self.seen.append((name, part, content.hexdigest(),
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

    def doubts(self, items: list[Item]) -> list[tuple[str, list[str]]]:
        """A sentence for each kind of oddity, and the names of the files it is of."""
        for names in self.masks.values():
            self.found["shared"] += names if len(names) > 1 else []
        self._same()
        self._unlike()
        usual = Counter(self.sizes.values()).most_common(1)
        self.found["sizes"] = [name for name, size in self.sizes.items()
                               if size != usual[0][0]]
        facts = {"most": self.softest, "size": self.size,
                 "usual": "{} x {}".format(*usual[0][0]) if usual else ""}
        said = [(_sentence(self.found[kind], why.format(**facts)), self.found[kind])
                for kind, why in SAID.items() if self.found[kind]]
        unused = _unused(self.root, {item.mask for item in items if item.mask})
        if unused:
            said.append((_sentence(unused, "are no image's mask", "files"), unused))
        return said

    def _same(self) -> None:
        """Copies within training images; test images that are trained on, or almost."""
        trained = [one for one in self.seen if one[1] != "test"]
        count = Counter(content for _, _, content, _ in trained)
        first = set()
        for name, _, content, _ in trained:
            if count[content] > 1 and content in first:
                self.found["copies"].append(name)
            first.add(content)
        tested = [one for one in self.seen if one[1] == "test"]
        if not trained or not tested:
            return
        apart = _nearest(torch.stack([one[3] for one in tested]),
                         torch.stack([one[3] for one in trained]))
        for (name, _, content, _), d in zip(tested, apart.tolist()):
            if content in count:
                self.found["trained on"].append(name)
            elif d < ALIKE:
                self.found["almost"].append(name)

    def _unlike(self) -> None:
        """Good images whose nearest other one is far off."""
        trained = [one for one in self.seen if one[1] != "test"]
        if len(trained) < 8:
            return
        small = torch.stack([one[3] for one in trained])
        apart = _nearest(small, small, itself=True)
        usual = apart.median().item()
        self.found["unlike"] += [name for (name, *_), d in zip(trained, apart.tolist())
                                 if d > max(FAR, UNLIKE * usual)]


def look(items: list[Item], root: Path) -> tuple[list[tuple[str, list[str]]], int]:
    """The doubts about good images to train on, and their shortest side in pixels.
    DataError for the first that cannot be read.
    """
    looked, side = Plausible(root), []
    for item in tqdm(items, "checking", leave=False, delay=2):
        image, mode = decoded(item.path)
        side.append(min(image.size))
        looked.image(item.path.relative_to(root).as_posix(), "train", item, image, mode)
    return looked.doubts(items), min(side)


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
