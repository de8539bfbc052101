"""README.md is short, its links lead somewhere; no page is left out of the site."""
import re
from argparse import Namespace
from pathlib import Path

from ddad.cli.inspection import chosen
from ddad.conformal import shortage

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOC = (ROOT / "book/_toc.yml").read_text(encoding="utf-8")


def test_it_is_short():
    assert len(README.split()) <= 900


def test_it_names_the_least_number_of_images_that_inspect_keeps_its_promise_with():
    options = Namespace(preset=None, vae=None, set=[])

    def short(n):
        s = chosen(options, n, 256, False)
        return shortage(round(n * s.held_out), s.false_alarms)

    least = next(n for n in range(8, 100) if not short(n))
    assert f"at least {least} good images" in README
    layouts = (ROOT / "book/data_layouts.md").read_text(encoding="utf-8")
    assert f"takes 19, and so {least} images in all" in layouts


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)
    local = [link for link in links if not link.startswith("http")]
    assert len(local) > 20
    assert not [link for link in local if not (ROOT / link).exists()]


def test_the_tree_is_that_of_the_folders():
    named = set(re.findall(r"^  (\w+)/ ", README, re.M))
    rooms = {path.parent.name for path in (ROOT / "ddad").glob("*/__init__.py")}
    assert named == rooms | {"weights"}


def test_every_chapter_is_listed():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in README


def test_every_page_is_in_the_contents_and_every_entry_a_page():
    files = set(re.findall(r"(?:file|root): (\S+)", TOC))
    pages = [*(ROOT / "book").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert files == {path.relative_to(ROOT).with_suffix("").as_posix()
                     for path in pages}
