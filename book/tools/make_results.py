"""Writes the tables of the book and of README.md from the recorded runs.

    python book/tools/make_results.py [--check]

Each table stands between <!-- table NAME --> and <!-- end -->: no figure on these pages
is typed in. --check compares only, and fails where a page or a panel of the figure of
book/results.md differs.
"""
import re
import sys
from collections.abc import Callable
from functools import partial

import beyond
import experiments
import further
import gallery
import guidance
import ledger as claims
import own_claims
import paper_plan
import regrets
import results_figure
import results_tables
import speed
import training_time
import whitening
from records import BOOK, load, table

from ddad.reproduction import tables
from ddad.reproduction.receipts import read_receipt
from ddad.reproduction.worth import OTHER_LATENTS, evidence

PAGES = [*(BOOK / f"{name}.md" for name in (
             "results", "gallery", "tried", "reproduction", "ledger", "speed",
             "robustness", "contributing", "paper_data")),
         BOOK.parent / "README.md"]
PART = re.compile(r"(<!-- table ([\w.]+) -->\n)(?:.*?\n)??(<!-- end -->)", re.S)
POINTS = {1: "Interrupted", 2: "Hostile input", 3: "Nothing executes from data",
          4: "Reproducible", 5: "Numbers", 6: "Long and large", 7: "Dependencies"}


def receipts() -> str:
    """What each receipt holds, and the hash that another person's copy has to have."""
    rows = []
    for name, receipt in RECEIPTS.items():
        runs = receipt["runs"]
        told = [", ".join(sorted({str(run[key]) for run in runs}))
                for key in ("preset", "seed", "device")]
        spent = minutes(runs)
        commits = sorted({run["commit"] or "none" for run in runs})
        rows.append([f"`book/results/receipts/{name}.json`", len(runs), *told,
                     f"{spent:.0f}" if spent else "–",
                     ", ".join(map(short, commits)),
                     f"`{receipt['sha256'][:16]}`"])
    head = ["receipt", "runs", "presets", "seeds", "device",
            "minutes of one core, questions left out", "commit", "SHA-256 begins"]
    return table(head, rows)


def minutes(runs: list[dict]) -> float:
    """What they took; a training that several runs share counts once."""
    spent, known = 0.0, set()
    for run in runs:
        seconds = dict(run.get("cost", {}).get("seconds", {}))
        training = run["category"], run["seed"], seconds.get("train"), str(
            run["training"])
        if training in known:
            seconds |= dict.fromkeys(("encode", "train"), 0)
        known.add(training)
        spent += sum(seconds.values())
    return spent / 60


def short(commit: str) -> str:
    """The first digits of a commit; "+" where files differed from it."""
    return f"`{commit[:7]}{'+' * commit.endswith('-dirty')}`"


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


def presets() -> str:
    """The paper's text, its code, and `clean`, on the same images."""
    if not (path := BOOK / "results/presets.json").exists():
        return "Not run yet."
    return tables.against_paper(read_receipt(path))


def turned(text: str) -> str:
    """A table with its columns as rows: a page is too narrow for twenty settings."""
    head, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    return table(head[:1] + [row[0] for row in rows],
                 [list(line) for line in zip(head[1:], *(row[1:] for row in rows))])


def of_real_sets(make: Callable[[dict], str], latents: str = "") -> str:
    """One table after the other, of each real set that has rows."""
    made = [make(RECEIPTS[name + latents]) for name in experiments.REAL
            if name + latents in RECEIPTS]
    return "\n\n".join(one for one in made if len(one.splitlines()) > 2)


# read_receipt recomputes every I-AUROC and PRO from the images of its runs, and refuses
# an altered file
EVIDENCE = evidence(BOOK / "results")
RECEIPTS = {path.stem: EVIDENCE.get(path.stem) or read_receipt(path)
            for path in sorted((BOOK / "results" / "receipts").glob("*.json"))}
TABLES = {f.__name__: f for f in (receipts, notebooks, robustness, broken)}
TABLES |= {"experiments": experiments.described}
TABLES |= claims.tables([*EVIDENCE.values()]) | own_claims.tables(EVIDENCE)
TABLES |= results_tables.TABLES | speed.TABLES | paper_plan.TABLES | beyond.TABLES
TABLES |= gallery.TABLES | guidance.tables(EVIDENCE) | regrets.TABLES
TABLES |= training_time.TABLES | further.TABLES | whitening.TABLES
TABLES |= {"presets": presets}
OF_RECEIPT = tables.TABLES | {
    "deviations": lambda receipt: turned(tables.deviations(receipt))}
TABLES |= {f"{name}.{title}": partial(make, receipt)
           for name, receipt in RECEIPTS.items()
           for title, make in OF_RECEIPT.items()}
TABLES |= {f"real_sets{latents}.{title}": partial(of_real_sets, make, latents)
           for title, make in OF_RECEIPT.items() for latents in ("", OTHER_LATENTS)}


def filled(text: str, notes: bool = True) -> str:
    """The text with every table between its markers made anew; where it shows stale
    records, it is noted below the table, if `notes`.
    """
    def made(found: re.Match) -> str:
        said = experiments.note(found[2]) if notes else ""
        lines = [TABLES[found[2]](), *(["", said] if said else []), found[3]]
        return found[1] + "\n".join(lines)

    return PART.sub(made, text)


def main(arguments: list[str]) -> int:
    stale, check = results_figure.stale(), "--check" in arguments
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = filled(text, notes=page.parent == BOOK)      # the README is short
        if made != text:
            stale.append(page.name)
            if not check:
                page.write_text(made, encoding="utf-8")
    if not check:
        speed.draw()
        results_figure.draw()
    print(f"stale: {', '.join(stale)}" if stale
          else "all tables are those of the recorded runs")
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
