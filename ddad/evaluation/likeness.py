"""Whether the held-out good images show what the training images show."""
from __future__ import annotations

import sys
import warnings

import numpy as np
from scipy.stats import ks_2samp
from torch import Tensor

from ..data.images import Images, mean_level
from ..dynamic_noise import MemoryBank

# Chance makes held-out images look so unlike the training images in one fit of 1000.
ALIKE = 1e-3


def compared(first, detector, good: Images) -> dict | None:
    """Whether held-out good images (M, 3, H, W) are to the first detector as those that
    its networks saw, which tells another product; and the limits of the other one's own
    d. None without images.
    """
    if not len(good):
        return None
    bank, s = first.memory_bank, first.settings
    own = MemoryBank.fit(bank.y, s.neighbours) if s.self_neighbour else bank
    seen, d = (one.memory_bank.distance(one.features(good), one.settings.neighbours)
               for one in (first, detector))
    return compare_distances(seen, own.distances) | limits(d, good)


def compare_distances(held_out: Tensor, training: Tensor) -> dict:
    """Whether distances d of held-out good images are spread as the training images'.

    held_out (M,), training (N,), each training image without itself as a neighbour: a
    two-sample Kolmogorov-Smirnov test. Returns {"ks", "p", "median_held_out",
    "median_training", "alike"}; warns where p is below ALIKE, and which way they are
    unlike.

    Distances, not anomaly scores: those of the images that the networks were trained on
    are lower than any others'.
    """
    d, own = held_out.cpu().numpy(), training.cpu().numpy()
    ks, p = map(float, ks_2samp(d, own))
    median, usual = float(np.median(d)), float(np.median(own))
    if p < ALIKE:
        nearer = ("they are nearer to these than these are to one another, so copies, "
                  "or images that were trained on, are likely among them, and the "
                  "threshold will be too low; hold out others")
        other = ("map ranges and threshold come from the held-out images, so look "
                 "whether product, camera and light are the same")
        warnings.warn(
            f"the {len(d)} held-out good images are unlike the {len(own)} training "
            f"images: their median distance to the nearest of these is {median:.4g}, "
            f"that of the training images {usual:.4g} (Kolmogorov-Smirnov, "
            f"p = {p:.1e}); {nearer if median < usual else other}",
            stacklevel=_outside())
    return {"ks": ks, "p": p, "median_held_out": median, "median_training": usual,
            "alike": p >= ALIKE}


def limits(d: Tensor, images: Images) -> dict:
    """{"far", "dark", "bright"}: the distance that a tenth of held-out good images, d
    (M,), exceed, and the mean levels, 0 to 255, that a tenth of them, (M, ...) in
    [-1, 1], lie below and above; see `upper_tenth`.
    """
    level = mean_level(images).numpy()
    dark = upper_tenth(-level)
    return {"far": upper_tenth(d.cpu().numpy()),
            "dark": None if dark is None else -dark, "bright": upper_tenth(level)}


def upper_tenth(values: np.ndarray) -> float | None:
    """The k-th largest of M values, k = floor((M + 1) / 10): a new one drawn alike
    exceeds it with a probability of at most a tenth. None for fewer than 9.
    """
    k = (len(values) + 1) // 10
    return float(np.sort(values)[-k]) if k else None


def _outside() -> int:
    """The stack level, for a warning of the function that asks, of who called the
    package.
    """
    own, level, frame = __name__.partition(".")[0], 0, sys._getframe(1)
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == own:
        level, frame = level + 1, frame.f_back
    return level + 1
