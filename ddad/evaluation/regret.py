"""How well the constants of the method are chosen without test data."""
from __future__ import annotations

import numpy as np

from ..calibration import CHOSEN, MAP, PATH, further, paths, sweep, weighings
from ..data.product import TestSet
from ..detector import Detector


def candidates(detector: Detector) -> tuple[list[dict], list[dict]]:
    """Paths and weighings that a calibration tries, the detector's own first."""
    s = detector.settings
    chosen = {name: getattr(s, name) for name in CHOSEN}
    own, weighed = ({name: chosen[name] for name in part} for part in (PATH, MAP))
    others = [one for one in paths(s) + further(chosen, detector) if one != own]
    return [own, *others], [weighed, *weighings(s)]


def regret(detector: Detector, test: TestSet, every: int = 1) -> dict:
    """How far the chosen constants are from the best of the calibration's own
    candidates.

    The best are those on the test set: shown, never used. Every path is tried with
    every blur and lambda. every: take each n-th test image only, where the whole sweep
    would take too long. A defective image whose mask is empty is left out. ValueError
    where no good image is among them, or no defect.
    """
    images, masks = test.images[::every], test.masks[::every] > 0.5
    labels = test.labels[::every] == 1
    if labels.all() or not masks.any():
        raise ValueError(f"of each {every}-th test image none is good, or none has a "
                         "defect with a mask; take a smaller N")
    if (lost := labels & ~masks.any((1, 2))).any():
        kept = np.flatnonzero(~lost)    # no good images, and no region to find
        images, masks = images[kept], masks[kept]
    table = sweep(detector, images, masks, *candidates(detector), what="regret").table
    best = max(table, key=lambda row: row["i_auroc"] + row["pro"])
    gain = {name: best[name] - table[0][name] for name in ("i_auroc", "pro")}
    return {"chosen": table[0], "best_on_test": best, "images": len(images),
            "table": table, "regret": gain}
