"""Figures of a receipt with their intervals: over seeds, over resampled test images,
and beside the paper's.
"""
from __future__ import annotations

import csv
import io
from statistics import mean, stdev

import numpy as np
from scipy.stats import spearmanr

from ..evaluation.resampling import percentiles, resamples
from .published import METRICS, PAPER, PAPER_MEAN
from .receipts import exact_pro, labels

REPEATS = 200


def figures(receipt: dict) -> list[dict]:
    """One row for each category, preset and metric, then for their mean over the
    categories: ours beside the paper's.

    ours: mean over seeds of I-AUROC and of exact PRO. sd: their standard deviation.
    low, high: 95% of resamples of the test images, the same for all seeds; the spread
    over seeds is not in them. inside: whether the paper's figure lies there.
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
    pro = [pro_resampled(receipt, run, run["images"]["overlap"]) for run in runs]
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

def draws(receipt: dict, category: str) -> list[np.ndarray]:
    """The test images' indices, drawn anew REPEATS times, the same for every run: as
    many good ones, defective ones, and defective ones with an empty mask, as there are.
    """
    test = receipt["test"][category]
    defective = np.array([kind != "good" for kind in test["kind"]], int)
    return resamples(2 * defective + (np.array(test["area"]) > 0), REPEATS)


def auroc_resampled(receipt: dict, run: dict, scores: list[float]) -> list[float]:
    """I-AUROC of each of the `draws`: the share of pairs in which the defective image
    has the higher score, ties counting half. scikit-learn's takes ten times as long.
    """
    truth, scores = labels(receipt, run), np.array(scores)

    def auroc(index: np.ndarray) -> float:
        good = np.sort(scores[index][truth[index] == 0])
        bad = scores[index][truth[index] == 1]
        below, upto = (np.searchsorted(good, bad, side) for side in ("left", "right"))
        return (below + upto).sum() / (2 * len(good) * len(bad))
    return [auroc(index) for index in draws(receipt, run["category"])]


def pro_resampled(receipt: dict, run: dict, overlap: list[float],
                  inside: np.ndarray | None = None) -> list[float]:
    """Exact PRO of each of the `draws`: see `exact_pro`."""
    return [exact_pro(receipt, run, overlap, index, inside)
            for index in draws(receipt, run["category"])]


def rank(values: np.ndarray, area: np.ndarray, index: np.ndarray,
         drawn: list[np.ndarray]) -> str:
    """Spearman's rank correlation of values and area (N,) over the images at `index`,
    with its interval; resamples in which either side is constant have none.
    """
    varies = lambda i: len(set(values[i])) > 1 and len(set(area[i])) > 1
    correlation = lambda i: float(spearmanr(values[i], area[i]).statistic)
    if not varies(index):
        return "all the same"
    resampled = [correlation(i) for i in drawn if varies(i)]
    return interval(correlation(index), resampled, "+")


def thirds(receipt: dict, category: str) -> list[np.ndarray]:
    """The test images of each third of the defects' area, as (N,) bool; those with an
    empty mask are in none.
    """
    area = np.array(receipt["test"][category]["area"])
    which = np.digitize(area, np.quantile(area[area > 0], [1 / 3, 2 / 3]))
    return [(area > 0) & (which == k) for k in range(3)]


def interval(value: float, scattered, sign: str = "") -> str:
    """A value with its 95% interval, as a table shows it."""
    low, high = percentiles(scattered)
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
