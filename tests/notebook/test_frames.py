"""Figures with a slider, on a static page and in a running notebook."""
import io

import numpy as np
import pytest
from PIL import Image

from ddad.notebook import canvas, frames, live

IMAGES = [np.full((20, 30, 3), level, np.uint8) for level in (0, 100, 200)]


def test_frames_are_one_figure_with_words():
    shown = frames(IMAGES, ["<a>", "b", "c"], "step", alt="three grey images")
    bundle = shown._repr_mimebundle_()
    markup = bundle["text/html"]
    assert bundle["text/plain"] == "three grey images"
    assert 'alt="three grey images"' in markup and 'max="2"' in markup
    assert "&lt;a&gt;" in markup and "<a>" not in markup
    too_high = [np.zeros((9000, 10, 3), np.uint8)] * 2
    with pytest.raises(ValueError, match="more than 16000 pixels high"):
        frames(too_high, ["a", "b"], "step", alt="too high")
    with pytest.raises(ValueError, match="3 images need as many captions, there are 1"):
        frames(IMAGES, ["a"], "step", alt="too few captions")


def test_live_draws_anew_when_a_slider_moves():
    reason = "the book's packages are not installed"
    pytest.importorskip("ipywidgets", reason=reason)
    called = []

    def show(n, T):
        called.append((n, T))
        return IMAGES[n]

    slider, other, shown = live(show, n=range(3), T=[20, 80]).children
    assert called == [(0, 20)]
    slider.value = 2
    assert called[-1] == (2, 20)
    other.value = 80
    assert called[-1] == (2, 80)
    assert np.asarray(Image.open(io.BytesIO(shown.value)))[0, 0, 0] == 200


def test_a_figure_as_an_image():
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    fig = plt.figure(figsize=(2, 1), dpi=50, facecolor="red")
    drawn = canvas(fig)
    assert drawn.shape == (50, 100, 3) and drawn.dtype == np.uint8
    assert (drawn == (255, 0, 0)).all() and not plt.fignum_exists(fig.number)
