"""The tables of a receipt, as Markdown: each is computed from the receipt alone."""
from __future__ import annotations

import html
import re
from pathlib import Path
from statistics import mean

import numpy as np

from ..evaluation.by_image import by_third
from ..runtime.files import write_text
from . import intervals
from .published import SOURCE
from .receipts import exact_pro, labels, make_receipt, read_receipt

THIRDS = ("small", "medium", "large")
TITLES = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO"}
BASELINES = {"neighbours": "nearest neighbours",
             "local_neighbours": "neighbours in place",
             "patchcore": "PatchCore", "padim": "PaDiM", "one_call": "one U-Net call",
             "autoencoder_pixels": "autoencoder alone, pixels",
             "autoencoder_features": "autoencoder alone, features"}


def markdown(head: list[str], rows: list[list]) -> str:
    """A Markdown table; floats with three decimals, None as nothing; text, which may be
    a folder's name, with its markup escaped.
    """
    def cell(value) -> str:
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        plain = "" if value is None else " ".join(shown.split())
        return re.sub(r"([|\[\]])", r"\\\1", html.escape(plain, quote=False))

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def against_paper(receipt: dict) -> str:
    """The paper's table with our figures beside it."""
    head = ["category", "preset", "metric", "paper", "ours", "seeds", "95% interval",
            "difference", "paper in it"]
    rows = []
    for f in intervals.figures(receipt):
        spread = "" if f["sd"] is None else f" ± {f['sd']:.3f}"
        known = f["paper"] is not None
        rows.append([f["category"], f["preset"], TITLES[f["metric"]], f["paper"],
                     f"{f['ours']:.3f}{spread}", f["seeds"],
                     f"{f['low']:.3f} to {f['high']:.3f}",
                     f"{f['difference']:+.3f}" if known else None,
                     ("yes" if f["inside"] else "no") if known else None])
    # where the paper has no figures, its columns are left out
    keep = [i for i in range(len(head)) if any(row[i] is not None for row in rows)]
    return markdown([head[i] for i in keep], [[row[i] for i in keep] for row in rows])


def deviations(receipt: dict) -> str:
    """How the runs were made: what a reader has to know before comparing a figure with
    the paper's; of seeds that differ, each value.
    """
    shown = ("preset", "image_size", "vae", "features", "unet_channels", "train_length",
             "neighbours", "neighbour_pool", "step_rule", "T_max", "smallest_bin",
             "guidance", "latent_blur", "lam", "tune_epochs", "mask_rule", "pro")
    rows = []
    for runs in _cells(receipt):
        run = runs[0]
        # seeds differ where each was calibrated
        values = [", ".join(dict.fromkeys(str(one["settings"][name]) for one in runs))
                  for name in shown]
        held_out = f"{run['held_out']} of {run['train']}, {run['held_out_from']}"
        source = "calibrated without test data" if run["calibrate"] else "one for all"
        if run["by_category"]:
            source = run["by_category"]["provenance"]
        rows.append([run["category"], *values, held_out, source])
    names = (f"`{name}`" for name in shown)
    return markdown(["category", *names, "held out", "constants"], rows)


def _cells(receipt: dict) -> list[list[dict]]:
    """The runs of each category and preset."""
    cells = {}
    for run in receipt["runs"]:
        cells.setdefault((run["category"], run["preset"]), []).append(run)
    return list(cells.values())


def _asked(receipt: dict) -> dict[str, list[dict]]:
    """By category the runs that were questioned."""
    asked = {category: [] for category in receipt["test"]}
    for run in receipt["runs"]:
        if "questions" in run:
            asked[run["category"]].append(run)
    return asked


# --- one path against another

def dynamic_against_static(receipt: dict) -> str:
    """The central claim: dynamic steps minus static ones at the same T_max, by size of
    the defect; means over seeds with 95% intervals.
    """
    return _one_against_other(receipt, "dynamic steps", "static steps")


def noise_against_none(receipt: dict) -> str:
    """Noise added at the start minus the latent only scaled, all else as it is; means
    over seeds with 95% intervals.
    """
    return _one_against_other(receipt, "noise added", "as it is")


def _one_against_other(receipt: dict, one: str, other: str) -> str:
    head = ["category", "path", "I-AUROC", "PRO", *(f"PRO, {s}" for s in THIRDS),
            *(f"recall, {s}" for s in THIRDS), "false alarms"]
    rows = []
    for category, runs in _asked(receipt).items():
        if not runs:
            continue
        values, drawn = {}, {}
        for name in (one, other):
            measured = [_path_figures(receipt, run, name) for run in runs]
            values[name], drawn[name] = (np.mean(part, 0) for part in zip(*measured))
            rows.append([category, name, *map(float, values[name])])
        difference, scattered = values[one] - values[other], drawn[one] - drawn[other]
        with_interval = [intervals.interval(d, resampled, "+")
                         for d, resampled in zip(difference, scattered)]
        plain = [f"{d:+.3f}" for d in difference[len(scattered):]]
        rows.append([category, "difference", *with_interval, *plain])
    return markdown(head, rows)


def _path_figures(receipt: dict, run: dict, name: str) -> tuple[list[float], list]:
    """I-AUROC, PRO, PRO of each third, recall of each third and false alarms of one
    path; and of the first five the resamples of each.
    """
    path = run["questions"]["paths"][name]
    score, thirds = path["score"], (None, 0, 1, 2)
    pro = [exact_pro(receipt, run, path, third) for third in thirds]
    flagged, good = np.array(score) > path["threshold"], labels(receipt, run) == 0
    area = np.array(receipt["test"][run["category"]]["area"])
    rates = [flagged[images].mean() for images in (*by_third(area), good)]
    drawn = [intervals.auroc_resampled(receipt, run, score)]
    drawn += [intervals.pro_resampled(receipt, run, path, third) for third in thirds]
    return [path["i_auroc"], *pro, *rates], drawn


# --- the other questions

def steps(receipt: dict) -> str:
    """Whether the chosen step follows the size of the defect: rank correlation over the
    defective images, for each seed's detector, with interval.
    """
    head = ["category", "seed", "defective images", "different steps",
            "mean step, good", "mean step, defective", "step against area",
            "distance against area"]
    rows = []
    for category, runs in _asked(receipt).items():
        area = np.array(receipt["test"][category]["area"])
        sized = np.flatnonzero(area > 0)
        drawn = intervals.draws(receipt, category)
        for run in runs:
            T_hat = np.array(run["questions"]["paths"]["dynamic steps"]["T_hat"])
            d = np.array(run["images"]["distance"])
            good = np.flatnonzero(labels(receipt, run) == 0)
            rows.append([category, run["seed"], len(sized), len(set(T_hat.tolist())),
                         f"{np.mean(T_hat[good]):.0f}", f"{np.mean(T_hat[sized]):.0f}",
                         intervals.rank(T_hat, area, sized, drawn),
                         intervals.rank(d, area, sized, drawn)])
    return markdown(head, rows)


def constants(receipt: dict) -> str:
    """Sensitivity, one constant changed at a time, on the detector of seed 0 with
    dynamic steps.
    """
    head = ["category", "setting", "had", "tried", "I-AUROC", "change", "PRO", "change"]
    rows = []
    for category, runs in _asked(receipt).items():
        for run in runs:
            base = run["questions"]["paths"]["dynamic steps"]
            for tried in run["questions"].get("constants", []):
                (name, value), = tried["changed"].items()
                change = {m: f"{tried[m] - base[m]:+.3f}" for m in ("i_auroc", "pro")}
                rows.append([category, f"`{name}`", tried["had"][name], value,
                             tried["i_auroc"], change["i_auroc"],
                             tried["pro"], change["pro"]])
    return markdown(head, rows)


def baselines(receipt: dict) -> str:
    """The method beside what is simpler, with the same features: means over the seeds.
    """
    rows = []
    for category, runs in _asked(receipt).items():
        images = len(receipt["test"][category]["image"])
        own = [run["questions"]["paths"]["as it is"] for run in runs]
        calls = [run["one_call"] for run in receipt["runs"]
                 if run["category"] == category and "one_call" in run]
        for asked in (run["questions"] for run in runs):
            found = asked.get("baselines")
            if not found:                   # asked of the first preset alone
                continue
            method = {"seconds": asked["seconds"], "seeds": own} | _means(own)
            detectors = {"method": method}
            detectors |= {BASELINES[name]: row for name, row in found.items()}
            if calls:                       # of every seed, not of the first alone
                name = BASELINES["one_call"]
                detectors[name] = detectors[name] | {"seeds": calls} | _means(calls)
            for name, result in detectors.items():
                each = None
                if "seconds" in result:
                    each = f"{1000 * result['seconds'] / images:.0f}"
                seeds = len(result.get("seeds", [result]))
                rows.append([category, name, *(result[m] for m in TITLES), seeds, each])
    return markdown(["category", "detector", *TITLES.values(), "seeds", "ms an image"],
                    rows)


def _means(runs: list[dict]) -> dict[str, float]:
    return {metric: mean(run[metric] for run in runs) for metric in TITLES}


def cost(receipt: dict) -> str:
    """What the runs took: seconds a stage, memory, parameters; means over the runs of a
    category and preset.
    """
    stages = ("encode", "train", "calibrate", "fine-tune")
    head = ["category", "preset", "device", *(f"{stage}, s" for stage in stages),
            "detect and score, ms an image", "peak memory, GiB", "U-Net, M parameters"]
    rows = []
    for runs in _cells(receipt):
        first, costs = runs[0], [run["cost"] for run in runs]
        spent = [one["seconds"] for one in costs]
        # a calibration has two parts
        each_stage = [mean(sum(one[name] for name in one if name.split()[0] == stage)
                           for one in spent) for stage in stages]
        detecting = 1000 * mean(one["detect and score"] for one in spent)
        peak = max(one["peak_memory"] for one in costs) / 2**30
        unet = costs[0]["parameters"]["unet"] / 1e6
        rows.append([first["category"], first["preset"], first["device"],
                     *(f"{seconds:.0f}" for seconds in each_stage),
                     f"{detecting / costs[0]['images']:.0f}", f"{peak:.1f}",
                     f"{unet:.1f}"])
    return markdown(head, rows)


TABLES = {make.__name__: make for make in (
    against_paper, deviations, dynamic_against_static, steps, noise_against_none,
    constants, baselines, cost)}


def write_report(out: Path) -> dict:
    """receipt.json, tables.md and figures.csv of all finished runs under `out`; the
    receipt.
    """
    make_receipt(out)
    receipt = read_receipt(out)
    parts = [f"# {receipt['dataset']}\n\nReceipt {receipt['sha256']}. Paper: {SOURCE}."]
    for name, make in TABLES.items():
        says = " ".join(make.__doc__.split())
        parts.append(f"## {name.replace('_', ' ')}\n\n{says}\n\n{make(receipt)}")
    write_text(out / "tables.md", "\n\n".join(parts) + "\n")
    write_text(out / "figures.csv", intervals.as_csv(receipt))
    return receipt
