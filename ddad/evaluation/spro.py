"""sPRO, the saturated per-region overlap, after Bergmann, Batzner, Fauser, Sattlegger
and Steger, "Beyond Dents and Scratches", IJCV 2022.

Where a part is missing, no set of pixels is the defect: to mark one place that it might
have had is enough. So each region A_i has a saturation area s_i <= |A_i|, and for the
pixels P that are found

    sPRO(P) = mean over regions of min(|A_i & P| / s_i, 1)

The figure is the area under its curve up to a false-positive rate, divided by that
rate; the paper's is 0.05. With s_i = |A_i| it is PRO, but of regions as they were
drawn: one may have several parts, and two may overlap. The paper measures logical and
structural defects apart, each with the good images.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.regions import Region
from .ranking import PixelRanking


def saturated(maps: np.ndarray, regions: Sequence[Region]) -> PixelRanking:
    """The ranking of maps (N, H, W) whose PRO is sPRO, exactly.

    The first s_i pixels of a region that are found add 1 / s_i each, the others
    nothing. Good pixels are those in no region. ValueError without a region, and where
    `PixelRanking` raises it.
    """
    if not regions:
        raise ValueError("no defect region: sPRO is undefined")
    masks, pixels = np.zeros(maps.shape, bool), []
    for region in regions:
        masks[region.image] |= region.mask
        scores = np.sort(maps[region.image][region.mask])[::-1]
        found = np.arange(scores.size + 1) / (region.saturation * scores.size)
        gain = np.diff(np.minimum(found, 1))
        pixels.append((scores, gain, np.full(scores.size, region.image)))
    scores, gain, image = (np.concatenate(part) for part in zip(*pixels))
    return PixelRanking(maps, masks, (scores, gain, image))


def spro(maps: np.ndarray, regions: Sequence[Region], limit: float = 0.05) -> float:
    """Exact sPRO up to the false-positive rate `limit`, in [0, 1].

    Every distinct score is a threshold; the curve is interpolated linearly at `limit`.
    """
    return saturated(maps, regions).pro(limit)
