"""The smallest text of a chapter's figures: an IPython extension that measures it.

Each cell ends with an output under TEXT: the size of the smallest text that matplotlib
drew in it, in pixels of the picture, or None. run_notebooks.py moves it to the cell's
metadata, the site's pages carry it (book/extensions/figure_text.py), site.js lets no
figure shrink until its text is unreadable, and check_site.py looks whether that holds.
"""
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from matplotlib.backends.backend_agg import RendererAgg

TEXT = "application/vnd.ddad.text+json"
KEY = "smallest_text"
KERNEL = ExitStack()        # measures until the kernel ends


@contextmanager
def measured() -> Iterator[list[float]]:
    """A list that every text drawn meanwhile adds its size to."""
    heights, draw = [], RendererAgg.draw_text

    def draw_text(self, gc, x, y, words, prop, *rest, **named):
        if words.strip():
            heights.append(self.points_to_pixels(prop.get_size_in_points()))
        return draw(self, gc, x, y, words, prop, *rest, **named)

    RendererAgg.draw_text = draw_text
    try:
        yield heights
    finally:
        RendererAgg.draw_text = draw


def save(figure, path: Path, dpi: int) -> None:
    """Writes a figure of a page of prose; the PNG itself says how small its text is."""
    with measured() as heights:
        figure.savefig(io.BytesIO(), dpi=dpi)
    smallest = str(round(min(heights), 2)) if heights else "none"
    figure.savefig(path, dpi=dpi, metadata={"Software": None, KEY: smallest})


def load_ipython_extension(shell) -> None:
    heights = KERNEL.enter_context(measured())

    def tell(_) -> None:
        smallest = round(min(heights), 2) if heights else None
        shell.display_pub.publish({TEXT: {KEY: smallest}})
        heights.clear()

    shell.events.register("post_run_cell", tell)


def shows_picture(cell) -> bool:
    data = [output.get("data", {}) for output in cell.outputs]
    return any("image/png" in one or "<img" in one.get("text/html", "") for one in data)


def moved_to_metadata(cells) -> None:
    """Takes the measurements from the outputs of code cells; the next picture has what
    was drawn for it in cells before.
    """
    drawn = []
    for cell in cells:
        told = [one for one in cell.outputs if TEXT in one.get("data", {})]
        if not told:
            continue
        cell.outputs = [one for one in cell.outputs if one not in told]
        heights = [one["data"][TEXT][KEY] for one in told]
        drawn += [height for height in heights if height is not None]
        if shows_picture(cell):
            cell.metadata[KEY] = min(drawn, default=None)
            drawn = []
