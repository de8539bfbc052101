"""The committed notebooks: executed with the present code, short cells, described figures, no trace of the machine."""
import ast
import importlib
import re
import statistics
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the book's packages are not installed")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "book"))
import run_notebooks  # noqa: E402
import set_repository  # noqa: E402

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FILES = run_notebooks.sources()


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_was_executed_with_the_present_code(notebook):
    assert notebook.metadata["ddad"]["fingerprint"] == run_notebooks.fingerprint(notebook, FILES), "stale: run `make notebooks`"
    assert all(cell.execution_count for cell in code(notebook)[1:])
    assert not [output for cell in code(notebook) for output in cell.outputs if output.output_type == "error"]
    assert run_notebooks.metrics(notebook)


def test_cells_are_short(notebook):
    lines = [len(cell.source.splitlines()) for cell in code(notebook)]
    assert max(lines) <= 30 and statistics.median(lines) <= 10


def test_cells_call_the_package_and_define_no_algorithm(notebook):
    for cell in code(notebook):
        tree = ast.parse(cell.source)
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.While)], cell.source


def test_figures_are_described(notebook):
    for cell in code(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                assert len(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")) > 20, cell.source
            if "<img" in data.get("text/html", ""):
                assert not re.search(r"<img(?![^>]*\balt=\"[^\"]{20})", data["text/html"]), cell.source


def test_set_up_names_the_repository(notebook):
    assert code(notebook)[0].source == set_repository.TEMPLATE.format(url=set_repository.address())


def test_one_set_of_parameters(notebook):
    tagged = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and re.search(r'^SCALE = "laptop"', tagged[0].source, re.M)


def test_outputs_name_no_path_of_the_machine(notebook):
    text = nbformat.writes(notebook)
    assert str(ROOT) not in text and str(Path.home()) not in text
    assert not re.search(r"(/tmp/|/home/|/root/|/Users/|[A-Z]:\\\\Users)", text)


def test_equations_functions_and_chapters_lead_to_one_another():
    page = (ROOT / "book/notation.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if ".ipynb)" in line]
    for path in PATHS:
        text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
        for label in re.findall(r"^\$\$ \((eq-[\w-]+)\)", text, re.M):
            assert [row for row in rows if f"{{eq}}`{label}`" in row and path.name in row], f"{label} of {path.name} is not in book/notation.md"
        for shown in re.findall(r"^source\(([\w.]+)\)", text, re.M):
            name = shown.split("._")[0].split(".")[-1]
            assert [row for row in rows if re.search(rf"\.{name}`", row)], f"{shown}, shown in {path.name}, is not in book/notation.md"
    for module, name in re.findall(r"`(\w+)\.(\w+(?:\.\w+)?)`", "\n".join(rows)):
        target = importlib.import_module(f"ddad.{module}")
        for part in name.split("."):
            target = getattr(target, part)


def test_a_changed_metric_is_noticed():
    assert run_notebooks.differences({"a": 0.9, "b": 2.0}, {"a": 0.9, "b": 2.0}) == []
    assert len(run_notebooks.differences({"a": 0.9}, {"a": 0.8})) == len(run_notebooks.differences({"a": 0.9}, {})) == 1
    assert run_notebooks.differences({"a": 0.0}, {"a": 0.01}) and not run_notebooks.differences({"a": 0.9}, {"a": 0.91})
