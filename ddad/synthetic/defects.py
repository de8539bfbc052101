"""Synthetic defects of known place on good images: calibration without test data.

Each is made in full first, and then blended in with a contrast from 0.1 to 1: where all
defects are found, a good choice and a bad one look the same. Not in the paper.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import (
    affine_transform,
    binary_fill_holes,
    gaussian_filter,
    label,
    uniform_filter,
)
from torch import Tensor

KINDS = ("erased", "pasted", "recoloured", "stained", "texture", "light")
AREA = (0.003, 0.3)         # of the image, asked for
CONTRAST = (0.1, 1.0)
CLEAR = 0.03                # the least change, of black to white, that a mask covers
SEEN = 0.1                  # the least mean change under a mask
DRAWS = 12                  # of a region, until its defect can be seen


@dataclass(frozen=True)
class Trial:
    """Good images, and copies of them with a synthetic defect each.

    images: (M, 3, H, H) float32 in [-1, 1], on the CPU: N good ones as they are, then
    the `copies` of the first, of the second, and so on; M = N (1 + copies).
    masks: (M, H, H) bool, where the defect at full contrast changes the image; empty
    for the good ones only.
    kind: M names, "good" or one of KINDS.
    area: (M,) float64, the mask's share of the image.
    contrast: (M,) float64 in (0, 1]: how far the defect was blended in; 0 for good.
    """
    images: Tensor
    masks: np.ndarray
    kind: list[str]
    area: np.ndarray
    contrast: np.ndarray

    @classmethod
    def of(cls, good: Tensor, seed: int, copies: int = 1) -> Trial:
        """A trial of good images (N, 3, H, H) in [-1, 1].

        Kinds, areas and contrasts are balanced jointly (`design`), and the copies of
        one image are of different kinds. What becomes of an image depends on the seed,
        its number, and the image before it, whose texture a defect may take. ValueError
        without any image.
        """
        if not len(good):
            raise ValueError("a trial needs good images, there are none")
        good = good.to("cpu").float()
        levels = ((good + 1) / 2).permute(0, 2, 3, 1).numpy()
        plan = design(len(good) * copies, seed)
        images, masks, kinds = list(good), [np.zeros(levels.shape[1:3], bool)], []
        masks *= len(good)
        for i, (kind, area, contrast) in enumerate(zip(*plan)):
            n, k = divmod(i, copies)
            rng = np.random.default_rng([seed, n, k])
            full, mask, made = damage(
                levels[n], levels[max(n - 1, 0)], str(kind), area, rng)
            change = torch.from_numpy(full).permute(2, 0, 1) * 2 - 1 - good[n]
            images.append((good[n] + contrast * change).clamp(-1, 1))
            masks.append(mask)
            kinds.append(made)
        masks = np.stack(masks)
        return cls(torch.stack(images), masks, ["good"] * len(good) + kinds,
                   masks.mean((1, 2)),
                   np.concatenate([np.zeros(len(good)), plan[2]]))


def groups_of(trial: Trial) -> np.ndarray:
    """(G, D) bool: all defects, each kind, each third of the sizes."""
    bad = np.array(trial.kind) != "good"
    kind, area = np.array(trial.kind)[bad], trial.area[bad]
    third = np.searchsorted(np.quantile(area, [1 / 3, 2 / 3]), area)
    return np.stack([np.ones(len(kind), bool), *(kind == one for one in KINDS),
                     *(third == n for n in range(3))])


def design(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds (count,) str, areas and contrasts (count,) float64, even in log.

    Each six in a row are a Latin hypercube: every kind once, in six different sixths of
    the areas and of the contrasts. From one six to the next all move on by irrational
    steps, so that every kind meets all areas with all contrasts. The first ones do not
    depend on `count`.
    """
    rng, size = np.random.default_rng(seed), len(KINDS)
    i = np.arange(count)
    names = np.array(KINDS)[rng.permutation(size)][i % size]
    sixth = rng.permutation(size)[i % size]
    # times three modulo seven: a permutation without trend
    sixths = np.stack([sixth, 3 * (sixth + 1) % (size + 1) - 1])
    steps = np.array([[(5**0.5 - 1) / 2], [3**0.5 - 1]])
    u = (rng.random((2, 1)) + sixths / size + steps * (i // size)) % 1
    area, contrast = (low * (high / low) ** x for (low, high), x
                      in zip((AREA, CONTRAST), u))
    return names, area, contrast


def damage(image: np.ndarray, other: np.ndarray, kind: str, area: float,
           rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """A copy of `image` with one defect at full contrast, its mask (H, H) bool, and its
    kind.

    image, other: (H, H, 3) float32 in [0, 1]. The mask's share is about `area`. Where
    the image allows no defect of this kind and size that can be seen, as nothing can be
    erased from a plain one, it becomes a stain. ValueError where that fails too.
    """
    for made in (kind, "stained"):
        best, nearest = None, np.inf
        for draw in range(DRAWS):
            m = region(image, area, rng)
            if not m.any():
                continue
            full, mask = _insert(image, other, made, m, area, rng)
            off = abs(np.log(max(mask.mean(), 1e-6) / area))
            if off < nearest and np.abs(full - image).max(-1)[mask].sum() > (
                    SEEN * max(mask.sum(), 1)):
                best, nearest = (full, mask, made), off
            if nearest < 0.1 * (draw + 1):      # less near will do after more draws
                return best
    raise ValueError("no defect can be seen in this image")


def _insert(image: np.ndarray, other: np.ndarray, kind: str, m: np.ndarray, area: float,
            rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`image` with the defect inside its region m, whose edge is soft; the mask."""
    scale = len(image) / 128
    soft = 0.35 * np.sqrt(area) * len(image) if kind == "light" else 0.7 * scale
    edge = _smooth(m.astype(np.float32)[..., None], soft)
    edge /= edge.max()
    new = FILLINGS[kind](image, other, m, rng).clip(0, 1)
    full = (image + edge * (new - image)).astype(np.float32)
    change = _smooth(np.abs(full - image).max(-1)[..., None], 1.5 * scale)[..., 0]
    return full, binary_fill_holes((edge[..., 0] > 0.5) & (change > CLEAR))


# --- what a defect shows: (image, other, m, rng) to a whole image (H, H, 3)

def _erased(image, other, m, rng):
    """A part missing: what is usual around it, nearer pixels with more weight, and the
    grain of a place that looks like that.
    """
    size = len(image)
    ring = ~m & (_smooth(m.astype(np.float32)[..., None], 2 + size / 64)[..., 0] > 0.02)
    if not ring.any():
        return image
    usual = np.abs(image - np.median(image[ring], 0)).max(-1)
    known = (~m * (0.02 + np.exp(-usual / 0.1))).astype(np.float32)[..., None]
    both = np.concatenate([image * known, known], -1)
    both = sum(_smooth(both, s) / s for s in 2.0 ** np.arange(np.log2(size)))
    around = both[..., :3] / both[..., 3:].clip(1e-6)
    coarse = _smooth(image, size / 24)
    grain = image - coarse
    rough = _smooth(np.abs(grain).mean(-1, keepdims=True), size / 48)
    plain = np.median(rough[ring & (usual <= np.median(usual[ring]))])
    grain *= (plain / rough.clip(1e-6)).clip(0, 1) ** 1.5     # outlines of parts fade

    def unlike(place):
        colour = np.abs(coarse[place] - around).mean(-1)[m].mean()
        return colour + 2 * np.abs(rough[place] - plain)[m].mean() + m[place][m].mean()

    place = min((_shifted(image, rng) for _ in range(16)), key=unlike)
    return np.where(m[..., None], around + grain[place], image)


def _pasted(image, other, m, rng):
    """A patch from elsewhere, of this or the other image."""
    source = (image, other)[rng.integers(2)]
    return source[_shifted(image, rng)]


def _recoloured(image, other, m, rng):
    swapped = image[..., rng.permutation(3)]
    return swapped * rng.uniform(0.5, 1.5) + rng.uniform(-0.2, 0.2)


def _stained(image, other, m, rng):
    """One colour, clearly not the region's own, with a soft grain."""
    own, colour = image[m].mean(0), rng.uniform(0, 1, 3)
    if np.abs(colour - own).max() < 0.3:
        colour = (own + 0.5) % 1
    grain = gaussian_filter(rng.standard_normal(image.shape), (2, 2, 0))
    return colour + 0.2 * _unit(grain)


def _texture(image, other, m, rng):
    """The region's own colours with another texture: the other image's, or its own,
    turned and rescaled.
    """
    source = (image, other)[rng.integers(2)]
    angle, scale = rng.uniform(0.15, 0.85) * np.pi, np.exp(rng.uniform(-0.5, 0.5))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)],
                             [np.sin(angle), np.cos(angle)]])
    to = rng.uniform(0, len(image), 2)
    turned = np.stack([affine_transform(source[..., c], turn, to, order=1,
                                        mode="mirror") for c in range(3)], -1)
    sigma = len(image) / 16
    return _smooth(image, sigma) + turned - _smooth(turned, sigma)


def _light(image, other, m, rng):
    """Darker or brighter, by about half of what the image allows; its edge is broad."""
    gain = rng.uniform(0.35, 0.6)
    return image * gain if rng.integers(2) else 1 - (1 - image) * gain


FILLINGS = dict(zip(KINDS, (_erased, _pasted, _recoloured, _stained, _texture, _light)))


def _shifted(image: np.ndarray, rng: np.random.Generator) -> tuple:
    """An index that moves an image by at least an eighth, mirrored at its borders."""
    index = []
    for size in image.shape[:2]:
        by = rng.integers(size // 8, size - size // 8) * rng.choice([-1, 1])
        folded = (np.arange(size) + by) % (2 * size)
        index.append(np.minimum(folded, 2 * size - 1 - folded))
    return np.ix_(*index)


def _smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    """x (H, W, C) smoothed; a wide Gaussian as three boxes, which cost the same at any
    width.
    """
    if sigma < 2:
        return gaussian_filter(x, (sigma, sigma, 0))
    width = 2 * round(np.sqrt(sigma**2 + 0.25) - 0.5) + 1
    for _ in range(3):
        x = uniform_filter(x, (width, width, 1))
    return x


def region(image: np.ndarray, area: float, rng: np.random.Generator) -> np.ndarray:
    """One patch of about `area` (share) of `image` (H, H, 3) in [0, 1]; bool (H, H).

    A rectangle, a blob, a thin line, or a region bounded by the image's own edges, as
    a missing part has the part's outline.
    """
    size = len(image)
    yy, xx = np.mgrid[:size, :size] / size
    cy, cx = rng.uniform(0.12, 0.88, 2)
    kind = rng.integers(4)
    if kind == 2 and area >= 0.02:
        kind = 3
    if kind == 2:
        # a line: as long as its width of 1 to 3% allows
        width, angle = rng.uniform(0.012, 0.03), rng.uniform(0, np.pi)
        along = (xx - cx) * np.cos(angle) + (yy - cy) * np.sin(angle)
        across = -(xx - cx) * np.sin(angle) + (yy - cy) * np.cos(angle)
        return (np.abs(along) <= area / width / 2) & (np.abs(across) <= width / 2)
    stretch = np.exp(rng.uniform(-0.7, 0.7))
    ry, rx = (yy - cy) * stretch, (xx - cx) / stretch
    distance = np.maximum(abs(ry), abs(rx)) if kind == 0 else np.hypot(ry, rx)
    if kind == 3:
        # like colours first, near ones before far ones
        colour = gaussian_filter(image, (size / 128, size / 128, 0))
        at = colour[int(cy * size), int(cx * size)]
        distance = 0.5 * distance + np.abs(colour - at).max(-1)
    elif kind != 0:
        noise = gaussian_filter(
            rng.standard_normal((size, size)), size / 16, mode="wrap"
        )
        distance = distance * np.exp(0.6 * _unit(noise))
    pixels = max(4, int(area * size * size))
    inside = distance <= np.partition(distance.ravel(), pixels)[pixels]
    if kind == 3:
        parts = label(inside)[0]
        inside = parts == parts.flat[distance.argmin()]
    return binary_fill_holes(inside)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / (np.abs(x).max() + 1e-8)
