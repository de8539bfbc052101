"""Recorded metrics, and source that is shown."""
import numpy as np
import pytest

from ddad.notebook import METRICS, record, source


def test_recorded_metrics_are_finite_numbers():
    shown = record(pro=np.float32(0.5), steps=3)._repr_mimebundle_()
    assert shown[METRICS] == {"pro": 0.5, "steps": 3.0} and "0.5" in shown["text/html"]
    with pytest.raises(ValueError, match="metric pro is nan"):
        record(pro=float("nan"))


def test_source_is_the_packages_own():
    shown = source(record)
    assert shown.startswith("def record(") and shown == shown.rstrip()
    assert shown._repr_markdown_() == f"```python\n{shown}\n```"
