"""AUPIMO, after Bertoldo, Ameln, Vaidya and Akcay, "AUPIMO: Redefining Visual Anomaly
Detection Benchmarks with High Speed and Low Tolerance", BMVC 2024 (arXiv 2401.01984).

For each defective image the share of its mask that is found, averaged over rates of
false positives from 1e-5 to 1e-4 on a logarithmic axis. A rate is the mean over the
good *test images* of the share of each one's pixels that score as high: good pixels of
defective images do not count.

Every distinct score is a threshold. Between two rates that occur the curve is a step:
what is found at the smaller one counts, since the larger one is not allowed yet. The
smallest rate above 0 is one pixel of all good images, 1.0e-6 for 60 of 128 pixels a
side: there 1e-5 is 10 pixels, and 1e-4 is 98. Rates below 1e-5 are not looked at, so
what happens under the smallest one matters only where it exceeds 1e-5. AUPIMO is then
undefined: with so few good pixels it would say what is found above all of them.
"""
from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .ranking import PixelRanking

LOW, HIGH = 1e-5, 1e-4


class ImageRanking(PixelRanking):
    """Where the defect pixels stand among the pixels of the good images.

    Shapes as in `metrics`; each mask weighs the same. ValueError without a good image,
    and where `PixelRanking` raises it.
    """

    def __init__(self, maps: np.ndarray, masks: np.ndarray, labels: np.ndarray):
        defective = np.asarray(labels) == 1
        if defective.all():
            raise ValueError("no good image: AUPIMO takes its rates from those alone")
        image = np.nonzero(masks)[0]
        pixels = maps[masks], 1 / np.bincount(image)[image], image
        whole = np.broadcast_to(defective[:, None, None], masks.shape)
        super().__init__(maps, whole, pixels)
        self._defective = defective
        # of one pixel of one good image
        self.smallest_rate = 1 / self._good

    def aupimo(self, weights: ArrayLike | None = None) -> float:
        """The mean over the defective images that have a mask, in [0, 1].

        `weights` (N,) as in `PixelRanking`. ValueError where the smallest rate exceeds
        1e-5.
        """
        self._check_rate()
        return self._area(self._overlap, _held_in_log, weights)

    def by_image(self) -> np.ndarray:
        """AUPIMO of each defective image, in their order; NaN where a mask is empty."""
        self._check_rate()
        n = len(self._defective)
        held = self._overlap * _held_in_log(*self._rates(None))
        found = np.bincount(self._image, held, n)
        found[np.bincount(self._image, minlength=n) == 0] = np.nan
        return found[self._defective]

    def _check_rate(self) -> None:
        if self.smallest_rate > LOW:
            raise ValueError(
                f"the good test images have {self._good} pixels, and a rate of {LOW} "
                f"needs {1 / LOW:.0f}: add good images, or measure larger maps")


def _held_in_log(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The share of the logarithmic axis in which a pixel is found.

    That is from `high` on, the rate of the threshold at its own score.
    """
    return np.log(HIGH / high.clip(LOW, HIGH)) / np.log(HIGH / LOW)


def aupimo(maps: np.ndarray, masks: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """AUPIMO of each defective image: see `ImageRanking.by_image`."""
    return ImageRanking(maps, masks, labels).by_image()
