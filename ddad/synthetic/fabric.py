"""The woven fabric: a plain weave of coloured threads, and what changes in it."""
from __future__ import annotations

import numpy as np

THREADS = 20
PALETTE = np.array(
    [(.88, .83, .72), (.13, .19, .42), (.70, .14, .16), (.85, .60, .16)], np.float32
)
# the colour of each thread, as a row of the palette
WARP = [int(c) for c in "011100220011100330011"]
WEFT = [int(c) for c in "000220000333000022000"]
# defects that are drawn as a box of changed threads
THREAD_KINDS = ("missing_stripe", "wrong_colour", "weave_shift")


def weave(
    x: np.ndarray, y: np.ndarray, change: str = "", inside: np.ndarray | bool = False
) -> np.ndarray:
    """The colours (..., 3) of a plain weave at x and y (...), in product coordinates.

    Warp (upright) and weft threads take turns to be on top. change: "" or one of
    THREAD_KINDS, made where `inside`, bool (...), is true.
    """
    x, y = x * THREADS, y * THREADS
    if change == "weave_shift":
        x = x + inside  # one thread is half a period
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    warp = np.take(WARP, column, mode="wrap")
    weft = np.take(WEFT, row, mode="wrap")
    if change in ("missing_stripe", "wrong_colour"):
        other = (warp % 3 + 1) * (change == "wrong_colour")
        warp = np.where(inside & (warp > 0), other, warp)
    across, along = (x - column - 0.5) ** 2, (y - row - 0.5) ** 2
    on_top = (column + row) % 2 == 0
    shade_warp = 1.05 - 1.9 * across - .6 * along
    shade_weft = 1.0 - 1.9 * along - .6 * across
    shade = np.where(on_top, shade_warp, shade_weft)
    return PALETTE[np.where(on_top, warp, weft)] * shade[..., None]
