"""Edits of a drawn product that make a defect of a wanted kind and area."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .canvas import Pose
from .fabric import THREAD_KINDS, THREADS, WARP
from .parts import Part, covered, half_size, part_area, reversed_area
from .scenes import CAVITIES, EMPTY, PELLETS, Edit, Scene

Areas = dict[str, float]            # of the product's parts, by kind
Changes = list[tuple[Edit, float]]  # single changes, each with its area, roughly


def edit_for(
    scene: Scene, kind: str, target: float, rng: np.random.Generator
) -> Edit:
    """An edit of this kind whose mask has about the target area (share of the image).

    The best of up to eight trials, each aimed by the area of the one before.
    """
    find = rearrange if scene.parts and kind in CHANGES else mark
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


# --- other parts, or parts elsewhere --------------------------------------------------

def rearrange(
    kind: str, parts: list[Part], target: float, rng: np.random.Generator
) -> Edit:
    """One or several single changes whose areas add up to about `target`."""
    areas = {p.kind: part_area(p.kind) for p in parts}
    options = CHANGES[kind](parts, areas, rng)
    best, best_error = [], np.inf
    for _ in range(40):
        chosen, total = _some_of(options, kind == "extra", target, rng)
        error = abs(np.log(max(total, 1e-6) / target))
        if error < best_error:
            best, best_error = chosen, error
        if error < .1:
            break
    best = best or [
        min(range(len(options)), key=lambda k: abs(options[k][1] - target))
    ]
    edits = [options[k][0] for k in best]
    gone = sorted(i for gone, _ in edits for i in gone)
    return gone, [p for _, new in edits for p in new]


def _some_of(
    options: Changes, single: bool, target: float, rng: np.random.Generator
) -> tuple[list[int], float]:
    """Options drawn at random while they fit into the target, and their area.

    No part is changed twice; `single` is for options of which there may be one.
    """
    chosen, taken, total = [], set(), 0.0
    for k in rng.permutation(len(options)):
        (gone, _), area = options[k]
        room = total + area < 1.1 * target and taken.isdisjoint(gone)
        if room and not (single and chosen):
            chosen, taken, total = [*chosen, k], taken.union(gone), total + area
    return chosen, total


def missing(parts: list[Part], areas: Areas, rng: np.random.Generator) -> Changes:
    return [(([i], []), areas[part.kind]) for i, part in enumerate(parts)]


def extra(parts: list[Part], areas: Areas, rng: np.random.Generator) -> Changes:
    """One part of any kind, or several pellets, in the cavity that stays empty."""
    x, y = CAVITIES[EMPTY]
    found = [
        (([], [Part(kind, x, y, rng.uniform(-.5, .5))]), area)
        for kind, area in areas.items()
    ]
    colours = [f"pellet {rng.choice(['white', 'red', 'teal'])}" for _ in PELLETS]
    pellets = [
        Part(kind, x + dx, y + dy)
        for kind, (_, dx, dy) in zip(colours, PELLETS, strict=True)
    ]
    several = [(([], pellets[:n]), n * areas["pellet red"]) for n in (2, 3, 4)]
    return found + several


def wrong_colour(parts: list[Part], areas: Areas, rng: np.random.Generator) -> Changes:
    """A part of the same shape and another colour."""
    found = []
    for i, part in enumerate(parts):
        kinds = [k for k in areas if k != part.kind and alike(part, Part(k, 0, 0))]
        found += [(([i], [part._replace(kind=k)]), areas[k]) for k in kinds]
    return found


def wrong(parts: list[Part], areas: Areas, rng: np.random.Generator) -> Changes:
    """A part of another kind, where it fits."""
    found = []
    for i, part in enumerate(parts):
        others = parts[:i] + parts[i + 1:]
        for kind in areas:
            new = part._replace(kind=kind)
            if kind != part.kind and fits(new, others):
                found.append((([i], [new]), max(areas[kind], areas[part.kind])))
    return found


def shifted(parts: list[Part], areas: Areas, rng: np.random.Generator) -> Changes:
    """A part aside by little more than its tolerance, in any direction."""
    found = []
    for i, part in enumerate(parts):
        others = parts[:i] + parts[i + 1:]
        distances, angles = rng.uniform(.015, .04, 4), rng.uniform(0, 2 * np.pi, 4)
        for distance, angle in zip(distances, angles, strict=True):
            x = part.x + distance * np.cos(angle)
            new = part._replace(x=x, y=part.y + distance * np.sin(angle))
            if fits(new, others):
                area = covered([part, new], 64, Pose()).mean()
                found.append((([i], [new]), area))
    return found


def exchanged(parts: list[Part], areas: Areas, rng: np.random.Generator) -> Changes:
    """Two parts of one shape and two looks in each other's place."""
    found = []
    for i, part in enumerate(parts):
        for j, other in enumerate(parts[:i]):
            if part.kind != other.kind and alike(part, other):
                new = [part._replace(kind=other.kind), other._replace(kind=part.kind)]
                found.append((([i, j], new), 2 * areas[part.kind]))
    return found


def reversed_parts(
    parts: list[Part], areas: Areas, rng: np.random.Generator
) -> Changes:
    """A part the wrong way round, where that shows."""
    return [
        (([i], [part._replace(turn=part.turn + np.pi)]), area)
        for i, part in enumerate(parts) if (area := reversed_area(part.kind)) > .0004
    ]


def alike(part: Part, other: Part) -> bool:
    """Whether two parts have one shape, whatever their colours."""
    return part.kind.split()[0] == other.kind.split()[0]


CHANGES = {
    "missing": missing,
    "extra": extra,
    "wrong_colour": wrong_colour,
    "wrong": wrong,
    "shifted": shifted,
    "exchanged": exchanged,
    "reversed": reversed_parts,
}


def fits(part: Part, others: Iterable[Part]) -> bool:
    """Whether a part lies on the board and covers no other one."""
    x, y, (w, h) = part.x, part.y, half_size(part.kind, part.turn)
    if not (w < x + .01 and x < 1.01 - w and h < y + .01 and y < 1.01 - h):
        return False
    sizes = ((o, *half_size(o.kind, o.turn)) for o in others)
    return all(
        abs(x - o.x) > w + o_w - .02 or abs(y - o.y) > h + o_h - .02
        for o, o_w, o_h in sizes
    )


# --- marks ----------------------------------------------------------------------------

# the least thickness of a long mark
THICKNESS = {"scratch": .009, "tear": .014, "bridge": .022}


def mark(
    kind: str, parts: list[Part], target: float, rng: np.random.Generator
) -> Edit:
    """A mark of about this area on the surface."""
    x, y = rng.uniform(.12, .88, 2)
    turn, look = rng.uniform(0, np.pi), int(rng.integers(1 << 30))
    if kind == "broken":
        part = _bite(parts, target, rng)
    elif kind in THREAD_KINDS:
        part = _changed_threads(kind, target, rng)
    elif kind == "broken_thread":
        part = _broken_thread(target, rng)
    elif kind in THICKNESS:
        thick = max(THICKNESS[kind], np.sqrt(target / 25))
        part = Part(kind, x, y, turn, target / thick, thick, look)
    else:
        part = Part(kind, x, y, 0, 2 * np.sqrt(target / np.pi), 0, look)
    return [], [part]


def _bite(parts: list[Part], target: float, rng: np.random.Generator) -> Part:
    """Half a disc that a pill lacks."""
    pills = [p for p in parts if p.kind.startswith(("round", "capsule"))]
    p, angle = pills[rng.integers(len(pills))], rng.uniform(0, 2 * np.pi)
    reach = .085 if p.kind.startswith("round") else .05
    x, y = p.x + reach * np.cos(angle), p.y + reach * np.sin(angle)
    return Part("bite", x, y, w=2 * np.sqrt(2 * target / np.pi))


def _changed_threads(kind: str, target: float, rng: np.random.Generator) -> Part:
    """A box of whole threads.

    A small one must lie where something changes.
    """
    wide = max(1, round(np.sqrt(target * rng.uniform(.4, 2)) * THREADS))
    wide = min(max(wide, int(np.ceil(target * THREADS / .9))), THREADS)
    high = target * THREADS / wide
    anywhere = kind == "weave_shift" or wide > 4

    def changes(i: int) -> bool:
        return WARP[i] != WARP[i + 1] if kind == "stripe_shift" else WARP[i] > 0

    starts = [i for i in range(THREADS - wide + 1) if anywhere or changes(i)]
    x = (rng.choice(starts) + wide / 2) / THREADS
    y = rng.uniform(min(high / 2, .5), max(1 - high / 2, .5))
    return Part(kind, x, y, 0, wide / THREADS, high)


def _broken_thread(target: float, rng: np.random.Generator) -> Part:
    length, upright = target / (.6 / THREADS), rng.integers(2)
    thread = (rng.integers(2, THREADS - 2) + .5) / THREADS
    middle = rng.uniform(length / 2, 1 - length / 2)
    place = (thread, middle) if upright else (middle, thread)
    return Part("broken_thread", *place, upright * np.pi / 2, length, .6 / THREADS)
