"""Writes the tables of the book and of README.md from the recorded runs.

    python book/tools/make_results.py [--check]

Each table stands between <!-- table NAME --> and <!-- end -->: no figure on these pages
is typed in. --check compares only, and fails where a page differs.
"""
import re
import sys
from functools import partial

import ledger as claims
import results_tables
import speed
import tiles
from records import BOOK, PRODUCTS, REAL, load, recorded, table

from ddad.reproduction import tables
from ddad.reproduction.receipts import read_receipt

PAGES = [*(BOOK / f"{name}.md" for name in ("results", "reproduction", "ledger",
                                            "speed", "robustness", "contributing")),
         BOOK.parent / "README.md"]
PART = re.compile(r"(<!-- table ([\w.]+) -->\n)(?:.*?\n)??(<!-- end -->)", re.S)
POINTS = {1: "Interrupted", 2: "Hostile input", 3: "Nothing executes from data",
          4: "Reproducible", 5: "Numbers", 6: "Long and large", 7: "Dependencies"}


def ledger() -> str:
    ablations = [load(f"ablation_{name}") for name in (*PRODUCTS, *REAL)
                 if recorded(f"ablation_{name}")]
    bottle = load("loco_juice_bottle")
    neighbours = bottle["floors"]["neighbours"]
    rows = claims.ledger(ablations, {"result": bottle["result"],
                                     "neighbours": neighbours})
    head = ["claim", "tested in", "paper", "ours", "95% interval", "verdict"]
    return table(head, rows)


def receipts() -> str:
    """What each receipt holds, and the hash that another person's copy has to have."""
    rows = []
    for name, receipt in RECEIPTS.items():
        runs = receipt["runs"]
        told = [", ".join(sorted({str(run[key]) for run in runs}))
                for key in ("preset", "seed", "device")]
        spent = sum(sum(run["cost"]["seconds"].values()) for run in runs) / 60
        commits = sorted({run["commit"] or "none" for run in runs})
        rows.append([f"`book/results/receipts/{name}.json`", len(runs), *told,
                     f"{spent:.0f}", ", ".join(f"`{one[:7]}`" for one in commits),
                     f"`{receipt['sha256'][:16]}`"])
    head = ["receipt", "runs", "presets", "seeds", "device",
            "minutes of one core, questions left out", "commit", "SHA-256 begins"]
    return table(head, rows)


def notebooks() -> str:
    """When, where and with what each chapter was last run that shows what it shows."""
    rows = []
    for chapter, run in load("notebooks").items():
        versions = ", ".join(f"{name} {one}" for name, one in run["versions"].items())
        rows.append([f"[](../notebooks/{chapter}.ipynb)", run["date"], run["seconds"],
                     run["device"], versions, f"`{run['commit']}`"])
    head = ["chapter", "run on", "seconds", "machine", "with", "package at"]
    return table(head, rows)


def robustness() -> str:
    """A table for each point: what each check found when it was last run in full."""
    found, parts = load("robustness"), []
    head = ["check", "what holds", "trials", "counted", "outcome", "seconds"]
    for point, title in POINTS.items():
        rows = [checked(name, check) for name, check in found.items()
                if check["point"] == point]
        if rows:
            parts.append(f"**{title}**\n\n" + table(head, rows))
    machines = set()
    for check in found.values():
        python, torch = (check["versions"][name] for name in ("python", "torch"))
        machines.add(f"{check['machine']}, Python {python}, PyTorch {torch}")
    parts.append(f"Run on {'; '.join(sorted(machines))}, with other work going on "
                 "beside it.")
    return "\n\n".join(parts)


def checked(name: str, check: dict) -> list:
    outcome = ("passed" if check["passed"]
               else f"FAILED, {check['failed']}: {check['failures'][0]}")
    counts = "; ".join(f"{what}: {n}" for what, n in check["counts"].items())
    return [f"`{name}`", check["says"], check["count"], counts, outcome,
            f"{check['seconds']:.0f}"]


def broken() -> str:
    rows = [[f"`{row['check']}`", row["count"],
             *(f"`{row[name]}`" for name in ("file", "line", "instead")),
             last_line(row["failure"])] for row in load("robustness_broken").values()]
    head = ["check", "trials", "file", "line", "broken to", "what the check then said"]
    return table(head, rows)


def last_line(text: str) -> str:
    """The last line of a failure, fit for a cell of a table."""
    last = (text.splitlines() or ["NOT NOTICED"])[-1]
    return last.replace("|", "/").replace("<", "&lt;")[:160]


# read_receipt recomputes every I-AUROC and PRO from the images of its runs, and refuses
# an altered file
RECEIPTS = {path.stem: read_receipt(path)
            for path in sorted((BOOK / "results" / "receipts").glob("*.json"))}
TABLES = {f.__name__: f for f in (ledger, receipts, notebooks, robustness, broken)}
TABLES |= results_tables.TABLES | tiles.TABLES | speed.TABLES
TABLES |= {f"{name}.{title}": partial(make, receipt)
           for name, receipt in RECEIPTS.items()
           for title, make in tables.TABLES.items()}


def filled(text: str) -> str:
    """The text with every table between its markers made anew."""
    return PART.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)


def main(arguments: list[str]) -> int:
    stale, check = [], "--check" in arguments
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(page.name)
            if not check:
                page.write_text(filled(text), encoding="utf-8")
    if not check:
        speed.draw()
    print(f"stale: {', '.join(stale)}" if stale
          else "all tables are those of the recorded runs")
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
