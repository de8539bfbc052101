"""How far the constants of the calibrated detectors are from the best of the same
candidates on the test images: shown, never used.

    python book/tools/regrets.py OUT --of RUNS DATA VAE [--of RUNS DATA VAE ..]

RUNS: folder of a finished `ddad reproduce --calibrate` with the presets of PRESETS;
DATA: the folder of its categories; VAE: as `ddad reproduce --vae`. Leaves
OUT/regret.json, with a row for each detector; rows that are there are kept.
"""
from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from statistics import mean

from records import METRICS, compact, load, name_of, recorded, table
from results_tables import EXTENSION, METHOD, given_away
from step_rules import finished

from ddad.calibration import CHOSEN, Calibration
from ddad.data.product import load_good, load_test
from ddad.detector import Detector
from ddad.evaluation.regret import candidates, regret
from ddad.reproduction.runs import fingerprint, made_with
from ddad.runtime.files import write_json
from ddad.training import split

NAME = "regret"                     # of the record
PRESETS = {"clean": METHOD, "regional": EXTENSION}
AIM = {"i_auroc": 0.01, "pro": 0.02}            # at most, on each data set
IDENTITY = ("category", "preset", "seed")


def row_of(run: dict, saved: Path, data: Path, vae, every: int = 1) -> dict:
    """One detector's regret, with what it was made with; of the candidates the chosen
    one, the best on the test images, that with the smallest J, and their number.
    """
    detector = Detector.from_pretrained(saved, vae=vae)
    s = detector.settings
    found = regret(detector, load_test(data, s), every)
    table = found.pop("table")
    # the same on the held-out images, with the features as they were tuned
    calibration = Calibration([(detector, split(load_good(data, s)[1], s)[0])])
    _, [held_out] = calibration.best(*candidates(detector), calibration.observed(),
                                     "held out")
    J = [row["J"] for row in held_out]
    least = J.index(min(J))
    found["smallest_J"] = table[least] | {
        "J": J[least], "J_of_chosen": J[0], "J_error": held_out[0]["J_error"]}
    return ({name: run[name] for name in IDENTITY} | found | {"candidates": len(table)}
            | made_with(detector, fingerprint(data), saved))


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, metavar="OUT")
    options.add_argument("--of", nargs=3, action="append", required=True,
                         metavar=("RUNS", "DATA", "VAE"))
    options.add_argument("--every", type=int, default=1, metavar="N",
                         help="each N-th test image only")
    asked = options.parse_args(arguments)
    path = asked.out / f"{NAME}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {tuple(row[name] for name in IDENTITY) for row in rows}
    for run, saved, data, vae in finished(asked.of):
        mine = tuple(run[name] for name in IDENTITY)
        if run["preset"] in PRESETS and run["calibrate"] and mine not in done:
            print(*mine, flush=True)
            rows.append(row_of(run, saved, data, vae, asked.every))
            write_json(path, rows)


# --- the tables

def by_run(rows: list[dict]) -> str:
    """A row a detector, as the drawn products' table has them."""
    lines = []
    for row in rows:
        both = (row[one] for one in ("chosen", "best_on_test"))
        lines.append([name_of(row["category"]), PRESETS[row["preset"]], row["seed"],
                      row["images"], row["candidates"], *(
                          f"{one['i_auroc']:.3f} / {one['pro']:.3f}" for one in both),
                      *given_away(row)])
    head = ["data set", "detector", "seed", "images", "candidates",
            "chosen: I-AUROC / PRO", "best on test", "its other constants",
            "regret I-AUROC", "PRO"]
    return compact(table(head, lines))


def answer(rows: list[dict]) -> str:
    """For each detector on how many data sets its mean over the seeds is as aimed at;
    and which constants the best on the test images has otherwise.
    """
    said = []
    for preset, title in PRESETS.items():
        sets = dict.fromkeys(row["category"] for row in rows if row["preset"] == preset)
        told = []
        for metric, most in AIM.items():
            lost = {}
            for name in sets:
                of = [row["regret"][metric] for row in rows
                      if (row["category"], row["preset"]) == (name, preset)]
                lost[name] = sum(of) / len(of)
            worst = max(lost, key=lost.get)
            within = sum(value <= most for value in lost.values())
            told.append(f"{METRICS[metric]} on {within} (largest: {name_of(worst)}, "
                        f"{lost[worst]:+.3f}; aim: {most})")
        said.append(f"*{title}*: of {len(sets)} real sets, the mean regret over the "
                    f"seeds is as small as aimed at in {' and in '.join(told)}.")
    lies = Counter()
    for row in rows:
        for name in CHOSEN:
            best, chosen = row["best_on_test"][name], row["chosen"][name]
            if best != chosen:
                side = ("another" if isinstance(best, str) else
                        "a larger" if best > chosen else "a smaller")
                lies[f"{side} {name.replace('_', ' ')}"] += 1
    told = ", ".join(f"{one} in {n}" for one, n in lies.most_common())
    said += [f"Of {len(rows)} detectors the best on the test images has {told}.",
             near_ties(rows)]
    return "\n".join(f"- {one}" for one in said)


def near_ties(rows: list[dict]) -> str:
    """What the smallest J alone would choose: on the mean over the data sets of the
    means over seeds, its metrics minus those of the choice.
    """
    def gain(preset: str, metric: str) -> str:
        by_set = {}
        for row in rows:
            if row["preset"] == preset:
                by_set.setdefault(row["category"], []).append(
                    row["smallest_J"][metric] - row["chosen"][metric])
        sets = [f"{name_of(name)} {mean(of):+.3f}" for name, of in by_set.items()]
        return f"{METRICS[metric]} {mean(map(mean, by_set.values())):+.3f} " \
               f"({', '.join(sets)})"

    others = sum(any(row["smallest_J"][name] != row["chosen"][name] for name in CHOSEN)
                 for row in rows)
    told = "; ".join(f"*{title}* {' and '.join(gain(preset, m) for m in AIM)}"
                     for preset, title in PRESETS.items())
    return (f"*Without the rule for near ties*, by the smallest $J$ alone, {others} of "
            f"{len(rows)} detectors would have other constants, and on the mean over "
            f"the sets the test images would give: {told}.")


def _of(make):
    return lambda: make(load(NAME)) if recorded(NAME) else "Not run yet."


TABLES = {"regret_real": _of(by_run), "regret_answer": _of(answer)}


if __name__ == "__main__":
    main()
