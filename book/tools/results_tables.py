"""The tables of book/results.md on all data sets, and those of the README.

Of a data set there are runs, one a seed: of `ddad evaluate`, or those in a receipt of
`ddad reproduce`. A record of an older form is shown as long as it lies there.
"""
from statistics import mean, stdev

from records import METRICS, PRODUCTS, load, recorded, table

from ddad.calibration import CHOSEN
from ddad.reproduction.tables import BASELINES, _baselines_of

# a real set's name -> the receipt of its runs
RECEIPTS = {"loco_juice_bottle": "loco_juice_bottle", "mtd": "mtd_by_tile",
            "hazelnut": "hazelnut", "deeppcb": "deeppcb"}
SETS = (*PRODUCTS, *RECEIPTS)
METHOD, EXTENSION = "method", "a step a region"
BOTH = ("i_auroc", "pro")


def runs_of(data: str, suffix: str = "", preset: str = "clean") -> list[dict]:
    """The runs of a data set by one preset, each with result and settings; none if none
    was made.

    suffix: of the receipt, by its autoencoder.
    """
    if not suffix and recorded(data):
        return [load(data)] if preset == "clean" else []
    receipt = f"receipts/{RECEIPTS.get(data)}{suffix}"
    runs = load(receipt)["runs"] if recorded(receipt) else []
    return [run for run in runs if run["preset"] == preset]


def detectors(data: str) -> dict[str, dict]:
    """By name the metrics of the method and of the extension, as means over seeds, and
    of all that is simpler.
    """
    runs = runs_of(data)
    if not runs:
        return {}
    own = {name: {metric: mean(run["result"][metric] for run in of)
                  for metric in METRICS}
           for name, of in ((METHOD, runs), (EXTENSION, runs_of(data, "", "regional")))
           if of}
    found = next(filter(None, (_baselines_of(run.get("questions", run))
                               for run in runs)), {})
    return own | {BASELINES[name]: row for name, row in found.items()}


def overview() -> str:
    """I-AUROC and PRO of all detectors on all data sets, and what they come to."""
    found = {data: of for data in SETS if (of := detectors(data))}
    names = [name for name in (METHOD, EXTENSION, *BASELINES.values())
             if any(name in of for of in found.values())]
    rows = [[name, *(" / ".join(f"{of[name][metric]:.3f}" for metric in BOTH)
                     if name in of else "–" for of in found.values())]
            for name in names]
    return (table(["I-AUROC / PRO", *found], rows) + "\n\n"
            + " ".join([on_products(found), on_real_sets(found), not_run(found)]))


def on_products(found: dict[str, dict]) -> str:
    """The method's means over the drawn products, beside the best other ones."""
    of = [found[data] for data in PRODUCTS]
    shared = [name for name in of[0] if all(name in one for one in of)
              and name != EXTENSION]
    told = []
    for metric, title in ((metric, METRICS[metric]) for metric in BOTH):
        means = {name: mean(one[name][metric] for one in of) for name in shared}
        own = means.pop(METHOD)
        best = max(means, key=means.get)
        told.append(f"{title} {own:.3f} ({best}: {means[best]:.3f})")
    return ("On the mean of the drawn products the method has "
            f"{' and '.join(told)}, in brackets the best of the others.")


def on_real_sets(found: dict[str, dict]) -> str:
    """Where the method is ahead of all that is simpler."""
    said = []
    for metric, title in ((metric, METRICS[metric]) for metric in BOTH):
        ahead, behind = [], []
        for data in (data for data in RECEIPTS if data in found):
            figures = {name: row[metric] for name, row in found[data].items()}
            own = figures.pop(METHOD)
            figures.pop(EXTENSION, None)
            (ahead if own >= max(figures.values()) else behind).append(data)
        said.append(f"by {title} it is ahead of all that is simpler on "
                    f"{', '.join(ahead) or 'none'}, and behind one on "
                    f"{', '.join(behind) or 'none'}")
    return f"Of the real sets, {'; '.join(said)}."


def not_run(found: dict[str, dict]) -> str:
    missing = [data for data in SETS if data not in found]
    return f"Not run yet: {', '.join(missing)}." if missing else ""


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


def beside(names: tuple[str, ...], metrics: tuple[str, ...] = tuple(METRICS)) -> str:
    """A row a detector: data set, detector, metrics."""
    rows = [[data, name, *(row.get(metric, "") for metric in metrics)]
            for data in names for name, row in detectors(data).items()]
    return table(["data set", "detector", *(METRICS[one] for one in metrics)], rows)


def baselines() -> str:
    return beside(PRODUCTS)


def real() -> str:
    return beside(tuple(RECEIPTS))


def autoencoders() -> str:
    """The method in either latent space, mean and deviation over the seeds."""
    rows = []
    for data, receipt in RECEIPTS.items():
        for suffix, title in (("", "TAEF2, 32 channels"), ("_taesd", "TAESD, 4")):
            if recorded(f"receipts/{receipt}{suffix}"):
                runs = [run for run in load(f"receipts/{receipt}{suffix}")["runs"]
                        if run["preset"] == "clean"]
                size = runs[0]["settings"]["image_size"]
                length = runs[0]["settings"]["train_length"]
                rows.append([data, title, size, length, len(runs),
                             *(over(runs, metric) for metric in BOTH)])
    return table(["data set", "autoencoder", "pixels", "training", "seeds",
                  *(METRICS[metric] for metric in BOTH)], rows)


def over(runs: list[dict], metric: str) -> str:
    """Mean and standard deviation over runs."""
    values = [run["result"][metric] for run in runs]
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def intervals() -> str:
    rows, metrics = [], ("i_auroc", "p_auroc", "pro")
    for name in recorded(*SETS):
        found, told = load(name)["result"], []
        for metric in metrics:
            low, high = found["interval"][metric]
            told.append(f"{found[metric]:.3f} ({low:.3f} to {high:.3f})")
        rows.append([name, found.get("bootstrap_repeats", 40), *told, found["recall"],
                     found["false_positive_rate"]])
    head = ["data set", "resamples", "I-AUROC", "P-AUROC", "PRO", "recall",
            "false alarms"]
    return table(head, rows)


def settings() -> str:
    names = ("preset", "step_rule", "T_max", "smallest_bin", "guidance", "latent_blur",
             "lam", "train_length", "tune_epochs", "image_size", "seed")
    # older records know neither the preset nor a step a region
    rows = [[data, *(run["settings"].get(name, "–") for name in names)]
            for data in SETS for preset in ("clean", "regional")
            for run in runs_of(data, "", preset)]
    return table(["data set", *names], rows)


def regret() -> str:
    rows = []
    for name in recorded(*SETS):
        found = load(name).get("regret")
        if found:
            best = found["best_on_test"]
            constants = ", ".join(f"{k} {best[k]}" for k in CHOSEN if k in best)
            figures = [one[metric] for one in (found["chosen"], best)
                       for metric in BOTH]
            lost = [f"{found['regret'][metric]:+.3f}" for metric in BOTH]
            rows.append([name, found["images"], *figures, constants, *lost])
    head = ["data set", "images", "chosen: I-AUROC", "PRO", "best on test: I-AUROC",
            "PRO", "its constants", "regret I-AUROC", "PRO"]
    return table(head, rows)


def ablation() -> str:
    """Each variant of each data set that an ablation was made of."""
    parts = []
    for data in SETS:
        rows, old = variants(data), recorded(f"ablation_{data}")
        if rows:
            used = rows[0]["settings"]
            told = f"{used['image_size']} px, {used['train_length']} of training"
            told += ", one set of constants for all" if old else ""
            parts.append(f"**{data}**, {told}:\n\n{over_seeds(rows)}")
    return "\n\n".join(parts)


def variants(data: str) -> list[dict]:
    """A row a variant and seed, with its metrics and settings."""
    if recorded(f"ablation_{data}"):
        return load(f"ablation_{data}")
    name = f"receipts/ablation_{data}"
    runs = load(name)["runs"] if recorded(name) else []
    return [run["result"] | {"variant": run["preset"], "settings": run["settings"]}
            for run in runs]


def over_seeds(rows: list[dict]) -> str:
    """A line a variant: the mean of each metric over its seeds, and its deviation."""
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        of = [{"result": row} for row in rows if row["variant"] == variant]
        lines.append([variant, len(of), *(over(of, metric) for metric in METRICS)])
    return table(["variant", "seeds", *METRICS.values()], lines)


def false_alarms() -> str:
    """What thresholds promise and let through, on fresh good images."""
    rows = [[product, question, row["held_out"], f"{row['rate']:.0%}",
             f"{row['mean']:.1%}", f"{row['false_alarms']:.1%}",
             "{:.1%} to {:.1%}".format(*row["interval"])]
            for product, found in load("false_alarms")["products"].items()
            for question in ("own", "trials", "training") for row in found[question]]
    return table(["product", "threshold from", "held out", "asked", "expected",
                  "realised", "95% interval"], rows)


TABLES = {make.__name__: make for make in (
    overview, demo, by_size, baselines, real, autoencoders, intervals,
    settings, regret, ablation, false_alarms)}
