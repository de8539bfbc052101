"""What each detector reaches on each data set: means over seeds, and 95% intervals over
resampled test images.

Of a data set there are runs, one a seed: of `ddad evaluate`, or those in a receipt of
`ddad reproduce`. A record of an older form is shown as long as it lies there.
"""
from functools import cache
from statistics import mean

import numpy as np
from records import METRICS, PRODUCTS, load, recorded

from ddad.evaluation.resampling import percentiles
from ddad.reproduction import verdicts
from ddad.reproduction.tables import BASELINES

# a real set's name -> the receipt of its runs
RECEIPTS = {"loco_juice_bottle": "loco_juice_bottle", "mtd": "mtd_by_tile",
            "hazelnut": "hazelnut", "deeppcb": "deeppcb"}
SETS = (*PRODUCTS, *RECEIPTS)
METHOD, EXTENSION = "method", "a step per region"
BOTH = {"i_auroc": verdicts.auroc, "pro": verdicts.pro}


def runs_of(data: str, suffix: str = "", preset: str = "clean") -> list[dict]:
    """The runs of a data set by one preset, each with result and settings; none if none
    was made.

    suffix: of the receipt, by its autoencoder.
    """
    if not suffix and recorded(data) and preset == "clean":
        return [load(data)]
    receipt = receipt_of(data, suffix)
    runs = load(receipt)["runs"] if recorded(receipt) else []
    return [run for run in runs if run["preset"] == preset
            and (data not in PRODUCTS or run["category"] == data)]


def receipt_of(data: str, suffix: str = "") -> str:
    """Where the runs of a data set lie, but for the shipped detectors'."""
    return f"receipts/{'products' if data in PRODUCTS else RECEIPTS.get(data)}{suffix}"


@cache
def detectors(data: str) -> dict[str, dict]:
    """By name the metrics of the method and of the extension, as means over seeds, and
    of all that is simpler, which on the drawn products have the shipped detector's
    networks, on the real sets those of its first seed, but one call of every seed;
    under "intervals" those of I-AUROC and PRO, where there are.
    """
    runs = runs_of(data)
    if not runs:
        return {}
    found = {}
    for name, of in ((METHOD, runs), (EXTENSION, runs_of(data, "", "regional"))):
        if of:
            found[name] = {metric: mean(run["result"][metric] for run in of)
                           for metric in METRICS}
            found[name]["intervals"] = intervals(
                data, [run["images"] for run in of if "images" in run],
                in_receipt=name == EXTENSION
            ) or of[0]["result"].get("interval", {})
    asked = next(filter(None, (run.get("questions", run).get("baselines")
                               for run in runs)), {})
    for name, row in asked.items():
        each = [one for one in row.get("seeds", [row]) if "score" in one]
        found[BASELINES[name]] = row | {"intervals": intervals(data, each)}
    if data in RECEIPTS and (each := [run["one_call"] for run in runs_of(
            data, "", "regional") if "one_call" in run]):
        found[BASELINES["one_call"]] = {
            metric: mean(one[metric] for one in each) for metric in METRICS
            if metric in each[0]} | {"intervals": intervals(data, each)}
    return found


def intervals(data: str, seeds: list[dict], in_receipt: bool = False
              ) -> dict[str, tuple[float, float]]:
    """By metric 95% of the resamples of the test images, of the mean over the seeds;
    nothing where a record holds no images. in_receipt: the runs are of a receipt,
    though the data set has a record of its own.
    """
    if not seeds:
        return {}
    # a record of one product has its test images beside its scores
    receipt = (load(receipt_of(data)) if in_receipt or not recorded(data) else
               {"test": {data: load(data)["images"]}})
    run = {"category": data if data in receipt["test"] else next(iter(receipt["test"]))}
    return {metric: percentiles(np.mean([measure(receipt, run, one)[1]
                                         for one in seeds], 0))
            for metric, measure in BOTH.items()}
