"""The extension beside what it has to beat, from the receipts that hold both: makes
book/results/beyond.json.

    python book/tools/beyond.py
"""
from __future__ import annotations

from made import RESULTS
from paired import METRICS, OTHERS, OURS, PAIRS, differences, rows
from records import compact, load, name_of, table

from ddad.reproduction.receipts import read_receipt
from ddad.runtime.files import write_json

FROM = ("products", "hazelnut", "deeppcb", "loco_juice_bottle", "mtd_by_tile")
NAMES = {OURS: "a step per region", "clean": "the paper's method",
         "one_call": "one U-Net call", "neighbours": "nearest neighbours",
         "patchcore": "PatchCore", "padim": "PaDiM"}
TITLES = {"i_auroc": "I-AUROC", "pro": "PRO"}


def collected() -> dict:
    """rows and differences of all receipts that are there and hold the extension, and
    the hash of each receipt.
    """
    made: dict = {"receipts": {}, "rows": [], "differences": []}
    for name in FROM:
        path = RESULTS / "receipts" / f"{name}.json"
        if not path.exists():
            continue
        receipt = read_receipt(path)
        if all(run["preset"] != OURS for run in receipt["runs"]):
            continue
        made["receipts"][name] = receipt["sha256"]
        made["rows"] += [{"receipt": name} | row for row in rows(receipt)]
        made["differences"] += differences(receipt)
    return made


def figures() -> str:
    """I-AUROC above PRO by data set and method, means over seeds, and their number."""
    return _table((OURS, *OTHERS), FROM, "<br>")


def short() -> str:
    """The same for the real sets, without neighbours, which PatchCore stands for."""
    methods = (OURS, "clean", "one_call", "patchcore", "padim")
    return _table(methods, FROM[1:], "/", seeds=False)


def _table(methods: tuple[str, ...], receipts: tuple[str, ...], between: str,
           seeds: bool = True) -> str:
    lines, by = [], {}
    for row in load("beyond")["rows"]:
        if row["receipt"] in receipts:
            by.setdefault(row["data"], {}).setdefault(row["method"], []).append(row)
    for data, found in by.items():
        line = [name_of(data)]
        for method in methods:
            of = found.get(method, [])
            means = [sum(row[m] for row in of) / len(of) for m in METRICS] if of else []
            line.append(between.join(map("{:.3f}".format, means)) or "–")
        lines.append([*line, *[len(found.get(OURS, []))] * seeds])
    return table(["data", *(NAMES[m] for m in methods), *["seeds"] * seeds], lines)


def sets() -> str:
    """What stands behind a row: test images, what each seed's calibration chose, and
    how the extension does at its own threshold.
    """
    lines = []
    for name in load("beyond")["receipts"]:
        receipt = read_receipt(RESULTS / "receipts" / f"{name}.json")
        for category, test in receipt["test"].items():
            of = {preset: [run for run in receipt["runs"]
                           if (run["category"], run["preset"]) == (category, preset)]
                  for preset in ("clean", OURS)}
            each = lambda preset, tell, of=of: ", ".join(map(tell, of[preset]))
            good = test["kind"].count("good")
            lines.append([
                name_of(category), f"{good} / {len(test['kind']) - good}",
                of[OURS][0]["held_out"],
                each("clean", lambda run: run["settings"]["step_rule"]),
                each(OURS, lambda run: str(run["settings"]["T_max"])),
                each(OURS, lambda run: f"{run['result']['recall']:.2f}"),
                each(OURS, lambda run: f"{run['result']['false_positive_rate']:.0%}")])
    return table(["data", "test: good / defective", "held out",
                  f"{NAMES['clean']}: rule chosen, by seed", "extension: $T_{max}$",
                  "recall", "false alarms"], lines)


def paired() -> str:
    """One method minus another, with its interval."""
    return table(
        ["data", "one", "minus", "metric", "difference", "95% of resamples"],
        [[name_of(row["data"]), NAMES[row["one"]], NAMES[row["other"]],
          TITLES[row["metric"]],
          f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}"]
         for row in load("beyond")["differences"]])


def apart(one: str, other: str, metric: str) -> tuple[list[str], list[str]]:
    """The data sets on which the whole interval of a difference is above zero, and
    those on which it is below.
    """
    rows = [row for row in load("beyond")["differences"]
            if (row["one"], row["other"], row["metric"]) == (one, other, metric)]
    return ([row["data"] for row in rows if row["low"] > 0],
            [row["data"] for row in rows if row["high"] < 0])


def surely() -> str:
    """The sets on which the whole interval is above zero, and below it, by pair."""
    lines, every = [], {row["data"] for row in load("beyond")["differences"]}
    for one, other in PAIRS:
        line = [f"{NAMES[one]}, minus {NAMES[other]}"]
        for metric in METRICS:
            for sets in apart(one, other, metric):
                line.append("–" if not sets else f"all {len(sets)}"
                            if len(sets) == len(every)
                            else ", ".join(map(name_of, sets)))
        lines.append(line)
    return table(["", *(f"{TITLES[metric]} {side}" for metric in METRICS
                        for side in ("above", "below"))], lines)


TABLES = {"beyond": lambda: compact(figures()), "beyond_short": short,
          "beyond_surely": lambda: compact(surely()), "beyond_sets": sets,
          "beyond_differences": paired}


if __name__ == "__main__":
    write_json(RESULTS / "beyond.json", collected())
