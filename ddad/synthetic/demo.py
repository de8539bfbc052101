"""The demo: the shipped weights on the products they were trained for."""
from __future__ import annotations

import time
from pathlib import Path

from ..data.product import TestSet, load_test
from ..deploy.overlays import save_overlay
from ..detector import Detector, Prediction
from ..evaluation.scoring import evaluate
from ..runtime.files import write_json
from ..runtime.manifest import versions
from .products import PRODUCTS, make
from .weights import METRICS, WEIGHTS


def demo(out: Path, weights: Path = WEIGHTS, device: str = "auto") -> dict:
    """Inspect the products' test images: overlays and results.json in `out`; the
    results.

    One overlay a defect kind of each product; results.json has a figure for each
    product and their mean.
    """
    started = time.perf_counter()
    make(out / "data", train=0)
    results = {}
    for product in PRODUCTS:
        detector = Detector.from_pretrained(weights / product, device=device)
        test = load_test(out / "data" / product, detector.settings)
        results[product], found = evaluate(detector, test)
        _save_overlays(out, product, test, found, detector.threshold)
    mean = {m: sum(r[m] for r in results.values()) / len(results) for m in METRICS}
    results = {
        "mean": mean,
        **results,
        "seconds": round(time.perf_counter() - started, 1),
        "settings": detector.settings.as_dict(),
        "versions": versions(),
        "device": str(detector.device),
    }
    write_json(out / "results.json", results)
    return results


def _save_overlays(
    out: Path,
    product: str,
    test: TestSet,
    found: Prediction,
    threshold: float | None,
) -> None:
    for kind in sorted(set(test.kinds)):
        n = test.kinds.index(kind)
        save_overlay(
            out / f"{product}_{kind}.png",
            test.images[n],
            found.reconstruction[n],
            found.map[n],
            threshold,
            test.masks[n] > 0.5,
        )
