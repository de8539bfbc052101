"""Names that would be markup stay text, in tables of reports and in what notebooks
show.
"""
import html
from html.parser import HTMLParser

import numpy as np
import pytest

from ddad.notebook import frames, table
from ddad.notebook.recorded import Recorded
from ddad.reproduction.tables import markdown

EVIL = "<script>alert('é|1')</script>[x](javascript:alert(1))"
WORSE = EVIL + "\" onload='x"


class Tags(HTMLParser):
    def __init__(self, markup: str):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]

    def handle_data(self, data):
        self.text += data


def page(shown) -> Tags:
    return Tags(shown._repr_mimebundle_()["text/html"])


def test_tables_of_reports_escape_names():
    made = markdown(["category", "x"], [[EVIL, 1.0], ["a\n\n<b>|", None]])
    lines = made.splitlines()
    assert "<" not in made and len(lines) == 4
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)
    assert "alert" in html.unescape(made)
    reason = "the book's packages are not installed"
    parser = pytest.importorskip("markdown_it", reason=reason)
    renderer = parser.MarkdownIt("commonmark", {"html": True}).enable("table")
    found = Tags(renderer.render(made))
    assert not {"script", "b", "a", "img"} & set(found.tags) and EVIL in found.text


def test_recorded_metrics_escape_names():
    found = page(Recorded({WORSE: 1.0}))
    assert "script" not in found.tags and WORSE in found.text


def test_tables_of_notebooks_escape_names_and_values():
    found = page(table({WORSE: {EVIL: WORSE}}))
    assert set(found.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert found.text.count(WORSE) == 2 and EVIL in found.text
    assert set(found.attributes) == {"style"}


def test_frames_escape_names():
    image = np.zeros((4, 4, 3), np.uint8)
    found = page(frames([image, image], [WORSE, WORSE], WORSE, alt=WORSE))
    # its own
    assert found.tags.count("script") == 1 and found.tags.count("img") == 1
    assert "onload" not in found.attributes
