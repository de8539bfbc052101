"""From runs to tables: a receipt holds all runs of a matrix and its own hash, and every table is computed from a receipt alone."""
from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import re
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from .metrics import percentiles, resamples
from .published import METRICS, PAPER, PAPER_MEAN, SOURCE
from .writing import whole

RECEIPT, REPEATS, TOLERANCE = "receipt.json", 200, 0.01
SAME_TEST = ("image", "kind", "area", "regions")                                 # what all runs of a category share
RULES = ("preset", "mask_rule", "pro", "image_size", "threshold", "map_range")
THIRDS = ("small", "medium", "large")


class ReceiptError(ValueError):
    """A receipt that is missing, damaged or altered; the sentence names the file."""


# --- receipts

def make_receipt(out: Path) -> dict:
    """All run.json under `out`, sorted, as one record with a hash; written to out/receipt.json. ReceiptError where there is none."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*/*/run.json"))]
    if not runs:
        raise ReceiptError(f"{out} holds no finished run: `ddad reproduce` makes them")
    receipt = {"format": 1, "dataset": runs[0]["dataset"], "test": {}, "runs": runs}
    for run in runs:
        same = {name: run["images"].pop(name) for name in SAME_TEST}
        if receipt["test"].setdefault(run["category"], same)["image"] != same["image"]:
            raise ReceiptError(f"{out}: the runs of {run['category']} were tested on different images; keep them in different folders")
    receipt["sha256"] = digest(receipt)
    _write(out / RECEIPT, json.dumps(receipt, separators=(",", ":")) + "\n")
    return receipt


def digest(receipt: dict) -> str:
    """SHA-256 of all of a receipt but its own hash."""
    content = {name: value for name, value in receipt.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_receipt(path: Path) -> dict:
    """A receipt whose hash is right and whose I-AUROC and PRO are those of its own images. ReceiptError.

    path: the file, or the folder that holds it.
    """
    path = path / RECEIPT if path.is_dir() else path
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        if digest(receipt) != receipt["sha256"]:
            raise ReceiptError(f"{path} was altered: its content does not have the hash it states; make it again with `ddad reproduce`")
        for run in receipt["runs"]:
            made = {"i_auroc": roc_auc_score(labels(receipt, run), run["images"]["score"]), "pro_exact": _pro(receipt, run, run["images"]["overlap"])}
            for name, value in made.items():
                if abs(value - run["result"][name]) > 1e-5:
                    raise ReceiptError(f"{path}: {_name(run)} states {name} {run['result'][name]}, its images give {value}")
        return receipt
    except ReceiptError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReceiptError(f"{path} is no receipt ({error}); give the receipt.json that `ddad reproduce` writes, or its folder") from error


def labels(receipt: dict, run: dict) -> np.ndarray:
    """(N,) 0 or 1 of the run's test images."""
    return np.array([kind != "good" for kind in receipt["test"][run["category"]]["kind"]], int)


def _name(run: dict) -> str:
    return f"{run['category']}, {run['preset']}, seed {run['seed']}"


# --- two receipts

def compare(a: dict, b: dict) -> list[dict]:
    """For each run of either receipt a verdict: same, within tolerance, different, not comparable, or only in one; and what differs.

    Runs with other data, another preset or another rule of scoring measure different things: their figures are shown, and not judged.
    """
    key = lambda run: (run["category"], run["preset"], run["seed"])
    runs = [{key(run): run for run in receipt["runs"]} for receipt in (a, b)]
    if not set(runs[0]) & set(runs[1]) and len(runs[0]) == len(runs[1]) == 1:                # two single runs of different cells
        runs[1] = {next(iter(runs[0])): next(iter(runs[1].values()))}
    rows = []
    for cell in sorted(set(runs[0]) | set(runs[1])):
        one, two = runs[0].get(cell), runs[1].get(cell)
        row = {"run": _name(one or two), "differs": [], "difference": {}}
        if one is None or two is None:
            rows.append(row | {"verdict": f"only in the {'second' if one is None else 'first'}"})
            continue
        if one["data"]["sha256"] != two["data"]["sha256"]:
            row["differs"].append(f"data or split: {one['data']['sha256'][:12]}, {two['data']['sha256'][:12]}")
        row["differs"] += [f"{name}: {one['settings'][name]}, {two['settings'][name]}" for name in one["settings"]
                           if one["settings"][name] != two["settings"].get(name)]
        told = ("versions", "device", "commit", "held_out_from")
        row["differs"] += [f"{name}: {one[name]}, {two[name]}" for name in told if one[name] != two[name]]
        if one["weights"]["vae"] != two["weights"]["vae"]:
            row["differs"].append("the autoencoder's weights")
        row["difference"] = {m: two["result"][m] - one["result"][m] for m in ("i_auroc", "p_auroc", "pro")}
        barred = [text for text in row["differs"] if text.startswith("data") or text.split(":")[0] in RULES]
        if barred:
            verdict = "not comparable: " + "; ".join(barred)
        elif one["images"]["score"] == two["images"]["score"] and not any(row["difference"].values()):
            verdict = "same"
        else:
            verdict = "within tolerance" if all(abs(d) <= TOLERANCE for d in row["difference"].values()) else "different"
        rows.append(row | {"verdict": verdict})
    return rows


# --- figures with intervals

def figures(receipt: dict) -> list[dict]:
    """One row for each category, preset and metric, then for their mean over the categories: ours beside the paper's.

    ours: mean over seeds of I-AUROC and of exact PRO. sd: their standard deviation. low, high: 95% of resamples of the test images, the same
    for all seeds; the spread over seeds is not in them. inside: whether the paper's figure lies there.
    """
    rows, published = [], PAPER.get(receipt["dataset"], {})
    cells = dict.fromkeys((run["preset"], run["category"]) for run in receipt["runs"])
    for chosen in dict.fromkeys(preset for preset, _ in cells):
        drawn = []
        for category in [c for p, c in cells if p == chosen]:
            runs = [run for run in receipt["runs"] if (run["preset"], run["category"]) == (chosen, category)]
            values = {"i_auroc": [run["result"]["i_auroc"] for run in runs], "pro": [run["result"]["pro_exact"] for run in runs]}
            scattered = {"i_auroc": np.mean([_auroc_resampled(receipt, run, run["images"]["score"]) for run in runs], 0),
                         "pro": np.mean([_pro_resampled(receipt, run, run["images"]["overlap"]) for run in runs], 0)}
            drawn.append((values, scattered))
            for i, metric in enumerate(METRICS):
                paper = published[category][i] / 100 if category in published else None
                rows.append(_row(category, chosen, metric, values[metric], scattered[metric], paper))
        if len(drawn) > 1 and len({len(values["pro"]) for values, _ in drawn}) == 1:
            for i, metric in enumerate(METRICS):
                paper = PAPER_MEAN[receipt["dataset"]][i] / 100 if len(drawn) == len(published) and published else None
                over_seeds = [mean(column) for column in zip(*(values[metric] for values, _ in drawn))]
                rows.append(_row("mean", chosen, metric, over_seeds, np.mean([s[metric] for _, s in drawn], 0), paper))
    return rows


def _row(category: str, chosen: str, metric: str, values: list[float], scattered: np.ndarray, paper: float | None) -> dict:
    low, high = percentiles(scattered)
    ours = mean(values)
    spread = stdev(values) if len(values) > 1 else None
    return {"category": category, "preset": chosen, "metric": metric, "ours": ours, "sd": spread, "seeds": len(values),
            "low": low, "high": high, "paper": paper, "difference": None if paper is None else ours - paper,
            "inside": None if paper is None else low <= paper <= high}


def _draws(receipt: dict, category: str) -> list[np.ndarray]:
    test = receipt["test"][category]
    strata = 2 * np.array([kind != "good" for kind in test["kind"]], int) + (np.array(test["area"]) > 0)
    return resamples(strata, REPEATS)


def _auroc_resampled(receipt: dict, run: dict, scores: list[float]) -> list[float]:
    truth, scores = labels(receipt, run), np.array(scores)
    return [roc_auc_score(truth[index], scores[index]) for index in _draws(receipt, run["category"])]


def _pro(receipt: dict, run: dict, overlap: list[float], index: np.ndarray | None = None, inside: np.ndarray | None = None) -> float:
    """Exact PRO of the images at `index` (default: each once), of the regions of those that are `inside` (default: all)."""
    regions, overlap = np.array(receipt["test"][run["category"]]["regions"]), np.array(overlap)
    kept = np.ones(len(regions), bool) if inside is None else inside
    index = np.arange(len(regions)) if index is None else index
    index = index[kept[index]]
    return float(overlap[index].sum() / regions[index].sum()) if regions[index].any() else float("nan")


def _pro_resampled(receipt: dict, run: dict, overlap: list[float], inside: np.ndarray | None = None) -> list[float]:
    return [_pro(receipt, run, overlap, index, inside) for index in _draws(receipt, run["category"])]


def _thirds(receipt: dict, category: str) -> list[np.ndarray]:
    """The test images of each third of the defects' area, as (N,) bool; those with an empty mask are in none."""
    area = np.array(receipt["test"][category]["area"])
    which = np.digitize(area, np.quantile(area[area > 0], [1 / 3, 2 / 3]))
    return [(area > 0) & (which == k) for k in range(3)]


def _interval(value: float, scattered, sign: str = "") -> str:
    return "{:{s}.3f} ({:{s}.3f} to {:{s}.3f})".format(value, *percentiles(scattered), s=sign)


# --- tables, as Markdown

def markdown(head: list[str], rows: list[list]) -> str:
    """A Markdown table; floats with three decimals, None as nothing; text, which may be a folder's name, with its markup escaped."""
    shown = lambda c: "" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c)
    text = lambda c: re.sub(r"([|\[\]])", r"\\\1", html.escape(" ".join(shown(c).split()), quote=False))
    return "\n".join("| " + " | ".join(map(text, row)) + " |" for row in [head, ["---"] * len(head), *rows])


def against_paper(receipt: dict) -> str:
    """The paper's table with our figures beside it."""
    rows = [[f["category"], f["preset"], {"i_auroc": "I-AUROC", "pro": "PRO"}[f["metric"]], f["paper"],
             f"{f['ours']:.3f}" + (f" ± {f['sd']:.3f}" if f["sd"] is not None else ""), f["seeds"], f"{f['low']:.3f} to {f['high']:.3f}",
             None if f["difference"] is None else f"{f['difference']:+.3f}", None if f["inside"] is None else "yes" if f["inside"] else "no"]
            for f in figures(receipt)]
    keep = [i for i in range(9) if i not in (3, 7, 8) or any(row[i] is not None for row in rows)]
    head = ["category", "preset", "metric", "paper", "ours", "seeds", "95% interval", "difference", "paper in it"]
    return markdown([head[i] for i in keep], [[row[i] for i in keep] for row in rows])


def _asked(receipt: dict) -> dict[str, list[dict]]:
    return {category: [run for run in receipt["runs"] if run["category"] == category and "questions" in run] for category in receipt["test"]}


def dynamic_against_static(receipt: dict) -> str:
    """The central claim: dynamic steps minus static ones at the same T_max, by size of the defect; means over seeds with 95% intervals."""
    return _one_against_other(receipt, "dynamic steps", "static steps")


def noise_against_none(receipt: dict) -> str:
    """Noise added at the start minus the latent only scaled, all else as it is; means over seeds with 95% intervals."""
    return _one_against_other(receipt, "noise added", "as it is")


def _one_against_other(receipt: dict, one: str, other: str) -> str:
    rows = []
    for category, runs in _asked(receipt).items():
        if not runs:
            continue
        thirds, made = _thirds(receipt, category), {name: [] for name in (one, other)}
        for run in runs:
            for name in made:
                path = run["questions"]["paths"][name]
                flagged = np.array(path["score"]) > path["threshold"]
                values = [path["i_auroc"], *(_pro(receipt, run, path["overlap"], None, inside) for inside in (None, *thirds))]
                values += [flagged[of].mean() for of in (*thirds, labels(receipt, run) == 0)]
                drawn = [_pro_resampled(receipt, run, path["overlap"], inside) for inside in (None, *thirds)]
                drawn.insert(0, _auroc_resampled(receipt, run, path["score"]))
                made[name].append((values, drawn))
        values, drawn = ({name: np.mean([of[i] for of in made[name]], 0) for name in made} for i in (0, 1))
        rows += [[category, name, *map(float, values[name])] for name in made]
        difference = values[one] - values[other]
        with_interval = [_interval(d, r, "+") for d, r in zip(difference, drawn[one] - drawn[other])]
        rows.append([category, "difference", *with_interval, *(f"{d:+.3f}" for d in difference[5:])])
    head = ["category", "path", "I-AUROC", "PRO", *(f"PRO, {s}" for s in THIRDS), *(f"recall, {s}" for s in THIRDS), "false alarms"]
    return markdown(head, rows)


def steps(receipt: dict) -> str:
    """Whether the chosen step follows the size of the defect: rank correlation over the defective images, for each seed's detector, with interval."""
    rows = []
    for category, runs in _asked(receipt).items():
        area = np.array(receipt["test"][category]["area"])
        for run in runs:
            T_hat, d = np.array(run["questions"]["paths"]["dynamic steps"]["T_hat"]), np.array(run["images"]["distance"])
            draws = [index[area[index] > 0] for index in _draws(receipt, category)]
            sized = np.flatnonzero(area > 0)
            good = np.flatnonzero(labels(receipt, run) == 0)
            rows.append([category, run["seed"], len(sized), len(set(T_hat.tolist())), f"{np.mean(T_hat[good]):.0f}", f"{np.mean(T_hat[sized]):.0f}",
                         *(_rank(values, area, sized, draws) for values in (T_hat, d))])
    return markdown(["category", "seed", "defective images", "different steps", "mean step, good", "mean step, defective",
                     "step against area", "distance against area"], rows)


def _rank(values: np.ndarray, area: np.ndarray, index: np.ndarray, draws: list[np.ndarray]) -> str:
    """Spearman's rank correlation with its interval; resamples in which either side is constant have none."""
    varies = lambda i: len(set(values[i])) > 1 and len(set(area[i])) > 1
    rank = lambda i: float(spearmanr(values[i], area[i]).statistic)
    return _interval(rank(index), [rank(i) for i in draws if varies(i)], "+") if varies(index) else "all the same"


def constants(receipt: dict) -> str:
    """Sensitivity, one constant changed at a time, on the detector of seed 0 with dynamic steps."""
    rows = []
    for category, runs in _asked(receipt).items():
        for run in runs:
            base = run["questions"]["paths"]["dynamic steps"]
            for tried in run["questions"].get("constants", []):
                (name, value), = tried["changed"].items()
                rows.append([category, f"`{name}`", tried["had"][name], value, tried["i_auroc"], f"{tried['i_auroc'] - base['i_auroc']:+.3f}",
                             tried["pro"], f"{tried['pro'] - base['pro']:+.3f}"])
    return markdown(["category", "setting", "had", "tried", "I-AUROC", "change", "PRO", "change"], rows)


def floors(receipt: dict) -> str:
    """The method beside what is simpler, with the same features; the method's figures are means over seeds."""
    rows = []
    for category, runs in _asked(receipt).items():
        n = len(receipt["test"][category]["image"])
        each = lambda found, n=n: f"{1000 * found['seconds'] / n:.0f}" if "seconds" in found else None
        for asked in (run["questions"] for run in runs if "floors" in run["questions"]):
            found, metrics = asked["floors"], ("i_auroc", "p_auroc", "pro")
            method = {m: mean(run["questions"]["paths"]["as it is"][m] for run in runs) for m in metrics} | {"seconds": asked["seconds"]}
            simple = {"method": method, "PatchCore": found["patchcore"], "nearest neighbours": found["neighbours"],
                      "autoencoder alone, pixels": found["vae"]["pixels"], "autoencoder alone, features": found["vae"]["features"]}
            rows += [[category, name, *(r[m] for m in metrics), each(r)] for name, r in simple.items()]
    return markdown(["category", "detector", "I-AUROC", "P-AUROC", "PRO", "ms an image"], rows)


def cost(receipt: dict) -> str:
    """What the runs took: seconds a stage, memory, parameters; means over the runs of a category and preset."""
    rows = []
    for category, chosen in dict.fromkeys((run["category"], run["preset"]) for run in receipt["runs"]):
        runs = [run for run in receipt["runs"] if (run["category"], run["preset"]) == (category, chosen)]
        spent = [run["cost"]["seconds"] for run in runs]
        stage = lambda name, spent=spent: mean(s.get(name, 0.0) for s in spent)
        rows.append([category, chosen, runs[0]["device"], *(f"{stage(name):.0f}" for name in ("encode", "train", "calibrate", "fine-tune")),
                     f"{1000 * mean(s['detect and score'] for s in spent) / runs[0]['cost']['images']:.0f}",
                     f"{max(run['cost']['peak_memory'] for run in runs) / 2**30:.1f}", f"{runs[0]['cost']['parameters']['unet'] / 1e6:.1f}"])
    return markdown(["category", "preset", "device", "encode, s", "train, s", "calibrate, s", "fine-tune, s", "detect and score, ms an image",
                     "peak memory, GiB", "U-Net, M parameters"], rows)


def deviations(receipt: dict) -> str:
    """How the runs were made: what a reader has to know before comparing a figure with the paper's; of seeds that differ, each value."""
    shown = ("preset", "image_size", "vae", "features", "unet_channels", "train_length", "T_max", "smallest_bin", "guidance", "lam",
             "tune_epochs", "mask_rule", "pro")
    rows = []
    for category, chosen in dict.fromkeys((run["category"], run["preset"]) for run in receipt["runs"]):
        runs = [r for r in receipt["runs"] if (r["category"], r["preset"]) == (category, chosen)]
        run = runs[0]
        of_seeds = lambda name, runs=runs: ", ".join(dict.fromkeys(str(r["settings"][name]) for r in runs))      # calibrations may differ
        held_out = f"{run['held_out']} of {run['train']}, {run['held_out_from']}"
        source = run["by_category"]["provenance"] if run["by_category"] else "calibrated without test data" if run["calibrate"] else "one for all"
        rows.append([category, *(of_seeds(name) for name in shown), held_out, source])
    return markdown(["category", *(f"`{name}`" for name in shown), "held out", "constants"], rows)


TABLES = {f.__name__: f for f in (against_paper, deviations, dynamic_against_static, steps, noise_against_none, constants, floors, cost)}


def write_report(out: Path) -> dict:
    """receipt.json, tables.md and figures.csv of all finished runs under `out`; the receipt."""
    receipt = read_receipt(out) if make_receipt(out) else None
    parts = [f"# {receipt['dataset']}\n\nReceipt {receipt['sha256']}. Paper: {SOURCE}."]
    parts += [f"## {name.replace('_', ' ')}\n\n{make.__doc__.splitlines()[0]}\n\n{make(receipt)}" for name, make in TABLES.items()]
    _write(out / "tables.md", "\n\n".join(parts) + "\n")
    _write(out / "figures.csv", as_csv(receipt))
    return receipt


def as_csv(receipt: dict) -> str:
    """`figures` as CSV, with the data set's name."""
    text, rows = io.StringIO(), [{"dataset": receipt["dataset"]} | row for row in figures(receipt)]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
