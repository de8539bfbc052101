"""Receipts: all runs of a matrix in one record with its own hash, from which every
table is computed; and two receipts set side by side.
"""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from ..evaluation.by_image import by_third
from ..runtime.errors import ReceiptError
from ..runtime.files import write_text

RECEIPT, FORMAT, TOLERANCE = "receipt.json", 2, 0.01
# what all runs of a category share
SAME_TEST = ("image", "kind", "area", "regions", "group")
RULES = ("preset", "mask_rule", "pro", "image_size", "threshold", "map_range")
COMPARED = ("i_auroc", "p_auroc", "pro")


def make_receipt(out: Path) -> dict:
    """All run.json under `out`, sorted, as one record with a hash; written to
    out/receipt.json. ReceiptError where there is none.
    """
    paths = sorted(out.glob("*/*/run.json"))
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not runs:
        raise ReceiptError(f"{out} holds no finished run: `ddad reproduce` makes them")
    receipt = {"format": FORMAT, "dataset": runs[0]["dataset"], "test": {},
               "runs": runs}
    for path, run in zip(paths, runs):
        category, images = run["category"], run["images"]
        if lacking := {*SAME_TEST, "false"} - set(images):
            raise ReceiptError(f"{path} is of an older package, without "
                               f"{', '.join(sorted(lacking))}: delete it, and run "
                               "`ddad reproduce` again")
        same = {name: images.pop(name) for name in SAME_TEST}
        if receipt["test"].setdefault(category, same)["image"] != same["image"]:
            raise ReceiptError(f"{out}: the runs of {category} were tested on "
                               "different images; keep them in different folders")
    receipt["sha256"] = digest(receipt)
    write_text(out / RECEIPT, json.dumps(receipt, separators=(",", ":")) + "\n")
    return receipt


def digest(receipt: dict) -> str:
    """SHA-256 of all of a receipt but its own hash."""
    content = {name: value for name, value in receipt.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_receipt(path: Path) -> dict:
    """A receipt whose hash is right and whose I-AUROC and PRO are those of its own
    images, of the runs and of their answers. ReceiptError, also for another format.

    path: the file, or the folder that holds it.
    """
    path = path / RECEIPT if path.is_dir() else path
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        if digest(receipt) != receipt["sha256"]:
            raise ReceiptError(f"{path} was altered: its content does not have the "
                               "hash it states; make it again with `ddad reproduce`")
        if receipt["format"] != FORMAT:
            raise ReceiptError(f"{path} has format {receipt['format']}, this package "
                               f"reads {FORMAT}: make it again with `ddad reproduce`, "
                               "or take the package that made it")
        for run in receipt["runs"]:
            _check_figures(path, receipt, run)
        return receipt
    except ReceiptError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReceiptError(f"{path} is no receipt ({error}); give the receipt.json "
                           "that `ddad reproduce` writes, or its folder") from error


def _paths(run: dict) -> dict[str, dict]:
    """The run's answers that are of every test image, by name."""
    return run.get("questions", {}).get("paths", {})


def _check_figures(path: Path, receipt: dict, run: dict) -> None:
    test = receipt["test"][run["category"]]
    n = len(test["image"])
    if any(len(test[name]) != n for name in SAME_TEST if test[name] is not None):
        raise ReceiptError(f"{path}: the test images of {run['category']} are {n}, and "
                           "not as many areas, regions or groups")
    stated = run["result"] | {"pro": run["result"]["pro_exact"]}
    parts = {"": (run["images"], stated)}
    parts |= {f", {name}": (one, one) for name, one in _paths(run).items()}
    for name, (images, stated) in parts.items():
        # more of every image leaves the false-positive rates as they are
        false = np.array(images["false"], float)
        if false.shape != (3, n) or not (
                abs(false.sum(1)) <= 1e-5 * (1 + abs(false).sum(1))).all():
            raise ReceiptError(f"{path}: {title(run)}{name} has a `false` that is not "
                               "three rows of one number an image, each of sum 0")
        made = {"i_auroc": roc_auc_score(labels(receipt, run), images["score"]),
                "pro": exact_pro(receipt, run, images)}
        for metric, value in made.items():
            if not abs(value - stated[metric]) <= 1e-5:
                raise ReceiptError(
                    f"{path}: {title(run)}{name} states {metric} {stated[metric]}, its "
                    f"images give {value}")


def labels(receipt: dict, run: dict) -> np.ndarray:
    """(N,) 0 or 1 of the run's test images."""
    kinds = receipt["test"][run["category"]]["kind"]
    return np.array([kind != "good" for kind in kinds], int)


def exact_pro(receipt: dict, run: dict, images: dict,
              third: int | None = None) -> float:
    """Exact PRO from each image's part of it; NaN where no region counts.

    images: run["images"], or one of its answers. third: of the defects' area, whose
    regions alone count.
    """
    return float(resampled_pro(receipt, run, images, third=third))


def resampled_pro(receipt: dict, run: dict, images: dict,
                  counts: np.ndarray | None = None,
                  third: int | None = None) -> np.ndarray:
    """Exact PRO of test images that count so many times, to first order in counts.

    counts: (.., N), a row a resample; default: each once. The regions found change with
    the images that are drawn, and the false-positive rates with their good pixels: see
    `PixelRanking.false_by_image`.
    """
    test = receipt["test"][run["category"]]
    overlap, regions = np.array(images["overlap"]), np.array(test["regions"], float)
    false = np.array(images["false"])
    counts = np.ones(len(regions)) if counts is None else counts
    if third is None:
        false = false.sum(0)
    else:
        false = false[third]
        regions = regions * by_third(np.array(test["area"]))[third]
        overlap = overlap * (regions > 0)
    with np.errstate(invalid="ignore"):
        found = counts @ overlap / (counts @ regions)
        return found + (counts - 1) @ false / regions.sum()


def title(run: dict) -> str:
    """A run in words: "board, clean, seed 0"."""
    return f"{run['category']}, {run['preset']}, seed {run['seed']}"


def compare(a: dict, b: dict) -> list[dict]:
    """For each run of either receipt a verdict: same, within tolerance, different, not
    comparable, or only in one; and what differs.

    Runs with other data, another preset or another rule of scoring measure different
    things: their figures are shown, and not judged.
    """
    key = lambda run: (run["category"], run["preset"], run["seed"])
    first, second = ({key(run): run for run in receipt["runs"]} for receipt in (a, b))
    # two single runs of different cells are set side by side
    if not set(first) & set(second) and len(first) == len(second) == 1:
        second = dict(zip(first, second.values()))
    rows = []
    for cell in sorted(set(first) | set(second)):
        one, two = first.get(cell), second.get(cell)
        row = {"run": title(one or two), "differs": [], "difference": {}}
        if one is None or two is None:
            there = "second" if one is None else "first"
            rows.append(row | {"verdict": f"only in the {there}"})
            continue
        row["differs"] = _differs(one, two)
        row["difference"] = {m: two["result"][m] - one["result"][m] for m in COMPARED}
        rows.append(row | {"verdict": _verdict(one, two, row)})
    return rows


def _differs(one: dict, two: dict) -> list[str]:
    """In words, all that two runs were made with and do not share."""
    differs = []
    data = [run["data"]["sha256"] for run in (one, two)]
    if data[0] != data[1]:
        differs.append(f"data or split: {data[0][:12]}, {data[1][:12]}")
    theirs = two["settings"]
    differs += [f"{name}: {value}, {theirs.get(name)}"
                for name, value in one["settings"].items() if value != theirs.get(name)]
    differs += [f"{name}: {one[name]}, {two[name]}"
                for name in ("versions", "device", "commit", "held_out_from")
                if one[name] != two[name]]
    if one["weights"]["vae"] != two["weights"]["vae"]:
        differs.append("the autoencoder's weights")
    return differs


def _verdict(one: dict, two: dict, row: dict) -> str:
    barred = [text for text in row["differs"]
              if text.startswith("data") or text.split(":")[0] in RULES]
    if barred:
        return "not comparable: " + "; ".join(barred)
    difference = row["difference"].values()
    same_scores = one["images"]["score"] == two["images"]["score"]
    if same_scores and not any(difference):
        return "same"
    near = all(abs(d) <= TOLERANCE for d in difference)
    return "within tolerance" if near else "different"
