"""Figures that others have published, in percent, each with its source: what a run of
this package is compared with.
"""
from __future__ import annotations

from textwrap import fill

from ..settings import preset

SOURCE = "Tebbe and Tayyub, CVPR 2024 workshops (arXiv 2401.04463)"
METRICS = ("i_auroc", "pro")

# data set -> category -> (I-AUROC, PRO)
PAPER = {
    "visa": {
        "candle": (95.6, 92.7), "capsules": (88.5, 95.7), "cashew": (94.2, 89.4),
        "chewinggum": (99.7, 94.1), "fryum": (96.5, 91.7), "macaroni1": (94.3, 99.3),
        "macaroni2": (92.5, 98.3), "pcb1": (97.7, 96.4), "pcb2": (98.3, 94.0),
        "pcb3": (97.4, 94.2), "pcb4": (99.8, 86.4), "pipe_fryum": (96.9, 97.2),
    },
    "btad": {"01": (98.9, 80.0), "02": (87.0, 71.7), "03": (99.7, 97.8)},
}

# the means over categories that the paper prints: (I-AUROC, PRO)
PAPER_MEAN = {"visa": (96.0, 94.1), "btad": (95.2, 83.2)}

# ablations on VisA, means over the categories: (I-AUROC, PRO, P-AUROC)
STEPS = {
    "25% of T_max": (95.2, 94.3, 96.7), "50% of T_max": (94.7, 94.1, 96.6),
    "75% of T_max": (95.0, 94.2, 96.7), "T_max": (95.4, 94.0, 96.7),
    "dynamic": (96.0, 94.1, 97.9),
}
SCALING_AND_TUNING = {
    "neither": (89.2, 82.0, 92.3), "scaling": (95.4, 92.0, 96.9),
    "fine-tuning": (90.8, 83.8, 93.2), "both": (96.0, 94.1, 97.9),
}


def beside(run: dict) -> str:
    """A finished run (its run.json) beside the paper's row, and the settings in which
    it deviates from the preset "paper".
    """
    category, result = run["category"], run["result"]
    ours = {"I-AUROC": result["i_auroc"], "PRO": result["pro_exact"]}
    paper = PAPER.get(run["dataset"], {}).get(category)
    told = [f"{name} {value:.3f}" for name, value in ours.items()]
    if paper:
        told = [f"{one} (paper {theirs / 100:.3f}, {value - theirs / 100:+.3f})"
                for one, value, theirs in zip(told, ours.values(), paper)]
    deviates = [f"{name}={here} ({there})" for name, (there, here)
                in deviations(run["settings"]).items()]
    told = f"{category}, {run['preset']}, seed {run['seed']}: " + ", ".join(told)
    how = "deviates from the preset paper, whose value follows in brackets: "
    how = how + ", ".join(deviates) if deviates else "all settings are the paper's"
    return told + "\n" + fill(how, 88, initial_indent="  ", subsequent_indent="  ",
                              break_long_words=False, break_on_hyphens=False)


def deviations(settings: dict) -> dict[str, tuple]:
    """setting -> (the preset paper's value, here), where they differ; the seed is left
    out.
    """
    theirs = preset("paper").as_dict()
    return {name: (theirs[name], here) for name, here in settings.items()
            if name not in ("preset", "seed") and here != theirs.get(name)}


def missing(receipt: dict) -> str:
    """Which of the paper's categories a receipt lacks, by preset and seed; empty where
    it lacks none or the paper has no figures of the data set.
    """
    published, lines = PAPER.get(receipt["dataset"], {}), []
    cells = {(run["preset"], run["seed"], run["category"]) for run in receipt["runs"]}
    for chosen, seed in sorted({cell[:2] for cell in cells}):
        lacks = [one for one in published if (chosen, seed, one) not in cells]
        if lacks:
            lines.append(fill(
                f"{chosen}, seed {seed}: {len(lacks)} of {len(published)} categories "
                f"are still missing, and so is the mean beside the paper's: "
                f"{', '.join(lacks)}", 88, subsequent_indent="  "))
    return "\n".join(lines)
