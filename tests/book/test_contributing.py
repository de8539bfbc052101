"""CONTRIBUTING.md and the security policy lead to what a reader on GitHub looks for."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "CONTRIBUTING.md", ROOT / ".github" / "SECURITY.md")


def anchors(page):
    """GitHub's names of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-")
            for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_heading_that_is_there(page):
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve()
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("what", [
    "make test", "#adding-a-setting", "#adding-a-chapter", "SECURITY.md",
    "codecheck.yml"])
def test_a_contributor_finds(what):
    assert what in PAGES[0].read_text(encoding="utf-8")
