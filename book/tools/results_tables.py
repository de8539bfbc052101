"""The tables of book/results.md and book/tried.md on all data sets, and those of the
README.
"""
from statistics import mean, stdev

import results_figure
import torch
from beyond import apart
from detectors import (
    BOTH,
    EXTENSION,
    METHOD,
    RECEIPTS,
    SETS,
    detectors,
    runs_of,
)
from paired import OURS, PATCHES
from records import METRICS, PRODUCTS, compact, load, name_of, recorded, table

from ddad.calibration import CHOSEN
from ddad.reproduction.tables import BASELINES
from ddad.reproduction.worth import OTHER_LATENTS
from ddad.settings import preset
from ddad.training import split

ONE_CALL = BASELINES["one_call"]
READ = """A dot is a mean over seeds, its line 95% of resamples of the test images. No
line: none is recorded. An arrow: it lies below the axis. A line of no width at 1.000
means few images, not certainty. In the table the best of a column is bold. *Neighbours
in place* and the autoencoder's features are left out here: see the tables in full. On
the drawn products *a step per region* has another training than the shipped detectors
above it: like stands beside like under [beyond the paper](#results-beyond)."""


def overview() -> str:
    """What all figures come to in four sentences, the figure, and the table."""
    found = {data: of for data in SETS if (of := detectors(data))}
    told = [on_products(found), on_real_sets(found), of_the_extension(),
            of_one_call()]
    missing = [name_of(data) for data in SETS if data not in found]
    return "\n\n".join([
        "\n".join(f"- {one}" for one in told), results_figure.shown(),
        compact(beside(found)), READ,
        *([f"Not run yet: {', '.join(missing)}."] if missing else [])])


def beside(found: dict[str, dict]) -> str:
    """I-AUROC above PRO: a row for each method of the figure, a column for each set."""
    best = {(data, metric): f"{max(row[metric] for row in of.values()):.3f}"
            for data, of in found.items() for metric in BOTH}
    marked = lambda text, most: f"**{text}**" if text == most else text
    rows = [[name, *("<br>".join(marked(f"{of[name][metric]:.3f}", best[data, metric])
                                 for metric in BOTH)
                     if name in of else "–" for data, of in found.items())]
            for name in results_figure.DRAWN]
    return table(["I-AUROC, and PRO", *map(name_of, found)], rows)


def on_products(found: dict[str, dict]) -> str:
    """The method's means over the drawn products, beside the best others."""
    def of(name: str, metric: str) -> float:
        return mean(found[data][name][metric] for data in PRODUCTS)

    patched = (*PATCHES, "local_neighbours")
    best = {metric: max((BASELINES[name] for name in patched),
                        key=lambda name, metric=metric: of(name, metric))
            for metric in BOTH}
    both = lambda tell: " and ".join(tell(metric) for metric in BOTH)
    return (
        f"**Drawn products.** On the mean of all {len(PRODUCTS)} the method has "
        + both(lambda metric: f"{METRICS[metric]} {of(METHOD, metric):.3f}")
        + "; the best that compares patches has " + both(
            lambda metric: f"{of(best[metric], metric):.3f} ({best[metric]})")
        + ", and one call of its own network, without the loop, "
        + both(lambda metric: f"{of(ONE_CALL, metric):.3f}") + ".")


def on_real_sets(found: dict[str, dict]) -> str:
    """On how many real sets something simpler is ahead of the method."""
    sets, said = [data for data in RECEIPTS if data in found], []
    for metric in BOTH:
        behind = 0
        for data in sets:
            simpler = {name: row[metric] for name, row in found[data].items()
                       if name not in (METHOD, EXTENSION)}
            behind += max(simpler.values()) > found[data][METHOD][metric]
        said.append(f"a better {METRICS[metric]} on {behind}")
    return (f"**Real images.** Of {len(sets)} sets, something simpler has "
            f"{' and '.join(said)}.")


def of_the_extension() -> str:
    """On how many sets a step for each region is surely above and below each other."""
    others = (("clean", "the paper's method"), ("patchcore", "PatchCore"),
              ("padim", "PaDiM"))
    return (f"**Beyond the paper.** {_of_sets()}, a step for each region is "
            + "; ".join(surely(OURS, other, named) for other, named in others)
            + ". Elsewhere they are not told apart.")


def of_one_call() -> str:
    """The same of one call of that network: what is left without the loop."""
    return (f"**Without the loop.** {_of_sets()}, one call of the extension's network "
            f"is {surely('one_call', 'clean', 'the method of the paper')}. The "
            f"extension is {surely(OURS, 'one_call', 'that call')}.")


def _of_sets() -> str:
    sets = {row["data"] for row in load("beyond")["differences"]}
    return f"Of {len(sets)} sets, and by the whole interval"


def surely(one: str, other: str, named: str) -> str:
    """On how many sets one method is by the whole interval above and below another."""
    sides = zip(*(apart(one, other, metric) for metric in BOTH))
    above, below = ("on " + " and ".join(
        f"{len(sets)} in {METRICS[metric]}" for metric, sets in zip(BOTH, side))
        if any(side) else "on none" for side in sides)
    return f"above {named} {above}, below it {below}"


def demo() -> str:
    found = load("demo")
    shown = {metric: METRICS[metric] for metric in ("i_auroc", "p_auroc", "pro")}
    rows = [[name, *(found[name][metric] for metric in shown)]
            for name in (*PRODUCTS, "mean")]
    others = "; ".join(
        f"{BASELINES[name]} {row['i_auroc']:.3f} / {row['pro']:.3f}"
        for name, row in found["mean"]["baselines"].items())
    made = f"Made in {found['seconds']:.0f} s on 2 CPU cores."
    return (table(["product", *shown.values()], rows)
            + f"\n\nMean I-AUROC / PRO of what is simpler: {others}.\n\n{made}")


def by_size() -> str:
    rows = []
    for name in recorded(*PRODUCTS):
        for third in load(name)["result"]["by_size"]:
            low, high = (f"{100 * share:.2f}%" for share in third["size"])
            rows.append([name, f"{low} to {high}", third["images"], third["pro"],
                         third["recall"]])
    head = ["product", "defect area", "images", "PRO", "recall at the threshold"]
    return table(head, rows)


def in_full(names: tuple[str, ...]) -> str:
    """A row a detector: data set, detector, metrics, with intervals where there are."""
    rows = []
    for data in names:
        for name, row in detectors(data).items():
            shown = {one: f"{row[one]:.3f}" for one in METRICS if one in row}
            for metric in BOTH:
                if interval := row["intervals"].get(metric):
                    shown[metric] += " ({:.3f} to {:.3f})".format(*interval)
            rows.append([name_of(data), name, *(shown.get(one, "") for one in METRICS)])
    return compact(table(["data set", "detector", *METRICS.values()], rows))


def baselines() -> str:
    return in_full(PRODUCTS)


def real() -> str:
    return in_full(tuple(RECEIPTS))


def autoencoders() -> str:
    """The sets that were run in both latent spaces: mean and deviation over the seeds.
    """
    rows = []
    for data, receipt in RECEIPTS.items():
        if not recorded(f"receipts/{receipt}{OTHER_LATENTS}"):
            continue
        for suffix, title in (("", "TAEF2, 32"), (OTHER_LATENTS, "TAESD, 4")):
            runs = load(f"receipts/{receipt}{suffix}")["runs"]
            for name, rules, of in by_detector(runs):
                rows.append([name_of(data), title, name, len(of), ", ".join(rules),
                             *(over(of, metric) for metric in BOTH)])
    return compact(table(["data set", "autoencoder, channels", "detector", "seeds",
                          "steps chosen, by seed",
                          *(METRICS[metric] for metric in BOTH)], rows))


def by_detector(runs: list[dict]) -> list[tuple[str, list[str], list[dict]]]:
    """Each detector's name, the step rules its seeds chose, and their metrics."""
    clean, regional = ([run for run in runs if run["preset"] == preset]
                       for preset in ("clean", "regional"))
    rules = lambda of: [run["settings"]["step_rule"] for run in of]
    alone = "autoencoder_pixels"            # draws nothing: of the first seed
    return [(METHOD, rules(clean), [run["result"] for run in clean]),
            (EXTENSION, rules(regional), [run["result"] for run in regional]),
            (ONE_CALL, [], [run["one_call"] for run in regional]),
            (BASELINES[alone], [], [clean[0]["questions"]["baselines"][alone]])]


def over(found: list[dict], metric: str) -> str:
    """Mean and standard deviation over runs."""
    values = [one[metric] for one in found]
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def at_threshold() -> str:
    """What the detectors find and flag at their own thresholds: means over seeds, and
    the lowest and highest.
    """
    rows = []
    for data in SETS:
        for name, kind in ((METHOD, "clean"), (EXTENSION, "regional")):
            if runs := runs_of(data, "", kind):
                rows.append([name_of(data), name, threshold_from(runs[0]), len(runs),
                             *(spread([run["result"][key] for run in runs])
                               for key in ("recall", "false_positive_rate"))])
    return table(["data set", "detector", "good images that it is of", "seeds",
                  "defective images found", "good images flagged"], rows)


def threshold_from(run: dict) -> int:
    """How many held-out images the run's threshold is of."""
    shared = preset().change(threshold_share=run["settings"]["threshold_share"])
    return len(split(torch.arange(run["held_out"]), shared)[1])


def spread(values: list[float]) -> str:
    """The mean as a share, and where there are several the lowest and the highest."""
    if len(values) == 1:
        return f"{values[0]:.0%}"
    return f"{mean(values):.0%} ({min(values):.0%} to {max(values):.0%})"


def settings() -> str:
    """What the runs differ in; below, what they share."""
    titles = {"preset": "preset", "step_rule": "step rule", "T_max": "$T_{max}$",
              "smallest_bin": "smallest bin", "guidance": "guidance",
              "latent_blur": "blur", "lam": "$\\lambda$", "train_length": "training",
              "tune_epochs": "epochs of fine-tuning", "image_size": "pixels",
              "seed": "seed"}
    # older records know neither the preset nor a step per region
    found = [(name_of(data), run["settings"]) for data in SETS
             for preset in ("clean", "regional") for run in runs_of(data, "", preset)]
    values = {name: {cell(s, name) for _, s in found} for name in titles}
    shown = [name for name in titles if len(values[name]) > 1]
    same = ", ".join(f"{titles[name]} {values[name].pop()}" for name in titles
                     if name not in shown)
    rows = [[data, *(cell(s, name) for name in shown)] for data, s in found]
    return (compact(table(["data set", *(titles[name] for name in shown)], rows))
            + (f"\n\nThe same in all: {same}." if same else ""))


def cell(settings: dict, name: str) -> str:
    """A setting; a dash where an older record lacks it."""
    value = settings.get(name, "–")
    return f"{value:g}" if isinstance(value, float) else str(value)


def regret() -> str:
    rows = []
    for name in recorded(*SETS):
        found = load(name).get("regret")
        if found:
            figures = [found[one][metric] for one in ("chosen", "best_on_test")
                       for metric in BOTH]
            rows.append([name, found["images"], *figures, *given_away(found)])
    head = ["data set", "images", "chosen: I-AUROC", "PRO", "best on test: I-AUROC",
            "PRO", "its other constants", "regret I-AUROC", "PRO"]
    return compact(table(head, rows))


def given_away(found: dict) -> list[str]:
    """Of an `evaluation.regret`: the best candidate's other constants, and how much
    better it is by either metric.
    """
    chosen, best = found["chosen"], found["best_on_test"]
    # older records lack some
    other = [f"{name.replace('_', ' ')} {cell(best, name)}" for name in CHOSEN
             if name in best and best[name] != chosen[name]]
    return [", ".join(other) or "the same",
            *(f"{found['regret'][metric]:+.3f}" for metric in BOTH)]


def ablation() -> str:
    """Each variant of each data set that an ablation was made of."""
    parts = []
    for data in SETS:
        if rows := variants(data):
            used = rows[0]["settings"]
            told = f"{used['image_size']} px, {used['train_length']} of training"
            parts.append(f"**{name_of(data)}**, {told}:\n\n{over_seeds(rows)}")
    return "\n\n".join(parts)


def variants(data: str) -> list[dict]:
    """A row a variant and seed, with its metrics and settings."""
    name = f"receipts/ablation_{data}"
    runs = load(name)["runs"] if recorded(name) else []
    return [run["result"] | {"variant": run["preset"], "settings": run["settings"]}
            for run in runs]


def over_seeds(rows: list[dict]) -> str:
    """A line a variant: the mean of each metric over its seeds, and its deviation."""
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        of = [row for row in rows if row["variant"] == variant]
        lines.append([variant, len(of), *(over(of, metric) for metric in METRICS)])
    return table(["variant", "seeds", *METRICS.values()], lines)


def false_alarms() -> str:
    """What thresholds promise and let through, on fresh good images."""
    return alarms("own", "trials")


def false_alarms_within() -> str:
    return within("own")


def false_alarms_training() -> str:
    """The same for thresholds from training images."""
    return within("training") + "\n\n" + alarms("training")


def alarms(*questions: str) -> str:
    rows = [[product, question, row["held_out"], f"{row['rate']:.0%}",
             f"{row['mean']:.1%}", f"{row['false_alarms']:.1%}",
             "{:.1%} to {:.1%}".format(*row["interval"])]
            for product, found in load("false_alarms")["products"].items()
            for question in questions for row in found[question]]
    return table(["product", "threshold from", "images", "asked", "expected",
                  "realised", "95% interval"], rows)


def within(question: str) -> str:
    """How many of its rows are within their intervals, and which are not."""
    rows = [(product, row)
            for product, found in load("false_alarms")["products"].items()
            for row in found[question]]
    inside = sum(row["within"] for _, row in rows)
    out = ", ".join(f"{product} at {row['rate']:.0%}" for product, row in rows
                    if not row["within"])
    return (f"Of {len(rows)} rates of false alarms, {inside} are within the interval "
            "that luck allows" + (f"; outside: {out}." if out else "."))


TABLES = {make.__name__: make for make in (
    overview, demo, by_size, baselines, real, autoencoders, at_threshold,
    settings, regret, ablation, false_alarms, false_alarms_within,
    false_alarms_training)}
