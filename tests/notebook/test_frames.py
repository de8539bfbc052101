"""What the notebooks share: recorded metrics, figures with a slider, live controls."""
import io

import numpy as np
import pytest
from PIL import Image

from ddad import lesson

PICTURES = [np.full((20, 30, 3), level, np.uint8) for level in (0, 100, 200)]


def test_recorded_metrics_are_finite_numbers():
    shown = lesson.record(pro=np.float32(0.5), steps=3)._repr_mimebundle_()
    assert shown[lesson.METRICS] == {"pro": 0.5, "steps": 3.0} and "0.5" in shown["text/html"]
    with pytest.raises(ValueError, match="metric pro is nan"):
        lesson.record(pro=float("nan"))


def test_frames_are_one_figure_with_words():
    markup = lesson.frames(PICTURES, ["<a>", "b", "c"], "step", alt="three grey pictures")._repr_mimebundle_()["text/html"]
    assert 'alt="three grey pictures"' in markup and 'max="2"' in markup and "&lt;a&gt;" in markup and "<a>" not in markup
    with pytest.raises(ValueError):
        lesson.frames([np.zeros((9000, 10, 3), np.uint8)] * 2, ["a", "b"], "step", alt="too high")


def test_live_draws_anew_when_a_slider_moves():
    pytest.importorskip("ipywidgets", reason="the book's packages are not installed")
    called = []

    def show(n, T):
        called.append((n, T))
        return PICTURES[n]

    slider, other, shown = lesson.live(show, n=range(3), T=[20, 80]).children
    assert called == [(0, 20)]
    slider.value = 2
    assert called[-1] == (2, 20)
    other.value = 80
    assert called[-1] == (2, 80)
    assert np.asarray(Image.open(io.BytesIO(shown.value)))[0, 0, 0] == 200
