"""When a chapter is stale, what is written back, and what counts as another result."""
import copy
import inspect
import json
import textwrap

import pytest

nbformat = pytest.importorskip("nbformat", reason="the book's packages are missing")
import run_notebooks  # noqa: E402
import sabotage  # noqa: E402
from chapters import ROOT, Package, fingerprint, imports, own_cells, shown  # noqa: E402

FILES = {
    "ddad/__init__.py": '''
        """A package."""
        from importlib import import_module
        _HOME = {"Detector": "detector"}
        def __getattr__(name):
            return getattr(import_module(f".{_HOME[name]}", __name__), _HOME[name])
        ''',
    "ddad/detector.py": '''
        """Detects."""
        from .method import combine
        class Detector:
            """Fits."""
            def predict(self, x):
                """Scores."""
                from .evaluation.metrics import measure
                return combine(x), measure
        ''',
    "ddad/method.py": '''
        """The method."""
        LAMBDA = 0.5      # as the paper has it
        def combine(x):
            """Both maps."""
            return LAMBDA * x
        def other(x):
            """Something else."""
            return x
        ''',
    "ddad/evaluation/__init__.py": '"""Scores and figures."""\n',
    "ddad/evaluation/metrics.py": '''
        """Metrics."""
        from dataclasses import dataclass
        @dataclass(frozen=True)
        class Figure:
            name: str = "PRO"
            async def told(self, *, width: int | None = 8, **more) -> str:
                return f"{self.name:>{width}}: {(x := measure()):.3f}" f"{x!r}"
        def measure():
            return 1
        def kind(value):
            match value:
                case {"a": [1, *_], **rest} if rest:
                    return lambda x=1.0, /: (yield)
            return {**value, b"b": ..., -1j: None, True: [*value][::2]}
        ''',
    "ddad/evaluation/speed.py": "FAST = 1\n",
    "ddad/notebook/__init__.py": "from .sources import source\n",
    "ddad/notebook/sources.py": "def source(thing):\n    return thing\n",
    "ddad/synthetic/__init__.py": "",
    "ddad/synthetic/weights.py": 'WEIGHTS = "weights"\n',
    "ddad/weights/board/manifest.json": "{}\n",
    "requirements.lock": "torch==1\n",
}
CELLS = ["from ddad import Detector\nfrom ddad.notebook import source",
         "from ddad.method import combine\nsource(combine)", "Detector().predict(1)"]


@pytest.fixture
def root(tmp_path):
    """A small package and its lock."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).strip() + "\n", encoding="utf-8")
    return tmp_path


def chapter(*cells: str, tags=()):
    made = [nbformat.v4.new_code_cell(cell, id=f"cell-{n}", metadata={"tags": [*tags]})
            for n, cell in enumerate(cells or CELLS)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})


def stale(root, name: str, old: str, new: str, notebook=None) -> bool:
    """Whether a change to a file makes a chapter stale."""
    notebook, path = notebook or chapter(), root / name
    before, text = fingerprint(notebook, Package(root)), path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    return fingerprint(notebook, Package(root)) != before


@pytest.mark.parametrize(("name", "old", "new"), [
    ("ddad/method.py", "LAMBDA = 0.5", "LAMBDA = 0.6"),
    ("ddad/method.py", "return x\n", "return -x\n"),
    ("ddad/method.py", "Both maps.", "Both of the maps."),        # shown by the chapter
    ("ddad/method.py", "return LAMBDA * x", "return LAMBDA * x  # weighed"),
    ("ddad/evaluation/metrics.py", "return 1", "return 2"),   # imported in a method
    ("ddad/evaluation/__init__.py", '"""\n', '"""\nX = 1\n'),
    ("ddad/__init__.py", '_HOME = {', 'X = 1\n_HOME = {'),
    ("ddad/notebook/sources.py", "return thing", "return str(thing)"),
    ("requirements.lock", "torch==1", "torch==2"),
])
def test_what_it_uses_makes_a_chapter_stale(root, name, old, new):
    assert stale(root, name, old, new)


@pytest.mark.parametrize(("name", "old", "new"), [
    ("ddad/method.py", "# as the paper has it", "# ours"),
    ("ddad/method.py", "The method.", "This method."),
    ("ddad/method.py", "Something else.", "Another thing."),
    ("ddad/method.py", "return x\n", "return (\n        x)\n"),
    ("ddad/detector.py", '"""Fits."""', '"""Fits and predicts."""'),
    ("ddad/detector.py", '        """Scores."""\n', ""),
    ("ddad/evaluation/__init__.py", "Scores and figures.", "Scores."),
    ("ddad/evaluation/speed.py", "FAST = 1", "FAST = 2"),            # of no use to it
    ("ddad/synthetic/weights.py", '"weights"', '"other"'),
    ("ddad/weights/board/manifest.json", "{}", "[]"),
])
def test_words_and_what_it_does_not_use_leave_a_chapter_current(root, name, old, new):
    assert not stale(root, name, old, new)


def test_a_comment_beside_what_a_chapter_shows_leaves_it_current(root):
    assert not stale(root, "ddad/method.py", "def other", "# not shown\ndef other")


@pytest.mark.parametrize("imported", ["from ddad.synthetic.weights import WEIGHTS",
                                      "from ddad.synthetic import weights",
                                      "import ddad.synthetic.weights as shipped"])
def test_weights_make_the_chapters_stale_that_load_them(root, imported):
    weights = "ddad/weights/board/manifest.json"
    assert stale(root, weights, "{}", "[]", chapter(imported))


def test_a_record_makes_the_chapters_stale_that_name_it(root):
    (root / "book/results/receipts").mkdir(parents=True)
    name = "book/results/receipts/one.json"
    (root / name).write_text("{}", encoding="utf-8")
    named = chapter("path = records / 'receipts/one.json'")
    assert stale(root, name, "{}", "[]", named)
    assert not stale(root, name, "[]", "{}")


def test_cells_and_tags_make_a_chapter_stale_and_prose_does_not(root):
    package = Package(root)
    before, prose = fingerprint(chapter(), package), chapter()
    prose.cells.insert(0, nbformat.v4.new_markdown_cell("# A title"))
    set_up = chapter("import sys", tags=["setup"]).cells
    prose.cells = [*set_up, *prose.cells]
    assert fingerprint(prose, package) == before
    assert fingerprint(chapter(*CELLS[:2], "Detector().predict(2)"), package) != before
    tagged = chapter()
    tagged.cells[2].metadata["tags"] = ["hide-input"]
    assert fingerprint(tagged, package) != before


def test_what_cannot_be_found_without_running_is_said(root):
    package = Package(root)
    for cells in (["from ddad import Detektor"], ["from ddad.no_module import x"],
                  ["from ddad.method import combine as c", "source(combine)"],
                  ["from ddad.method import LAMBDA", "source(LAMBDA)"]):
        with pytest.raises(LookupError):
            fingerprint(chapter(*cells), package)


def test_shown_source_is_that_which_python_finds():
    package = Package(ROOT)
    cells = ["from ddad import Detector, anomaly_map, preset",
             "from ddad.notebook import source as of, record, frames",
             "from ddad.dynamic_noise import MemoryBank, select_step",
             "source(Detector.predict), source(MemoryBank), source(MemoryBank.fit)",
             "source(anomaly_map.combine), source(select_step), source(record)",
             "source(Detector.device), source(Detector), source(preset)"]
    scope = {}
    exec("\n".join(cells[:3]), scope)
    found = shown(chapter(*cells), package)
    assert len(found) == 9
    for name, text in found.items():
        first, *rest = name.split(".")
        thing = scope[first]
        for part in rest:
            thing = inspect.getattr_static(thing, part)
        thing = getattr(thing, "fget", thing)           # of a property, its function
        assert text == inspect.getsource(thing), name


def test_every_module_of_the_package_can_be_followed():
    package = Package(ROOT)
    modules = [(name, None, name) for name in package.modules]
    assert package.used(modules) == set(package.modules)
    used = package.used([("ddad", "Detector", "Detector")])
    assert {"ddad", "ddad.detector", "ddad.scaled_denoising", "ddad.networks",
            "ddad.runtime.files"} <= used
    apart = {"ddad.cli.main", "ddad.deploy.export", "ddad.evaluation.official"}
    assert apart <= set(package.modules) and not apart & used
    # else modules could be loaded that no import statement names
    on_demand = [name for name, module in package.modules.items()
                 if "import_module" in module.text or "__import__" in module.text]
    assert on_demand == ["ddad"]


def test_the_data_that_modules_load_is_known():
    package = Package(ROOT)
    found = package.data(set(package.modules))
    assert any(name.endswith(".safetensors") for name in found)
    assert "ddad/reproduction/by_category/embedded.json" in found
    only_vae = package.data({"ddad.networks.autoencoders"})
    assert only_vae and all("/weights/vae/" in name for name in only_vae)


def test_the_fingerprint_is_that_of_any_python(root):
    assert fingerprint(chapter(), Package(root)) == (
        "4a99b0bcda141458b4a7b81494ac99eaa9056e3ce124551bd31ffafbe77943fc")


# what is written back

OUTPUTS = [[{"output_type": "stream", "name": "stdout", "text": "0.5\n"}], [],
           [{"output_type": "display_data", "metadata": {},
             "data": {"image/png": "AAAA", "text/plain": "<Figure>"}}]]


def executed(outputs=OUTPUTS, count=1):
    made = chapter()
    for cell, given in zip(made.cells, copy.deepcopy(outputs)):
        cell.outputs = [nbformat.from_dict(one) for one in given]
        cell.execution_count = count
    return made


@pytest.fixture
def committed(root, monkeypatch):
    """A chapter as it was committed, and its row in the record."""
    path = root / "05_chapter.ipynb"
    monkeypatch.setattr(run_notebooks, "NOTEBOOKS", [path])
    monkeypatch.setattr(run_notebooks, "RECORD", root / "notebooks.json")
    monkeypatch.setattr(run_notebooks, "circumstances", lambda seconds: "today")
    run_notebooks.RECORD.write_text('{"05_chapter": "then", "09_last": "then"}')
    written = executed()
    run_notebooks.tidy(written)
    run_notebooks.stamp(written, Package(root))
    nbformat.write(written, path)
    return path


def put_back(path, notebook) -> tuple[bool, dict]:
    """Whether the run was new, and the record afterwards."""
    new = run_notebooks.put_back(notebook, path, 1.0, Package(path.parent))
    return new, json.loads(run_notebooks.RECORD.read_text("utf-8"))


def test_the_same_outputs_leave_the_file_and_its_date(committed):
    before = committed.read_bytes()
    new, record = put_back(committed, executed(count=7))
    assert not new and record["05_chapter"] == "then"
    assert committed.read_bytes() == before


def test_the_same_outputs_by_other_code_change_the_fingerprint_alone(committed):
    before, changed = nbformat.read(committed, 4), committed.parent / "ddad/method.py"
    changed.write_text(changed.read_text("utf-8").replace("0.5", "0.7"), "utf-8")
    new, record = put_back(committed, executed())
    after = nbformat.read(committed, 4)
    assert not new and record["05_chapter"] == "then"
    assert after.metadata.pop("ddad") != before.metadata.pop("ddad")
    assert after == before
    assert run_notebooks.is_current(nbformat.read(committed, 4),
                                    Package(committed.parent))


@pytest.mark.parametrize("change", [
    lambda outputs: outputs[0][0].update(text="0.6\n"),
    lambda outputs: outputs[2][0]["data"].update({"image/png": "AAAB"}),
    lambda outputs: outputs[1].append(outputs[0][0]),
])
def test_another_output_is_written_with_its_date(committed, change):
    outputs = copy.deepcopy(OUTPUTS)
    change(outputs)
    new, record = put_back(committed, executed(outputs))
    assert new and record == {"05_chapter": "today", "09_last": "then"}
    found = run_notebooks.outputs(nbformat.read(committed, 4))
    assert found == run_notebooks.outputs(executed(outputs))


def test_a_notebook_that_is_no_chapter_is_not_recorded(committed, monkeypatch):
    monkeypatch.setattr(run_notebooks, "NOTEBOOKS", [])
    new, record = put_back(committed, executed([[], [], []]))
    assert new and record["05_chapter"] == "then"


def test_bars_warnings_and_times_are_no_outputs(committed):
    noisy = copy.deepcopy(OUTPUTS)
    noisy[0] += [{"output_type": "stream", "name": "stderr", "text": "50%"},
                 {"output_type": "display_data", "metadata": {},
                  "data": {run_notebooks.WIDGET: {}, "text/plain": "bar"}}]
    notebook = executed(noisy)
    notebook.cells[0].metadata["papermill"] = {"duration": 1.0}
    before = committed.read_bytes()
    assert not put_back(committed, notebook)[0]
    assert committed.read_bytes() == before


def test_circumstances_name_day_device_versions_and_commit():
    row = run_notebooks.circumstances(12.3)
    assert list(row) == ["date", "seconds", "device", "versions", "commit"]
    assert row["seconds"] == 12 and {"Python", "torch"} <= set(row["versions"])


def test_a_changed_metric_is_noticed():
    differences = run_notebooks.differences
    assert differences({"a": 0.9, "b": 2.0}, {"a": 0.9, "b": 2.0}) == []
    assert len(differences({"a": 0.9}, {"a": 0.8})) == 1
    assert len(differences({"a": 0.9}, {})) == 1
    assert differences({"a": 0.0}, {"a": 0.01})
    assert not differences({"a": 0.9}, {"a": 0.91})


@pytest.mark.parametrize("row", sabotage.SABOTAGES, ids=lambda row: row[1])
def test_each_sabotage_breaks_a_line_that_is_there(row):
    module, line, broken, name = row
    source = (ROOT / "ddad" / f"{module}.py").read_text(encoding="utf-8")
    assert source.count(line) == 1
    compile(source.replace(line, broken), module, "exec")
    assert (ROOT / "notebooks" / f"{name}.ipynb").exists()


def test_imports_are_found_within_functions_and_by_their_own_names():
    import ast
    tree = ast.parse("def f():\n    from ..b import c as d\n    import e.f\n")
    assert imports(tree, "a.x.y") == [("a.x.b", "c", "d"), ("e.f", None, "e")]
    assert len(own_cells(chapter())) == 3
