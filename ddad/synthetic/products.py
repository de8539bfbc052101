"""Synthetic inspection images of three products, with exact defect masks.

A product is a list of parts in fixed places, a defect an edit of that list, drawn
before and after with the same pose: see `scenes` and `edits`. Only then come light,
blur and noise. All geometry is in units of the image's side, so that every size shows
the same thing. Most defects are logical: each small patch looks like something that is
normal elsewhere.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..runtime.files import whole
from .canvas import Pose
from .edits import edit_for
from .scenes import Scene, layout

VERSION = 2
PRODUCTS: tuple[str, ...] = ("blister", "board", "fabric")
SPLITS = ("train", "test_good", "test_defect")
SMALLEST, LARGEST = 0.001, 0.2  # area fraction of the defects in a test set

# kind: (smallest area fraction, largest, logical)
KINDS: dict[str, dict[str, tuple[float, float, bool]]] = {
    "blister": {
        "missing": (0.0035, 0.2, True),
        "wrong_colour": (0.0035, 0.2, True),
        "extra": (0.008, 0.026, True),
        "shifted": (0.0045, 0.15, True),
        "broken": (0.001, 0.012, False),
        "dirt": (0.001, 0.008, False),
        "tear": (0.001, 0.02, False),
    },
    "board": {
        "missing": (0.0026, 0.2, True),
        "exchanged": (0.0055, 0.06, True),
        "reversed": (0.001, 0.02, True),
        "shifted": (0.004, 0.15, True),
        "wrong": (0.0026, 0.2, True),
        "bridge": (0.001, 0.003, False),
        "scratch": (0.001, 0.02, False),
        "stain": (0.001, 0.1, False),
    },
    "fabric": {
        "missing_stripe": (0.003, 0.2, True),
        "wrong_colour": (0.003, 0.2, True),
        "stripe_shift": (0.003, 0.2, True),
        "weave_shift": (0.01, 0.2, True),
        "broken_thread": (0.001, 0.02, False),
        "hole": (0.001, 0.01, False),
        "stain": (0.001, 0.2, False),
    },
}


# --- one image ------------------------------------------------------------------------

def render(
    product: str,
    size: int,
    seed: int,
    defect: str | None = None,
    area: float | None = None,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Make one image: uint8 (size, size, 3), its mask bool (size, size), and the kind
    of defect ('good' if none).

    `area` is the wanted fraction of the image; without it, it is drawn from the kind's
    range. With the same seed, pose, tolerances, light and noise are the same, with or
    without a defect. Raises ValueError for an unknown product or defect, a size below
    32, or an area that this kind of defect cannot have.
    """
    scene, camera, fault = set_up(product, size, seed)
    light, rng = np.random.default_rng(camera), np.random.default_rng(fault)
    if defect is None:
        none = np.zeros((size, size), bool)
        return photograph(scene.image, light), none, "good"
    if defect not in KINDS[product]:
        has = ", ".join(KINDS[product])
        raise ValueError(f"unknown defect {defect!r}: {product} has {has}")
    low, high, _ = KINDS[product][defect]
    if area is None:
        area = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if not low <= area <= high:
        raise ValueError(
            f"area is {area}: {product}/{defect} must be within {low}..{high}"
        )
    # edited at one size, so that every size gets the same edit
    trial = scene if size == 128 else Scene(product, scene.parts, 128, scene.pose)
    image, mask = scene.edited(edit_for(trial, defect, area, rng))
    return photograph(image, light), mask, defect


def set_up(
    product: str, size: int, seed: int
) -> tuple[Scene, np.random.SeedSequence, np.random.SeedSequence]:
    """The good product under the camera, and the seeds of its light and its defect.

    Raises ValueError for an unknown product or a size below 32.
    """
    _allowed(product, size)
    place, camera, fault = np.random.SeedSequence(seed).spawn(3)
    rng = np.random.default_rng(place)
    x, y, turn, scale = rng.uniform(-1, 1, 4)
    pose = Pose(.02 * x, .02 * y, np.deg2rad(1.5) * turn, 1 + .015 * scale)
    return Scene(product, layout(product, rng), size, pose), camera, fault


def _allowed(product: str, size: int) -> None:
    """Raise the ValueError that tells what is allowed."""
    if product not in PRODUCTS:
        known = ", ".join(PRODUCTS)
        raise ValueError(f"unknown product {product!r}: it must be one of {known}")
    if size < 32:
        raise ValueError(f"size is {size}: an image must be at least 32 pixels wide")


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, blur and sensor noise: float (size, size, 3) in 0..1 to uint8."""
    size = len(image)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    gradient = 1 + rng.uniform(0, .10) * slope
    warmth = rng.uniform(-.03, .03)
    tint = rng.uniform(.90, 1.08) * np.array([1 + warmth, 1, 1 - warmth])
    image = image * gradient[..., None] * tint
    side = rng.uniform(.04, .14)
    for axis in (0, 1):
        margin = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        edge = np.pad(image, margin, mode="edge")
        before, after = edge[:-2], edge[2:]
        if axis == 1:
            before, after = edge[:, :-2], edge[:, 2:]
        image = (1 - 2 * side) * image + side * (before + after)
    deviation = np.sqrt(.008 ** 2 + .0003 * np.clip(image, 0, 1))
    noise = rng.standard_normal(image.shape, np.float32) * deviation
    return (np.clip(image + noise, 0, 1) * 255 + .5).astype(np.uint8)


# --- a data set -----------------------------------------------------------------------

def make(
    root: Path,
    products: Sequence[str] = PRODUCTS,
    size: int = 128,
    train: int = 240,
    test_good: int = 60,
    test_defect: int = 90,
    seed: int = 0,
) -> None:
    """Write a data set in the layout of MVTec AD, with `defects.csv` in each product's
    folder and `make.json` in root.

    An image depends on seed, product, split and its index alone. A defect keeps its
    index as its name, so test/missing/007.png is the eighth defect of all. Files that
    exist are kept, so an interrupted run can go on. Raises ValueError for an unknown
    product or a size below 32, FileExistsError if `root` holds anything else.
    """
    for product in products:
        _allowed(product, size)
    root, note = Path(root), Path(root) / "make.json"
    counts = {"train": train, "test_good": test_good, "test_defect": test_defect}
    settings = {"version": VERSION, "size": size, **counts, "seed": seed}
    if root.exists() and any(root.iterdir()):
        if not note.exists() or json.loads(note.read_text()) != settings:
            raise FileExistsError(
                f"{root} is not empty and was not made with these settings: {settings}"
                "; remove it, or choose another folder"
            )
    _write(note, json.dumps(settings, indent=1).encode())
    jobs = [(split, i) for split in SPLITS for i in range(counts[split])]
    for product in products:
        rows = ["image,kind,area_fraction,logical"]
        for split, i in tqdm(jobs, product, leave=False, delay=2):
            row = _make_one(root / product, product, split, i, size, seed)
            rows += [row] if row else []
        _write(root / product / "defects.csv", "\n".join([*rows, ""]).encode())


def _make_one(
    folder: Path, product: str, split: str, i: int, size: int, seed: int
) -> str | None:
    """Write an image and its mask, unless they are there; a defect's row of the csv."""
    kind, area = plan(product, i, seed) if split == "test_defect" else (None, None)
    name = f"{split.partition('_')[0]}/{kind or 'good'}/{i:03}.png"
    mask_path = folder / "ground_truth" / (kind or "good") / f"{i:03}_mask.png"
    if not (folder / name).exists():
        own = image_seed(product, split, i, seed)
        image, mask, _ = render(product, size, own, kind, area)
        if kind:  # the mask is written first, so an image on disk is complete
            _write(mask_path, mask.astype(np.uint8) * 255)
        _write(folder / name, image)
    if not kind:
        return None
    fraction = (np.asarray(Image.open(mask_path)) > 0).mean()
    return f"{name},{kind},{fraction:.5f},{KINDS[product][kind][2]}"


def plan(product: str, index: int, seed: int) -> tuple[str, float]:
    """Kind and target area of a test set's defect number `index`.

    The areas lie evenly on a log scale, whatever the count.
    """
    start = np.random.default_rng(_sequence(seed, product, 9)).random()
    # golden ratio: every new point falls into the widest gap
    place = (start + index * (5 ** .5 - 1) / 2) % 1
    area = float(SMALLEST * (LARGEST / SMALLEST) ** place)
    rng = np.random.default_rng(_sequence(seed, product, 9, index))
    kinds = KINDS[product]
    able = [k for k, (low, high, _) in kinds.items() if low <= area <= high]
    wanted = [k for k in able if kinds[k][2]] if index % 4 else able
    return str(rng.choice(wanted or able)), area


def image_seed(product: str, split: str, index: int, seed: int = 0) -> int:
    """The seed with which `make` renders an image; split is one of SPLITS."""
    sequence = _sequence(seed, product, SPLITS.index(split), index)
    return int(sequence.generate_state(1, np.uint64)[0])


def _sequence(seed: int, product: str, *place: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, PRODUCTS.index(product), *place])


def _write(path: Path, content: bytes | np.ndarray) -> None:
    """Write bytes or a PNG aside and rename it: a file is either whole or not there."""
    with whole(path) as aside:
        if isinstance(content, bytes):
            aside.write_bytes(content)
        else:
            Image.fromarray(content).save(aside, "PNG")
