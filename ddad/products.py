"""Synthetic inspection images of three products, with exact defect masks.

A product is a list of `Part`s in fixed places. A defect is an `Edit` of that list: parts taken away, parts or marks
added. The list is drawn before and after the edit with the same pose, and the mask is where the drawings differ. Only
then come light, blur and noise. All geometry is in units of the image's side, so that every size shows the same thing.
Most defects are logical: each small patch looks like something that is normal elsewhere.
"""
import json
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter
from tqdm.auto import tqdm

from .writing import whole

VERSION = 1
PRODUCTS: tuple[str, ...] = ("blister", "board", "fabric")
SMALLEST, LARGEST = 0.001, 0.2  # area fraction of the defects in a test set

# kind: (smallest area fraction, largest, logical)
KINDS: dict[str, dict[str, tuple[float, float, bool]]] = {
    "blister": {"missing": (0.0035, 0.2, True), "wrong_colour": (0.0035, 0.2, True), "extra": (0.008, 0.026, True),
                "broken": (0.001, 0.012, False), "dirt": (0.001, 0.008, False), "tear": (0.001, 0.02, False)},
    "board": {"missing": (0.0026, 0.2, True), "swapped": (0.005, 0.2, True), "shifted": (0.004, 0.1, True),
              "wrong": (0.0026, 0.2, True), "bridge": (0.001, 0.003, False), "scratch": (0.001, 0.02, False),
              "stain": (0.001, 0.1, False)},
    "fabric": {"missing_stripe": (0.003, 0.2, True), "wrong_colour": (0.003, 0.2, True),
               "weave_shift": (0.01, 0.2, True), "broken_thread": (0.001, 0.02, False),
               "hole": (0.001, 0.01, False), "stain": (0.001, 0.2, False)},
}


class Part(NamedTuple):
    """Something to draw: kind, centre (x right, y down), turn in radians, size (w, h; marks only), seed of its look."""
    kind: str
    x: float
    y: float
    turn: float = 0.0
    w: float = 0.0
    h: float = 0.0
    look: int = 0


Edit = tuple[list[int], list[Part]]  # the indices of the parts taken away, and the parts put on top of the rest


class Pose(NamedTuple):
    """How the product lies under the camera: shift (x, y), turn in radians, scale."""
    x: float = 0.0
    y: float = 0.0
    turn: float = 0.0
    scale: float = 1.0


# --- drawing ---------------------------------------------------------------------------------------------------------

@lru_cache(maxsize=4)  # an image and all trials of its defect have one pose
def coordinates(n: int, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """The product's x and y at each of n x n pixels: two (n, n) float32."""
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    u, v = axis[None, :] - pose.x, axis[:, None] - pose.y
    c, s = np.cos(pose.turn) / pose.scale, np.sin(pose.turn) / pose.scale
    return (c * u + s * v + 0.5).astype(np.float32), (c * v - s * u + 0.5).astype(np.float32)


class Canvas:
    """An RGB float32 picture, twice as fine as the image, painted with soft-edged shapes in product coordinates."""

    def __init__(self, size: int, pose: Pose, colour: Sequence[float]) -> None:
        self.n, self.pose = 2 * size, pose
        self.pixel = 1 / (self.n * pose.scale)
        self.x, self.y = coordinates(self.n, pose)
        self.rgb = np.full((self.n, self.n, 3), colour, np.float32)

    def near(self, x: float, y: float, w: float, h: float, turn: float = 0.0) -> tuple[slice, slice]:
        """The rows and columns that hold a turned box: shapes are small, so most of the canvas is left alone."""
        p, turn, x, y = self.pose, turn + self.pose.turn, x - 0.5, y - 0.5
        column = p.scale * (np.cos(p.turn) * x - np.sin(p.turn) * y) + p.x + 0.5
        row = p.scale * (np.sin(p.turn) * x + np.cos(p.turn) * y) + p.y + 0.5
        c, s = abs(np.cos(turn)) * p.scale / 2, abs(np.sin(turn)) * p.scale / 2
        return tuple(slice(max(0, int((q - r) * self.n - 2)), max(0, int((q + r) * self.n + 3)))
                     for q, r in ((row, s * w + c * h), (column, c * w + s * h)))

    def fill(self, where: tuple, distance: np.ndarray, colour: Sequence[float], soft: float, opacity: float) -> None:
        """Blend a colour in where the signed distance is negative; the edge is one pixel wide, or `soft`."""
        cover = np.clip(0.5 - distance / max(soft, self.pixel), 0, opacity)[..., None]
        self.rgb[where] += cover * (np.asarray(colour, np.float32) - self.rgb[where])

    def box(self, x: float, y: float, w: float, h: float, radius: float, colour: Sequence[float], turn: float = 0.0,
            soft: float = 0.0, opacity: float = 1.0) -> None:
        """A turned box with rounded corners. With radius h/2 it is a capsule or, if w = h, a disc."""
        where = self.near(x, y, w + soft, h + soft, turn)
        dx, dy, c, s = self.x[where] - x, self.y[where] - y, np.cos(turn), np.sin(turn)
        a = np.abs(c * dx + s * dy) - (w / 2 - radius)
        b = np.abs(c * dy - s * dx) - (h / 2 - radius)
        distance = np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - radius
        self.fill(where, distance, colour, soft, opacity)

    def blob(self, part: Part, colour: Sequence[float], soft: float = 0.0, opacity: float = 1.0) -> None:
        """A disc of diameter `part.w` whose outline wobbles."""
        where, radius = self.near(part.x, part.y, 1.5 * part.w, 1.5 * part.w), part.w / 2
        dx, dy = self.x[where] - part.x, self.y[where] - part.y
        angle, phase = np.arctan2(dy, dx), np.random.default_rng(part.look).uniform(0, 2 * np.pi, 3)
        wobble = 1 + sum(0.12 * np.cos(k * angle + p) for k, p in zip((2, 3, 5), phase, strict=True))
        self.fill(where, np.hypot(dx, dy) - radius * wobble, colour, soft, opacity)

    def image(self) -> np.ndarray:
        """Average down to (size, size, 3) float32."""
        rows = self.rgb[0::2] + self.rgb[1::2]
        return (rows[:, 0::2] + rows[:, 1::2]) / 4


# --- what the parts look like: rows of (dx, dy, width, height, corner radius, colour) ---------------------------------

BLACK, DARK, GREY, METAL, WHITE = (.07, .07, .08), (.17, .18, .20), (.45, .46, .48), (.76, .77, .79), (.95, .95, .93)
RED, TEAL, BLUE, GOLD, TAN = (.82, .13, .15), (.05, .55, .58), (.12, .25, .68), (.86, .66, .22), (.80, .64, .44)
GREEN, FOIL, FLOOR, BROWN = (.05, .36, .22), (.70, .72, .75), (.50, .53, .58), (.35, .16, .05)


def pins(count: int, length: float, reach: float) -> list[tuple]:
    """Pins along both long sides of a chip of this length; they reach this far to either side."""
    return [(dx, 0, 0.014, 2 * reach, 0.003, METAL) for dx in (np.arange(count) + 0.5) * length / count - length / 2]


def pill(w: float, h: float, colour: Sequence[float]) -> list[tuple]:
    """A domed pill: the rim is darker, the top lighter."""
    mix = np.asarray(colour)
    return [(0, 0, w, h, h / 2, mix * .72), (0, 0, .9 * w, .88 * h, .44 * h, mix),
            (-.1 * w, -.16 * h, .4 * w, .22 * h, .11 * h, mix * .55 + .45)]


SHAPES: dict[str, list[tuple]] = {
    "ic": [*pins(8, .27, .105), (0, 0, .28, .17, .008, BLACK), (-.115, .055, .022, .022, .011, GREY),
           (.01, -.02, .15, .012, .003, GREY), (-.02, .02, .09, .012, .003, GREY)],
    "chip": [*pins(5, .13, .09), *[(dy, dx, h, w, r, c) for dx, dy, w, h, r, c in pins(5, .13, .09)],
             (0, 0, .15, .15, .008, DARK), (-.05, -.05, .02, .02, .01, METAL), (0, .01, .07, .012, .003, GREY)],
    "connector": [(0, 0, .11, .34, .006, WHITE), (.005, 0, .07, .30, .004, (.72, .72, .70)),
                  *[(.01, y, .035, .022, .003, GOLD) for y in np.linspace(-.12, .12, 6)]],
    "crystal": [(0, 0, .15, .062, .031, METAL), (0, 0, .125, .042, .021, (.88, .89, .90))],
    "film": [(0, 0, .13, .08, .012, BLUE), (0, -.005, .10, .045, .008, (.25, .42, .85))],
    **{f"resistor {name}": [(0, 0, .19, .010, .004, METAL), (0, 0, .13, .046, .018, TAN),
                            *[(-.04 + .027 * i, 0, .013, .046, .002, band) for i, band in enumerate(bands)]]
       for name, bands in (("brown", (BROWN, BLACK, RED, GOLD)), ("blue", (BLUE, BLUE, BROWN, WHITE)))},
    **{f"can {name}": [(0, 0, .13, .13, .065, colour), (0, 0, .105, .105, .0525, METAL),
                       (-.04, 0, .025, .06, .008, colour), (.012, 0, .05, .005, .002, GREY),
                       (.012, 0, .005, .05, .002, GREY)] for name, colour in (("black", BLACK), ("blue", BLUE))},
    **{f"lamp {name}": [(0, 0, .066, .066, .033, colour), (-.009, -.009, .022, .022, .011, WHITE)]
       for name, colour in (("red", RED), ("yellow", (.95, .80, .15)))},
    **{f"smd {name}": [(0, 0, .058, .030, .003, METAL), (0, 0, w, .030, .001, colour)]
       for name, w, colour in (("tan", .032, TAN), ("black", .036, BLACK))},
    "cavity": [(0, 0, .225, .225, .1125, (.88, .89, .91)), (.003, .003, .212, .212, .106, (.38, .40, .45)),
               (0, 0, .20, .20, .10, FLOOR)],
    "bite": [(0, 0, 1, 1, .5, FLOOR)],
    **{f"{shape} {name}": pill(w, h, colour) for shape, w, h in (("round", .17, .17), ("pellet", .056, .056))
       for name, colour in (("white", WHITE), ("red", RED), ("teal", TEAL))},
    **{f"capsule {name}": [*pill(.18, .094, WHITE), (-.045, 0, .09, .094, .043, colour)]
       for name, colour in (("red", RED), ("teal", TEAL))},
}

# --- layouts ---------------------------------------------------------------------------------------------------------

BOARD = (("ic", .27, .30, 0), ("chip", .67, .24, 0), ("connector", .91, .62, 0), ("crystal", .68, .42, 0),
         ("film", .13, .52, 0), ("film", .30, .52, 0), ("can black", .12, .87, 0), ("can blue", .28, .87, 0),
         ("can black", .20, .70, 0), ("resistor brown", .53, .56, 0), ("resistor blue", .53, .64, 0),
         ("resistor brown", .53, .72, 0), ("resistor blue", .53, .80, 0), ("lamp red", .91, .10, 0),
         ("lamp yellow", .91, .20, 0), ("lamp red", .91, .30, 0), ("smd tan", .48, .42, 0), ("smd black", .48, .48, 0),
         ("smd tan", .72, .56, 1), ("smd tan", .78, .56, 1), ("smd black", .72, .68, 1), ("smd black", .78, .68, 1),
         ("smd tan", .42, .92, 0), ("smd black", .52, .92, 0), ("smd tan", .62, .92, 0), ("smd black", .08, .10, 0),
         ("smd tan", .18, .10, 0))
TRACES = ((.5, .09, .6, 0), (.45, .13, .5, 0), (.49, .5, .012, 1), (.40, .66, .3, 1), (.45, .66, .36, 1),
          (.5, .86, .3, 0), (.84, .5, .7, 1), (.05, .6, .5, 1), (.22, .43, .3, 0), (.75, .80, .22, 1), (.6, .49, .25, 0))
CAVITIES = tuple((x, y) for y in (.185, .5, .815) for x in (.13, .377, .623, .87))
EMPTY = 6  # this cavity holds nothing, by design
PACK = ("round white", "round red", "capsule teal", "round white", "pellets", "round teal", "", "round red",
        "round teal", "capsule red", "round white", "pellets")
PELLETS = (("white", -.04, -.04), ("red", .04, -.04), ("teal", -.04, .04), ("white", .04, .04))
THREADS = 20
PALETTE = np.array([(.88, .83, .72), (.13, .19, .42), (.70, .14, .16), (.85, .60, .16)], np.float32)
WARP, WEFT = ([int(c) for c in s] for s in ("011100220011100330011", "000220000333000022000"))
THREAD_KINDS = ("missing_stripe", "wrong_colour", "weave_shift")  # drawn as a box of changed threads


def layout(product: str, rng: np.random.Generator) -> list[Part]:
    """The good product: every part in its place, within its tolerance. The threads of the fabric are no parts."""
    if product == "fabric":
        return []
    if product == "board":
        parts, spread = [(kind, x, y, turn * np.pi / 2) for kind, x, y, turn in BOARD], [.003, .003, .02]
    else:
        parts, spread = [], [.006, .006, .04]
        for kind, (x, y) in zip(PACK, CAVITIES, strict=True):
            if kind == "pellets":
                parts += [(f"pellet {colour}", x + dx, y + dy, 0) for colour, dx, dy in PELLETS]
            elif kind:
                parts.append((kind, x, y, .6 * kind.startswith("capsule")))
    return [Part(kind, *(place + spread * rng.uniform(-1, 1, 3)).tolist()) for kind, *place in parts]


def background(product: str, size: int, pose: Pose) -> Canvas:
    """The product without its parts."""
    canvas = Canvas(size, pose, {"fabric": PALETTE[0], "board": GREEN, "blister": FOIL}[product])
    if product == "fabric":
        canvas.rgb[:] = weave(canvas.x, canvas.y)
    elif product == "board":
        for x, y, length, upright in TRACES:
            canvas.box(x, y, length, .012, .006, (.10, .46, .29), upright * np.pi / 2)
            for end in (-length / 2, length / 2):
                canvas.box(x + end * (1 - upright), y + end * upright, .024, .024, .012, (.55, .60, .35))
    else:
        for i in range(-2, 23):
            canvas.box(.05 * i, .5, 1.6, .008, .004, (.75, .77, .80), np.pi / 4)
        for x, y in CAVITIES:
            draw_part(canvas, Part("cavity", x, y))
    return canvas


def weave(x: np.ndarray, y: np.ndarray, change: str = "", inside: np.ndarray | bool = False) -> np.ndarray:
    """The colours (..., 3) of a plain weave: warp (upright) and weft threads take turns to be on top. `inside` changes."""
    x, y = x * THREADS, y * THREADS
    if change == "weave_shift":
        x = x + inside  # one thread is half a period
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    warp, weft = np.take(WARP, column, mode="wrap"), np.take(WEFT, row, mode="wrap")
    if change in ("missing_stripe", "wrong_colour"):
        warp = np.where(inside & (warp > 0), (warp % 3 + 1) * (change == "wrong_colour"), warp)
    across, along = (x - column - 0.5) ** 2, (y - row - 0.5) ** 2
    on_top = (column + row) % 2 == 0
    shade = np.where(on_top, 1.05 - 1.9 * across - .6 * along, 1.0 - 1.9 * along - .6 * across)
    return PALETTE[np.where(on_top, warp, weft)] * shade[..., None]


def draw_part(canvas: Canvas, part: Part) -> None:
    """Draw a part with its shadow, or a mark."""
    kind, x, y, turn, w, h, look = part
    if kind in SHAPES:
        size, c, s = w or 1, np.cos(turn), np.sin(turn)
        if kind not in ("cavity", "bite"):
            _, _, width, height, radius, _ = max(SHAPES[kind], key=lambda row: row[2] * row[3])
            canvas.box(x + .006, y + .008, width, height, radius, BLACK, turn, soft=.016, opacity=.45)
        for dx, dy, width, height, radius, colour in SHAPES[kind]:
            canvas.box(x + c * dx - s * dy, y + s * dx + c * dy, size * width, size * height, size * radius, colour, turn)
    elif kind in THREAD_KINDS:
        where = canvas.near(x, y, w, h)
        inside = (np.abs(canvas.x[where] - x) < w / 2) & (np.abs(canvas.y[where] - y) < h / 2)
        canvas.rgb[where] = weave(canvas.x[where], canvas.y[where], kind, inside)
    elif kind in ("stain", "dirt", "hole"):
        colour, opacity = {"stain": ((.28, .17, .07), .75), "dirt": ((.12, .08, .05), .95), "hole": (BLACK, 1)}[kind]
        if kind == "hole":
            canvas.blob(part._replace(w=w + .012), PALETTE[0] * 1.1)  # frayed, light threads around it
        canvas.blob(part, colour, soft=.012, opacity=opacity)
    elif kind == "bridge":
        canvas.box(x, y, w, h, h / 2, METAL, turn)
        canvas.box(x, y, .6 * w, .3 * h, .15 * h, WHITE, turn)
    elif kind == "broken_thread":
        canvas.box(x, y, w, h, .004, BLACK, turn, opacity=.9)
    elif kind in ("scratch", "tear"):  # a chain of short strokes that wanders
        rng, wander, steps = np.random.default_rng(look), .15 if kind == "scratch" else .7, max(2, round(w / .03))
        stroke, x, y = w / steps, x - w / 2 * np.cos(turn), y - w / 2 * np.sin(turn)
        for _ in range(steps):
            angle = turn + wander * rng.uniform(-1, 1)
            if kind == "tear":
                canvas.box(x - .004, y - .004, stroke + h, h, h / 2, WHITE, angle)
            canvas.box(x, y, stroke + h, h, h / 2, (.78, .86, .72) if kind == "scratch" else BLACK, angle)
            x, y = x + stroke * np.cos(angle), y + stroke * np.sin(angle)


def covered(parts: Iterable[Part], size: int, pose: Pose) -> np.ndarray:
    """The pixels that these parts hide, whatever their colour: bool (size, size). Marks are left out."""
    canvas = Canvas(size, pose, (-9, -9, -9))
    for part in parts:
        if part.kind in SHAPES and part.kind != "bite":
            draw_part(canvas, part)
    return (canvas.image() > -4.5).all(-1)


@cache
def part_area(kind: str) -> float:
    """The area of a part, as a fraction of the image."""
    return float(covered([Part(kind, .5, .5)], 128, Pose()).mean())


@lru_cache(maxsize=4096)
def half_size(kind: str, turn: float = 0.0) -> tuple[float, float]:
    """Half width and half height of a part."""
    w, h = (max(abs(row[i]) + row[i + 2] / 2 for row in SHAPES[kind]) for i in (0, 1))
    c, s = abs(np.cos(turn)), abs(np.sin(turn))
    return c * w + s * h, s * w + c * h


class Scene:
    """The good product, drawn once: `image` (size, size, 3) float32 in 0..1, without light, blur or noise."""

    def __init__(self, product: str, parts: list[Part], size: int, pose: Pose) -> None:
        self.product, self.parts = product, parts
        self.background = background(product, size, pose)
        self.canvas = deepcopy(self.background)
        for part in parts:
            draw_part(self.canvas, part)
        self.image = self.canvas.image()

    def window(self, part: Part) -> tuple[slice, slice]:
        """The rows and columns of the canvas that a part and its shadow lie in."""
        w, h = half_size(part.kind, part.turn)
        return self.canvas.near(part.x, part.y, 2 * w + .04, 2 * h + .04)

    def edited(self, edit: Edit) -> tuple[np.ndarray, np.ndarray]:
        """The defective product, drawn as `image` is, and the mask (size, size) bool of where the two differ."""
        (gone, new), same = edit, np.ones(self.canvas.rgb.shape[:2], bool)  # same: taking parts away changes nothing
        for i in gone:
            same[self.window(self.parts[i])] = False
        canvas = deepcopy(self.background)
        for i, part in enumerate(self.parts):
            if i not in gone and not same[self.window(part)].all():
                draw_part(canvas, part)
        np.copyto(canvas.rgb, self.canvas.rgb, where=same[..., None])
        for part in new:
            draw_part(canvas, part)
        image, size = canvas.image(), len(self.image)
        difference = np.abs(image - self.image).max(-1)
        raw = difference > .06
        if self.parts:
            raw |= covered([*(self.parts[i] for i in gone), *new], size, canvas.pose)
        if not raw.any():  # a change of less than a pixel
            raw = difference == difference.max()
        # Close the gaps: between threads that lie on top, and between the strokes of one defect.
        width = 2 * round((.035 if self.product == "fabric" else .01) * size) + 1
        return image, raw | minimum_filter(maximum_filter(raw, width, mode="nearest"), width, mode="nearest")


# --- defects ---------------------------------------------------------------------------------------------------------

def fits(part: Part, others: Iterable[Part]) -> bool:
    """Whether a part lies on the board and covers no other one."""
    x, y, (w, h) = part.x, part.y, half_size(part.kind, part.turn)
    if not (w < x + .01 and x < 1.01 - w and h < y + .01 and y < 1.01 - h):
        return False
    sizes = ((o, *half_size(o.kind, o.turn)) for o in others)
    return all(abs(x - o.x) > w + o_w - .02 or abs(y - o.y) > h + o_h - .02 for o, o_w, o_h in sizes)


def changes(kind: str, parts: list[Part], rng: np.random.Generator) -> list[tuple[Edit, float]]:
    """All single changes of a logical kind, each with its area, roughly."""
    found, area = [], {p.kind: part_area(p.kind) for p in parts}
    if kind == "extra":
        x, y = CAVITIES[EMPTY]
        found = [(([], [Part(k, x, y, rng.uniform(-.5, .5))]), a) for k, a in area.items()]
        colours = [f"pellet {rng.choice(['white', 'red', 'teal'])}" for _ in PELLETS]
        pellets = [Part(k, x + dx, y + dy) for k, (_, dx, dy) in zip(colours, PELLETS, strict=True)]
        return found + [(([], pellets[:n]), n * area["pellet red"]) for n in (2, 3, 4)]
    for i, part in enumerate(parts):
        others = parts[:i] + parts[i + 1:]
        if kind == "missing":
            found.append((([i], []), area[part.kind]))
        elif kind == "wrong_colour":
            shape = part.kind.split()[0]
            names = [k for k in area if k.startswith(shape) and k != part.kind]
            found += [(([i], [part._replace(kind=k)]), area[k]) for k in names]
        elif kind == "wrong":
            news = [part._replace(kind=k) for k in area if k != part.kind]
            found += [(([i], [n]), max(area[n.kind], area[part.kind])) for n in news if fits(n, others)]
        elif kind == "shifted":
            for distance, angle in zip(rng.uniform(.03, .12, 4), rng.uniform(0, 2 * np.pi, 4), strict=True):
                new = part._replace(x=part.x + distance * np.cos(angle), y=part.y + distance * np.sin(angle))
                if fits(new, others):
                    found.append((([i], [new]), covered([part, new], 64, Pose()).mean()))
        else:  # swapped: two parts of about one size
            for j, other in enumerate(parts[:i]):
                small, large = sorted((area[part.kind], area[other.kind]))
                if other.kind != part.kind and large <= 4 * small:
                    new = [part._replace(kind=other.kind), other._replace(kind=part.kind)]
                    rest = others[:j] + others[j + 1:]
                    if all(fits(n, rest) for n in new):
                        found.append((([i, j], new), 2 * large))
    return found


def rearrange(kind: str, parts: list[Part], target: float, rng: np.random.Generator) -> Edit:
    """One or several single changes whose areas add up to about `target`."""
    options, best, best_error = changes(kind, parts, rng), [], np.inf
    for _ in range(40):
        chosen, taken, total = [], set(), 0.0
        for k in rng.permutation(len(options)):
            (gone, _), area = options[k]
            if total + area < 1.1 * target and taken.isdisjoint(gone) and not (kind == "extra" and chosen):
                chosen, taken, total = [*chosen, k], taken.union(gone), total + area
        error = abs(np.log(max(total, 1e-6) / target))
        if error < best_error:
            best, best_error = chosen, error
        if error < .1:
            break
    best = best or [min(range(len(options)), key=lambda k: abs(options[k][1] - target))]
    edits = [options[k][0] for k in best]
    return sorted(i for gone, _ in edits for i in gone), [p for _, new in edits for p in new]


def mark(kind: str, parts: list[Part], target: float, rng: np.random.Generator) -> Edit:
    """A mark of about this area on the surface."""
    x, y = rng.uniform(.12, .88, 2)
    turn, look = rng.uniform(0, np.pi), int(rng.integers(1 << 30))
    if kind == "broken":
        whole = [p for p in parts if p.kind.startswith(("round", "capsule"))]
        p, angle = whole[rng.integers(len(whole))], rng.uniform(0, 2 * np.pi)
        reach = .085 if p.kind.startswith("round") else .05
        part = Part("bite", p.x + reach * np.cos(angle), p.y + reach * np.sin(angle), w=2 * np.sqrt(2 * target / np.pi))
    elif kind in THREAD_KINDS:
        # A box of whole threads; a small one must begin on a coloured thread, or nothing would change.
        wide = max(1, round(np.sqrt(target * rng.uniform(.4, 2)) * THREADS))
        wide = min(max(wide, int(np.ceil(target * THREADS / .9))), THREADS)
        high = target * THREADS / wide
        starts = [i for i in range(THREADS - wide + 1) if WARP[i] or kind == "weave_shift" or wide > 4]
        x, y = (rng.choice(starts) + wide / 2) / THREADS, rng.uniform(min(high / 2, .5), max(1 - high / 2, .5))
        part = Part(kind, x, y, 0, wide / THREADS, high)
    elif kind == "broken_thread":
        length, upright = target / (.6 / THREADS), rng.integers(2)
        thread, middle = (rng.integers(2, THREADS - 2) + .5) / THREADS, rng.uniform(length / 2, 1 - length / 2)
        place = (thread, middle) if upright else (middle, thread)
        part = Part(kind, *place, upright * np.pi / 2, length, .6 / THREADS)
    elif kind in ("scratch", "tear", "bridge"):
        thick = max({"scratch": .009, "tear": .014, "bridge": .022}[kind], np.sqrt(target / 25))
        part = Part(kind, x, y, turn, target / thick, thick, look)
    else:
        part = Part(kind, x, y, 0, 2 * np.sqrt(target / np.pi), 0, look)
    return [], [part]


def spoil(scene: Scene, kind: str, target: float, rng: np.random.Generator) -> Edit:
    """Find an edit of this kind whose mask has about the target area."""
    find = rearrange if KINDS[scene.product][kind][2] and scene.parts else mark
    best, best_error, aim = None, np.inf, target
    for _ in range(8):
        edit = find(kind, scene.parts, aim, rng)
        area = scene.edited(edit)[1].mean()
        error = abs(np.log(area / target))
        if error < best_error:
            best, best_error = edit, error
        if error < .15:
            break
        aim *= np.clip((target / area) ** .7, .5, 2)
    return best


# --- images and data sets --------------------------------------------------------------------------------------------

def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, blur and sensor noise: float (size, size, 3) in 0..1 to uint8."""
    size = len(image)
    axis, angle = np.linspace(-1, 1, size, dtype=np.float32), rng.uniform(0, 2 * np.pi)
    gradient = 1 + rng.uniform(0, .10) * (np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None])
    warmth = rng.uniform(-.03, .03)
    image = image * gradient[..., None] * (rng.uniform(.90, 1.08) * np.array([1 + warmth, 1, 1 - warmth]))
    side = rng.uniform(.04, .14)
    for axis in (0, 1):
        edge = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (edge[:-2], edge[2:]) if axis == 0 else (edge[:, :-2], edge[:, 2:])
        image = (1 - 2 * side) * image + side * (before + after)
    noise = rng.standard_normal(image.shape, np.float32) * np.sqrt(.008 ** 2 + .0003 * np.clip(image, 0, 1))
    return (np.clip(image + noise, 0, 1) * 255 + .5).astype(np.uint8)


def check(product: str, size: int) -> None:
    """Raise the ValueError that tells what is allowed."""
    if product not in PRODUCTS:
        raise ValueError(f"unknown product {product!r}: it must be one of {', '.join(PRODUCTS)}")
    if size < 32:
        raise ValueError(f"size is {size}: an image must be at least 32 pixels wide")


def render(product: str, size: int, seed: int, defect: str | None = None,
           area: float | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """Make one image: uint8 (size, size, 3), its mask bool (size, size), and the kind of defect ('good' if none).

    `area` is the wanted fraction of the image; without it, it is drawn from the kind's range. With the same seed, pose,
    tolerances, light and noise are the same, with or without a defect. Raises ValueError for an unknown product or
    defect, a size below 32, or an area that this kind of defect cannot have.
    """
    check(product, size)
    layout_rng, camera, fault = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    x, y, turn, scale = layout_rng.uniform(-1, 1, 4)
    pose = Pose(.02 * x, .02 * y, np.deg2rad(1.5) * turn, 1 + .015 * scale)
    parts = layout(product, layout_rng)
    scene = Scene(product, parts, size, pose)
    if defect is None:
        return photograph(scene.image, camera), np.zeros((size, size), bool), "good"
    if defect not in KINDS[product]:
        raise ValueError(f"unknown defect {defect!r}: {product} has {', '.join(KINDS[product])}")
    low, high, _ = KINDS[product][defect]
    area = float(np.exp(fault.uniform(np.log(low), np.log(high)))) if area is None else area
    if not low <= area <= high:
        raise ValueError(f"area is {area}: {product}/{defect} must be within {low}..{high}")
    trial = scene if size == 128 else Scene(product, parts, 128, pose)  # so that every size gets the same edit
    image, mask = scene.edited(spoil(trial, defect, area, fault))
    return photograph(image, camera), mask, defect


def plan(product: str, index: int, seed: int) -> tuple[str, float]:
    """Kind and target area of a test set's defect number `index`, evenly spread on a log scale whatever the count."""
    start = np.random.default_rng(np.random.SeedSequence([seed, PRODUCTS.index(product), 9])).random()
    place = (start + index * (5 ** .5 - 1) / 2) % 1  # golden ratio: every new point falls into the widest gap
    area = float(SMALLEST * (LARGEST / SMALLEST) ** place)
    rng = np.random.default_rng(np.random.SeedSequence([seed, PRODUCTS.index(product), 9, index]))
    able = [k for k, (low, high, _) in KINDS[product].items() if low <= area <= high]
    wanted = [k for k in able if KINDS[product][k][2]] if index % 4 else able
    return str(rng.choice(wanted or able)), area


def make(root: Path, products: Sequence[str] = PRODUCTS, size: int = 128, train: int = 240, test_good: int = 60,
         test_defect: int = 90, seed: int = 0) -> None:
    """Write a data set in the layout of MVTec AD, with `defects.csv` in each product's folder and `make.json` in root.

    An image depends on seed, product, split and its index alone. A defect keeps its index as its name, so
    test/missing/007.png is the eighth defect of all. Files that exist are kept, so an interrupted run can go on.
    Raises ValueError for an unknown product or a size below 32, FileExistsError if `root` holds anything else.
    """
    for product in products:
        check(product, size)
    root, note = Path(root), Path(root) / "make.json"
    settings = {"version": VERSION, "size": size, "train": train, "test_good": test_good, "test_defect": test_defect, "seed": seed}
    if root.exists() and any(root.iterdir()) and not (note.exists() and json.loads(note.read_text()) == settings):
        raise FileExistsError(f"{root} is not empty and was not made with these settings: {settings}")
    write(note, json.dumps(settings, indent=1).encode())
    jobs = [(split, i) for split, count in enumerate((train, test_good, test_defect)) for i in range(count)]
    for product in products:
        folder, rows = root / product, ["image,kind,area_fraction,logical"]
        for split, i in tqdm(jobs, product, leave=False, delay=2):
            kind, area = plan(product, i, seed) if split == 2 else (None, None)
            name = f"{'test' if split else 'train'}/{kind or 'good'}/{i:03}.png"
            mask_path = folder / "ground_truth" / (kind or "good") / f"{i:03}_mask.png"
            if not (folder / name).exists():  # the mask is written first, so an image on disk is complete
                number = np.random.SeedSequence([seed, PRODUCTS.index(product), split, i]).generate_state(1, np.uint64)[0]
                image, mask, _ = render(product, size, int(number), kind, area)
                if kind:
                    write(mask_path, mask.astype(np.uint8) * 255)
                write(folder / name, image)
            if kind:
                fraction = (np.asarray(Image.open(mask_path)) > 0).mean()
                rows.append(f"{name},{kind},{fraction:.5f},{KINDS[product][kind][2]}")
        write(folder / "defects.csv", "\n".join([*rows, ""]).encode())


def write(path: Path, content: bytes | np.ndarray) -> None:
    """Write bytes or a PNG aside and rename it, so that a file is either whole or not there."""
    with whole(path) as aside:
        if isinstance(content, bytes):
            aside.write_bytes(content)
        else:
            Image.fromarray(content).save(aside, "PNG")
