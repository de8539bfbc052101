"""Defect regions with their saturation areas, as MVTec LOCO gives them: for sPRO.

A product's folder has defects_config.json, and the masks of an image are files in a
folder of their own, ground_truth/<kind>/<stem>/, one region each. The grey level of a
file names its defect in the table, which says how much of a region is enough:

    pixel_value            the grey level
    relative_saturation    whether the threshold is a share of the region
    saturation_threshold   that share, in (0, 1], or a number of pixels of the mask as
                           it is distributed; of a smaller region all of it

Where the masks of an image were merged into one file, its levels are no longer those of
the table, and regions that touch are one. No saturation area can be told then.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.errors import DataError
from .images import decoded
from .layouts import CONFIG, Item, beside, list_images
from .masks import resize_mask


@dataclass(frozen=True)
class Region:
    """A defect region of a test image."""

    image: int  # which of the test images
    mask: np.ndarray  # (H, W) bool, not empty
    saturation: float  # the share of the region that counts as all of it, in (0, 1]


def read_regions(root: str | Path, items: list[Item], size: int) -> list[Region] | None:
    """The regions of `items`, size x size by the rule "area"; those that vanish at that
    size are left out.

    None where `root` has no defects_config.json, or where its masks were merged; that
    is warned of. Raises DataError where the table or a mask is not of that form.
    """
    config = beside(Path(root), CONFIG)
    if config is None:
        return None
    masks = [(n, item.mask) for n, item in enumerate(items) if item.mask is not None]
    if not all(mask.is_dir() for _, mask in masks):
        warnings.warn(f"{root} has {CONFIG}, but its masks are merged into one file an "
                      "image, so the saturation areas are lost: no sPRO", stacklevel=2)
        return None
    table, regions = _read_table(config), []
    for n, folder in masks:
        for file in list_images(folder):
            drawn, share = _read_region(file, table)
            mask = resize_mask(drawn, size, "area").numpy() > 0
            if mask.any():
                regions.append(Region(n, mask, share))
    return regions


def _read_table(config: Path) -> dict[int, tuple[float, bool]]:
    """By grey level its threshold, and whether that is a share of the region."""
    try:
        table = {int(row["pixel_value"]): (float(row["saturation_threshold"]),
                                           bool(row["relative_saturation"]))
                 for row in json.loads(config.read_text(encoding="utf-8"))}
        for level, (threshold, relative) in table.items():
            if not 0 < threshold <= (1 if relative else np.inf):
                raise ValueError(f"pixel_value {level} has threshold {threshold}")
        return table
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{config} is no table of saturation areas ({error!r}): copy "
                        "it again, or delete it to measure without sPRO.") from error


def _read_region(file: Path, table: dict) -> tuple[np.ndarray, float]:
    """The region of a mask file, (height, width) bool, and its saturation, a share."""
    levels = np.asarray(decoded(file)[0])
    values = np.unique(levels[levels > 0])
    if levels.ndim != 2 or values.size != 1 or int(values[0]) not in table:
        raise DataError(
            f"{file} must be grey and hold one level above 0 that {CONFIG} lists, not "
            f"{values[:5].tolist()}: copy it again, or delete {CONFIG} to measure "
            "without sPRO.")
    drawn = levels > 0
    threshold, relative = table[int(values[0])]
    return drawn, threshold if relative else min(threshold / drawn.sum(), 1.0)
