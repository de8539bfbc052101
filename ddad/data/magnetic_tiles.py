"""The magnetic tiles (Huang, Qiu and Yuan, CASE 2018) arranged in MVTec AD's layout,
which their archive is not in.

The archive has no split. Each tile was photographed at about six exposures, one after
the other, and file names carry the number of the exposure E and of the image N:
exp<E>_num_<N>. Drawn at random, most test images have a twin in training.
"""

import csv
import hashlib
import io
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..runtime.errors import DataError
from ..runtime.files import write_json, write_text
from .product import GROUPS

COUNTS = {"Free": 952, "Blowhole": 115, "Break": 85, "Crack": 57, "Fray": 32,
          "Uneven": 103}
# images of one tile, or of tiles taken in one go, follow each other at most so far
# apart in N
GAP = 300
SHARE = 0.2                     # of good images, for tests; of the others, held out
RULES = {
    "mtd_by_tile":
        f"good images whose numbers follow each other at most {GAP} apart are one "
        f"tile; tiles within {GAP} of a defective image are tested, then tiles drawn "
        "by sha256 of seed and first name, while they fit into a fifth of the images; "
        "of the others as many tiles are held out",
    "mtd_random":
        "a fifth of the good images, drawn by sha256 of seed and name, is tested",
}


def number(stem: str) -> int:
    """N of exp<E>_num_<N>. Raises DataError for another name."""
    found = re.fullmatch(r"exp\d+_num_(\d+)", stem)
    if not found:
        raise DataError(f"The magnetic tile {stem} is not named exp<E>_num_<N>: unpack "
                        "the archive again.")
    return int(found[1])


def tiles(stems: list[str]) -> list[list[str]]:
    """Names grouped into tiles, each in order of N."""
    groups = []
    for stem in sorted(stems, key=number):
        if groups and number(stem) - number(groups[-1][-1]) <= GAP:
            groups[-1].append(stem)
        else:
            groups.append([stem])
    return groups


def parts(name: str, good: list[str], defective: list[str],
          seed: int = 0) -> dict[str, list[str]]:
    """The good images to train on, to hold out ("validation") and to test on, each
    sorted; name: mtd_by_tile, or mtd_random, which holds out none.
    """
    if name == "mtd_random":
        order = lambda stem: hashlib.sha256(f"{seed} {stem}".encode()).hexdigest()
        test, held = sorted(good, key=order)[: round(SHARE * len(good))], []
    else:
        test = _whole_tiles(good, seed, [number(stem) for stem in defective])
        held = _whole_tiles(sorted({*good} - {*test}), seed)
    train = {*good} - {*test} - {*held}
    return {"train": sorted(train), "validation": sorted(held), "test": sorted(test)}


def _whole_tiles(stems: list[str], seed: int, near: Sequence[int] = ()) -> list[str]:
    """All tiles within GAP of the numbers `near`, then as many as fit into SHARE of the
    images, drawn with the seed.
    """
    chosen, order = [], []
    for tile in tiles(stems):
        first, last = number(tile[0]) - GAP, number(tile[-1]) + GAP
        if any(first <= n <= last for n in near):
            chosen += tile
        else:
            order.append((hashlib.sha256(f"{seed} {tile[0]}".encode()).hexdigest(),
                          tile))
    for _, tile in sorted(order):
        if len(chosen) + len(tile) <= round(SHARE * len(stems)):
            chosen += tile
    return chosen


def count(unpacked: Path) -> None:
    """Raises DataError where the unpacked archive lacks images or masks."""
    for kind, expected in COUNTS.items():
        for suffix in ("jpg", "png"):
            found = len(list(unpacked.glob(f"*/MT_{kind}/Imgs/*.{suffix}")))
            if found != expected:
                raise DataError(
                    f"{unpacked} holds {found} .{suffix} files in MT_{kind}/Imgs, not "
                    f"{expected}: it was cut short or has changed; delete it and fetch "
                    "again.")


def arrange(name: str, unpacked: Path, out: Path, seed: int = 0) -> None:
    """Writes out/mtd in MVTec AD's layout from the unpacked archive, with
    out/mtd/split.json for a record, and groups.csv: which test images are of one tile.

    Images are hard links where the file system has them, else copies. Masks are written
    anew: the archive's have grey edges of all levels, of which those above 127 count as
    defect. Written aside, then renamed.
    """
    aside = out.with_name(out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    product = aside / "mtd"
    images = {kind: sorted(unpacked.glob(f"*/MT_{kind}/Imgs/*.jpg")) for kind in COUNTS}
    good = images.pop("Free")
    stems = lambda paths: [path.stem for path in paths]
    defective = [path for paths in images.values() for path in paths]
    split = parts(name, stems(good), stems(defective), seed)
    part_of = {stem: part for part in split for stem in split[part]}
    for path in good:
        _link(path, product / part_of[path.stem] / "good" / path.name)
    for kind, paths in images.items():
        for path in paths:
            _link(path, product / "test" / kind.lower() / path.name)
            truth = product / "ground_truth" / kind.lower()
            _write_mask(path.with_suffix(".png"), truth / f"{path.stem}_mask.png")
    write_json(product / "split.json", {"rule": RULES[name], "seed": seed, **split})
    write_groups(product)
    os.replace(aside, out)


def write_groups(product: Path) -> None:
    """Writes product/groups.csv, the tile of each test image, named by its first."""
    images = sorted(product.glob("test/*/*"))
    tile_of = {stem: tile[0] for tile in tiles([path.stem for path in images])
               for stem in tile}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "group"])
    rows.writerows([path.relative_to(product).as_posix(), tile_of[path.stem]]
                   for path in images)
    write_text(product / GROUPS, text.getvalue())


def _write_mask(grey: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(grey) as file:
        defect = np.asarray(file.convert("L")) > 127
    Image.fromarray(defect.astype(np.uint8) * 255).save(target)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
