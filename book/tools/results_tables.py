"""The tables of book/results.md on all data sets, and those of the README."""
from statistics import mean, stdev

from records import METRICS, PRODUCTS, REAL, load, recorded, table

from ddad.calibration import CHOSEN


def demo() -> str:
    found = load("demo")
    shown = {**METRICS, "recall": "recall", "false_positive_rate": "false alarms"}
    rows = [[name, *(found[name].get(metric, "") for metric in shown)]
            for name in (*PRODUCTS, "mean")]
    made = f"Made in {found['seconds']:.0f} s on 2 CPU cores."
    return table(["product", *shown.values()], rows) + f"\n\n{made}"


def by_size() -> str:
    rows = []
    for name in recorded(*PRODUCTS):
        for third in load(name)["result"]["by_size"]:
            low, high = (f"{100 * share:.2f}%" for share in third["size"])
            rows.append([name, f"{low} to {high}", third["images"], third["pro"],
                         third["recall"]])
    head = ["product", "defect area", "images", "PRO", "recall at the threshold"]
    return table(head, rows)


def beside_baselines(names: tuple[str, ...]) -> list[list]:
    """A row a detector: data set, detector, metrics."""
    rows = []
    for name in recorded(*names):
        found = load(name)
        others = found["floors"]
        of = {"method": found["result"], "neighbours alone": others["neighbours"]}
        if "patchcore" in others:
            of["PatchCore"] = others["patchcore"]
        of["autoencoder alone, pixels"] = others["vae"]["pixels"]
        of["autoencoder alone, features"] = others["vae"]["features"]
        rows += [[name, what, *(one.get(metric, "") for metric in METRICS)]
                 for what, one in of.items()]
    return rows


def baselines() -> str:
    head = ["data set", "detector", *METRICS.values()]
    return table(head, beside_baselines(PRODUCTS))


def real() -> str:
    return table(["data set", "detector", *METRICS.values()], beside_baselines(REAL))


def real_short() -> str:
    """The method and its strong peers, without the average precision of pixels."""
    shown = ("method", "neighbours alone", "PatchCore")
    rows = [row[:-1] for row in beside_baselines(REAL) if row[1] in shown]
    return table(["data set", "detector", *METRICS.values()][:-1], rows)


def intervals() -> str:
    rows, metrics = [], ("i_auroc", "p_auroc", "pro")
    for name in recorded(*PRODUCTS, *REAL):
        found = load(name)["result"]
        told = []
        for metric in metrics:
            low, high = found["interval"][metric]
            told.append(f"{found[metric]:.3f} ({low:.3f} to {high:.3f})")
        rows.append([name, *told, found["recall"], found["false_positive_rate"]])
    head = ["data set", "I-AUROC", "P-AUROC", "PRO", "recall", "false alarms"]
    return table(head, rows)


def settings() -> str:
    names = ("T_max", "smallest_bin", "guidance", "latent_blur", "lam", "train_length",
             "tune_epochs", "image_size", "seed")
    rows = []
    for data in recorded(*PRODUCTS, *REAL):
        used = load(data)["settings"]
        rows.append([data, *(used.get(name, 0.0) for name in names)])
    return table(["data set", *names], rows)


def regret() -> str:
    rows = []
    for name in recorded(*PRODUCTS, *REAL):
        found = load(name).get("regret")
        if found:
            best = found["best_on_test"]
            constants = ", ".join(f"{k} {best[k]}" for k in CHOSEN if k in best)
            figures = [one[metric] for one in (found["chosen"], best)
                       for metric in ("i_auroc", "pro")]
            lost = [f"{found['regret'][metric]:+.3f}" for metric in ("i_auroc", "pro")]
            rows.append([name, found["images"], *figures, constants, *lost])
    head = ["data set", "images", "chosen: I-AUROC", "PRO", "best on test: I-AUROC",
            "PRO", "its constants", "regret I-AUROC", "PRO"]
    return table(head, rows)


def ablation() -> str:
    parts, names = [], {"T_max": "T_max", "smallest_bin": "smallest bin",
                        "guidance": "guidance", "lam": "lambda"}
    for data in (*PRODUCTS, *REAL):
        if recorded(f"ablation_{data}"):
            rows = load(f"ablation_{data}")
            used = rows[0]["settings"]
            constants = ", ".join(f"{name} {used[key]}" for key, name in names.items())
            size, length = used["image_size"], used["train_length"]
            parts += [f"**{data}**, {size} px, {length} of training, {constants}:\n",
                      over_seeds(rows) + "\n"]
    return "\n".join(parts).rstrip()


def over_seeds(rows: list[dict]) -> str:
    """A line a variant: the mean of each metric over its seeds, and its deviation."""
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        of = [row for row in rows if row["variant"] == variant]
        told = []
        for metric in METRICS:
            values = [row[metric] for row in of]
            spread = stdev(values) if len(values) > 1 else 0.0
            told.append(f"{mean(values):.3f} ± {spread:.3f}")
        lines.append([variant, len(of), *told])
    return table(["variant", "seeds", *METRICS.values()], lines)


TABLES = {make.__name__: make for make in (demo, by_size, baselines, real, real_short,
                                           intervals, settings, regret, ablation)}
