"""What the notebooks share: metrics that are recorded, source shown where it is explained, figures that move without a kernel."""
from __future__ import annotations

import base64
import html
import inspect
import io
import json

import numpy as np
from PIL import Image

METRICS = "application/vnd.ddad.metrics+json"


class Recorded(dict):
    """Metrics by name, shown as a table; the executed notebook carries them as JSON, and CI compares them with a new run's."""

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{value:.4g}</td></tr>" for name, value in self.items())
        plain = "\n".join(f"{name:<40}{value:.4g}" for name, value in self.items())
        return {METRICS: dict(self), "text/html": f"<table><tr><th>recorded</th><th>value</th></tr>{rows}</table>", "text/plain": plain}


def record(**metrics: float) -> Recorded:
    """Metrics of a run, by name, to be the last expression of a cell. ValueError for one that is no finite number."""
    for name, value in metrics.items():
        if not np.isfinite(float(value)):
            raise ValueError(f"metric {name} is {value}; record finite numbers")
    return Recorded({name: float(value) for name, value in metrics.items()})


class Source(str):
    """Python source that a notebook shows with colours."""

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"


def source(thing) -> Source:
    """The package's own source of a function or class, as it runs; nothing is copied into a page by hand."""
    return Source(inspect.getsource(thing).rstrip())


def canvas(fig) -> np.ndarray:
    """A matplotlib figure as a picture (H, W, 3) uint8; the figure is closed."""
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


def frames(pictures: list[np.ndarray], captions: list[str], control: str, alt: str, start: int = 0) -> Frames:
    """One picture (H, W, 3) uint8 at a time, chosen by a slider named `control`, with its caption below.

    Works on a static page: all pictures lie in one sprite sheet inside the markup. The slider takes the arrow keys. Without
    JavaScript, and in print, all pictures are shown below one another. alt describes the whole for those who do not see it.
    ValueError for pictures of more than 16000 pixels in height together, the limit of the format.
    """
    if len(pictures) != len(captions) or not pictures:
        raise ValueError(f"{len(pictures)} pictures need as many captions, there are {len(captions)}")
    if sum(len(picture) for picture in pictures) > 16000:
        raise ValueError("the pictures are more than 16000 pixels high together; show fewer, or smaller ones")
    file = io.BytesIO()
    Image.fromarray(np.concatenate(pictures)).save(file, "WEBP", quality=80)
    sprite = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    n, (height, width) = len(pictures), pictures[0].shape[:2]
    label, words = html.escape(control), html.escape(json.dumps(captions), quote=True)
    return Frames(f"""<figure class="ddad-frames" data-captions="{words}" style="margin:1em 0">
<style>
.ddad-frames div {{ overflow: hidden; max-width: {width}px }}
.ddad-frames img {{ display: block; width: 100%; height: auto }}
.ddad-frames input {{ width: min(100%, 24em); vertical-align: middle }}
@media print {{ .ddad-frames div {{ aspect-ratio: auto !important }} .ddad-frames img {{ transform: none !important }}
 .ddad-frames label {{ display: none }} }}
</style>
<div><img alt="{html.escape(alt, quote=True)}" src="{sprite}"></div>
<label hidden>{label}: <input type="range" min="0" max="{n - 1}" value="{start}" aria-label="{label}"></label>
<figcaption aria-live="polite">{html.escape(captions[start])}</figcaption>
<script>
(() => {{
  const figure = document.currentScript.closest("figure"), picture = figure.querySelector("img");
  const input = figure.querySelector("input"), captions = JSON.parse(figure.dataset.captions);
  figure.querySelector("div").style.aspectRatio = "{width} / {height}";
  figure.querySelector("label").hidden = false;
  const show = () => {{
    picture.style.transform = `translateY(-${{100 * input.value / {n}}}%)`;
    figure.querySelector("figcaption").textContent = captions[input.value];
    input.setAttribute("aria-valuetext", captions[input.value]);
  }};
  input.addEventListener("input", show);
  show();
}})();
</script>
</figure>""", alt)


def live(show, **choices):
    """`frames` for a running notebook: a slider for each list of values; `show(**values)` makes the picture (H, W, 3) uint8 anew."""
    import ipywidgets
    sliders = {name: ipywidgets.SelectionSlider(options=list(values), description=name, continuous_update=False) for name, values in choices.items()}
    shown = ipywidgets.Image(format="png")

    def update(_=None) -> None:
        file = io.BytesIO()
        Image.fromarray(show(**{name: slider.value for name, slider in sliders.items()})).save(file, "PNG")
        shown.value = file.getvalue()

    for slider in sliders.values():
        slider.observe(update, "value")
    update()
    return ipywidgets.VBox([*sliders.values(), shown])
