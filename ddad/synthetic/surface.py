"""A photographed surface as a product: crops of one picture, with synthetic defects.

scikit-image ships three grey pictures of 512 x 512 pixels in its wheel, under CC0:
brick and gravel come from CC0Textures, grass is by linolafett of DeviantArt. They are
read from the installed package; nothing is fetched.

The picture is divided into 4 x 4 squares. In each row and in each column of them, two
are for training, one is held out, one is for testing, and a crop lies within one
square: no pixel is on two sides. Crops of one square overlap, so fewer of them are
independent than are written. The light of each differs a little; grain and blur are the
picture's own.
"""
from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.product import GROUPS
from ..runtime.errors import DataError
from ..runtime.files import whole, write_text
from .defects import SEEN, damage

SURFACES = ("brick", "grass", "gravel")
KINDS = ("stained", "erased", "pasted", "texture", "light")
AREA = (0.005, 0.1)                 # share of the crop
# which squares: the sum of row and column modulo 4
SPLITS = {"train": (0, 2), "validation": (1,), "test": (3,)}


def picture(surface: str) -> np.ndarray:
    """The whole picture, (512, 512) uint8. DataError for another surface, or without
    scikit-image.
    """
    if surface not in SURFACES:
        raise DataError(f"unknown surface {surface!r}: it must be one of "
                        f"{', '.join(SURFACES)}")
    try:
        path = files("skimage") / "data" / f"{surface}.png"
    except ModuleNotFoundError as error:
        raise DataError(f"the picture of {surface} lies in scikit-image, which is "
                        "missing: pip install scikit-image") from error
    with path.open("rb") as file:
        return np.asarray(Image.open(file))


def make_surface(root: Path, surface: str, size: int = 96, train: int = 200,
                 validation: int = 40, test_good: int = 40, test_defect: int = 60,
                 seed: int = 0) -> None:
    """Write ROOT/SURFACE in the layout of MVTec AD, with validation/good, and
    groups.csv that has for each image its square (0 to 15) as the group, and top and
    left of the crop in the picture.

    An image depends on surface, size, seed, split and its number alone. Outside of its
    mask a defective crop is the good one, to the bit. What was made there before is
    replaced. DataError as `picture`; ValueError for a crop larger than a square or
    smaller than 32 pixels; FileExistsError for a folder that was not made here.
    """
    given = picture(surface)
    if not 32 <= size <= len(given) // 4:
        raise ValueError(f"size is {size}: a crop has 32 to {len(given) // 4} pixels")
    final = Path(root) / surface
    if final.exists() and not (final / GROUPS).exists():
        raise FileExistsError(f"{final} was not made here: choose another folder")
    counts = {("train", True): train, ("validation", True): validation,
              ("test", True): test_good, ("test", False): test_defect}
    rows = ["image,group,top,left"]
    with whole(final) as folder:
        for part, ((split, good), count) in enumerate(counts.items()):
            for i in range(count):
                rng = np.random.default_rng([seed, SURFACES.index(surface), part, i])
                image, place = crop(given, split, size, rng)
                kind = "good" if good else KINDS[i % len(KINDS)]
                if not good:
                    other, _ = crop(given, split, size, rng)
                    image, mask = damaged(image, other, kind, rng)
                    _save(folder / f"ground_truth/{kind}/{i:03}_mask.png",
                          mask.astype(np.uint8) * 255)
                name = f"{split}/{kind}/{i:03}.png"
                _save(folder / name, image)
                rows.append(",".join(map(str, (name, *place))))
        write_text(folder / GROUPS, "\n".join([*rows, ""]))


def crop(given: np.ndarray, split: str, size: int, rng: np.random.Generator
         ) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A crop (size, size) uint8 of the picture, in its own light; its square, top and
    left.
    """
    side, row = len(given) // 4, rng.integers(4)
    column = (rng.choice(SPLITS[split]) - row) % 4
    square = int(4 * row + column)
    inside = rng.integers(side - size, size=2, endpoint=True)
    top, left = (side * np.array([row, column]) + inside).tolist()
    axis, angle = np.linspace(-1, 1, size), rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    light = rng.uniform(.94, 1.06) * (1 + rng.uniform(0, .06) * slope)
    image = given[top : top + size, left : left + size] * light
    return (image.clip(0, 255) + .5).astype(np.uint8), (square, top, left)


def damaged(image: np.ndarray, other: np.ndarray, kind: str,
            rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A crop (H, H) uint8 with one defect, and its mask (H, H) bool. What is pasted is
    its own or the other crop's.
    """
    first, second = (np.repeat(x[..., None] / np.float32(255), 3, -1)
                     for x in (image, other))
    while True:
        area = np.exp(rng.uniform(*np.log(AREA)))
        full, mask, made = damage(first, second, kind, area, rng)
        # the picture has no colour: what only its colour shows is drawn again
        grey = (full.mean(-1).clip(0, 1) * 255 + .5).astype(np.uint8)
        change = np.abs(grey[mask] - image[mask].astype(float)).mean()
        if made == kind and change > 255 * SEEN:
            return np.where(mask, grey, image), mask


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
