"""Metrics of a chapter that its executed notebook carries, and a new run is compared
with.
"""
from __future__ import annotations

import html

import numpy as np

METRICS = "application/vnd.ddad.metrics+json"


class Recorded(dict):
    """Metrics by name: JSON under METRICS in the notebook, a table on the page."""

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{value:.4g}</td></tr>"
            for name, value in self.items()
        )
        head = "<tr><th>recorded</th><th>value</th></tr>"
        plain = "\n".join(f"{name:<40}{value:.4g}" for name, value in self.items())
        return {
            METRICS: dict(self),
            "text/html": f"<table>{head}{rows}</table>",
            "text/plain": plain,
        }


def record(**metrics: float) -> Recorded:
    """Metrics of a run, by name, to be the last expression of a cell.

    ValueError for one that is no finite number.
    """
    for name, value in metrics.items():
        if not np.isfinite(float(value)):
            raise ValueError(f"metric {name} is {value}; record finite numbers")
    return Recorded({name: float(value) for name, value in metrics.items()})
