"""Writes the repository's address into _config.yml and into every notebook's set-up cell: python book/set_repository.py URL [BRANCH].

_config.yml is the one place that holds it; without a URL the notebooks are brought in line with it.
"""
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "_config.yml"
TEMPLATE = '''# Where the package is missing, as in Colab, this installs it; torch and numpy stay as they are.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("ddad") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+{url}"], check=True)'''


def address() -> str:
    """The repository's address, from _config.yml."""
    return re.search(r"^  url: (\S+)", CONFIG.read_text(encoding="utf-8"), re.M)[1]


def with_set_up(notebook):
    """The notebook with the set-up cell as its first code cell, in place of an older one."""
    cells = [cell for cell in notebook.cells if "setup" not in cell.metadata.get("tags", [])]
    cell = nbformat.v4.new_code_cell(TEMPLATE.format(url=address()), metadata={"tags": ["setup", "hide-input"]}, execution_count=0)
    cell.id = "setup"
    first = next(i for i, c in enumerate(cells) if c.cell_type == "code")
    notebook.cells = [*cells[:first], cell, *cells[first:]]
    return notebook


if __name__ == "__main__":
    if len(sys.argv) > 1:
        text = re.sub(r"^  url: \S+", f"  url: {sys.argv[1]}", CONFIG.read_text(encoding="utf-8"), flags=re.M)
        CONFIG.write_text(re.sub(r"^  branch: \S+", f"  branch: {(sys.argv + ['main'])[2]}", text, flags=re.M), encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        nbformat.write(with_set_up(nbformat.read(path, 4)), path)
