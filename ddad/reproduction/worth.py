"""What each part of the method is worth, by recorded runs: the full method minus what
is left without the part, on the same test images, seed by seed.

The records are receipts of `ddad ablate`, in which every variant chooses its constants
for itself.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import verdicts
from .receipts import read_receipt
from .variants import (
    AVERAGED,
    FEATURE_MAP,
    FULL,
    LATENT_MAP,
    NOISE,
    PIXELS,
    STATIC,
    UNSCALED,
    UNTUNED,
)
from .verdicts import Across, Effect, across, effect, minus

TITLES = {"i_auroc": "I-AUROC", "pro": "PRO"}
MEASURES = {"i_auroc": verdicts.auroc, "pro": verdicts.pro}
DYNAMIC, STATIC_PATH = "dynamic steps", "static steps"      # of the questions
OTHER_LATENTS = "_taesd"        # ends the names of receipts in another latent space
# the part, and what runs in its place
PARTS = {
    "a scaled start": NOISE,
    "a scaled start, against averaged noise": AVERAGED,
    "a scaled start, against one as it is": UNSCALED,
    "a step for each image": STATIC,
    "fine-tuned features": UNTUNED,
    "latents, against pixels": PIXELS,
    "the feature map": LATENT_MAP,
    "the latent map": FEATURE_MAP,
}


@dataclass(frozen=True)
class Worth:
    """One part by one metric, I-AUROC or PRO; an effect for each data set."""

    part: str
    metric: str
    effects: list[Effect]

    @property
    def across(self) -> Across:
        """The mean over data sets, and its 95% interval."""
        return across(self.effects)

    @property
    def runs(self) -> list[float]:
        """The difference of each seed on each data set."""
        return [value for one in self.effects for value in one.by_seed]


def evidence(results: Path) -> dict[str, dict]:
    """The receipts that claims rest on, by name, one a data set. Those in another
    latent space are shown, and count for nothing. Empty where the folder is missing.
    """
    return {path.stem: read_receipt(path)
            for path in sorted((results / "receipts").glob("*.json"))
            if not path.stem.endswith(OTHER_LATENTS)}


def worth(receipts: list[dict]) -> list[Worth]:
    """What each of PARTS is worth, by those receipts that are of ablations. That with
    the highest mean of PRO comes first; one without a run is left out.
    """
    found = []
    for part, variant in PARTS.items():
        for metric, title in TITLES.items():
            if effects := of_variant(receipts, variant, MEASURES[metric]):
                found.append(Worth(part, title, effects))
    mean_pro = {row.part: row.across.value for row in found if row.metric == "PRO"}
    return sorted(found, key=lambda row: -mean_pro[row.part])


# --- from receipts to effects

def of_variant(receipts: list[dict], variant: str, measure: Callable) -> list[Effect]:
    """Full method minus variant, wherever a seed ran with both."""
    effects = []
    for receipt in receipts:
        for category in receipt["test"]:
            runs = {(run["preset"], run["seed"]): run for run in receipt["runs"]
                    if run["category"] == category}
            pairs = [(run, runs[variant, seed]) for (name, seed), run in runs.items()
                     if name == FULL and (variant, seed) in runs]
            if pairs:
                effects.append(effect(category, [
                    minus(*(measure(receipt, run, run["images"]) for run in pair))
                    for pair in pairs]))
    return each_once(effects)


def of_paths(receipts: list[dict], measure: Callable, one: str,
             other: str | None = None) -> list[Effect]:
    """One path of the questions, minus another where it is given."""
    effects = []
    for receipt, category, runs in asked_runs(receipts):
        measured = {path: [measure(receipt, run, run["questions"]["paths"][path])
                           for run in runs] for path in (one, other) if path}
        seeds = (map(minus, measured[one], measured[other]) if other
                 else measured[one])
        effects.append(effect(category, list(seeds)))
    return each_once(effects)


def asked_runs(receipts: list[dict]) -> list[tuple[dict, str, list[dict]]]:
    """Each category's runs that were questioned, with their receipt."""
    found = []
    for receipt in receipts:
        for category in receipt["test"]:
            runs = [run for run in receipt["runs"] if "questions" in run
                    and run["category"] == category and run["preset"] == "clean"]
            if runs:
                found.append((receipt, category, runs))
    return found


def each_once(effects: list[Effect]) -> list[Effect]:
    """ValueError where a data set is there twice: it is one piece of evidence."""
    twice = [name for name, n in Counter(one.data for one in effects).items() if n > 1]
    if twice:
        raise ValueError(f"two receipts hold {', '.join(twice)}: keep one of them")
    return effects
