"""The extension, and one call of its network, beside what they have to beat, on the
same test images: figures for each seed, and paired differences.
"""
from __future__ import annotations

from statistics import mean

import numpy as np
from sklearn.metrics import roc_auc_score

from ddad.evaluation.resampling import percentiles
from ddad.reproduction.intervals import auroc_resampled, pro_resampled
from ddad.reproduction.receipts import exact_pro, labels

OURS = "regional"
PATCHES = ("neighbours", "patchcore", "padim")
OTHERS = ("clean", "one_call", *PATCHES)
# one minus another
PAIRS = (*((OURS, other) for other in OTHERS), ("one_call", "clean"))
METRICS = ("i_auroc", "pro")


def entries(receipt: dict) -> dict[tuple[str, str], list[tuple[int, dict, dict]]]:
    """By category and method: seed, run, and of each image its score and parts of PRO.
    A baseline without a seed has that of the run that it was asked of.
    """
    found: dict = {}
    for run in receipt["runs"]:
        rows = [(run["preset"], run["seed"], run["images"])]
        if one := run.get("one_call"):
            rows.append(("one_call", run["seed"], one))
        asked = run.get("questions", {}).get("baselines", {})
        for method in PATCHES if asked else ():
            rows += [(method, one.get("seed", run["seed"]), one)
                     for one in asked[method].get("seeds", [asked[method]])]
        for method, seed, images in rows:
            of = found.setdefault((run["category"], method), [])
            of.append((seed, run, images))
    return found


def rows(receipt: dict) -> list[dict]:
    """data, method, seed, i_auroc, pro: a row for each training or drawing."""
    return [{"data": category, "method": method, "seed": seed,
             "i_auroc": float(roc_auc_score(labels(receipt, run), images["score"])),
             "pro": exact_pro(receipt, run, images)}
            for (category, method), of in entries(receipt).items()
            if method in (OURS, *OTHERS) for seed, run, images in of]


def differences(receipt: dict) -> list[dict]:
    """data, one, other, metric, difference, low, high, a row for each of PAIRS: one's
    mean over seeds minus the other's, with 95% of resamples of the test images, or of
    their groups, the same for both; the spread over seeds is not in it.
    """
    means: dict = {}
    for row in rows(receipt):
        means.setdefault((row["data"], row["method"]), []).append(row)
    drawn, made = {}, []
    for (category, method), of in entries(receipt).items():
        if method in (OURS, *OTHERS):
            drawn[category, method] = {
                "i_auroc": np.mean([auroc_resampled(receipt, run, images["score"])
                                    for _, run, images in of], 0),
                "pro": np.mean([pro_resampled(receipt, run, images)
                                for _, run, images in of], 0)}
    pairs = [(category, *pair) for category in receipt["test"] for pair in PAIRS
             if all((category, method) in drawn for method in pair)]
    for category, one, other in pairs:
        for metric in METRICS:
            ours, theirs = (mean(row[metric] for row in means[category, method])
                            for method in (one, other))
            low, high = percentiles(drawn[category, one][metric]
                                    - drawn[category, other][metric])
            made.append({"data": category, "one": one, "other": other, "metric": metric,
                         "difference": ours - theirs, "low": low, "high": high})
    return made
