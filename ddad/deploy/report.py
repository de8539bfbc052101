"""Reports to look at in a browser: one HTML file each, light and dark, that asks no
host for anything. Pictures are inside it, but for those of a detection, which lie
beside it.
"""
from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from ..data.images import decoded, defect_of
from ..data.layouts import PARTS, Item, scan
from ..runtime.errors import DataError
from ..runtime.files import write_text
from .overlays import MAGENTA, outline

SIDE, SHOWN = 112, 24           # pixels of a thumbnail, and how many of a kind
CHECK = "Data check of "        # how the title of such a page begins

STYLE = """
:root { color-scheme: light dark; --line: #8884; --mark: #b3005e; --soft: #8882;
        background: Canvas; color: CanvasText; }
@media (prefers-color-scheme: dark) { :root { --mark: #ff7ab8; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem;
       padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.answer { font-size: 1.15rem; border-left: .3rem solid var(--mark);
          padding-left: .8rem; }
.sheet { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; }
figure { margin: 0; max-width: 100%; } .sheet figure { width: 7.2rem; }
.pairs { display: flex; flex-wrap: wrap; gap: 1rem; }
figcaption { font-size: .8rem; } img { max-width: 100%; height: auto; }
table { border-collapse: collapse; overflow-wrap: normal; }
.wide { overflow-x: auto; } td { white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem;
         text-align: right; }
th:first-child, td:first-child { text-align: left; }
article { border-top: 1px solid var(--line); padding: .8rem 0; }
.flagged b, .warning { color: var(--mark); }
select { font: inherit; padding: .2rem; } svg { max-width: 100%; height: auto; }
"""

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>"""

FILTER = """
const choose = document.getElementById('show'), told = document.getElementById('told');
const all = [...document.querySelectorAll('article')];
choose.addEventListener('change', () => {
  let shown = 0;
  for (const one of all) {
    one.hidden = choose.value !== 'all' && one.className !== choose.value;
    shown += !one.hidden;
  }
  told.textContent = `${shown} of ${all.length} shown`;
});
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole HTML document of these parts, HTML each."""
    body = "\n".join(parts)
    text = (f"{HEAD}{_text(title)}</title><style>{STYLE}</style></head>\n"
            f"<body><main><h1>{_text(title)}</h1>\n{body}\n</main></body></html>\n")
    # a file's name may be no Unicode
    return text.encode("utf-8", "backslashreplace").decode()


def is_page(path: Path, title: str) -> bool:
    """Whether a file is a `page` whose title begins so."""
    if not path.is_file():              # a pipe would be waited for
        return False
    begins = HEAD + _text(title)
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(len(begins)) == begins


# --- a folder of data

def write_check(report: dict, root: Path, path: Path) -> None:
    """What `data.check` found in `root`: each warning beside its images, and some of
    each kind, with their masks outlined.
    """
    items = {item.path.relative_to(root).as_posix(): item
             for part in PARTS for item in scan(root, part)[0]}
    usable = " and ".join(report["usable_for"]) or "nothing"
    said = f"Usable for: {usable}. {_count(len(report['problems']), 'problem')}, "
    parts = [answer(f"{said}{_count(len(report['warnings']), 'warning')}.")]
    if report["problems"]:
        parts += ["<h2>Problems</h2>", _list(report["problems"])]
    if report["warnings"]:
        parts.append("<h2>Warnings</h2>")
    for warning, names in zip(report["warnings"], report["warned_of"]):
        parts.append(doubt(warning, names, root, items))
    if report["ignored"]:
        parts += ["<h2>Not read</h2>", _list(report["ignored"])]
    for part in PARTS:
        found = scan(root, part)[0]
        for kind in dict.fromkeys(item.kind for item in found):
            these = [item for item in found if item.kind == kind]
            parts += [f"<h2>{part}: {_text(kind)}, {len(these)}</h2>",
                      sheet(these)]
    write_text(path, page(f"{CHECK}{root.name}", parts))


def doubt(warning: str, names: list[str], root: Path,
          items: dict[str, Item] | None = None) -> str:
    """A warning, and the images that it is of; `items`: by name, good ones if None."""
    found = [Item(root / name, "good", None) if items is None else items.get(name)
             for name in names]
    return (f'<p class="warning">{_text(warning)}</p>'
            + sheet([item for item in found if item]))


def sheet(items: list[Item]) -> str:
    """Thumbnails of the first SHOWN items, and how many are left out."""
    left = len(items) - SHOWN
    more = f"<p>{left} more are not shown.</p>" if left > 0 else ""
    shown = "".join(_thumbnail(item) for item in items[:SHOWN])
    return f'<div class="sheet">{shown}</div>{more}' if items else ""


def _thumbnail(item: Item) -> str:
    try:
        image = np.array(decoded(item.path)[0].convert("RGB").resize((SIDE, SIDE)))
        if item.mask is not None:
            mask = Image.fromarray(defect_of(item.mask)).resize((SIDE, SIDE))
            image[outline(np.array(mask))] = MAGENTA
    except DataError as error:
        return f"<figure><figcaption>{_text(str(error))}</figcaption></figure>"
    return picture(image, item.path.name)


# --- what a detector said of images

def write_detection(lines: list[dict], out: Path, doubts: Iterable[str] = (),
                    limits: str = "") -> None:
    """out/report.html: each line that `folder.inspect` made there, the least usual
    first, with its overlay. doubts: warnings on all of them; limits: what p can say
    here, see `doubts.limits`.
    """
    rarest = lambda line: (line["p"] is not None, line["p"] or 0, -line["score"])
    scored = sorted((line for line in lines if "score" in line), key=rarest)
    refused = [line for line in lines if "error" in line]
    flagged = sum(bool(line["anomalous"]) for line in scored)
    judged = bool(scored) and scored[0]["anomalous"] is not None
    verdict = (f"{flagged} of {_count(len(scored), 'image')} flagged" if judged else
               f"{_count(len(scored), 'image')} scored; the detector has no threshold, "
               "so none is called anomalous")
    unread = f"; {len(refused)} could not be read" if refused else ""
    choices = {"all": "all", "flagged": "flagged", "passed": "not flagged",
               "unread": "not read"}
    options = "".join(f'<option value="{value}">{said}</option>'
                      for value, said in choices.items())
    parts = [answer(f"{verdict}{unread}."),
             *(f'<p class="warning">Warning: {_text(said)}.</p>' for said in doubts),
             "<p>The least usual first. p is the share of held-out good images, the "
             "image itself counted, that score at least as high; of equal p the higher "
             "score comes first. Each picture: the input, its repainting, and the map "
             "over the input; its middle colour is the threshold.</p>",
             *([f"<p>Here {_text(limits)}.</p>"] if limits else []),
             f'<p><label>Show <select id="show">{options}</select></label> '
             '<span id="told" role="status"></span></p>',
             *map(_verdict, scored), *map(_refused, refused),
             f"<script>{FILTER}</script>"]
    write_text(out / "report.html", page("What was found", parts))


def _verdict(line: dict) -> str:
    state = "flagged" if line["anomalous"] else "passed"
    p = "" if line["p"] is None else f", p {line['p']:.3f}"
    limit = "" if line["threshold"] is None else f" of {line['threshold']:.4g}"
    overlay = f"overlays/{quote(line['map'])}.png"
    name = _text(line["image"])
    return (f'<article class="{state}"><p><b>{state}</b> {name}: score '
            f'{line["score"]:.4g}{limit}{p}, step {line["T_hat"]}</p>'
            f'<img loading="lazy" src="{overlay}" width="768" height="256" alt="Input, '
            f'repainting and map of {name}"></article>')


def _refused(line: dict) -> str:
    return (f'<article class="unread"><p><b>not read</b> {_text(line["error"])}</p>'
            "</article>")


# --- building blocks

def picture(image: np.ndarray, caption: str) -> str:
    """A figure with the image (H, W, 3) uint8 inside."""
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "WEBP", quality=80)
        data = base64.b64encode(file.getvalue()).decode()
    height, width = image.shape[:2]
    said = _text(caption)
    return (f'<figure><img src="data:image/webp;base64,{data}" width="{width}" '
            f'height="{height}" alt="{said}"><figcaption>{said}</figcaption></figure>')


def grid(head: list[str], rows: list[list[str]]) -> str:
    """A table, whose first column names the row."""
    top = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows)
    return (f'<div class="wide" tabindex="0" role="region" aria-label="table"><table>'
            f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>")


def answer(said: str) -> str:
    """The first sentence of a page."""
    return f'<p class="answer">{_text(said)}</p>'


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _text(said: str) -> str:
    return html.escape(said)
