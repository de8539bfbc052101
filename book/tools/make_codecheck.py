"""Writes codecheck.yml: what this project shows, and the command that makes each anew.
--check only compares.

The form is the CODECHECK community's, https://codecheck.org.uk/spec/config/1.0/, as an
author begins it: who checks adds their name and their report. A record in book/results
comes from an experiment; tables and figures come from records; a chapter is run.
"""
from __future__ import annotations

import re
import sys
from pathlib import Path

import results_figure
import yaml
from experiments import EXPERIMENTS
from records import BOOK, METRICS

ROOT = BOOK.parent
FILE = ROOT / "codecheck.yml"
SPECIFICATION = "https://codecheck.org.uk/spec/config/1.0/"
PART = re.compile(r"<!-- (table|reference) ([\w.]+) -->")
FRONT_DOOR = "python book/tools/front_door.py"
TOOLS = {"table": "python book/tools/make_results.py", "reference": "make reference"}
FIGURES = {
    "book/speed_curve.png": (TOOLS["table"], "figure: time against PRO"),
    "book/speed_rivals.png": (TOOLS["table"], "figure: time against I-AUROC and PRO"),
    **{f"book/{path.name}": (TOOLS["table"], f"figure: {METRICS[metric]} by method")
       for metric, path in results_figure.FILES.items()},
    "book/overview.png": ("ddad demo build/demo",
                          "figure: build/demo/board_missing.png"),
    "book/static/film.webp": (FRONT_DOOR, "film: a board broken, repainted, its map"),
    "book/data_flow.svg": (FRONT_DOOR, "figure: what becomes of a picture"),
}
# record in book/results: command, what it holds
RECORDS = {
    **{one.name: (f"make experiments ONLY={one.name}" if one.makes else
                  " && ".join(one.commands), one.shows)
       for one in EXPERIMENTS if one.path.exists()},
    "made": ("python book/tools/experiments.py check",
             "what each record was made with"),
}


def rows() -> list[dict]:
    """What is shown, in the order of a reader: file, command, comment."""
    found = []
    for page in (ROOT / "README.md", *sorted(BOOK.glob("*.md"))):
        parts = PART.findall(page.read_text(encoding="utf-8"))
        for kind, command in TOOLS.items():
            if names := [name for of, name in parts if of == kind]:
                found.append(_row(page, command, f"tables: {', '.join(names)}"))
    found += [_row(ROOT / name, *made) for name, made in FIGURES.items()]
    for chapter in sorted((ROOT / "notebooks").glob("*.ipynb")):
        command = f"python book/tools/run_notebooks.py check notebooks/{chapter.name}"
        found.append(_row(chapter, command, "chapter: its tables and figures"))
    found += [_row(BOOK / "results" / f"{name}.json", *made)
              for name, made in RECORDS.items()]
    return found


def _row(path: Path, command: str, comment: str) -> dict:
    return {"file": path.relative_to(ROOT).as_posix(), "comment": comment,
            "command": command}


def codecheck(manifest: list[dict]) -> str:
    """The file, of rows with file, command and comment."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    content = {
        "version": SPECIFICATION, "manifest": manifest,
        "paper": {"title": cited["title"], "authors": cited["authors"],
                  "reference": cited["preferred-citation"]["url"]},
        "source": "The reference is the paper whose method is implemented here, by "
                  "other authors; a record says which public data it needs."}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=60)
    return f"---\n# written by book/tools/make_codecheck.py\n{text}"


def main(arguments: list[str]) -> int:
    text, check = codecheck(rows()), "--check" in arguments
    same = FILE.exists() and FILE.read_text(encoding="utf-8") == text
    if not check:
        FILE.write_text(text, encoding="utf-8")
    print("codecheck.yml is current" if same else
          f"codecheck.yml {'is stale: run make_codecheck.py' if check else 'written'}")
    return int(check and not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
