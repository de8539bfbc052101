"""What the products are made of: parts with their looks and sizes, and marks."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from .canvas import Canvas, Pose
from .fabric import PALETTE, THREAD_KINDS, weave


class Part(NamedTuple):
    """Something to draw: a part, a key of SHAPES, or a mark.

    Its kind, centre (x right, y down), turn in radians, size (w, h; marks only), and
    the seed of its look.
    """
    kind: str
    x: float
    y: float
    turn: float = 0.0
    w: float = 0.0
    h: float = 0.0
    look: int = 0


DIFFERENT = .06  # of a colour in 0..1: two drawings differ by more than this

# --- looks of the parts: rows of (dx, dy, width, height, corner radius, colour) -------

BLACK, DARK, GREY = (.07, .07, .08), (.17, .18, .20), (.45, .46, .48)
METAL, WHITE, FOIL = (.76, .77, .79), (.95, .95, .93), (.70, .72, .75)
RED, TEAL, BLUE = (.82, .13, .15), (.05, .55, .58), (.12, .25, .68)
GOLD, TAN, BROWN = (.86, .66, .22), (.80, .64, .44), (.35, .16, .05)
GREEN, YELLOW, FLOOR = (.05, .36, .22), (.95, .80, .15), (.50, .53, .58)


def pins(count: int, length: float, reach: float) -> list[tuple]:
    """Pins along both long sides of a chip, which reach this far to either side."""
    middles = (np.arange(count) + 0.5) * length / count - length / 2
    return [(dx, 0, 0.014, 2 * reach, 0.003, METAL) for dx in middles]


def pill(w: float, h: float, colour: Sequence[float]) -> list[tuple]:
    """A domed pill: the rim is darker, the top lighter."""
    mix = np.asarray(colour)
    return [
        (0, 0, w, h, h / 2, mix * .72),
        (0, 0, .9 * w, .88 * h, .44 * h, mix),
        (-.1 * w, -.16 * h, .4 * w, .22 * h, .11 * h, mix * .55 + .45),
    ]


def capsule(colour: Sequence[float]) -> list[tuple]:
    return [*pill(.18, .094, WHITE), (-.045, 0, .09, .094, .043, colour)]


def resistor(*bands: Sequence[float]) -> list[tuple]:
    return [
        (0, 0, .19, .010, .004, METAL),
        (0, 0, .13, .046, .018, TAN),
        *[(-.04 + .027 * i, 0, .013, .046, .002, band) for i, band in enumerate(bands)],
    ]


def can(colour: Sequence[float]) -> list[tuple]:
    return [
        (0, 0, .13, .13, .065, colour),
        (0, 0, .105, .105, .0525, METAL),
        (-.04, 0, .025, .06, .008, colour),
        (.012, 0, .05, .005, .002, GREY),
        (.012, 0, .005, .05, .002, GREY),
    ]


def lamp(colour: Sequence[float]) -> list[tuple]:
    return [(0, 0, .066, .066, .033, colour), (-.009, -.009, .022, .022, .011, WHITE)]


def smd(w: float, colour: Sequence[float]) -> list[tuple]:
    return [(0, 0, .058, .030, .003, METAL), (0, 0, w, .030, .001, colour)]


SHAPES: dict[str, list[tuple]] = {
    # the board's
    "ic": [
        *pins(8, .27, .105),
        (0, 0, .28, .17, .008, BLACK),
        (-.115, .055, .022, .022, .011, GREY),
        (.01, -.02, .15, .012, .003, GREY),
        (-.02, .02, .09, .012, .003, GREY),
    ],
    "chip": [
        *pins(5, .13, .09),
        *[(dy, dx, h, w, r, c) for dx, dy, w, h, r, c in pins(5, .13, .09)],
        (0, 0, .15, .15, .008, DARK),
        (-.05, -.05, .02, .02, .01, METAL),
        (0, .01, .07, .012, .003, GREY),
    ],
    "connector": [
        (0, 0, .11, .34, .006, WHITE),
        (.005, 0, .07, .30, .004, (.72, .72, .70)),
        *[(.01, y, .035, .022, .003, GOLD) for y in np.linspace(-.12, .12, 6)],
    ],
    "crystal": [
        (0, 0, .15, .062, .031, METAL),
        (0, 0, .125, .042, .021, (.88, .89, .90)),
    ],
    "film": [
        (0, 0, .13, .08, .012, BLUE),
        (0, -.005, .10, .045, .008, (.25, .42, .85)),
    ],
    "resistor brown": resistor(BROWN, BLACK, RED, GOLD),
    "resistor blue": resistor(BLUE, BLUE, BROWN, WHITE),
    "can black": can(BLACK),
    "can blue": can(BLUE),
    "lamp red": lamp(RED),
    "lamp yellow": lamp(YELLOW),
    "smd tan": smd(.032, TAN),
    "smd black": smd(.036, BLACK),
    # the blister pack's
    "cavity": [
        (0, 0, .225, .225, .1125, (.88, .89, .91)),
        (.003, .003, .212, .212, .106, (.38, .40, .45)),
        (0, 0, .20, .20, .10, FLOOR),
    ],
    "bite": [(0, 0, 1, 1, .5, FLOOR)],
    "round white": pill(.17, .17, WHITE),
    "round red": pill(.17, .17, RED),
    "round teal": pill(.17, .17, TEAL),
    "pellet white": pill(.056, .056, WHITE),
    "pellet red": pill(.056, .056, RED),
    "pellet teal": pill(.056, .056, TEAL),
    "capsule red": capsule(RED),
    "capsule teal": capsule(TEAL),
}


# --- drawing --------------------------------------------------------------------------

# marks that are one blot: colour, opacity
BLOTS = {
    "stain": ((.28, .17, .07), .75),
    "dirt": ((.12, .08, .05), .95),
    "hole": (BLACK, 1),
}


def draw_part(canvas: Canvas, part: Part) -> None:
    """Draw a part with its shadow, or a mark."""
    kind, x, y, turn, w, h, look = part
    if kind in SHAPES:
        _draw_shape(canvas, part)
    elif kind in THREAD_KINDS:
        where = canvas.near(x, y, w, h)
        across, along = canvas.x[where], canvas.y[where]
        inside = (np.abs(across - x) < w / 2) & (np.abs(along - y) < h / 2)
        canvas.rgb[where] = weave(across, along, kind, inside)
    elif kind in BLOTS:
        colour, opacity = BLOTS[kind]
        if kind == "hole":  # frayed, light threads around it
            canvas.blob(x, y, w + .012, look, PALETTE[0] * 1.1)
        canvas.blob(x, y, w, look, colour, soft=.012, opacity=opacity)
    elif kind == "bridge":
        canvas.box(x, y, w, h, h / 2, METAL, turn)
        canvas.box(x, y, .6 * w, .3 * h, .15 * h, WHITE, turn)
    elif kind == "broken_thread":
        canvas.box(x, y, w, h, .004, BLACK, turn, opacity=.9)
    elif kind in ("scratch", "tear"):
        _draw_strokes(canvas, part)


def _draw_shape(canvas: Canvas, part: Part) -> None:
    """A part of SHAPES, over its shadow where it stands up."""
    kind, x, y, turn, w, _, _ = part
    size, c, s = w or 1, np.cos(turn), np.sin(turn)
    if kind not in ("cavity", "bite"):
        largest = max(SHAPES[kind], key=lambda row: row[2] * row[3])
        shadow = (*largest[2:5], BLACK)
        canvas.box(x + .006, y + .008, *shadow, turn, soft=.016, opacity=.45)
    for dx, dy, width, height, radius, colour in SHAPES[kind]:
        at = x + c * dx - s * dy, y + s * dx + c * dy
        canvas.box(*at, size * width, size * height, size * radius, colour, turn)


def _draw_strokes(canvas: Canvas, part: Part) -> None:
    """A scratch or a tear: a chain of short strokes that wanders."""
    kind, x, y, turn, w, h, look = part
    scratch, rng = kind == "scratch", np.random.default_rng(look)
    wander, colour = (.15, (.78, .86, .72)) if scratch else (.7, BLACK)
    steps = max(2, round(w / .03))
    stroke, x, y = w / steps, x - w / 2 * np.cos(turn), y - w / 2 * np.sin(turn)
    for _ in range(steps):
        angle = turn + wander * rng.uniform(-1, 1)
        if not scratch:
            canvas.box(x - .004, y - .004, stroke + h, h, h / 2, WHITE, angle)
        canvas.box(x, y, stroke + h, h, h / 2, colour, angle)
        x, y = x + stroke * np.cos(angle), y + stroke * np.sin(angle)


# --- sizes ----------------------------------------------------------------------------

def covered(parts: Iterable[Part], size: int, pose: Pose) -> np.ndarray:
    """The pixels that these parts hide, whatever their colour: bool (size, size).

    Marks are left out.
    """
    canvas = Canvas(size, pose, (-9, -9, -9))
    for part in parts:
        if part.kind in SHAPES and part.kind != "bite":
            draw_part(canvas, part)
    return (canvas.image() > -4.5).all(-1)


@cache
def part_area(kind: str) -> float:
    """The area of a part, as a fraction of the image."""
    return float(covered([Part(kind, .5, .5)], 128, Pose()).mean())


@cache
def reversed_area(kind: str) -> float:
    """The area in which a part the wrong way round looks different."""
    def drawn(turn: float) -> np.ndarray:
        canvas = Canvas(128, Pose(), GREY)
        draw_part(canvas, Part(kind, .5, .5, turn))
        return canvas.image()
    return float((np.abs(drawn(0) - drawn(np.pi)).max(-1) > DIFFERENT).mean())


@lru_cache(maxsize=4096)
def half_size(kind: str, turn: float = 0.0) -> tuple[float, float]:
    """Half width and half height of a part."""
    rows = SHAPES[kind]
    w, h = (max(abs(row[i]) + row[i + 2] / 2 for row in rows) for i in (0, 1))
    c, s = abs(np.cos(turn)), abs(np.sin(turn))
    return c * w + s * h, s * w + c * h
