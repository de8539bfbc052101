"""Tells a page's style and scripts how small the text of its figures is.

A notebook's cell with pictures has the class `smallest-text-N`: N pixels of the
picture, or `none`, as the cell's metadata has it from the run (book/tools/
figure_text.py). So has a PNG of a page of prose that carries the number itself.
"""
from pathlib import Path

from docutils import nodes
from PIL import Image

KEY = "smallest_text"


def mark(app, doctree) -> None:
    for cell in doctree.findall(nodes.container):
        metadata = cell.get("cell_metadata") or {}
        if KEY in metadata:
            cell["classes"].append(_name(metadata[KEY]))
    for image in doctree.findall(nodes.image):
        path = Path(app.srcdir, image.get("uri", ""))
        if path.suffix == ".png" and path.is_file():
            with Image.open(path) as opened:
                if KEY in opened.info:
                    image["classes"].append(_name(opened.info[KEY]))


def _name(height: float | str | None) -> str:
    return f"smallest-text-{'none' if height is None else height}"


def setup(app):
    app.connect("doctree-read", mark)
    return {"parallel_read_safe": True}
