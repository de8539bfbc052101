"""book/data_flow.svg: what becomes of an image, drawn for a wide page and for a phone.

A box leads to its chapter, to the equation there, and to the function that computes it.
front_door.py writes the file; book/static/front_door.css shows one of the two drawings
and colours it as the theme.
"""
from __future__ import annotations

from dataclasses import dataclass
from html import escape

CHAPTERS = {2: "02_task_and_scores", 3: "03_diffusion_from_zero",
            4: "04_latent_projection", 5: "05_dynamic_noise", 6: "06_scaled_denoising",
            7: "07_fine_tuning", 8: "08_anomaly_map"}
WIDTH, HEIGHT = 128, 66          # of a box
HEAD = 5                         # of an arrow


@dataclass(frozen=True)
class Box:
    """title and note: what stands in it. equation: a label in the chapter. function: of
    the package, MODULE.NAME. before: not of an image, but of training.
    """

    title: str
    note: str
    chapter: int
    equation: str = ""
    function: str = ""
    before: bool = False


# a combining circumflex over x, z, T and e
X0_HAT, Z0_HAT, T_HAT, E_HAT = "x\u0302\u2080", "z\u0302\u2080", "T\u0302", "e\u0302"
BOXES = {
    "picture": Box("Picture x₀", "of one product", 2),
    "features": Box("Features φ(x₀)", "pooled to y", 5, "eq-distance",
                    "dynamic_noise.feature"),
    "distance": Box("Distance d", "to K nearest good y", 5, "eq-distance",
                    "dynamic_noise.mean_distance"),
    "bin": Box("Bin b", "where d falls", 5, "eq-step", "dynamic_noise.choose_bin"),
    "step": Box(f"Step {T_HAT}", "how far to go back", 5, "eq-step",
                "dynamic_noise.select_step"),
    "latent": Box("Latent z₀", "= s E(x₀)", 4, "eq-projection",
                  "latent_projection.LatentProjection.encode"),
    "start": Box(f"Start at {T_HAT}", "√ᾱ z₀, no noise", 6, "eq-scaled-start",
                 "scaled_denoising.scaled_denoising"),
    "loop": Box(f"Loop: ten rounds from {T_HAT} to 0", "", 6, "eq-ddim-step",
                "scaled_denoising.scaled_denoising"),
    "repainting": Box(f"Repainting {X0_HAT}", f"= D({Z0_HAT} / s)", 4, "eq-projection",
                      "latent_projection.LatentProjection.decode"),
    "latent map": Box("Latent map", f"|z₀ − {Z0_HAT}|", 8, "eq-latent-map",
                      "anomaly_map.latent_map"),
    "feature map": Box("Feature map", f"φ(x₀) against φ({X0_HAT})", 8, "eq-feature-map",
                       "anomaly_map.feature_map"),
    "map": Box("Anomaly map A", "both, smoothed", 8, "eq-map", "anomaly_map.combine"),
    "score": Box("Score", "max A", 8, "eq-map", "anomaly_map.score"),
    "noise": Box("Before: U-Net", "learns good latents", 3, "eq-loss",
                 "noise_predictor.epsilon_loss", before=True),
    "tuned": Box("Before: φ tuned", "to the decoder", 7, "eq-tuning-loss",
                 "fine_tuning.fine_tune", before=True),
}
# inside the loop: what stands there, and the equation
ROUND = (("ask", "e", "eq-ask"), ("guide", E_HAT, "eq-guide"),
         ("guess", Z0_HAT, "eq-repaint"), ("go back", "t", "eq-ddim-step"))


@dataclass(frozen=True)
class Layout:
    """name of its CSS class; width and height; the left upper corner of each box; the
    loop's width; arrows as corners (x, y), the last with the head.
    """

    name: str
    size: tuple[int, int]
    at: dict[str, tuple[int, int]]
    loop: int
    arrows: tuple[tuple[tuple[int, int], ...], ...]


WIDE = Layout(
    "wide", (700, 398),
    {"picture": (0, 0), "features": (143, 0), "distance": (286, 0), "bin": (429, 0),
     "step": (572, 0), "latent": (0, 106), "start": (143, 106), "loop": (286, 106),
     "latent map": (286, 248), "feature map": (286, 332), "repainting": (429, 332),
     "map": (143, 290), "score": (0, 290), "noise": (572, 248), "tuned": (572, 332)},
    414,
    (((128, 33), (143, 33)), ((271, 33), (286, 33)), ((414, 33), (429, 33)),
     ((557, 33), (572, 33)), ((64, 66), (64, 106)),
     ((636, 66), (636, 86), (207, 86), (207, 106)), ((128, 139), (143, 139)),
     ((271, 139), (286, 139)), ((350, 218), (350, 248)), ((493, 218), (493, 332)),
     ((429, 365), (414, 365)), ((286, 281), (279, 281), (279, 312), (271, 312)),
     ((286, 365), (279, 365), (279, 334), (271, 334)), ((143, 323), (128, 323)),
     ((636, 248), (636, 218))))
NARROW = Layout(
    "narrow", (350, 1026),
    {"picture": (111, 0), "latent": (0, 90), "features": (222, 90),
     "distance": (222, 180), "bin": (222, 270), "step": (222, 360), "start": (0, 360),
     "loop": (0, 450), "latent map": (0, 594), "repainting": (222, 594),
     "feature map": (222, 684), "map": (111, 774), "score": (111, 864),
     "noise": (0, 960), "tuned": (222, 960)},
    350,
    (((143, 66), (143, 78), (64, 78), (64, 90)),
     ((207, 66), (207, 78), (286, 78), (286, 90)), ((286, 156), (286, 180)),
     ((286, 246), (286, 270)), ((286, 336), (286, 360)), ((64, 156), (64, 360)),
     ((222, 393), (128, 393)), ((64, 426), (64, 450)), ((64, 562), (64, 594)),
     ((286, 562), (286, 594)), ((286, 660), (286, 684)),
     ((64, 660), (64, 762), (150, 762), (150, 774)),
     ((286, 750), (286, 762), (200, 762), (200, 774)), ((175, 840), (175, 864))))


def page_of_both() -> str:
    return "\n".join(drawing(layout) for layout in (WIDE, NARROW))


def drawing(layout: Layout) -> str:
    width, height = layout.size
    parts = [arrow(corners) for corners in layout.arrows]
    parts += [loop(*at, layout.loop) if name == "loop" else box(BOXES[name], *at)
              for name, at in layout.at.items()]
    name = f"data-flow-{layout.name}"
    return (f'<svg class="data-flow {name}" viewBox="-1 -1 {width + 2} {height + 2}" '
            f'width="{width}" role="group" aria-labelledby="{name}">\n'
            f'<title id="{name}">The flow of data: from the picture to its latent and '
            "its features, to the step, through the loop, to two maps and the score"
            "</title>\n" + "\n".join(parts) + "\n</svg>")


def box(one: Box, x: int, y: int) -> str:
    parts = [rectangle(x, y, WIDTH, HEIGHT, "before" if one.before else "box"),
             text(x + WIDTH / 2, y + 19, one.title, "title")]
    if one.note:
        parts.append(text(x + WIDTH / 2, y + 35, one.note, "note"))
    return "\n".join([*parts, links(one, x + WIDTH / 2, y + HEIGHT - 25)])


def loop(x: int, y: int, width: int) -> str:
    """The box of the loop, with its four equations in a row, and the way back."""
    one, room = BOXES["loop"], width / 4
    parts = [rectangle(x, y, width, 112, "box"),
             text(x + width / 2, y + 19, one.title, "title")]
    for i, (word, symbol, label) in enumerate(ROUND):
        left = x + i * room + 7
        inside = (rectangle(left, y + 30, room - 14, 30, "inner")
                  + text(left + room / 2 - 7, y + 50, f"{word} {symbol}", "note"))
        parts.append(anchor(address(one.chapter, label), f"{word} {symbol}", inside))
        if i:
            parts.append(arrow(((left - 14, y + 45), (left, y + 45))))
    parts.append(arrow(((x + width - room / 2, y + 60), (x + width - room / 2, y + 72),
                        (x + room / 2, y + 72), (x + room / 2, y + 60))))
    return "\n".join([*parts, links(one, x + width / 2, y + 86)])


def links(one: Box, middle: float, top: float) -> str:
    """Chapter, equation and code in a row, each as tall as a finger needs."""
    shown = [(f"ch. {one.chapter}", 36, address(one.chapter))]
    if one.equation:
        shown.append(("equation", 54, address(one.chapter, one.equation)))
    if one.function:
        code = f"api/method.html#ddad.{one.function}"
        shown.append(("code", 34, code))
    left, out = middle - sum(width for _, width, _ in shown) / 2, []
    for word, width, target in shown:
        inside = (rectangle(left, top, width, 24, "hit")
                  + text(left + width / 2, top + 16, word, "link"))
        out.append(anchor(target, f"{word}, {one.title}", inside))
        left += width
    return "\n".join(out)


def address(chapter: int, equation: str = "") -> str:
    page = f"../notebooks/{CHAPTERS[chapter]}.html"
    return page + (f"#equation-{equation}" if equation else "")


def anchor(target: str, label: str, inside: str) -> str:
    return f'<a href="{target}" aria-label="{escape(label)}">{inside}</a>'


def rectangle(x: float, y: float, width: float, height: float, name: str) -> str:
    return (f'<rect class="{name}" x="{x:g}" y="{y:g}" width="{width:g}" '
            f'height="{height:g}" rx="6"/>')


def text(x: float, y: float, words: str, name: str) -> str:
    return f'<text class="{name}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def arrow(corners: tuple[tuple[float, float], ...]) -> str:
    """A line through the corners, with a head at its end."""
    (x0, y0), (x, y) = corners[-2:]
    dx, dy = ((b > a) - (b < a) for a, b in ((x0, x), (y0, y)))
    back = [(x - HEAD * dx + half * dy, y - HEAD * dy + half * dx)
            for half in (.7 * HEAD, -.7 * HEAD)]
    line = " ".join(f"{a:g},{b:g}" for a, b in corners)
    head = " ".join(f"{a:g},{b:g}" for a, b in (*back, (x, y)))
    return (f'<polyline class="arrow" points="{line}"/>'
            f'<polygon class="head" points="{head}"/>')
