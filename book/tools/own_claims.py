"""The second table of book/ledger.md: what this project says of its own extension, each
claim able to be refuted, beside what the receipts say.

Two kinds of evidence: detectors as a user has them, each calibrated by itself
(`ddad reproduce`); and paths of which nothing was chosen (`step_rules.py`), the mean
over its steps.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import ledger
import numpy as np
import step_rules
from ledger import MEASURES, TITLES, Row, each_once
from paired import OURS, entries
from records import name_of

from ddad.reproduction import verdicts
from ddad.reproduction.verdicts import Effect, Measured, effect, minus

CHAPTER = "13_beyond_the_paper"
NAME = "step_rules"                 # of the receipt
COMMANDS = {NAME: "python book/tools/step_rules.py", OURS: ledger.REPRODUCE}
PLAIN, MASKED = step_rules.TRAININGS

# claim; one path; another
PATHS = [
    ("A step for each region beats a step for each image.",
     (PLAIN, "region"), (PLAIN, "image")),
    ("A step for each region beats $T_{max}$ for all.",
     (PLAIN, "region"), (PLAIN, "static")),
    ("Under steps by region, a network that was trained on noised patches beats one "
     "that was trained as the paper's.", (MASKED, "region"), (PLAIN, "region")),
]
# claim; third of the defects by size; the path that steps by region are set beside
THIRDS = [
    ("Steps by region find small defects better than $T_{max}$ for all.", 0, "static"),
    ("Steps by region find large defects better than steps by image.", 2, "image"),
]
# claim; one method, and the one that it is set beside
AGAINST = [
    ("The extension beats the paper's method, both calibrated.", OURS, "clean"),
    ("The extension beats nearest neighbours among all patches.", OURS,
     "neighbours"),
    ("The extension beats PatchCore with a tenth of all patches.", OURS, "patchcore"),
    ("The extension beats PaDiM.", OURS, "padim"),
    ("The extension beats one call of its network.", OURS, "one_call"),
    ("One call of that network beats the paper's method, both calibrated.", "one_call",
     "clean"),
]


def rows(receipts: dict[str, dict]) -> list[Row]:
    """Each claim's figures, with verdicts corrected for the number of these rows."""
    made = []
    for claim, one, other in PATHS:
        made += [_row(claim, title, NAME, of_paths(receipts, MEASURES[metric], one,
                                                   other))
                 for metric, title in TITLES.items()]
    for claim, third, rule in THIRDS:
        size = ("smallest", "middle", "largest")[third]
        made.append(_row(claim, f"PRO, {size} third", NAME, of_paths(
            receipts, partial(verdicts.pro, third=third), (PLAIN, "region"),
            (PLAIN, rule))))
    for claim, *pair in AGAINST:
        made += [_row(claim, title, OURS, against(receipts, MEASURES[metric], *pair))
                 for metric, title in TITLES.items()]
    return ledger.judged(made)


def _row(claim: str, unit: str, source: str, effects: list[Effect]) -> Row:
    return Row(claim, CHAPTER, "an extension", unit, COMMANDS[source], effects)


def of_paths(receipts: dict[str, dict], measure: Callable, one: tuple[str, str],
             other: tuple[str, str]) -> list[Effect]:
    """One network and rule minus another, by seed: the mean over the steps."""
    receipt, effects = receipts.get(NAME), []
    for category in receipt["test"] if receipt else ():
        runs = {(run["preset"], run["seed"]): run for run in receipt["runs"]
                if run["category"] == category}

        def mean_of(path: tuple[str, str], seed: int, runs=runs) -> Measured:
            each = [runs[step_rules.name(*path, T), seed] for T in step_rules.STEPS]
            values, drawn = zip(*(measure(receipt, run, run["images"])
                                  for run in each))
            return float(np.mean(values)), np.mean(drawn, 0)

        seeds = sorted({seed for _, seed in runs})
        effects.append(effect(category, [
            minus(mean_of(one, seed), mean_of(other, seed)) for seed in seeds]))
    return effects


def against(receipts: dict[str, dict], measure: Callable, one: str, other: str
            ) -> list[Effect]:
    """One method minus another, by seed. One that has no seed of its own is the same
    for all.
    """
    effects = []
    for name, receipt in receipts.items():
        if name == NAME:
            continue
        found = entries(receipt)
        for category in receipt["test"]:
            if (category, one) in found and (category, other) in found:
                measured = [{seed: measure(receipt, run, images)
                             for seed, run, images in found[category, method]}
                            for method in (one, other)]
                ours, theirs = measured
                alone = next(iter(theirs.values())) if len(theirs) == 1 else None
                effects.append(effect(category, [
                    minus(mine, theirs.get(seed, alone))
                    for seed, mine in ours.items() if seed in theirs or alone]))
    return each_once(effects)


def by_rule(receipt: dict) -> str:
    """I-AUROC / PRO of the paper's training by data set, step and rule: means over the
    seeds.
    """
    found = means(receipt)
    lines = [[name_of(data), T, *(both(found[data, T, PLAIN, rule])
                                  for rule in step_rules.RULES), seeds]
             for data, T, seeds in cells(receipt)]
    return ledger.table(["data", "$T_{max}$", *step_rules.RULES, "seeds"], lines)


def by_training(receipt: dict) -> str:
    """The same of either training, for steps by image and by region, and in how many
    cells the other one is above.
    """
    found, lines, above = means(receipt), [], {"region": 0, "image": 0}
    for data, T, seeds in cells(receipt):
        line = [name_of(data), T]
        for rule in above:
            of = [found[data, T, trained, rule] for trained in (PLAIN, MASKED)]
            line += map(both, of)
            above[rule] += sum(masked > plain for plain, masked in zip(*of))
        lines.append([*line, seeds])
    head = [f"{rule}, {trained}" for rule in above for trained in (PLAIN, MASKED)]
    told = ", ".join(f"with steps by {rule} in {n}" for rule, n in above.items())
    return (ledger.table(["data", "$T_{max}$", *head, "seeds"], lines)
            + f"\n\nOf {2 * len(lines)} figures each, *masked* is the better {told}.")


def means(receipt: dict) -> dict[tuple, tuple]:
    """I-AUROC and PRO by data set, step, training and rule."""
    found: dict = {}
    for run in receipt["runs"]:
        trained, rule, T = run["preset"].split(", ")
        found.setdefault((run["category"], int(T), trained, rule), []).append(
            (run["result"]["i_auroc"], run["result"]["pro_exact"]))
    return {path: tuple(np.mean(of, 0)) for path, of in found.items()}


def both(pair: tuple) -> str:
    return " / ".join(map("{:.3f}".format, pair))


def cells(receipt: dict) -> list[tuple[str, int, int]]:
    """Each data set and step, with the number of seeds."""
    return [(data, T, len({run["seed"] for run in receipt["runs"]
                           if run["category"] == data}))
            for data in sorted(receipt["test"]) for T in step_rules.STEPS]


def tables(receipts: dict[str, dict]) -> dict[str, Callable[[], str]]:
    """By name: "own_claims", "step_rules", "step_rules_masked"."""
    def own() -> str:
        lines = ledger.told(rows(receipts))
        head = [title for title in ledger.HEAD if title != "paper"]
        return ledger.table(head, [[*line[:2], *line[3:]] for line in lines])

    def of(make: Callable[[dict], str]) -> Callable[[], str]:
        return lambda: make(receipts[NAME]) if NAME in receipts else "Not run yet."
    return {"own_claims": own, "step_rules": of(by_rule),
            "step_rules_masked": of(by_training)}
