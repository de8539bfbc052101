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
from ..reproduction.runs import by_area, fingerprint, made_with, measured
from ..runtime.files import write_json
from .products import PRODUCTS, make
from .weights import METRICS, WEIGHTS


def demo(out: Path, weights: Path = WEIGHTS, device: str = "auto") -> dict:
    """Inspect the products' test images: overlays and results.json in `out`; the
    results.

    One overlay a defect kind of each product. results.json has, for each product, the
    detector's figures and, under `baselines`, those of every baseline with one seed;
    under `mean` the means over the products; and under `runs` what they can be checked
    by, as `ddad evaluate` records it. An interrupted run keeps its images.
    """
    started = time.perf_counter()
    make(out / "data")
    results, runs = {}, []
    for product in PRODUCTS:
        detector = Detector.from_pretrained(weights / product, device=device)
        data, settings = out / "data" / product, detector.settings
        train, test = load_train(data, settings), load_test(data, settings)
        figures, found = evaluate(detector, test)
        _save_overlays(out, product, test, found, detector.threshold)
        run = measured(detector, data, by_area(test, data, settings), figures, found)
        runs.append({"category": product} | run
                    | made_with(detector, fingerprint(data), weights / product))
        results[product] = figures | {
            "baselines": baselines(detector, train, test, seeds=(0,))}
    results = {
        "mean": mean_over(results),
        **results,
        "seconds": round(time.perf_counter() - started, 1),
        "runs": runs,
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
