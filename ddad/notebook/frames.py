"""Figures that move without a kernel, and figures that are drawn anew with one."""
from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

STYLE = """
.ddad-frames div { overflow: hidden }
.ddad-frames img { display: block; width: 100%; height: auto }
.ddad-frames input { width: min(100%, 24em); vertical-align: middle }
@media print {
 .ddad-frames div { aspect-ratio: auto !important }
 .ddad-frames img { transform: none !important }
 .ddad-frames label { display: none }
}
"""
SCRIPT = """
(() => {
  const figure = document.currentScript.closest("figure");
  const image = figure.querySelector("img"), input = figure.querySelector("input");
  const captions = JSON.parse(figure.dataset.captions);
  figure.querySelector("div").style.aspectRatio = figure.dataset.ratio;
  figure.querySelector("label").hidden = false;
  const show = () => {
    image.style.transform = `translateY(-${100 * input.value / captions.length}%)`;
    figure.querySelector("figcaption").textContent = captions[input.value];
    input.setAttribute("aria-valuetext", captions[input.value]);
  };
  input.addEventListener("input", show);
  show();
})();
"""
HIGHEST = 16000     # pixels; the limit of WebP


def canvas(fig) -> np.ndarray:
    """A matplotlib figure as an image (H, W, 3) uint8; the figure is closed."""
    import matplotlib.pyplot as plt
    fig.canvas.draw()
    drawn = np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()
    plt.close(fig)
    return drawn


class Frames:
    """A figure with a slider; made by `frames`."""

    def __init__(self, markup: str, alt: str):
        self.markup, self.alt = markup, alt

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/html": self.markup, "text/plain": self.alt}


def frames(
    images: Sequence[np.ndarray],
    captions: list[str],
    control: str,
    alt: str,
    start: int = 0,
) -> Frames:
    """One image (H, W, 3) uint8 at a time, with its caption below.

    A slider named `control` chooses it, and takes the arrow keys. Works on a static
    page: all images lie in one sprite sheet inside the markup. Without JavaScript, and
    in print, all images are shown below one another. alt describes the whole for those
    who do not see it. ValueError where there are not as many captions as images, and
    for images of more than 16000 pixels in height together.
    """
    if len(images) != len(captions) or not images:
        raise ValueError(
            f"{len(images)} images need as many captions, there are {len(captions)}"
        )
    if sum(len(image) for image in images) > HIGHEST:
        raise ValueError(
            f"the images are more than {HIGHEST} pixels high together; show fewer, or "
            "smaller ones"
        )
    file = io.BytesIO()
    Image.fromarray(np.concatenate(images)).save(file, "WEBP", quality=80)
    sprite = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    height, width = images[0].shape[:2]
    label, words = html.escape(control), html.escape(json.dumps(captions))
    last = len(images) - 1
    return Frames(f"""\
<figure class="ddad-frames" data-captions="{words}" data-ratio="{width} / {height}"
 style="margin:1em 0">
<style>{STYLE}</style>
<div style="max-width:{width}px"><img alt="{html.escape(alt)}" src="{sprite}"></div>
<label hidden>{label}:
<input type="range" min="0" max="{last}" value="{start}" aria-label="{label}"></label>
<figcaption aria-live="polite">{html.escape(captions[start])}</figcaption>
<script>{SCRIPT}</script>
</figure>""", alt)


def live(show: Callable[..., np.ndarray], **choices: Sequence):
    """`frames` for a running notebook: a slider for each list of values.

    show(**values) makes the image (H, W, 3) uint8 anew. Returns an ipywidgets.VBox: the
    sliders, and the image below.
    """
    import ipywidgets
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=list(values), description=name, continuous_update=False
        )
        for name, values in choices.items()
    }
    shown = ipywidgets.Image(format="png")

    def update(_=None) -> None:
        file = io.BytesIO()
        chosen = {name: slider.value for name, slider in sliders.items()}
        Image.fromarray(show(**chosen)).save(file, "PNG")
        shown.value = file.getvalue()

    for slider in sliders.values():
        slider.observe(update, "value")
    update()
    return ipywidgets.VBox([*sliders.values(), shown])
