"""Writes the tables of the book and of README.md from the recorded runs in book/results; --check only compares.

Each table stands between <!-- table NAME --> and <!-- end -->: no figure on these pages is typed in.
"""
import json
import re
import sys
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import mean, stdev

import ledger as claims
import speed

from ddad import report
from ddad.calibration import CHOSEN

BOOK = Path(__file__).parent
PRODUCTS, REAL = ("blister", "board", "fabric"), ("loco_juice_bottle", "mtd")
METRICS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO", "p_ap": "P-AP"}


def load(name: str):
    return json.loads((BOOK / "results" / f"{name}.json").read_text(encoding="utf-8"))


def recorded(*names: str) -> list[str]:
    """Those of the runs that have been made."""
    return [name for name in names if (BOOK / "results" / f"{name}.json").exists()]


def table(head: list[str], rows: list[list]) -> str:
    cells = [[f"{c:.3f}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *cells])


def demo() -> str:
    found = load("demo")
    shown = {**METRICS, "recall": "recall", "false_positive_rate": "false alarms"}
    rows = [[name, *(found[name].get(m, "") for m in shown)] for name in (*PRODUCTS, "mean")]
    return table(["product", *shown.values()], rows) + f"\n\nMade in {found['seconds']:.0f} s on 2 CPU cores."


def by_size() -> str:
    rows = [[name, f"{100 * b['size'][0]:.2f}% to {100 * b['size'][1]:.2f}%", b["images"], b["pro"], b["recall"]]
            for name in recorded(*PRODUCTS) for b in load(name)["result"]["by_size"]]
    return table(["product", "defect area", "images", "PRO", "recall at the threshold"], rows)


def beside_floors(names: tuple[str, ...]) -> str:
    rows = []
    for name in recorded(*names):
        found = load(name)
        floor = {"method": found["result"], "neighbours alone": found["floors"]["neighbours"],
                 **({"PatchCore": found["floors"]["patchcore"]} if "patchcore" in found["floors"] else {}),
                 "autoencoder alone, pixels": found["floors"]["vae"]["pixels"], "autoencoder alone, features": found["floors"]["vae"]["features"]}
        rows += [[name, what, *(r.get(m, "") for m in METRICS)] for what, r in floor.items()]
    return table(["data set", "detector", *METRICS.values()], rows)


def floors() -> str:
    return beside_floors(PRODUCTS)


def real() -> str:
    return beside_floors(REAL)


def intervals() -> str:
    rows = []
    for name in recorded(*PRODUCTS, *REAL):
        found = load(name)["result"]
        bounds = {m: "{:.3f} ({:.3f} to {:.3f})".format(found[m], *found["interval"][m]) for m in ("i_auroc", "p_auroc", "pro")}
        rows.append([name, *bounds.values(), found["recall"], found["false_positive_rate"]])
    return table(["data set", "I-AUROC", "P-AUROC", "PRO", "recall", "false alarms"], rows)


def settings() -> str:
    names = ("T_max", "smallest_bin", "guidance", "latent_blur", "lam", "train_length", "tune_epochs", "image_size", "seed")
    rows = [[name, *(load(name)["settings"].get(s, 0.0) for s in names)] for name in recorded(*PRODUCTS, *REAL)]
    return table(["data set", *names], rows)


def regret() -> str:
    rows = []
    for name in recorded(*PRODUCTS, *REAL):
        found = load(name).get("regret")
        if found:
            best = found["best_on_test"]
            constants = ", ".join(f"{k} {best[k]}" for k in CHOSEN if k in best)
            rows.append([name, found["images"], found["chosen"]["i_auroc"], found["chosen"]["pro"], best["i_auroc"], best["pro"], constants,
                         f"{found['regret']['i_auroc']:+.3f}", f"{found['regret']['pro']:+.3f}"])
    head = ["data set", "images", "chosen: I-AUROC", "PRO", "best on test: I-AUROC", "PRO", "its constants", "regret I-AUROC", "PRO"]
    return table(head, rows)


def ablation() -> str:
    out = []
    for name in (*PRODUCTS, *REAL):
        if not recorded(f"ablation_{name}"):
            continue
        rows = load(f"ablation_{name}")
        used = rows[0]["settings"]
        constants = ", ".join(f"{label} {used[key]}" for label, key in (("T_max", "T_max"), ("smallest bin", "smallest_bin"),
                                                                          ("guidance", "guidance"), ("lambda", "lam")))
        out.append(f"**{name}**, {used['image_size']} px, {used['train_length']} of training, {constants}:\n")
        lines = []
        for variant in dict.fromkeys(row["variant"] for row in rows):
            of = [row for row in rows if row["variant"] == variant]
            spread = {m: (mean(r[m] for r in of), stdev(r[m] for r in of) if len(of) > 1 else 0.0) for m in METRICS}
            lines.append([variant, len(of), *(f"{a:.3f} ± {b:.3f}" for a, b in spread.values())])
        out.append(table(["variant", "seeds", *METRICS.values()], lines) + "\n")
    return "\n".join(out).rstrip()


def attempts() -> str:
    rows = []
    for name, held_out in (("mtd_random_held_out", "at random"), ("mtd_by_tile", "by tile"), ("mtd_larger_unet", "by tile, drawn anew"),
                           ("mtd", "as the third"), ("mtd_larger_unet_blur", "as the third")):
        found = load(name)
        used, trained = found["settings"], found["record"]["training"]
        held = next(row for row in found["record"]["calibration"] if all(row.get(k, 0) == used.get(k, 0) for k in CHOSEN))
        row = [f"{trained['parameters'] / 1e6:.0f} M", held_out, f"{trained['steps']} x {used['train_batch']}", trained["loss"],
               used["T_max"], used.get("latent_blur", 0.0), used["lam"], held["i_auroc"], held["pro"]]
        result = found.get("result")                                   # the third was never run on the test set
        if result:
            by_size = result["by_size"]
            row += [result["i_auroc"], result["pro"], *(b["pro"] for b in by_size), result["recall"], *(b["recall"] for b in by_size),
                    result["false_positive_rate"]]
        rows.append(row)
    lines = ["U-Net", "held-out pictures", "training steps x batch", "its loss", "chosen T_max", "blur of the latent map", "lambda",
             "held-out: I-AUROC", "held-out: PRO", "test: I-AUROC", "test: PRO", "of small defects", "of medium ones", "of large ones",
             "test: recall", "of small defects", "of medium ones", "of large ones", "test: false alarms"]
    return table(["", "first", "second", "third", "fourth", "fifth"], [[name, *cells] for name, *cells in zip_longest(lines, *rows, fillvalue="–")])


def flips() -> str:
    """The sixth attempt: what held-out pictures with either kind of defect choose, the best on the test pictures, and the floors there."""
    found = load("mtd_flips")
    total = lambda part: lambda row: row[part]["i_auroc"] + row[part]["pro"]
    ways = {"held-out, synthetic defects": total("held_out"), "held-out, faint defects": total("faint"), "test, I-AUROC and PRO": total("test"),
            "test, I-AUROC": lambda row: row["test"]["i_auroc"]}
    rows = []
    for way, key in ways.items():
        row = max(found["rows"], key=key)
        features = f"{row['features']}, blocks {', '.join(map(str, row['map_stages']))}" if row["lam"] < 1 else "–"
        rows.append([way, row["T"], row["lam"], "–" if row["latent_blur"] is None else row["latent_blur"], features,
                     "each position" if row["ranges"] == "position" else "whole map",
                     *(f"{row[part]['i_auroc']:.3f} / {row[part]['pro']:.3f}" for part in ("held_out", "faint", "test"))])
    rows += [["neighbours alone" if name == "neighbours" else "PatchCore", "", "", "", features, "", "", "",
              f"{one['i_auroc']:.3f} / {one['pro']:.3f}"] for features, floors in found["floors"].items() for name, one in floors.items()]
    head = ["best of all by", "step", "lambda", "blur", "features", "one scale for", "held-out", "faint", "test"]
    return table(head, rows) + f"\n\n{len(found['rows'])} combinations; each cell gives I-AUROC / PRO."


def blur() -> str:
    rows = [[row["data"], f"{row['blur']:g}", row["lam"], *(row[part][m] for part in ("held_out", "test") for m in ("i_auroc", "pro"))]
            for row in load("latent_blur")]
    return table(["data", "blur, cells", "lambda", "held-out: I-AUROC", "PRO", "test: I-AUROC", "PRO"], rows)


def corners() -> str:
    rows = [[row["variant"], row["lam"], row["i_auroc"], row["p_auroc"], row["pro"]] for row in load("mtd_corners")["rows"]]
    return table(["the maps' scale", "lambda", "I-AUROC", "P-AUROC", "PRO"], rows)


def corner_share() -> str:
    found = load("mtd_corners")
    shares = [f"{found[name]:.0%}" for name in ("corner_area", "held_out_good", "test_good")]
    return table(["the corners' share", "of the picture", "of the scores of held-out good tiles", "of good test tiles"], [["", *shares]])


def ledger() -> str:
    ablations = [load(f"ablation_{name}") for name in (*PRODUCTS, *REAL) if recorded(f"ablation_{name}")]
    bottle = load("loco_juice_bottle")
    rows = claims.ledger(ablations, {"result": bottle["result"], "neighbours": bottle["floors"]["neighbours"]})
    return table(["claim", "tested in", "paper", "ours", "95% interval", "verdict"], rows)


def receipts() -> str:
    """What each receipt holds, and the hash that a second person's copy has to have."""
    rows = []
    for name, receipt in RECEIPTS.items():
        runs = receipt["runs"]
        told = [", ".join(sorted({str(run[key]) for run in runs})) for key in ("preset", "seed", "device")]
        spent = sum(sum(run["cost"]["seconds"].values()) for run in runs) / 60
        commits = ", ".join(f"`{commit[:7]}`" for commit in sorted({run["commit"] or "none" for run in runs}))
        rows.append([f"`book/results/receipts/{name}.json`", len(runs), *told, f"{spent:.0f}", commits, f"`{receipt['sha256'][:16]}`"])
    return table(["receipt", "runs", "presets", "seeds", "device", "minutes of one core, questions left out", "commit", "SHA-256 begins"], rows)


def variants() -> str:
    rows = [[row["variant"], row["i_auroc"], row["p_auroc"], row["pro"], *(b["pro"] for b in row["by_size"])] for row in load("mtd_variants")]
    return table(["changed", "I-AUROC", "P-AUROC", "PRO", "PRO, small", "medium", "large"], rows)


POINTS = {1: "Interrupted", 2: "Hostile input", 3: "Nothing executes from data", 4: "Reproducible", 5: "Numbers", 6: "Long and large",
          7: "Dependencies"}


def robustness() -> str:
    """A table for each point: what each check found when it was last run in full."""
    found, parts = load("robustness"), []
    for point, title in POINTS.items():
        rows = []
        for name, check in found.items():
            if check["point"] == point:
                outcome = "passed" if check["passed"] else f"FAILED, {check['failed']}: {check['failures'][0]}"
                counts = "; ".join(f"{what}: {n}" for what, n in check["counts"].items())
                rows.append([f"`{name}`", check["says"], check["count"], counts, outcome, f"{check['seconds']:.0f}"])
        if rows:
            parts.append(f"**{title}**\n\n" + table(["check", "what holds", "trials", "counted", "outcome", "seconds"], rows))
    machines = {f"{check['machine']}, Python {check['versions']['python']}, PyTorch {check['versions']['torch']}" for check in found.values()}
    return "\n\n".join([*parts, f"Run on {'; '.join(sorted(machines))}, with other work going on beside it."])


def broken() -> str:
    rows = [[f"`{row['check']}`", row["count"], f"`{row['file']}`", f"`{row['line']}`", f"`{row['instead']}`", _short(row["failure"])]
            for row in load("robustness_broken").values()]
    return table(["check", "trials", "file", "line", "broken to", "what the check then said"], rows)


def _short(text: str) -> str:
    """The last line of a failure, fit for a cell of a table."""
    return (text.splitlines() or ["NOT NOTICED"])[-1].replace("|", "/").replace("<", "&lt;")[:160]


# read_receipt recomputes every I-AUROC and PRO from the images of its runs, and refuses an altered file
RECEIPTS = {path.stem: report.read_receipt(path) for path in sorted((BOOK / "results" / "receipts").glob("*.json"))}
TABLES = {f.__name__: f for f in (demo, floors, by_size, real, intervals, settings, regret, attempts, flips, blur, corner_share, corners, variants,
                                  ablation, ledger, receipts, robustness, broken)}
TABLES |= speed.TABLES
TABLES |= {f"{name}.{title}": partial(make, receipt) for name, receipt in RECEIPTS.items() for title, make in report.TABLES.items()}


def filled(text: str) -> str:
    """The text with every table between its markers made anew."""
    return re.sub(r"(<!-- table ([\w.]+) -->\n)(?:.*?\n)??(<!-- end -->)", lambda m: m[1] + TABLES[m[2]]() + "\n" + m[3], text, flags=re.S)


if __name__ == "__main__":
    stale = []
    for page in (*(BOOK / f"{name}.md" for name in ("results", "reproduction", "ledger", "speed", "robustness")), BOOK.parent / "README.md"):
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(filled(text), encoding="utf-8")
    if "--check" not in sys.argv:
        speed.draw()
    print("stale: " + ", ".join(stale) if stale else "all tables are those of the recorded runs")
    sys.exit(1 if stale and "--check" in sys.argv else 0)
