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

from records import METRICS, compact, load, name_of, recorded, table
from results_tables import EXTENSION, METHOD, given_away

from ddad.calibration import CHOSEN
from ddad.data.product import load_test
from ddad.detector import Detector
from ddad.evaluation.regret import regret
from ddad.networks.autoencoders import load_vae
from ddad.reproduction.runs import DETECTOR, RUN, made_with
from ddad.runtime.files import write_json

NAME = "regret"                     # of the record
PRESETS = {"clean": METHOD, "regional": EXTENSION}
AIM = {"i_auroc": 0.01, "pro": 0.02}            # at most, on each data set
IDENTITY = ("category", "preset", "seed")


def row_of(run: dict, saved: Path, data: Path, vae, every: int = 1) -> dict:
    """One detector's regret, with what it was made with; of the candidates the chosen
    one, the best on the test images, and their number.
    """
    detector = Detector.from_pretrained(saved, vae=vae)
    found = regret(detector, load_test(data, detector.settings), every)
    tried = len(found.pop("table"))
    return ({name: run[name] for name in IDENTITY} | found | {"candidates": tried}
            | made_with(detector, data, saved))


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
    for runs, data, vae in asked.of:
        loaded = load_vae(vae)
        for file in sorted(Path(runs).glob(f"*/*/{RUN}")):
            run = json.loads(file.read_text(encoding="utf-8"))
            mine = tuple(run[name] for name in IDENTITY)
            if run["preset"] in PRESETS and run["calibrate"] and mine not in done:
                print(*mine, flush=True)
                rows.append(row_of(run, file.parent / DETECTOR,
                                   Path(data, run["category"]), loaded, asked.every))
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
    lies = Counter(f"{side} {name.replace('_', ' ')}" for row in rows
                   for name, value in row["best_on_test"].items()
                   if name in CHOSEN and isinstance(value, (int, float))
                   for side, there in (("a larger", value > row["chosen"][name]),
                                       ("a smaller", value < row["chosen"][name]))
                   if there)
    told = ", ".join(f"{one} in {n}" for one, n in lies.most_common())
    said.append(f"Of {len(rows)} detectors the best on the test images has {told}.")
    return "\n".join(f"- {one}" for one in said)


def _of(make):
    return lambda: make(load(NAME)) if recorded(NAME) else "Not run yet."


TABLES = {"regret_real": _of(by_run), "regret_answer": _of(answer)}


if __name__ == "__main__":
    main()
