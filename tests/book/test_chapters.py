"""The committed notebooks: executed with the present code, short cells, described
figures, no trace of the machine.
"""
import ast
import importlib
import json
import re
import statistics
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the book's packages are missing")
import run_notebooks  # noqa: E402
import set_repository  # noqa: E402
from chapters import Package  # noqa: E402

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PACKAGE = Package()


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def test_was_executed_with_the_present_code(notebook):
    current = run_notebooks.is_current(notebook, PACKAGE)
    assert current, "stale: run `make notebooks`"
    cells = code(notebook)
    assert all(cell.execution_count for cell in cells[1:])
    assert not [output for cell in cells for output in cell.outputs
                if output.output_type == "error"]
    assert run_notebooks.metrics(notebook)


def test_it_is_recorded_when_each_was_run():
    record = json.loads(run_notebooks.RECORD.read_text(encoding="utf-8"))
    assert list(record) == [path.stem for path in PATHS]
    told = {"date", "seconds", "device", "versions", "commit"}
    assert all(set(row) == told for row in record.values())


def test_no_cell_says_when_it_was_run(notebook):
    assert not [cell for cell in notebook.cells if "foot" in tags(cell)]


def test_cells_are_short(notebook):
    lines = [len(cell.source.splitlines()) for cell in code(notebook)]
    assert max(lines) <= 30 and statistics.median(lines) <= 10


def test_cells_are_no_wider_than_the_page(notebook):
    blocks = [cell.source for cell in code(notebook)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            blocks += re.findall(r"^```[^\n]*\n(.*?)^```", cell.source, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert not [line for line in lines if len(line) > 88]


def test_printed_outputs_are_no_wider_than_the_page(notebook):
    streams = [output.text for cell in code(notebook) for output in cell.outputs
               if output.output_type == "stream"]
    lines = [line for text in streams for line in text.splitlines()]
    assert not [line for line in lines if len(line) > 88]


def test_cells_call_the_package_and_define_no_algorithm(notebook):
    for cell in code(notebook):
        nodes = ast.walk(ast.parse(cell.source))
        found = [node for node in nodes if isinstance(node, ast.ClassDef | ast.While)]
        assert not found, cell.source


def test_figures_are_described(notebook):
    without = re.compile(r"<img(?![^>]*\balt=\"[^\"]{20})")
    for cell in code(notebook):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.outputs:
            data = output.get("data", {})
            assert "image/png" not in data or len(alt) > 20, cell.source
            assert not without.search(data.get("text/html", "")), cell.source


def test_a_prediction_comes_before_what_it_predicts(notebook):
    """The first outcome that a code cell shows after the question is folded."""
    for n, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and "**Predict.**" in cell.source:
            assert cell.source.count("<details>") == cell.source.count("</details>") > 1
            after = [one for one in notebook.cells[n:] if one.get("outputs")]
            assert "hide-output" in tags(after[0]), cell.source


def test_a_judge_tells_the_solution_of_an_exercise_from_its_stub(notebook):
    solution = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and ":::{solution-" in cell.source:
            solution = ":::{solution-start}" in cell.source
        elif re.search(r"^print\(judge_", cell.source, re.M):
            said = "".join(output.text for output in cell.outputs).strip()
            said = said.splitlines()[0]
            assert said == "right" if solution else said.startswith("not written yet")


def test_set_up_names_the_repository(notebook):
    wanted = set_repository.TEMPLATE.format(url=set_repository.address())
    assert code(notebook)[0].source == wanted


def test_one_set_of_parameters(notebook):
    tagged = [cell for cell in code(notebook) if "parameters" in tags(cell)]
    assert len(tagged) == 1
    assert re.search(r'^SCALE = "laptop"', tagged[0].source, re.M)


def test_outputs_name_no_path_of_the_machine(notebook):
    text = nbformat.writes(notebook)
    assert str(ROOT) not in text and str(Path.home()) not in text
    assert not re.search(r"(/tmp/|/home/|/root/|/Users/|[A-Z]:\\\\Users)", text)


def found(dotted: str):
    """What ROOM.MODULE.NAME of the package names; rooms and classes may lie between."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            target = importlib.import_module(".".join(["ddad", *parts[:end]]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            target = getattr(target, part)
        return target
    raise ModuleNotFoundError(f"the package has no {dotted}")


def test_equations_functions_and_chapters_lead_to_one_another():
    page = (ROOT / "book/notation.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if ".ipynb)" in line]
    for path in PATHS:
        cells = nbformat.read(path, 4).cells
        text = "\n".join(cell.source for cell in cells)
        for label in re.findall(r"^\$\$ \((eq-[\w-]+)\)", text, re.M):
            assert [row for row in rows
                    if f"{{eq}}`{label}`" in row and path.name in row], (
                f"{label} of {path.name} is not in book/notation.md")
        for shown in re.findall(r"^source\(([\w.]+)\)", text, re.M):
            name = shown.split("._")[0].split(".")[-1]
            assert [row for row in rows if re.search(rf"\.{name}`", row)], (
                f"{shown}, shown in {path.name}, is not in book/notation.md")
    named = re.findall(r"`(\w+(?:\.\w+)+)`", "\n".join(rows))
    assert named and all(found(name) for name in named)


def test_names_on_the_page_of_notation_are_found_in_rooms_as_well():
    from ddad.evaluation.metrics import PixelRanking
    from ddad.scaled_denoising import scaled_denoising
    assert found("evaluation.metrics.PixelRanking.pro") is PixelRanking.pro
    assert found("scaled_denoising.scaled_denoising") is scaled_denoising
    for wrong in ("evaluation.metrics.Pixels", "metrics.PixelRanking"):
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            found(wrong)
