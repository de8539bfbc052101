"""The rows of book/ledger.md: each claim of the paper, what the paper reports, what our runs say, and a verdict by the interval."""
import json
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t

from ddad.lesson import METRICS
from ddad.published import PAPER_MEAN, SCALING_AND_TUNING, STEPS

ROOT = Path(__file__).parent.parent
CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE = "confirmed", "not confirmed", "not testable here"
TITLES = ("I-AUROC", "PRO")

# claim; chapter; the variant without it; the paper's two rows for it (with, without), or None
SWITCHED_OFF = [
    ("Scaling the latent beats adding noise to it.", "06_scaled_denoising", "noise added",
     (SCALING_AND_TUNING["both"], SCALING_AND_TUNING["fine-tuning"])),
    ("A step chosen for each picture beats $T_{max}$ for all.", "05_dynamic_noise", "static steps", (STEPS["dynamic"], STEPS["T_max"])),
    ("Features fine-tuned on repaintings beat those that are not.", "07_fine_tuning", "features not fine-tuned",
     (SCALING_AND_TUNING["both"], SCALING_AND_TUNING["scaling"])),
    ("Denoising latents beats denoising pixels.", "04_latent_projection", "pixels, not latents", None),
    ("Both maps together beat the latent map.", "08_anomaly_map", "latent map alone", None),
    ("Both maps together beat the feature map.", "08_anomaly_map", "feature map alone", None),
]

# claim; what chapter 5 records; its unit; factor to that unit
BY_SIZE = [
    ("The step follows the size of the defect.", "step_against_area", "rank correlation", 1),
    ("Large defects gain from dynamic steps, against the first step for all.", "large_third_pro_over_static_first", "points of PRO", 100),
    ("Large defects gain from dynamic steps, against $T_{max}$ for all.", "large_third_pro_over_static_last", "points of PRO", 100),
]


def metrics(notebook: dict) -> dict[str, float]:
    """All that the cells of a notebook, parsed as JSON, have recorded."""
    outputs = [output.get("data", {}).get(METRICS, {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return {name: value for found in outputs for name, value in found.items()}


def differences(ablations: list[list[dict]], variant: str, metric: str) -> list[float]:
    """Full method minus the variant, in points (hundredths), for each data set and seed that has both."""
    found = []
    for rows in ablations:
        of = {(row["variant"], row["seed"]): row[metric] for row in rows}
        found += [100 * (of["full method", seed] - of[variant, seed]) for seed in sorted({row["seed"] for row in rows}) if (variant, seed) in of]
    return found


def verdict(low: float) -> str:
    """By the lower end of the 95% interval of a gain: is all of it above zero?"""
    return CONFIRMED if low > 0 else NOT_CONFIRMED


def link(notebook: str) -> str:
    return f"[](../notebooks/{notebook}.ipynb)"


def ledger(ablations: list[list[dict]], bottle: dict) -> list[list[str]]:
    """All rows. `ablations`: the rows of each recorded ablation; `bottle`: the recorded run on the juice bottle."""
    rows = []
    for claim, chapter, variant, published in SWITCHED_OFF:
        for k, metric in enumerate(("i_auroc", "pro")):
            gains = differences(ablations, variant, metric)
            half = t.ppf(0.975, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5
            paper = "no figure" if published is None else f"{published[0][k] - published[1][k]:+.1f} {TITLES[k]}"
            rows.append([claim if k == 0 else "", link(chapter) if k == 0 else "", paper, f"{mean(gains):+.1f} {TITLES[k]}, {len(gains)} trainings",
                         f"{mean(gains) - half:+.1f} to {mean(gains) + half:+.1f}", verdict(mean(gains) - half)])
    five = metrics(json.loads((ROOT / "notebooks/05_dynamic_noise.ipynb").read_text(encoding="utf-8")))
    for claim, name, unit, factor in BY_SIZE:
        value, low, high = (factor * five[f"{name}_{end}"] for end in ("value", "low", "high"))
        rows.append([claim, link("05_dynamic_noise"), "no figure", f"{value:+.2f} {unit}", f"{low:+.2f} to {high:+.2f}", verdict(low)])
    value, floor = (100 * bottle[part]["i_auroc"] for part in ("result", "neighbours"))
    low, high = (100 * end for end in bottle["result"]["interval"]["i_auroc"])
    rows.append(["Pictures with logical defects (missing or exchanged parts) are told from good ones better than by neighbours alone.",
                 "[](results.md)", "no figure", f"{value:.1f} I-AUROC, neighbours {floor:.1f} (juice bottle)", f"{low:.1f} to {high:.1f}",
                 verdict(low - floor)])
    for name, title in (("visa", "VisA"), ("btad", "BTAD")):
        figures = ", ".join(f"{value:.1f} {head}" for value, head in zip(PAPER_MEAN[name], TITLES))
        rows.append([f"The mean over the categories of {title}.", link("12_reproducing_the_paper"), figures, "not run: data and GPU needed", "",
                     NOT_TESTABLE])
    return rows
