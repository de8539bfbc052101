"""The figure of book/results.md: each method on each data set, with its interval, in
two panels that stand side by side on a screen and below one another on a phone.
"""
import json
import re
from pathlib import Path

from chapters import of_file, sha256
from detectors import BOTH, EXTENSION, METHOD, SETS, detectors
from records import BOOK, METRICS, name_of

from ddad.reproduction.tables import BASELINES

FILES = {metric: BOOK / f"results_{metric}.svg" for metric in BOTH}
ABOUT = {"i_auroc": "whole images", "pro": "regions"}
# method -> short name, colour, marker; from top to bottom
DRAWN = {
    METHOD: ("method", "#0072b2", "o"),
    EXTENSION: ("a step per region", "#c44e00", "D"),
    BASELINES["one_call"]: ("one U-Net call", "#00795a", "v"),
    BASELINES["neighbours"]: ("nearest neighbours", "#444444", "s"),
    BASELINES["patchcore"]: ("PatchCore", "#444444", "P"),
    BASELINES["padim"]: ("PaDiM", "#444444", "^"),
    BASELINES["autoencoder_pixels"]: ("autoencoder, pixels", "#767676", "X")}
LOWEST = 0.55           # where the axes begin; what lies below has an arrow there
# on a phone of 390 pixels a panel has 334, and the smallest letters 9.3
SIZE, POINTS = (3.6, 3.75), 7.2
STATE = re.compile(r"<dc:description>(\w+)</dc:description>")


def figures(metric: str) -> dict[str, dict[str, tuple]]:
    """By data set and method: value, and interval, or None where none is recorded."""
    return {data: {name: (of[name][metric], of[name]["intervals"].get(metric))
                   for name in DRAWN if name in of}
            for data in SETS if (of := detectors(data))}


def state(metric: str) -> str:
    """What a panel shows and how it is drawn, as one hash, which is kept in its file.
    """
    shown = json.dumps(figures(metric))
    return sha256(shown + of_file(Path(__file__)))


def stale(files: dict[str, Path] = FILES) -> list[str]:
    """The panels that do not show what the records say."""
    return [path.name for metric, path in files.items()
            if not path.exists() or STATE.findall(path.read_text(encoding="utf-8"))
            != [state(metric)]]


def draw(files: dict[str, Path] = FILES) -> None:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    look = {"font.size": POINTS, "svg.hashsalt": "results", "axes.spines.top": False,
            "axes.spines.right": False, "axes.spines.left": False}
    for metric, path in files.items():
        with plt.rc_context(look):
            figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
            panel(axes, metric)
            figure.savefig(path, metadata={"Date": None, "Creator": None,
                                           "Description": state(metric)})
            plt.close(figure)


def panel(axes, metric: str) -> None:
    """A band for each data set, and in it a row for each method."""
    place, ticks, found = 0.0, [], figures(metric)
    for n, (data, of) in enumerate(found.items()):
        if n % 2:
            axes.axhspan(place - 0.9, place + len(of) - 0.1, color="#f0f2f4", lw=0)
        ticks.append((place + (len(of) - 1) / 2, name_of(data)))
        for name in of:
            dot(axes, place, *of[name], *DRAWN[name][1:])
            place += 1
        place += 0.8
    axes.set(xlim=(LOWEST, 1.012), ylim=(place - 0.8, -0.9))
    axes.set_yticks(*zip(*ticks))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#d5d8dc", lw=0.5)
    axes.set_axisbelow(True)
    axes.set_title(f"{METRICS[metric]}: {ABOUT[metric]}", fontweight="bold", loc="left",
                   fontsize=POINTS + 1, x=-0.2)
    for text, colour, marker in DRAWN.values():
        axes.plot([], [], color=colour, marker=marker, ms=4, lw=0, label=text)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, -0.31), ncols=2, frameon=False,
                columnspacing=1, handletextpad=0.1, labelspacing=0.3)


def dot(axes, place: float, value: float, interval: tuple | None, colour: str,
        marker: str) -> None:
    """One method on one data set; an arrow at the edge, where it is below the axis."""
    from matplotlib.markers import CARETLEFTBASE
    if interval:
        axes.plot(interval, (place, place), color=colour, lw=1, solid_capstyle="butt")
    value, marker = max((value, marker), (LOWEST, CARETLEFTBASE))
    axes.plot(value, place, color=colour, marker=marker, ms=4, mec="white", mew=0.4,
              clip_on=False, zorder=3)


def described(metric: str) -> str:
    """A panel in words."""
    told = []
    for data, of in figures(metric).items():
        first = max(of, key=lambda name: of[name][0])
        best = [name for name in of if f"{of[name][0]:.3f}" == f"{of[first][0]:.3f}"]
        also = "" if METHOD in best else f", the method {of[METHOD][0]:.3f}"
        told.append(f"{name_of(data)}: {' and '.join(best)} {of[first][0]:.3f}{also}")
    return (f"{METRICS[metric]} as a dot for each method, with a line for its interval,"
            f" in a band for each data set. Highest on {'; '.join(told)}.")


def shown() -> str:
    """The panels, as the page has them."""
    panels = "\n".join(f":::{{grid-item}}\n![{described(metric)}]({path.name})\n:::"
                       for metric, path in FILES.items())
    return f"::::{{grid}} 1 1 2 2\n:gutter: 2\n:margin: 0\n\n{panels}\n::::"
