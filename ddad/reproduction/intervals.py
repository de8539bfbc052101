"""Figures of a receipt with their intervals: over seeds, over resampled test images,
and beside the paper's.
"""
from __future__ import annotations

import csv
import io
from functools import lru_cache
from statistics import mean, stdev

import numpy as np

from ..evaluation.resampling import percentiles, resamples
from .published import METRICS, PAPER, PAPER_MEAN
from .receipts import labels, resampled_pro

REPEATS = 1000


def figures(receipt: dict) -> list[dict]:
    """One row for each category, preset and metric, then for their mean over the
    categories: ours beside the paper's.

    ours: mean over seeds of I-AUROC and of exact PRO. sd: their standard deviation.
    low, high: 95% of resamples of the test images, or of their groups, the same for all
    seeds; the spread over seeds is not in them. inside: whether the paper's figure lies
    there.
    """
    rows, published = [], PAPER.get(receipt["dataset"], {})
    for chosen in dict.fromkeys(run["preset"] for run in receipt["runs"]):
        of_preset = [run for run in receipt["runs"] if run["preset"] == chosen]
        drawn = []
        for category in dict.fromkeys(run["category"] for run in of_preset):
            runs = [run for run in of_preset if run["category"] == category]
            values, scattered = _measured(receipt, runs)
            drawn.append((values, scattered))
            for i, metric in enumerate(METRICS):
                paper = published[category][i] / 100 if category in published else None
                rows.append(_row(category, chosen, metric, values[metric],
                                 scattered[metric], paper))
        seeds = {len(values["pro"]) for values, _ in drawn}
        if len(drawn) > 1 and len(seeds) == 1:
            complete = len(drawn) == len(published)
            means = PAPER_MEAN[receipt["dataset"]] if complete else None
            rows += _mean_rows(chosen, drawn, means)
    return rows


def _measured(receipt: dict, runs: list[dict]) -> tuple[dict, dict]:
    """By metric its value for each run, and the mean over the runs of its resamples."""
    values = {"i_auroc": [run["result"]["i_auroc"] for run in runs],
              "pro": [run["result"]["pro_exact"] for run in runs]}
    auroc = [auroc_resampled(receipt, run, run["images"]["score"]) for run in runs]
    pro = [pro_resampled(receipt, run, run["images"]) for run in runs]
    return values, {"i_auroc": np.mean(auroc, 0), "pro": np.mean(pro, 0)}


def _mean_rows(chosen: str, drawn: list, means: tuple | None) -> list[dict]:
    """The rows of the mean over categories. drawn: `_measured` of each category."""
    rows = []
    for i, metric in enumerate(METRICS):
        by_category = [values[metric] for values, _ in drawn]
        values = [mean(one_seed) for one_seed in zip(*by_category)]
        scattered = np.mean([resampled[metric] for _, resampled in drawn], 0)
        paper = means and means[i] / 100
        rows.append(_row("mean", chosen, metric, values, scattered, paper))
    return rows


def _row(category: str, chosen: str, metric: str, values: list[float],
         scattered: np.ndarray, paper: float | None) -> dict:
    low, high = percentiles(scattered)
    ours, unknown = mean(values), paper is None
    return {"category": category, "preset": chosen, "metric": metric, "ours": ours,
            "sd": stdev(values) if len(values) > 1 else None, "seeds": len(values),
            "low": low, "high": high, "paper": paper,
            "difference": None if unknown else ours - paper,
            "inside": None if unknown else low <= paper <= high}


def as_csv(receipt: dict) -> str:
    """`figures` as CSV, with the data set's name."""
    rows = [{"dataset": receipt["dataset"]} | row for row in figures(receipt)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# --- resampled test images

def draws(receipt: dict, category: str) -> np.ndarray:
    """How often each test image was drawn, (REPEATS, N), the same for every run: as
    many good ones, defective ones, and defective ones with an empty mask, as there are;
    or, where they have groups, as many groups of each kind.
    """
    test = receipt["test"][category]
    defective = np.array([kind != "good" for kind in test["kind"]], int)
    strata = 2 * defective + (np.array(test["area"]) > 0)
    groups = test["group"] and tuple(test["group"])
    return _draws(tuple(strata.tolist()), groups, REPEATS)


@lru_cache(maxsize=16)
def _draws(strata: tuple, groups: tuple | None, repeats: int) -> np.ndarray:
    drawn = resamples(strata, repeats, groups=groups)
    counts = np.array([np.bincount(index, minlength=len(strata)) for index in drawn],
                      dtype=float)
    counts.setflags(write=False)
    return counts


def auroc_resampled(receipt: dict, run: dict, scores: list[float]) -> np.ndarray:
    """I-AUROC of each of the `draws`: the share of pairs in which the defective image
    has the higher score, ties counting half.
    """
    bad, scores = labels(receipt, run) == 1, np.array(scores)
    counts = draws(receipt, run["category"])
    wins = _above(scores[bad], scores[~bad])
    won = ((counts[:, bad] @ wins) * counts[:, ~bad]).sum(1)
    return won / (counts[:, bad].sum(1) * counts[:, ~bad].sum(1))


def _above(ours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """1 where the one of the row is above that of the column, 1/2 where it is equal."""
    ours = ours[:, None]
    return (ours > others) + (ours == others) / 2


def pro_resampled(receipt: dict, run: dict, images: dict,
                  third: int | None = None) -> np.ndarray:
    """Exact PRO of each of the `draws`: see `receipts.resampled_pro`."""
    counts = draws(receipt, run["category"])
    return resampled_pro(receipt, run, images, counts, third)


def rank(values: np.ndarray, area: np.ndarray, index: np.ndarray,
         drawn: np.ndarray) -> str:
    """Spearman's rank correlation of values and area (N,) over the images at `index`,
    with its interval; resamples in which either side is constant have none.

    drawn: how often each image was drawn, (R, N).
    """
    values, area = np.asarray(values)[index], np.asarray(area)[index]
    value, = correlations(values, area, np.ones((1, len(area))))
    if not np.isfinite(value):
        return "all the same"
    return interval(value, correlations(values, area, drawn[:, index]), "+")


def correlations(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's of a and b (n,) for each row of counts (R, n), how often each element
    is there; NaN where one of the two is constant.
    """
    ranks = [counts @ _above(one, one) for one in (a, b)]
    whole = counts.sum(1, keepdims=True)
    x, y = (rank - (counts * rank).sum(1, keepdims=True) / whole for rank in ranks)
    of = lambda p, q: (counts * p * q).sum(1)
    with np.errstate(invalid="ignore"):
        return of(x, y) / np.sqrt(of(x, x) * of(y, y))


def interval(value: float, scattered, sign: str = "") -> str:
    """A value with its 95% interval, as a table shows it; resamples that have no value
    are left out.
    """
    scattered = np.asarray(scattered)
    defined = np.isfinite(scattered)
    low, high = percentiles(scattered[defined] if defined.any() else scattered)
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
