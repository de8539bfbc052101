"""What I-AUROC, PRO and their intervals are made of, image by image, for records."""
from __future__ import annotations

import numpy as np

from .ranking import PixelRanking


def parts(score: np.ndarray, ranking: PixelRanking, masks: np.ndarray) -> dict:
    """score (N,) and, of maps ranked over masks (N, H, W), each image's part of PRO:
    its regions' overlap; and by third of the defects' area, what it does to that
    third's through its good pixels.
    """
    thirds = by_third(np.array(areas(masks)))
    return {"score": short(score), "overlap": short(ranking.overlap_by_image()[0]),
            "false": [short(ranking.false_by_image(regions_of=third))
                      for third in thirds]}


def areas(masks: np.ndarray) -> list[float]:
    """The share of each image that is defect."""
    return short(masks.mean(axis=(1, 2)))


def by_third(area: np.ndarray) -> list[np.ndarray]:
    """The images of each third of the defects' area, from the smallest, as (N,) bool;
    those without a defect are in none. area: (N,), the share of each that is defect.
    """
    which = np.digitize(area, np.quantile(area[area > 0], [1 / 3, 2 / 3]))
    return [(area > 0) & (which == k) for k in range(3)]


def short(values: np.ndarray) -> list[float]:
    """The shortest decimals that give the float32 values back."""
    return [float(str(np.float32(value))) for value in values]
