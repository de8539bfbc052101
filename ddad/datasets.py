"""Published data sets by name: where they are, what they allow, how many pictures they have. Nothing of them is part of this project."""
from __future__ import annotations

import os
import random
import re
import shutil
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from .data import DataError, check, list_images
from .manifest import write_json

TILE_GAP, TEST_SHARE = 300, 0.2


@dataclass(frozen=True)
class DataSet:
    """An archive and what is known of it. counts: category -> (training, validation, good test, defective test images), as published."""

    title: str
    url: str
    sha256: str | None                          # None: the archive is made on request, and has no stable bytes
    bytes: int                                  # about; 0 where no source says
    licence: str
    page: str
    cite: str
    folder: str                                 # the archive's folder that holds the categories; "" for the archive itself
    counts: dict[str, tuple[int, int, int, int]]


_MVTEC_AD = {
    "bottle": (209, 0, 20, 63), "cable": (224, 0, 58, 92), "capsule": (219, 0, 23, 109), "carpet": (280, 0, 28, 89), "grid": (264, 0, 21, 57),
    "hazelnut": (391, 0, 40, 70), "leather": (245, 0, 32, 92), "metal_nut": (220, 0, 22, 93), "pill": (267, 0, 26, 141), "screw": (320, 0, 41, 119),
    "tile": (230, 0, 33, 84), "toothbrush": (60, 0, 12, 30), "transistor": (213, 0, 60, 40), "wood": (247, 0, 19, 60), "zipper": (240, 0, 32, 119),
}
# 1cls.csv trains on 90% of the good images of each class and tests on the rest
_VISA = {
    "candle": (900, 0, 100, 100), "capsules": (542, 0, 60, 100), "cashew": (450, 0, 50, 100), "chewinggum": (453, 0, 50, 100),
    "fryum": (450, 0, 50, 100), "macaroni1": (900, 0, 100, 100), "macaroni2": (900, 0, 100, 100), "pcb1": (904, 0, 100, 100),
    "pcb2": (901, 0, 100, 100), "pcb3": (905, 0, 101, 100), "pcb4": (904, 0, 101, 100), "pipe_fryum": (450, 0, 50, 100),
}
_MTD_ARCHIVE = dict(
    url="https://github.com/abin24/Magnetic-tile-defect-datasets./archive/refs/heads/master.zip", sha256=None, bytes=45_000_000,
    licence="none stated; its authors welcome its use and ask to be cited", page="https://github.com/abin24/Magnetic-tile-defect-datasets.",
    cite="Huang, Qiu and Yuan, Surface defect saliency of magnetic tile, The Visual Computer 2018", folder="")
MTD_KINDS = {"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
MTD_GOOD = 952

DATASETS: dict[str, DataSet] = {
    "mvtec_ad": DataSet(
        "MVTec AD", "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f282/download/420938113-1629952094/mvtec_anomaly_detection.tar.xz",
        "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d", 5_264_982_680, "CC BY-NC-SA 4.0: no commercial use",
        "https://www.mvtec.com/company/research/datasets/mvtec-ad", "Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021", "", _MVTEC_AD),
    "visa": DataSet(
        "VisA", "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362", 1_930_000_000, "CC BY 4.0",
        "https://github.com/amazon-science/spot-diff", "Zou et al., SPot-the-Difference, ECCV 2022", "", _VISA),
    "btad": DataSet(
        "BTAD", "https://avires.dimi.uniud.it/papers/btad/btad.zip",
        "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a", 1_229_193_337, "CC BY-NC-SA 4.0: no commercial use",
        "https://avires.dimi.uniud.it/papers/btad/", "Mishra et al., VT-ADL, ISIE 2021", "BTech_Dataset_transformed",
        {"01": (400, 0, 21, 49), "02": (399, 0, 30, 200), "03": (1000, 0, 400, 41)}),
    "mvtec_loco": DataSet(
        "MVTec LOCO AD", "https://www.mydrive.ch/shares/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/430647091-1646842701/mvtec_loco_anomaly_detection.tar.xz",
        "9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687", 0, "CC BY-NC-SA 4.0: no commercial use",
        "https://www.mvtec.com/company/research/datasets/mvtec-loco", "Bergmann et al., Beyond Dents and Scratches, IJCV 2022", "",
        {"breakfast_box": (351, 62, 102, 173), "juice_bottle": (335, 54, 94, 236), "pushpins": (372, 69, 138, 172), "screw_bag": (360, 60, 122, 219),
         "splicing_connectors": (360, 60, 119, 193)}),
    "mtd_by_tile": DataSet("MTD, whole tiles held for the test", counts={}, **_MTD_ARCHIVE),
    "mtd_random": DataSet("MTD, a random fifth of the good images held for the test, as in published work", counts={}, **_MTD_ARCHIVE),
}


def named(name: str) -> DataSet:
    """The data set called `name`; DataError for another."""
    if name not in DATASETS:
        raise DataError(f"no data set is called {name!r}; there are {', '.join(DATASETS)}, or give any folder in MVTec AD's layout")
    return DATASETS[name]


def check_dataset(name: str, root: str | Path, size: int) -> dict:
    """`data.check` of every category under `root`, and where its counts are not the published ones; JSON-ready.

    categories: the report of each; problems: a sentence each, those of the categories included; usable: whether there are none.
    """
    dataset, root = named(name), Path(root)
    reports, problems = {}, []
    for category, published in (dataset.counts or {"mtd": None}).items():
        report = reports[category] = check(root / category, size)
        problems += report["problems"]
        good = report["test"].get("good", 0)
        found = (sum(report["train"].values()), report["validation"], good, sum(report["test"].values()) - good)
        if published is None:                                          # how MTD is divided is up to the split; what there is, is not
            there = {"good": found[0] + found[2]} | {kind: report["test"].get(kind, 0) for kind in MTD_KINDS}
            pairs = [(f"images of {kind}", there[kind], n) for kind, n in ({"good": MTD_GOOD} | MTD_KINDS).items()]
        else:
            pairs = zip(("training images", "validation images", "good test images", "defective test images"), found, published)
        problems += [f"{root / category}: {n} {what}, {wanted} are published" for what, n, wanted in pairs if n != wanted]
    return {"dataset": name, "categories": reports, "problems": problems, "usable": not problems}


# --- MTD comes without a split: two are made, and named apart

def tiles(stems: list[str]) -> list[list[str]]:
    """The pictures (exp<E>_num_<N>) grouped by tile, sorted by N: those whose numbers follow each other at most TILE_GAP apart.

    Each tile was photographed at several exposures E, one picture after another. Raises DataError for another form of name.
    """
    def number(stem: str) -> int:
        found = re.fullmatch(r"exp\d+_num_(\d+)", stem)
        if not found:
            raise DataError(f"{stem} is no name of MTD (exp1_num_123): without its number the tile is not known")
        return int(found[1])

    ordered, group, of = sorted(stems, key=lambda stem: (number(stem), stem)), 0, {}
    for before, stem in zip([None, *ordered], ordered):
        group += before is not None and number(stem) - number(before) > TILE_GAP
        of[stem] = group
    return [list(members) for _, members in groupby(ordered, key=of.get)]


def split_mtd(good: list[str], defective: list[str], rule: str, seed: int = 0) -> tuple[list[str], list[str]]:
    """The good pictures for training and for test, each sorted.

    "by_tile": tiles with a defective picture, then others in a seeded order, go to the test until it has a fifth of the good pictures; no tile is
    on both sides. "random": a seeded fifth of the pictures.
    """
    draws, wanted = random.Random(seed), round(TEST_SHARE * len(good))
    if rule == "random":
        test = set(draws.sample(sorted(good), wanted))
    else:
        broken, groups = set(defective), tiles(good + defective)
        mixed = [stem for group in groups if broken & set(group) for stem in group if stem not in broken]
        whole = [group for group in groups if not broken & set(group)]
        draws.shuffle(whole)
        test = set(mixed)
        for group in whole:
            if len(test) >= wanted:
                break
            test |= set(group)
    return sorted(set(good) - test), sorted(test)


def arrange_mtd(archive: Path, out: Path, rule: str, seed: int = 0) -> None:
    """Lay the unpacked archive out as out/mtd in MVTec AD's layout, by hard links where the disk allows, and write the split beside it."""
    found = {path.name[3:].lower(): path / "Imgs" for path in archive.rglob("MT_*") if path.is_dir()}
    missing = {"free", *MTD_KINDS} - set(found)
    if missing:
        raise DataError(f"{archive} lacks the folders {', '.join('MT_' + name.capitalize() for name in sorted(missing))}: is it the archive of MTD?")
    pictures = {kind: [path for path in list_images(found[kind]) if path.suffix.lower() != ".png"] for kind in ("free", *MTD_KINDS)}  # PNGs are masks
    train, test = split_mtd([p.stem for p in pictures["free"]], [p.stem for kind in MTD_KINDS for p in pictures[kind]], rule, seed)
    aside = out.with_name(out.name + ".arranged")
    shutil.rmtree(aside, ignore_errors=True)
    for use, stems in (("train", set(train)), ("test", set(test))):
        for path in pictures["free"]:
            if path.stem in stems:
                _link(path, aside / "mtd" / use / "good" / path.name)
    for kind in MTD_KINDS:
        for path in pictures[kind]:
            _link(path, aside / "mtd" / "test" / kind / path.name)
            _link(path.with_suffix(".png"), aside / "mtd" / "ground_truth" / kind / f"{path.stem}_mask.png")
    write_json(aside / "mtd" / "split.json", {"rule": rule, "tile_gap": TILE_GAP, "seed": seed, "train": train, "test": test})
    os.replace(aside, out)


def _link(source: Path, target: Path) -> None:
    if not source.exists():
        raise DataError(f"{source} is missing from the archive: fetch it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:                                                    # another disk, or one without hard links
        shutil.copyfile(source, target)
