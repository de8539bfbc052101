"""Reports are one file each, hold what they should, and ask nobody for anything."""
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from image_files import mask_of, noise, save, save_product

from ddad.data.check import check
from ddad.deploy.report import STYLE, page, write_check, write_detection


class Page(HTMLParser):
    """Tags, their attributes, and text; a tag that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "rect", "line", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if not self.open or self.open[-1] not in (
            "style", "script") else ""

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def read(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(https?:)?//', text) and "@import" not in text
    made = Page(text)
    assert all(image["alt"] for image in made.of("img"))
    return made


@pytest.fixture
def root(tmp_path):
    return save_product(tmp_path / "product")


def test_a_check_shows_each_warning_beside_its_images(root, tmp_path):
    for n in range(9):
        save(root / "train" / "good" / f"{n}.png", noise(seed=n))
    shutil.copy(root / "train" / "good" / "3.png", root / "train" / "good" / "copy.png")
    mask = root / "ground_truth" / "scratch" / "000_mask.png"
    save(mask, 255 - mask_of(rows=slice(1)))
    (root / "test" / "good" / "torn.png").write_bytes(b"x")
    save(root / "test" / "good" / "<b>&amp;.png", noise(seed=77))
    report, path = check(root, 16), tmp_path / "r.html"
    write_check(report, root, path)
    made = read(path)
    assert "Usable for: train. 1 problem" in made.text
    for said in (*report["warnings"], *report["problems"]):
        assert said in made.text
    assert "<b>&amp;.png" in made.text                  # escaped, not obeyed
    pictures = [image["alt"] for image in made.of("img")]
    assert all(image["src"].startswith("data:image/webp") for image in made.of("img"))
    assert pictures.count("copy.png") == 2              # its warning, and its kind
    assert pictures.count("8.png") == 1


def test_no_more_than_some_of_each_kind_are_shown(root, tmp_path):
    for n in range(30):
        save(root / "train" / "good" / f"{n:02}.png", noise(seed=n))
    write_check(check(root, 16), root, tmp_path / "r.html")
    made = read(tmp_path / "r.html")
    assert "train: good, 33" in made.text and "9 more are not shown" in made.text


def line(n, score, **changes):
    return {"image": f"new/{n}.png", "file": f"/new/{n}.png", "score": score,
            "threshold": 0.5, "anomalous": score > 0.5, "p": 1 - score, "rate": 0.05,
            "T_hat": 20, "bin": 2, "distance": 1.0, "map": f"{n:05}_{n}"} | changes


def test_a_detection_is_sorted_and_names_what_could_not_be_read(tmp_path):
    lines = [line(0, 0.2), line(1, 0.9), line(2, 0.6, map="00002_a b#?%"),
             {"image": "new/3.png", "file": "/new/3.png", "error": "torn <i>"}]
    write_detection(lines, tmp_path)
    made = read(tmp_path / "report.html")
    assert "2 of 3 images flagged; 1 could not be read." in made.text
    assert [one["class"] for one in made.of("article")] == [
        "flagged", "flagged", "passed", "unread"]
    order = [made.text.index(f"new/{n}.png") for n in (1, 2, 0)]
    assert order == sorted(order) and "torn <i>" in made.text
    assert [one["src"] for one in made.of("img")] == [
        "overlays/00001_1.png", "overlays/00002_a%20b%23%3F%25.png",
        "overlays/00000_0.png"]


def test_of_equal_p_the_higher_score_comes_first(tmp_path):
    """Beyond the highest held-out score all p are 1 / (M + 1)."""
    write_detection([line(n, score, p=0.05) for n, score in enumerate((2, 9, 4))],
                    tmp_path)
    text = read(tmp_path / "report.html").text
    order = [text.index(f"new/{n}.png") for n in (1, 2, 0)]
    assert order == sorted(order)


def test_without_a_threshold_nothing_is_called_anomalous(tmp_path):
    none = dict(threshold=None, anomalous=None, p=None, rate=None)
    write_detection([line(0, 0.2, **none), line(1, 0.9, **none)], tmp_path)
    made = read(tmp_path / "report.html")
    assert "2 images scored; the detector has no threshold" in made.text
    assert "flagged;" not in made.text


def test_names_that_are_no_unicode_are_written(tmp_path):
    write_detection([line(0, 0.2, image="new/\udcff.png")], tmp_path)
    assert "\\udcff" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert np.char.count(page("a < b", ["<p>x</p>"]), "a &lt; b") == 2


def test_a_wide_table_scrolls_and_keeps_its_words_whole():
    """Elsewhere a long path is broken anywhere, which a column would shrink to."""
    rules = re.search(r"\.wide \{([^}]*)\}", STYLE)[1]
    assert "overflow-x: auto" in rules and "overflow-wrap: normal" in rules
