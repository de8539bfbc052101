"""The rows of book/ledger.md: each claim of the paper beside what our runs say.

Each with what the paper reports, our figure, and a verdict by its interval.
"""
import json
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t

from ddad.notebook import METRICS
from ddad.reproduction.published import PAPER_MEAN, SCALING_AND_TUNING, STEPS

ROOT = Path(__file__).resolve().parents[2]
CONFIRMED, NOT_CONFIRMED = "confirmed", "not confirmed"
NOT_TESTABLE = "not testable here"
TITLES = {"i_auroc": "I-AUROC", "pro": "PRO"}

# claim; chapter; the variant without it; the paper's rows (with, without it), or None
SWITCHED_OFF = [
    ("Scaling the latent beats adding noise to it.",
     "06_scaled_denoising", "noise added",
     (SCALING_AND_TUNING["both"], SCALING_AND_TUNING["fine-tuning"])),
    ("A step chosen for each picture beats $T_{max}$ for all.",
     "05_dynamic_noise", "static steps",
     (STEPS["dynamic"], STEPS["T_max"])),
    ("Features fine-tuned on repaintings beat those that are not.",
     "07_fine_tuning", "features not fine-tuned",
     (SCALING_AND_TUNING["both"], SCALING_AND_TUNING["scaling"])),
    ("Denoising latents beats denoising pixels.",
     "04_latent_projection", "pixels, not latents", None),
    ("Both maps together beat the latent map.",
     "08_anomaly_map", "latent map alone", None),
    ("Both maps together beat the feature map.",
     "08_anomaly_map", "feature map alone", None),
]

# claim; what chapter 5 records; its unit; factor to that unit
BY_SIZE = [
    ("The step follows the size of the defect.",
     "step_against_area", "rank correlation", 1),
    ("Large defects gain from dynamic steps, against the first step for all.",
     "large_third_pro_over_static_first", "points of PRO", 100),
    ("Large defects gain from dynamic steps, against $T_{max}$ for all.",
     "large_third_pro_over_static_last", "points of PRO", 100),
]


def metrics(notebook: dict) -> dict[str, float]:
    """All that the cells of a notebook, parsed as JSON, have recorded."""
    outputs = [one for cell in notebook["cells"] for one in cell.get("outputs", [])]
    found = [output.get("data", {}).get(METRICS, {}) for output in outputs]
    return {name: value for one in found for name, value in one.items()}


def differences(ablations: list[list[dict]], variant: str, metric: str) -> list[float]:
    """Full method minus the variant, in points, wherever a seed ran with both."""
    found = []
    for rows in ablations:
        of = {(row["variant"], row["seed"]): row[metric] for row in rows}
        seeds = sorted({row["seed"] for row in rows if (variant, row["seed"]) in of})
        found += [100 * (of["full method", seed] - of[variant, seed]) for seed in seeds]
    return found


def verdict(low: float) -> str:
    """By the lower end of the 95% interval of a gain: is all of it above zero?"""
    return CONFIRMED if low > 0 else NOT_CONFIRMED


def link(notebook: str) -> str:
    return f"[](../notebooks/{notebook}.ipynb)"


def ledger(ablations: list[list[dict]], bottle: dict) -> list[list[str]]:
    """All rows: claim, where it is tested, the paper's figure, ours, interval, verdict.

    ablations: the rows of each recorded ablation. bottle: the run on the juice bottle.
    """
    claims = [row for one in SWITCHED_OFF for row in switched_off(ablations, *one)]
    return [*claims, *by_size(), logical_defects(bottle), *not_run()]


def switched_off(ablations, claim, chapter, variant, published) -> list[list[str]]:
    """A row a metric: what is lost without the claim's part, over all trainings."""
    rows = []
    for k, (metric, title) in enumerate(TITLES.items()):
        gains = differences(ablations, variant, metric)
        half = t.ppf(0.975, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5
        low, high = mean(gains) - half, mean(gains) + half
        told = [claim, link(chapter)] if k == 0 else ["", ""]
        paper = (f"{published[0][k] - published[1][k]:+.1f} {title}" if published
                 else "no figure")
        ours = f"{mean(gains):+.1f} {title}, {len(gains)} trainings"
        rows.append([*told, paper, ours, f"{low:+.1f} to {high:+.1f}", verdict(low)])
    return rows


def by_size() -> list[list[str]]:
    """What chapter 5 recorded on steps and the size of defects."""
    rows, chapter = [], "05_dynamic_noise"
    path = ROOT / f"notebooks/{chapter}.ipynb"
    found = metrics(json.loads(path.read_text(encoding="utf-8")))
    for claim, name, unit, factor in BY_SIZE:
        value, low, high = (factor * found[f"{name}_{end}"]
                            for end in ("value", "low", "high"))
        rows.append([claim, link(chapter), "no figure", f"{value:+.2f} {unit}",
                     f"{low:+.2f} to {high:+.2f}", verdict(low)])
    return rows


def logical_defects(bottle: dict) -> list[str]:
    result, baseline = bottle["result"], 100 * bottle["neighbours"]["i_auroc"]
    low, high = (100 * end for end in result["interval"]["i_auroc"])
    return ["Pictures with logical defects (missing or exchanged parts) are told from "
            "good ones better than by neighbours alone.",
            "[](results.md)", "no figure",
            f"{100 * result['i_auroc']:.1f} I-AUROC, neighbours {baseline:.1f} "
            "(juice bottle)",
            f"{low:.1f} to {high:.1f}", verdict(low - baseline)]


def not_run() -> list[list[str]]:
    rows = []
    for name, title in (("visa", "VisA"), ("btad", "BTAD")):
        figures = ", ".join(f"{value:.1f} {metric}" for value, metric
                            in zip(PAPER_MEAN[name], TITLES.values()))
        rows.append([f"The mean over the categories of {title}.",
                     link("12_reproducing_the_paper"), figures,
                     "not run: data and GPU needed", "", NOT_TESTABLE])
    return rows
