"""A product's images under given settings: to train on, held out, and to test on."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..runtime.errors import DataError
from ..settings import Settings
from ..training import hold_out
from .images import (
    Images,
    good_images,
    held_out_items,
    read_item,
    test_items,
    train_items,
)
from .layouts import GROUPS, Item, beside
from .regions import Region, read_regions


@dataclass
class TestSet:
    """N test images, whose kinds are those of `layouts.Item`."""

    images: Tensor  # (N, 3, H, W) in [-1, 1]
    masks: np.ndarray  # (N, H, W) float32 in [0, 1]
    labels: np.ndarray  # (N,) int, 0 good or 1 defective
    kinds: list[str]
    paths: list[Path]
    # (N,) str, the name of what each image shows, where several show the same
    groups: np.ndarray | None = None
    # where masks are kept apart, with saturation areas
    regions: list[Region] | None = None


def load_train(root: str | Path, settings: Settings) -> Images:
    """The good training images (N, 3, H, W) in [-1, 1]. Raises DataError."""
    return good_images([item.path for item in train_items(root)], settings.image_size)


def load_held_out(root: str | Path, settings: Settings) -> Images | None:
    """The images of validation/good (N, 3, H, W) in [-1, 1], or None where that folder
    does not exist. Raises DataError.
    """
    paths = [item.path for item in held_out_items(root)]
    return good_images(paths, settings.image_size) if paths else None


def load_good(root: str | Path, settings: Settings) -> tuple[Images, Images]:
    """The good images to train on and those held out: of validation/good, else a share
    of the training images. Raises DataError.
    """
    return hold_out(load_train(root, settings), settings, load_held_out(root, settings))


def load_test(root: str | Path, settings: Settings) -> TestSet:
    """The test images and masks, by the settings' mask rule; and what lies beside them:
    groups of images, regions with their saturation areas. Raises DataError.
    """
    items = test_items(root)
    read = lambda item: read_item(item, settings.image_size, settings.mask_rule)
    pairs = [read(item) for item in tqdm(items, "read", leave=False, delay=2)]
    images, masks = zip(*pairs)
    return TestSet(
        images=torch.stack(images),
        masks=torch.stack(masks).numpy(),
        labels=np.array([item.kind != "good" for item in items], int),
        kinds=[item.kind for item in items],
        paths=[item.path for item in items],
        groups=read_groups(Path(root), items),
        regions=read_regions(root, items, settings.image_size),
    )


def read_groups(root: Path, items: list[Item]) -> np.ndarray | None:
    """The groups of `items` by groups.csv, whose columns are image, relative to `root`,
    and group; None without that file. Raises DataError, also where an image has two
    groups or is not there.
    """
    table = beside(root, GROUPS)
    if table is None:
        return None
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = [(row["image"], row["group"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({error!r}): it needs the columns "
                        "image and group.") from error
    of = dict(rows)             # the last of each image
    for name, group in rows:
        if group != of[name]:
            raise DataError(f"{table} has {name} in two groups, {group} and {of[name]}:"
                            " delete one of these rows.")
    names = [item.path.relative_to(root).as_posix() for item in items]
    if lacking := [name for name in names if not of.get(name)]:
        raise DataError(f"{table} names no group for {lacking[0]}: add a row for each "
                        "test image, or delete the file.")
    if gone := [name for name in of if not os.path.lexists(root / (name or ""))]:
        raise DataError(f"{table} lists {gone[0]}, which is not there: bring the image "
                        "back, or delete its row.")
    return np.array([of[name] for name in names])
