"""Asserts that every page of the contents was built, whole, below two megabytes.

With its outputs, its tables set, with a description of each picture, with links within
the site that lead somewhere, and without files from other hosts.
"""
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[2]
SITE, LIMIT = ROOT / "_build/html", 2_000_000
UNSET = re.compile(r"<p>\s*(\| [^|<]+ \| [^|<]+ \|)")      # Markdown, as it was typed
STRAY = re.compile(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)"')


class Page(HTMLParser):
    """A page's links, the names in it, its pictures, those without a description."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.names, self.pictures, self.undescribed = [], set(), 0, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names |= {found[key] for key in ("id", "name") if found.get(key)}
        self.links += [found[key] for key in ("href", "src") if found.get(key)]
        if tag == "img":
            self.pictures += 1
            if "alt" not in found:
                self.undescribed.append(found.get("src", "")[:60])


def contents() -> list[str]:
    """The pages of the table of contents."""
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(chapter["file"] for chapter in chapters)]


def expected_figures(name: str) -> int:
    """Figures in the outputs of a notebook; none for a page of prose."""
    path = ROOT / f"{name}.ipynb"
    if not path.exists():
        return 0
    cells = nbformat.read(path, 4).cells
    shown = [output.get("data", {}) for c in cells for output in c.get("outputs", [])]
    return sum("image/png" in data or "<img" in data.get("text/html", "")
               for data in shown)


def broken(path: Path, pages: dict[Path, Page]) -> list[str]:
    """Links of a page that lead nowhere within the site."""
    said = []
    for link in pages[path].links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or link == "#":
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target /= "index.html"
        names = {""}                                   # the top of a page
        names |= pages[target].names if target in pages else {unquote(parts.fragment)}
        if not target.exists():
            said.append(f"{path.name}: {link} leads nowhere")
        elif unquote(parts.fragment) not in names:
            said.append(f"{path.name}: {link} names nothing on that page")
    return said


def main() -> int:
    said, paths = [], {name: SITE / f"{name}.html" for name in contents()}
    missing = [name for name, path in paths.items() if not path.exists()]
    if missing:
        print("not built: " + ", ".join(missing))
        return 1
    pages = {path.resolve(): Page(path) for path in paths.values()}
    for name, path in paths.items():
        page, wanted = pages[path.resolve()], expected_figures(name)
        if page.pictures < wanted:
            said.append(f"{name}: {page.pictures} figures, {wanted} in the notebook")
        if path.stat().st_size > LIMIT:
            said.append(f"{name}: {path.stat().st_size} bytes, more than {LIMIT}")
        said += [f"{name}: no description of {source}" for source in page.undescribed]
        said += broken(path.resolve(), pages)
        html = path.read_text(encoding="utf-8")
        said += [f"{name}: a table that is not set: {cells}"
                 for cells in UNSET.findall(html)]
        stray = STRAY.findall(html)
        said += [f"{name}: asks another host for {found}" for found in stray]
    print("\n".join(said) or f"{len(paths)} pages, complete")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
