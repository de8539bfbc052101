"""The tables of book/ledger.md: each claim of the paper beside what our runs say.

A row is computed from receipts alone: those of `ddad ablate`, and the questions of
those of `ddad reproduce`. Where there is none yet, the row names the command.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from statistics import mean

from records import PRODUCTS, name_of, table

from ddad.calibration import CHOSEN
from ddad.reproduction import verdicts
from ddad.reproduction.published import PAPER_MEAN, SCALING_AND_TUNING, STEPS
from ddad.reproduction.variants import (
    AVERAGED,
    DRAWS,
    FEATURE_MAP,
    LATENT_MAP,
    NOISE,
    PIXELS,
    STATIC,
    UNSCALED,
    UNTUNED,
    VARIANTS,
)
from ddad.reproduction.verdicts import Effect, across, effect, holm, minus, sides
from ddad.reproduction.worth import (
    DYNAMIC,
    MEASURES,
    STATIC_PATH,
    TITLES,
    asked_runs,
    each_once,
    of_paths,
    of_variant,
)
from ddad.synthetic.products import KINDS

HEAD = ["claim", "tested in", "paper", "ours, by data set", "across data sets",
        "seeds", "verdict"]
TO_BE_RUN, NO_FIGURE = "to be run", "no figure"
ABLATE, REPRODUCE = "ddad ablate DATA OUT", "ddad reproduce NAME DATA OUT"
LOGICAL = {"logical_anomalies"} | {
    kind for kinds in KINDS.values() for kind, (_, _, logical) in kinds.items()
    if logical}

# claim; chapter; the variant without it; the paper's rows (with, without it), or None
SWITCHED_OFF = [
    ("Scaling the latent beats adding noise to it.", "06_scaled_denoising", NOISE,
     (SCALING_AND_TUNING["both"], SCALING_AND_TUNING["fine-tuning"])),
    (f"Scaling beats noise even where the maps of {DRAWS} draws are averaged, in "
     f"{DRAWS} times the U-Net calls.", "06_scaled_denoising", AVERAGED, None),
    ("Scaling beats denoising the latent as it is.", "06_scaled_denoising", UNSCALED,
     None),
    ("A step chosen for each image beats $T_{max}$ for all.", "05_dynamic_noise",
     STATIC, (STEPS["dynamic"], STEPS["T_max"])),
    ("Features fine-tuned on reconstructions beat those that are not.",
     "07_fine_tuning", UNTUNED,
     (SCALING_AND_TUNING["both"], SCALING_AND_TUNING["scaling"])),
    ("Denoising latents beats denoising pixels, with a U-Net as wide as they need.",
     "04_latent_projection", PIXELS, None),
    ("Both maps together beat the latent map.", "08_anomaly_map", LATENT_MAP, None),
    ("Both maps together beat the feature map.", "08_anomaly_map", FEATURE_MAP, None),
]


@dataclass(frozen=True)
class Row:
    """One figure of one claim, which says that it is above zero.

    effects: one a data set. p, verdict: see `judged`.
    """

    claim: str
    chapter: str
    paper: str
    unit: str
    command: str
    effects: list[Effect] = field(default_factory=list)
    factor: int = 100               # 100: in points
    p: float | None = None
    verdict: str = TO_BE_RUN


def rows(receipts: list[dict]) -> list[Row]:
    """All that can be tested here, each with its verdict."""
    found = [row for one in SWITCHED_OFF for row in switched_off(receipts, *one)]
    return judged([*found, *by_size(receipts), logical_defects(receipts)])


def judged(found: list[Row]) -> list[Row]:
    """With p values corrected for the number of rows that have one, and verdicts."""
    p = holm([across(row.effects).p if row.effects else None for row in found])
    return [replace(row, p=one, verdict=verdicts.verdict(row.effects, one))
            if row.effects else row for row, one in zip(found, p)]


def switched_off(receipts: list[dict], claim: str, chapter: str, variant: str,
                 published: tuple | None) -> list[Row]:
    """A row a metric: the full method minus the variant."""
    made = []
    for k, (metric, title) in enumerate(TITLES.items()):
        paper = (f"{published[0][k] - published[1][k]:+.1f} {title}" if published
                 else NO_FIGURE)
        made.append(Row(claim, chapter, paper, title, ABLATE,
                        of_variant(receipts, variant, MEASURES[metric])))
    return made


def by_size(receipts: list[dict]) -> list[Row]:
    """Dynamic against static steps of the same detector at the same T_max."""
    third = lambda k: partial(verdicts.pro, third=k)
    asked = (
        ("The step follows the size of the defect.", "rank correlation", 1,
         of_paths(receipts, verdicts.step_against_area, DYNAMIC)),
        ("Dynamic steps help large defects, against $T_{max}$ for all.",
         "PRO, largest third", 100,
         of_paths(receipts, third(2), DYNAMIC, STATIC_PATH)),
        ("Dynamic steps cost small defects, against $T_{max}$ for all.",
         "PRO lost, smallest third", 100,
         of_paths(receipts, third(0), STATIC_PATH, DYNAMIC)))
    return [Row(claim, "05_dynamic_noise", NO_FIGURE, unit, REPRODUCE, effects, factor)
            for claim, unit, factor, effects in asked]


def logical_defects(receipts: list[dict]) -> Row:
    """The method against a search among all patches of the training images."""
    effects = []
    for receipt, category, runs in asked_runs(receipts):
        found = [run["questions"].get("baselines", {}).get("neighbours", {})
                 for run in runs]
        scores = next((one["score"] for one in found if "score" in one), None)
        if scores is None or not LOGICAL & set(receipt["test"][category]["kind"]):
            continue
        part = verdicts.only(receipt, category, LOGICAL)
        kept = part["test"][category]["kept"]
        measured = lambda run, of, part=part, kept=kept: verdicts.auroc(
            part, run, {"score": [of[n] for n in kept]})
        effects.append(effect(category, [
            minus(measured(run, run["images"]["score"]), measured(run, scores))
            for run in runs]))
    return Row("Images with logical defects (missing or exchanged parts) are told from "
               "good ones better than by neighbours among all patches.", "results",
               NO_FIGURE, "I-AUROC", REPRODUCE, each_once(effects))


# --- the page

def cells(found: list[Row]) -> list[list[str]]:
    """The table below HEAD."""
    return [*told(found), *not_run()]


def told(found: list[Row]) -> list[list[str]]:
    """A line a row; a claim's name stands in the first of its own."""
    lines, before = [], None
    for row in found:
        named = (["", ""] if row.claim == before else
                 [row.claim, link(row.chapter)])
        lines.append([*named, row.paper, *ours(row), verdict(row)])
        before = row.claim
    return lines


def ours(row: Row) -> list[str]:
    """By data set, across them, and seeds."""
    if not row.effects:
        return [f"{TO_BE_RUN}: `{row.command}`", "", ""]
    shown = lambda value, sign="+": (
        f"{row.factor * value:{sign}.{1 if row.factor > 1 else 2}f}")
    by_set = []
    for one, side in zip(row.effects, sides(row.effects)):
        spread = "" if one.spread is None else f" ± {shown(one.spread, '')}"
        by_set.append(f"{name_of(one.data)} {shown(one.value)}{spread}"
                      + "†" * bool(side))
    found = across(row.effects)
    over_all = f"{shown(found.value)} {row.unit}"
    if found.p is not None:
        over_all += (f" ({shown(found.low)} to {shown(found.high)}), "
                     f"p {found.p:.3f}, corrected {row.p:.2f}")
    runs = [value for one in row.effects for value in one.by_seed]
    above = sum(value > 0 for value in runs)
    seeds = sorted({len(one.by_seed) for one in row.effects})
    each = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
    return [", ".join(by_set), over_all,
            f"{each} a set; {above} of {len(runs)} runs above zero"]


def verdict(row: Row) -> str:
    """The word, and whether it would be another if this were the only claim."""
    alone = if_alone(row)
    return row.verdict + f"; {alone} if it were the only claim" * bool(alone)


def if_alone(row: Row) -> str:
    """What an open row would be if this were the only claim; empty if still open."""
    alone = across(row.effects).p if row.verdict == verdicts.OPEN else None
    if alone is None or alone >= verdicts.LEVEL:
        return ""
    return verdicts.verdict(row.effects, alone)


def not_run() -> list[list[str]]:
    """The paper's own data."""
    made = []
    for name, title in (("visa", "VisA"), ("btad", "BTAD")):
        figures = ", ".join(f"{value:.1f} {metric}" for value, metric
                            in zip(PAPER_MEAN[name], TITLES.values()))
        made.append([f"The mean over the categories of {title}.",
                     link("12_reproducing_the_paper"), figures,
                     "not run: data and GPU needed", "", "", verdicts.NOT_HERE])
    return made


def answer(found: list[Row]) -> str:
    """What the verdicts come to, and the claims of each."""
    counted = Counter(row.verdict for row in found)
    words = (verdicts.CONFIRMED, verdicts.CONTRADICTED, verdicts.DIFFERS, verdicts.OPEN)
    tested = sum(counted[word] for word in words)
    figures = ", ".join(f"{counted[word]} {word}" for word in words)
    which = {word: [row for row in found if row.verdict == word] for word in words[:3]}
    which["above zero in every run, and by itself on every data set of more than one "
          "seed"] = [row for row in found if everywhere(row)]
    which |= {f"{word} if it were the only claim":
              [row for row in found if if_alone(row) == word] for word in words[:2]}
    told = "\n".join(f"- *{word[0].upper() + word[1:]}*: "
                     + (apart(of) if word == verdicts.DIFFERS else named(of)) + "."
                     for word, of in which.items())
    told += "".join(f"\n- *On real sets alone*: {on_real_sets(row)}."
                    for row in which[verdicts.CONFIRMED])
    if alone := sum(map(bool, map(if_alone, found))):
        figures += (f". {alone} of the open ones would be decided, were each the only "
                    "claim; corrected for the number of claims they are not")
    return (f"Of {len(found)} figures that can be tested here, {tested} have runs: "
            f"{figures}. {counted[TO_BE_RUN]} figures wait for their runs, and "
            f"{len(not_run())} claims, on the paper's own data, cannot be tested "
            f"here.\n\n{told}")


def on_real_sets(row: Row) -> str:
    """What is left of a claim without the drawn products, which share a generator."""
    real = [one for one in row.effects if one.data not in PRODUCTS]
    p = across(real).p if real else None
    return (f"{named([row])}, {len(real)} sets, "
            + ("no p" if p is None else f"p {p:.3f}, not corrected"))


def everywhere(row: Row) -> bool:
    """Whether no run speaks against it, and no data set that has seeds to judge by."""
    runs = [value for one in row.effects for value in one.by_seed]
    judged_by = [side for one, side in zip(row.effects, sides(row.effects))
                 if len(one.by_seed) > 1]
    return len(judged_by) > 1 and min(runs) > 0 and set(judged_by) == {1}


def named(found: list[Row]) -> str:
    """The claims, in quotation marks, with the figure."""
    return ", ".join(f"“{row.claim.rstrip('.')}” ({row.unit})"
                     for row in found) or "none"


def apart(found: list[Row]) -> str:
    """The claims, each with the sets that are above and below zero by themselves."""
    told = []
    for row in found:
        by = {side: [f"{name_of(one.data)} {row.factor * one.value:+.1f}"
                     for one, its in zip(row.effects, sides(row.effects))
                     if its == side] for side in (1, -1)}
        told.append(f"{named([row])}: above zero by itself is {', '.join(by[1])}, "
                    f"below it {', '.join(by[-1])}")
    return "; ".join(told) or "none"


def link(page: str) -> str:
    return "[](results.md)" if page == "results" else f"[](../notebooks/{page}.ipynb)"


def by_size_alone(receipts: list[dict]) -> str:
    """Dynamic minus static steps in PRO of a third, where both have one detector's
    constants, and where each chose its own (`ddad ablate`).
    """
    asked = {"small": partial(verdicts.pro, third=0),
             "large": partial(verdicts.pro, third=2)}
    shown = {size: [{one.data: 100 * one.value for one in effects} for effects in (
                 of_paths(receipts, third, DYNAMIC, STATIC_PATH),
                 of_variant(receipts, STATIC, third))]
             for size, third in asked.items()}
    rules = {}
    for _, category, runs in asked_runs(receipts):
        rules[category] = [run["settings"]["step_rule"] for run in runs]
    lines = [[name_of(data), ", ".join(rules[data]),
              *(f"{of[data]:+.1f}" if data in of else "to be run"
                for size in asked for of in shown[size])]
             for data in shown["small"][0]]
    head = [f"{size}, {kind}" for size in asked
            for kind in ("one detector's", "each its own")]
    real = [rule for data, of in rules.items() if data not in PRODUCTS for rule in of]
    return (table(["data", "the detector's own rule, by seed", *head], lines)
            + f"\n\nOn the real sets the constants of {real.count('static')} of "
              f"{len(real)} runs had been chosen for static steps.")


def variants(receipts: list[dict]) -> str:
    """The constants that each variant's seeds chose; its U-Net, and what its training
    took.
    """
    lines = []
    for receipt in receipts:
        of = {}
        for run in receipt["runs"]:
            of.setdefault((run["category"], run["preset"]), []).append(run)
        lines += [[name_of(category), variant, len(runs), *taken(runs)]
                  for category in receipt["test"] for variant in VARIANTS
                  if (runs := of.get((category, variant)))]
    head = ["data set", "variant", "seeds", *(f"`{name}`" for name in CHOSEN),
            "U-Net, M parameters", "steps", "loss", "training, s",
            "U-Net calls an image"]
    return table(head, lines) if lines else f"To be run: `{ABLATE}`."


def taken(runs: list[dict]) -> list[str]:
    """The cells of one variant's seeds."""
    each = lambda of: ", ".join(dict.fromkeys(str(of(run)) for run in runs))
    chosen = [each(lambda run, name=name: run["settings"][name]) for name in CHOSEN]
    million = 1e-6 * runs[0]["training"]["parameters"]
    loss = mean(run["training"]["loss"] for run in runs)
    seconds = mean(run["cost"]["seconds"]["train"] for run in runs)
    return [*chosen, f"{million:.1f}", each(lambda run: run["training"]["steps"]),
            f"{loss:.3f}", f"{seconds:.0f}", each(lambda run: run["cost"]["calls"])]


def tables(receipts: list[dict]) -> dict[str, Callable[[], str]]:
    """By name: "ledger", "answer", "ledger_by_size" and "variants"."""
    found = cache(lambda: rows(receipts))
    return {"ledger": lambda: table(HEAD, cells(found())),
            "answer": lambda: answer(found()),
            "ledger_by_size": lambda: by_size_alone(receipts),
            "variants": lambda: variants(receipts)}
