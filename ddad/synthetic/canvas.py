"""The canvas that products are painted on, and how they lie under the camera."""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Pose(NamedTuple):
    """How the product lies under the camera: shift (x, y), turn in radians, scale."""
    x: float = 0.0
    y: float = 0.0
    turn: float = 0.0
    scale: float = 1.0


@lru_cache(maxsize=4)  # an image and all trials of its defect have one pose
def coordinates(n: int, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """The product's x and y at each of n x n pixels: two (n, n) float32."""
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    u, v = axis[None, :] - pose.x, axis[:, None] - pose.y
    c, s = np.cos(pose.turn) / pose.scale, np.sin(pose.turn) / pose.scale
    x, y = c * u + s * v + 0.5, c * v - s * u + 0.5
    return x.astype(np.float32), y.astype(np.float32)


class Canvas:
    """An RGB float32 image, twice as fine as the one asked for.

    It is painted with soft-edged shapes in product coordinates: x right and y down, in
    units of the image's side.
    """

    def __init__(self, size: int, pose: Pose, colour: Sequence[float]) -> None:
        self.n, self.pose = 2 * size, pose
        self.pixel = 1 / (self.n * pose.scale)
        self.x, self.y = coordinates(self.n, pose)
        self.rgb = np.full((self.n, self.n, 3), colour, np.float32)

    def near(
        self, x: float, y: float, w: float, h: float, turn: float = 0.0
    ) -> tuple[slice, slice]:
        """The rows and columns that hold a turned box.

        Shapes are small, so most of the canvas is left alone.
        """
        p, turn, x, y = self.pose, turn + self.pose.turn, x - 0.5, y - 0.5
        column = p.scale * (np.cos(p.turn) * x - np.sin(p.turn) * y) + p.x + 0.5
        row = p.scale * (np.sin(p.turn) * x + np.cos(p.turn) * y) + p.y + 0.5
        c, s = abs(np.cos(turn)) * p.scale / 2, abs(np.sin(turn)) * p.scale / 2

        def around(middle: float, reach: float) -> slice:
            first, end = (middle - reach) * self.n - 2, (middle + reach) * self.n + 3
            return slice(max(0, int(first)), max(0, int(end)))

        return around(row, s * w + c * h), around(column, c * w + s * h)

    def fill(
        self,
        where: tuple[slice, slice],
        distance: np.ndarray,
        colour: Sequence[float],
        soft: float,
        opacity: float,
    ) -> None:
        """Blend a colour in where the signed distance is negative.

        The edge is one pixel wide, or `soft`.
        """
        cover = np.clip(0.5 - distance / max(soft, self.pixel), 0, opacity)[..., None]
        self.rgb[where] += cover * (np.asarray(colour, np.float32) - self.rgb[where])

    def box(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        radius: float,
        colour: Sequence[float],
        turn: float = 0.0,
        soft: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """A turned box with rounded corners.

        With radius h/2 it is a capsule or, if w = h, a disc.
        """
        where = self.near(x, y, w + soft, h + soft, turn)
        dx, dy = self.x[where] - x, self.y[where] - y
        c, s = np.cos(turn), np.sin(turn)
        a = np.abs(c * dx + s * dy) - (w / 2 - radius)
        b = np.abs(c * dy - s * dx) - (h / 2 - radius)
        outside = np.hypot(np.maximum(a, 0), np.maximum(b, 0))
        distance = outside + np.minimum(np.maximum(a, b), 0) - radius
        self.fill(where, distance, colour, soft, opacity)

    def blob(
        self,
        x: float,
        y: float,
        w: float,
        look: int,
        colour: Sequence[float],
        soft: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """A disc of diameter w whose outline wobbles; `look` is the outline's seed."""
        where, radius = self.near(x, y, 1.5 * w, 1.5 * w), w / 2
        dx, dy = self.x[where] - x, self.y[where] - y
        angle = np.arctan2(dy, dx)
        phase = np.random.default_rng(look).uniform(0, 2 * np.pi, 3)
        waves = zip((2, 3, 5), phase, strict=True)
        wobble = 1 + sum(0.12 * np.cos(k * angle + p) for k, p in waves)
        distance = np.hypot(dx, dy) - radius * wobble
        self.fill(where, distance, colour, soft, opacity)

    def image(self) -> np.ndarray:
        """Average down to (size, size, 3) float32."""
        rows = self.rgb[0::2] + self.rgb[1::2]
        return (rows[:, 0::2] + rows[:, 1::2]) / 4
