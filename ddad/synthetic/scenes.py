"""The three products: which part lies where, and how the whole is drawn.

A defect is an `Edit` of the list of parts: parts taken away, parts or marks added. The
list is drawn before and after the edit with the same pose, and the mask is where the
drawings differ.
"""
from __future__ import annotations

from copy import deepcopy

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from .canvas import Canvas, Pose
from .fabric import PALETTE, weave
from .parts import DIFFERENT, FOIL, GREEN, Part, covered, draw_part, half_size

# the indices of the parts taken away, and the parts put on top of the rest
Edit = tuple[list[int], list[Part]]

# kind, x, y, quarter turns
BOARD = (
    ("ic", .27, .30, 0), ("chip", .67, .24, 0), ("connector", .91, .62, 0),
    ("crystal", .68, .42, 0), ("film", .13, .52, 0), ("film", .30, .52, 0),
    ("can black", .12, .87, 0), ("can blue", .28, .87, 0), ("can black", .20, .70, 0),
    ("resistor brown", .53, .56, 0), ("resistor blue", .53, .64, 0),
    ("resistor brown", .53, .72, 0), ("resistor blue", .53, .80, 0),
    ("lamp red", .91, .10, 0), ("lamp yellow", .91, .20, 0), ("lamp red", .91, .30, 0),
    ("smd tan", .48, .42, 0), ("smd black", .48, .48, 0), ("smd tan", .72, .56, 1),
    ("smd tan", .78, .56, 1), ("smd black", .72, .68, 1), ("smd black", .78, .68, 1),
    ("smd tan", .42, .92, 0), ("smd black", .52, .92, 0), ("smd tan", .62, .92, 0),
    ("smd black", .08, .10, 0), ("smd tan", .18, .10, 0),
)
# x, y, length, upright
TRACES = (
    (.5, .09, .6, 0), (.45, .13, .5, 0), (.49, .5, .012, 1), (.40, .66, .3, 1),
    (.45, .66, .36, 1), (.5, .86, .3, 0), (.84, .5, .7, 1), (.05, .6, .5, 1),
    (.22, .43, .3, 0), (.75, .80, .22, 1), (.6, .49, .25, 0),
)
CAVITIES = tuple((x, y) for y in (.185, .5, .815) for x in (.13, .377, .623, .87))
EMPTY = 6  # this cavity holds nothing, by design
PACK = (
    "round white", "round red", "capsule teal", "round white",
    "pellets", "round teal", "", "round red",
    "round teal", "capsule red", "round white", "pellets",
)
PELLETS = (
    ("white", -.04, -.04), ("red", .04, -.04), ("teal", -.04, .04), ("white", .04, .04),
)


def layout(product: str, rng: np.random.Generator) -> list[Part]:
    """The good product: every part in its place, within its tolerance.

    The threads of the fabric are no parts.
    """
    if product == "fabric":
        return []
    if product == "board":
        parts = [(kind, x, y, turn * np.pi / 2) for kind, x, y, turn in BOARD]
        spread = [.003, .003, .02]
    else:
        parts, spread = [], [.006, .006, .04]
        for kind, (x, y) in zip(PACK, CAVITIES, strict=True):
            if kind == "pellets":
                parts += [(f"pellet {c}", x + dx, y + dy, 0) for c, dx, dy in PELLETS]
            elif kind:
                parts.append((kind, x, y, .6 * kind.startswith("capsule")))
    return [
        Part(kind, *(place + spread * rng.uniform(-1, 1, 3)).tolist())
        for kind, *place in parts
    ]


def background(product: str, size: int, pose: Pose) -> Canvas:
    """The product without its parts."""
    ground = {"fabric": PALETTE[0], "board": GREEN, "blister": FOIL}
    canvas = Canvas(size, pose, ground[product])
    if product == "fabric":
        canvas.rgb[:] = weave(canvas.x, canvas.y)
    elif product == "board":
        for x, y, length, upright in TRACES:
            turn = upright * np.pi / 2
            canvas.box(x, y, length, .012, .006, (.10, .46, .29), turn)
            for end in (-length / 2, length / 2):
                pad = x + end * (1 - upright), y + end * upright
                canvas.box(*pad, .024, .024, .012, (.55, .60, .35))
    else:
        for i in range(-2, 23):
            canvas.box(.05 * i, .5, 1.6, .008, .004, (.75, .77, .80), np.pi / 4)
        for x, y in CAVITIES:
            draw_part(canvas, Part("cavity", x, y))
    return canvas


class Scene:
    """The good product, drawn once.

    `image` (size, size, 3) is float32 in 0..1, without light, blur or noise.
    """

    def __init__(self, product: str, parts: list[Part], size: int, pose: Pose) -> None:
        self.product, self.parts, self.pose = product, parts, pose
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
        """The defective product, drawn as `image` is, and the mask (size, size) bool.

        The mask is where the two differ.
        """
        gone, new = edit
        image, size = self._redrawn(gone, new).image(), len(self.image)
        difference = np.abs(image - self.image).max(-1)
        raw = difference > DIFFERENT
        if self.parts:
            # a part that is only turned about hides what it hid
            stays = {(p.kind, p.x, p.y) for p in new}
            taken = [self.parts[i] for i in gone]
            stays &= {(p.kind, p.x, p.y) for p in taken}
            moved = [p for p in (*taken, *new) if (p.kind, p.x, p.y) not in stays]
            raw |= covered(moved, size, self.pose)
        if not raw.any():  # a change of less than a pixel
            raw = difference == difference.max()
        # Close the gaps: between threads that lie on top, and between the strokes of
        # one defect.
        width = 2 * round((.035 if self.product == "fabric" else .01) * size) + 1
        grown = maximum_filter(raw, width, mode="nearest")
        return image, raw | minimum_filter(grown, width, mode="nearest")

    def _redrawn(self, gone: list[int], new: list[Part]) -> Canvas:
        """The canvas after an edit; only what the parts taken away hid is painted."""
        same = np.ones(self.canvas.rgb.shape[:2], bool)
        for i in gone:
            same[self.window(self.parts[i])] = False
        canvas = deepcopy(self.background)
        for i, part in enumerate(self.parts):
            if i not in gone and not same[self.window(part)].all():
                draw_part(canvas, part)
        np.copyto(canvas.rgb, self.canvas.rgb, where=same[..., None])
        for part in new:
            draw_part(canvas, part)
        return canvas
