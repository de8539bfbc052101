"""What several commands print."""
from __future__ import annotations

import sys
from pathlib import Path

COLUMNS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO",
           "aupimo": "AUPIMO", "p_ap": "P-AP", "recall": "recall",
           "false_positive_rate": "false alarms"}


def table(results: dict[str, dict]) -> str:
    """One row a name, the metrics as columns; empty where a name has none."""
    width = max(map(len, results)) + 2

    def line(name: str, cells) -> str:
        return f"{name:<{width}}" + "".join(f"{cell:>13}" for cell in cells)

    def cells(metrics: dict):
        values = map(metrics.get, COLUMNS)
        return ("" if value is None else f"{value:.4f}" for value in values)

    rows = (line(name, cells(metrics)) for name, metrics in results.items())
    return "\n".join([line("", COLUMNS.values()), *rows])


def best(results: dict[str, dict]) -> str:
    """The row that is ahead by I-AUROC and the one by PRO. results: as of `table`, the
    method first; where another is level with it, that one, which is simpler.
    """
    by_metric = []
    for metric in ("i_auroc", "pro"):
        if None in (values := [row[metric] for row in results.values()]):
            continue                                    # PRO, where there is no mask
        value = max(values)
        *level, name = [name for name, row in results.items() if row[metric] == value]
        by_metric.append(f"by {COLUMNS[metric]} {name}, {value:.4f}"
                         + (f", level with {len(level)} more" if level else ""))
    return (f"ahead: {'; '.join(by_metric)}. Where a simpler method is ahead in what "
            "you need, use that one")


def kept(detector, flagged: int, good: int) -> str:
    """Whether `flagged` of `good` test images are more false alarms than the promise
    allows: than a binomial count exceeds in one of 20 cases, over draws of the test
    images and of the M held-out ones, whose k-th largest score is the threshold (then
    the rate itself is drawn, from Beta(k, M + 1 - k)).
    """
    from scipy.stats import betabinom

    from ..conformal import promised, rank
    M, rate = len(detector.held_out_scores), detector.settings.false_alarms
    k = rank(M, rate)
    most = int(betabinom.ppf(0.95, good, k, M + 1 - k))
    verdict = ("more than the promise allows: these images are hardly like the held-out"
               " ones" if flagged > most else "within what the promise allows")
    return (f"false alarms: promised {promised(M, rate):.1%} on average, measured "
            f"{flagged / good:.1%}, {flagged} of {good} good images; {verdict} (up to "
            f"{most} in 19 of 20 cases, with {M} held-out images)")


def counted(n: int, what: str) -> str:
    """"1 image", "2 images"."""
    return f"{n} {what}" + "s" * (n != 1)


def warn(*said: str) -> None:
    """What the user should know and that stops nothing, a line each."""
    for one in said:
        print(f"warning: {one}", file=sys.stderr)


def left_out(root: Path, used: set[Path], parts: tuple[str, ...]) -> None:
    """A warning of what lies beside the images in use, or in these parts of `root`, and
    is not read.
    """
    from ..data.layouts import ignored
    if found := ignored(root, used, parts):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        warn(f"left out of {root}: {'; '.join(found[:3])}{more}")


def no_threshold(detector) -> str:
    """Why a detector has none."""
    if detector.held_out_scores is None:
        return "no image was held out"
    return 'with map_range "test", new images are on another scale than held-out ones'


def promise(detector) -> str:
    """A detector's threshold, and the false alarms to expect of it."""
    from ..conformal import expected, promised, rank
    if detector.threshold is None:
        return f"no threshold: {no_threshold(detector)}"
    M, rate = len(detector.held_out_scores), detector.settings.false_alarms
    mean, low, high = expected(M, rate)
    largest = ", the largest of them" if rank(M, rate) == 1 else ""
    said = (f"threshold {detector.threshold:.4g}, from the scores of {M} held-out "
            f"images{largest}: {promised(M, rate):.1%} false alarms promised; over "
            f"draws of so many images {mean:.1%} on average, and {low:.1%} to "
            f"{high:.1%} in nine of ten")
    if M == detector.record.get("held_out"):
        said += "; only roughly, as constants and ranges come from the same images"
    return said
