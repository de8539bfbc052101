"""Broad drawn imagery: what the embedded autoencoder learns images from.

No product is among it: grounds, parts, arrangements and damage of every kind, each
drawn at random, so that a defect is as familiar as what is good.
"""
from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm.auto import tqdm

from .canvas import Canvas, Pose
from .fabric import PALETTE, weave
from .parts import BLOTS, SHAPES, Part, draw_part
from .products import photograph

MARKS = ("scratch", "tear", "bridge", "broken_thread", *BLOTS)
PARTS = [kind for kind in SHAPES if kind != "bite"]
# what surfaces are made of; half of the colours are near one of these
MATERIALS = np.array([row[-1] for kind in PARTS for row in SHAPES[kind]] + [*PALETTE])


def scenery(size: int, seed: int) -> np.ndarray:
    """One image, uint8 (size, size, 3): a ground, what lies on it, damage, light."""
    rng = np.random.default_rng([seed, 17])
    turn, scale = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-.7, .7))
    canvas = Canvas(size, Pose(0, 0, turn * (rng.random() < .5), scale), (0, 0, 0))
    _ground(canvas, rng)
    for arrange in rng.choice((_scattered, _arranged, _shapes), rng.integers(1, 4)):
        arrange(canvas, rng)
    for _ in range(rng.integers(0, 5)):
        _damage(canvas, rng)
    image = canvas.image()
    if rng.random() < .2:  # other metals, plastics, inks
        image = np.clip(image[..., rng.permutation(3)], 0, 1)
    return photograph(image, rng)


def sceneries(count: int, size: int, seed: int) -> np.ndarray:
    """`count` of them, uint8 (count, size, size, 3).

    Each depends on its index alone.
    """
    first = seed * 1_000_003
    drawn = tqdm(range(count), "draw scenery", leave=False, delay=2)
    return np.stack([scenery(size, first + i) for i in drawn])


# --- the ground -----------------------------------------------------------------------

def _ground(canvas: Canvas, rng: np.random.Generator) -> None:
    """A plain, a slope of colour, a grain, stripes or a weave, of random colours."""
    kind, (one, other) = rng.integers(5), _colours(2, rng)
    x, y = canvas.x[..., None], canvas.y[..., None]
    if kind == 0:
        mix = 0
    elif kind == 1:
        mix = np.clip(x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1) + .5, 0, 1)
    elif kind == 2:
        sigma = canvas.n * np.exp(rng.uniform(np.log(.004), np.log(.1)))
        grain = gaussian_filter(rng.standard_normal(x.shape[:2]), sigma, mode="wrap")
        mix = .5 + rng.uniform(.05, .3) * (grain / grain.std())[..., None]
    elif kind == 3:
        across = (x if rng.random() < .5 else x + y) * rng.uniform(3, 30)
        mix = (np.mod(across, 1) < rng.uniform(.1, .9)) * rng.uniform(.1, 1)
    else:
        canvas.rgb[:] = _any_weave(canvas, rng)
        return
    canvas.rgb[:] = one + mix * (other - one)


def _any_weave(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """A weave of random threads: their number, colours and order."""
    count = int(rng.integers(8, 32))
    palette = _colours(4, rng).astype(np.float32)
    warp, weft = (rng.choice(4, count, p=(.55, .2, .15, .1)) for _ in range(2))
    return weave(canvas.x, canvas.y, threads=count, warp=warp, weft=weft,
                 palette=palette)


# --- what lies on it ------------------------------------------------------------------

def _scattered(canvas: Canvas, rng: np.random.Generator) -> None:
    """Parts of any kind, anywhere, in any direction and size."""
    for kind in rng.choice(PARTS, rng.integers(2, 14)):
        x, y = rng.uniform(-.1, 1.1, 2)
        draw_part(canvas, Part(str(kind), x, y, rng.uniform(0, 2 * np.pi), _size(rng)))


def _arranged(canvas: Canvas, rng: np.random.Generator) -> None:
    """Parts of one to three kinds in rows and columns; some are missing."""
    kinds, size = rng.choice(PARTS, rng.integers(1, 4)), _size(rng)
    rows, columns = rng.integers(2, 7, 2)
    turn = rng.choice((0, np.pi / 2)) + rng.uniform(-.1, .1)
    jitter = rng.uniform(0, .02)
    for x in (np.arange(columns) + .5) / columns:
        for y in (np.arange(rows) + .5) / rows:
            if rng.random() < .85:
                at = x + rng.normal(0, jitter), y + rng.normal(0, jitter)
                draw_part(canvas, Part(str(rng.choice(kinds)), *at, turn, size))


def _shapes(canvas: Canvas, rng: np.random.Generator) -> None:
    """Boxes, capsules, discs and blobs of any colour."""
    for _ in range(rng.integers(2, 14)):
        x, y, (w, h) = *rng.uniform(0, 1, 2), np.exp(rng.uniform(-4.5, -.7, 2))
        (colour,), opacity = _colours(1, rng), rng.uniform(.4, 1)
        if rng.random() < .3:
            canvas.blob(x, y, w, int(rng.integers(1 << 30)), colour,
                        soft=rng.uniform(0, .03), opacity=opacity)
        else:
            radius = rng.choice((0, .5, .1)) * min(w, h)
            canvas.box(x, y, w, h, radius, colour, rng.uniform(0, np.pi),
                       opacity=opacity)


def _colours(count: int, rng: np.random.Generator) -> np.ndarray:
    """Colours (count, 3) in 0..1: of materials, or of any kind."""
    if rng.random() < .5:
        return rng.uniform(0, 1, (count, 3))
    near = rng.choice(MATERIALS, count) + rng.normal(0, .07, (count, 3))
    return np.clip(near, 0, 1)


def _size(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(-.7, .6)))


def _damage(canvas: Canvas, rng: np.random.Generator) -> None:
    """A mark, or a patch of the image put elsewhere or recoloured."""
    x, y, turn = *rng.uniform(0, 1, 2), rng.uniform(0, np.pi)
    if rng.random() < .6:
        kind, look = str(rng.choice(MARKS)), int(rng.integers(1 << 30))
        long = kind not in BLOTS
        w = np.exp(rng.uniform(-3, -1) if long else rng.uniform(-4, -1.2))
        h = rng.uniform(.008, .04) if long else 0
        draw_part(canvas, Part(kind, x, y, turn, w, h, look))
        return
    n = canvas.n
    w, h = (int(s) for s in n * np.exp(rng.uniform(-3.3, -.9, 2)))
    (top, source_top), (left, source_left) = (
        rng.integers(0, n - side, 2) for side in (h, w))
    patch = canvas.rgb[source_top:source_top + h, source_left:source_left + w]
    if rng.random() < .5:
        patch = patch[..., rng.permutation(3)] * rng.uniform(.6, 1.4)
    canvas.rgb[top:top + h, left:left + w] = np.clip(patch, 0, 1.2)
