"""Writes the repository's address into _config.yml and every notebook's set-up cell.

    python book/tools/set_repository.py URL [BRANCH]

_config.yml is the one place that holds it; without a URL the notebooks are brought in
line with it.
"""
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "_config.yml"
TEMPLATE = '''\
# Where the package is missing, as in Colab, this installs it; torch and numpy stay.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("ddad") is None:
    wanted = "git+{url}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", wanted], check=True)
'''.rstrip()


def address() -> str:
    """The repository's address, from _config.yml."""
    return re.search(r"^  url: (\S+)", CONFIG.read_text(encoding="utf-8"), re.M)[1]


def with_set_up(notebook):
    """The notebook, its first code cell the set-up cell in place of an older one."""
    cells = [c for c in notebook.cells if "setup" not in c.metadata.get("tags", [])]
    cell = nbformat.v4.new_code_cell(TEMPLATE.format(url=address()), execution_count=0,
                                     metadata={"tags": ["setup", "hide-input"]})
    cell.id = "setup"
    first = next(i for i, c in enumerate(cells) if c.cell_type == "code")
    notebook.cells = [*cells[:first], cell, *cells[first:]]
    return notebook


def write_address(url: str, branch: str = "main") -> None:
    text = CONFIG.read_text(encoding="utf-8")
    for name, value in (("url", url), ("branch", branch)):
        text = re.sub(rf"^  {name}: \S+", f"  {name}: {value}", text, flags=re.M)
    CONFIG.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_address(*sys.argv[1:3])
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        nbformat.write(with_set_up(nbformat.read(path, 4)), path)
