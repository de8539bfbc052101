"""The demo: the shipped weights on the products they were trained for, beside what is
simpler.
"""
from __future__ import annotations

import time
from pathlib import Path
from statistics import mean

from ..data.product import TestSet, load_test, load_train
from ..deploy.overlays import save_overlay
from ..detector import Detector, Prediction
from ..evaluation.baselines import baselines
from ..evaluation.scoring import evaluate
from ..runtime.files import write_json
from ..runtime.manifest import versions
from .products import PRODUCTS, make
from .weights import METRICS, WEIGHTS


def demo(out: Path, weights: Path = WEIGHTS, device: str = "auto") -> dict:
    """Inspect the products' test images: overlays and results.json in `out`; the
    results.

    One overlay a defect kind of each product. results.json has, for each product, the
    detector's figures and, under `baselines`, those of every baseline with one seed;
    and under `mean` their means over the products. An interrupted run keeps its images.
    """
    started = time.perf_counter()
    make(out / "data")
    results = {}
    for product in PRODUCTS:
        detector = Detector.from_pretrained(weights / product, device=device)
        train = load_train(out / "data" / product, detector.settings)
        test = load_test(out / "data" / product, detector.settings)
        results[product], found = evaluate(detector, test)
        _save_overlays(out, product, test, found, detector.threshold)
        results[product]["baselines"] = baselines(detector, train, test, seeds=(0,))
    results = {
        "mean": mean_over(results),
        **results,
        "seconds": round(time.perf_counter() - started, 1),
        "settings": detector.settings.as_dict(),
        "versions": versions(),
        "device": str(detector.device),
    }
    write_json(out / "results.json", results)
    return results


def mean_over(results: dict[str, dict]) -> dict:
    """Means over the products: of the detector, and under `baselines` of each."""
    def of(rows: list[dict]) -> dict:
        return {m: mean(row[m] for row in rows) for m in METRICS}

    each = [result["baselines"] for result in results.values()]
    return of([*results.values()]) | {
        "baselines": {name: of([found[name] for found in each]) for name in each[0]}
    }


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
