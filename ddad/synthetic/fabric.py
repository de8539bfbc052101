"""The woven fabric: a plain weave of coloured threads, and what changes in it."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

THREADS = 20
PALETTE = np.array(
    [(.88, .83, .72), (.13, .19, .42), (.70, .14, .16), (.85, .60, .16)], np.float32
)
# the colour of each thread, as a row of the palette
WARP = [int(c) for c in "011100220011100330011"]
WEFT = [int(c) for c in "000220000333000022000"]
# defects that are drawn as a box of changed threads
THREAD_KINDS = ("missing_stripe", "wrong_colour", "weave_shift", "stripe_shift")


def weave(
    x: np.ndarray,
    y: np.ndarray,
    change: str = "",
    inside: np.ndarray | bool = False,
    *,
    threads: int = THREADS,
    warp: Sequence[int] = WARP,
    weft: Sequence[int] = WEFT,
    palette: np.ndarray = PALETTE,
) -> np.ndarray:
    """The colours (..., 3) of a plain weave at x and y (...), in product coordinates.

    Warp (upright) and weft threads take turns to be on top; `warp` and `weft` are the
    rows of `palette` of one thread after another. change: "" or one of THREAD_KINDS,
    made where `inside`, bool (...), is true.
    """
    x, y = x * threads, y * threads
    if change == "weave_shift":
        x = x + inside  # one thread is half a period
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    aside = inside if change == "stripe_shift" else 0
    of_warp = np.take(warp, column + aside, mode="wrap")
    of_weft = np.take(weft, row, mode="wrap")
    if change in ("missing_stripe", "wrong_colour"):
        other = (of_warp % 3 + 1) * (change == "wrong_colour")
        of_warp = np.where(inside & (of_warp > 0), other, of_warp)
    across, along = (x - column - 0.5) ** 2, (y - row - 0.5) ** 2
    on_top = (column + row) % 2 == 0
    shade_warp = 1.05 - 1.9 * across - .6 * along
    shade_weft = 1.0 - 1.9 * along - .6 * across
    shade = np.where(on_top, shade_warp, shade_weft)
    return palette[np.where(on_top, of_warp, of_weft)] * shade[..., None]
