"""How well the constants of the method are chosen without test data."""
from __future__ import annotations

from ..calibration import BLUR, CHOSEN, LAMBDA, best, grid, sweep
from ..data.product import TestSet
from ..detector import Detector


def regret(detector: Detector, test: TestSet, every: int = 1) -> dict:
    """How far the chosen constants are from the best of the calibration's own grid.

    The best are those on the test set: shown, never used. every: take each n-th test
    image only, where the whole sweep would take too long.
    """
    images, masks = test.images[::every], test.masks[::every] > 0.5
    chosen = {name: getattr(detector.settings, name) for name in CHOSEN}
    paths = [*grid(detector.settings), {name: chosen[name] for name in CHOSEN[:3]}]
    blurs = dict.fromkeys((*BLUR, chosen["latent_blur"]))
    lams = (*LAMBDA, chosen["lam"])
    table = sweep(detector, images, masks, paths, lams, blurs)

    def row_of(constants: dict) -> dict:
        return next(row for row in table if constants.items() <= row.items())

    on_test, of_choice = row_of(best(table)), row_of(chosen)
    gain = {name: on_test[name] - of_choice[name] for name in ("i_auroc", "pro")}
    return {"chosen": of_choice, "best_on_test": on_test, "images": len(images),
            "table": table, "regret": gain}
