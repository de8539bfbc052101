"""Results of a chapter as a table, in place of printed columns."""
from __future__ import annotations

import html
import math
from numbers import Real

DASH = "–"


class Table:
    """Headings and rows of cells; made by `table`."""

    def __init__(self, headings: list[str], rows: list[list[str]], right: list[bool]):
        self.headings, self.rows, self.right = headings, rows, right

    def __str__(self) -> str:
        lines = [self.headings, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines)]
        ways = [str.rjust if right else str.ljust for right in self.right]
        return "\n".join(
            "  ".join(way(cell, n) for way, cell, n in zip(ways, line, widths)).rstrip()
            for line in lines
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        head = self._line("th", self.headings)
        body = "".join(self._line("td", row) for row in self.rows)
        markup = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
        return {"text/html": markup, "text/plain": str(self)}

    def _line(self, tag: str, cells: list[str]) -> str:
        sides = ["right" if right else "left" for right in self.right]
        marked = (
            f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells)
        )
        return f"<tr>{''.join(marked)}</tr>"


def table(
    rows: list[dict] | dict[str, dict],
    columns: list[str] | dict[str, str] | None = None,
) -> Table:
    """Rows as a table, to be the last expression of a cell; str() is its plain text.

    rows: a list of n dicts, or n dicts by a name, which is then the first column.
    columns: the m keys to show, in this order, or a dict of key -> heading; else all
    keys, in the order in which they first come. The values are words, bool, None, or
    numbers, also NumPy's or PyTorch's of one element. The floats of a column have as
    many decimals as give the largest four digits, four where none is above 1. A value
    that is None or missing is a dash. ValueError where there is no row, or a column
    that no row has.
    """
    names = list(rows) if isinstance(rows, dict) else None
    rows = list(rows.values()) if names is not None else list(rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    headings = dict(columns) if isinstance(columns, dict) else {
        key: str(key) for key in (keys if columns is None else columns)
    }
    unknown = [key for key in headings if key not in keys]
    if not rows or unknown:
        what = f"column {', '.join(map(str, unknown))} of no row" if rows else "no rows"
        raise ValueError(f"a table needs rows with the columns shown; given: {what}")
    shown = [[row.get(key) for row in rows] for key in headings]
    if names is not None:
        shown, headings = [names, *shown], {None: "", **headings}
    shown = [[_plain(value) for value in column] for column in shown]
    cells = [_cells(column) for column in shown]
    right = [any(_is_number(value) for value in column) for column in shown]
    return Table(list(headings.values()), [list(row) for row in zip(*cells)], right)


def _plain(value):
    """NumPy's and PyTorch's scalars as Python's."""
    return value.item() if hasattr(value, "item") else value


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _cells(column: list) -> list[str]:
    """The column's values as text, floats with the same decimals."""
    sizes = [abs(x) for x in column if isinstance(x, float) and math.isfinite(x) and x]
    decimals, small = 0, False
    if sizes:
        largest = max(sizes)
        whole = 0 if largest <= 1 else 1 + math.floor(math.log10(largest))
        decimals = max(0, 4 - whole)
        # the smallest would be left with less than two digits: each has its own then
        small = min(sizes) < 10 ** (1 - decimals)

    def cell(value) -> str:
        if value is None:
            return DASH
        if isinstance(value, bool):
            return "yes" if value else "no"
        if not isinstance(value, float):
            return str(value)
        if small and abs(value) < 1000:
            return f"{value:.3g}"
        return f"{value:.{0 if small else decimals}f}"

    return [cell(value) for value in column]
