"""The core stays the paper: what it may import, how long and how wide it may be."""
import ast
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAPER = ("latent_projection", "noise_predictor", "dynamic_noise", "scaled_denoising",
         "fine_tuning", "anomaly_map")
CORE = (*PAPER, "step_map", "conformal", "settings", "training", "calibration",
        "detector", "saved_model", "__init__", "__main__")
# what the rest of the core may use of the rooms, and what a room may use of the package
ROOMS = ("networks", "runtime", "evaluation.metrics", "evaluation.likeness",
         "evaluation.patches", "synthetic.defects", "data.images", "cli")
BELOW = {"runtime": ("runtime",), "networks": ("networks", "runtime", "settings")}
# 30 lines of these are the official code's own: its network, its order of batches; 450
# are the extension: a step map, masked training, a conformal threshold, a calibration
# that can tell; 20 refuse what cannot go well: other images, a training that diverges;
# 12 keep memory small, however many images are held out
BUDGET, LONGEST_FUNCTION, LONGEST_FILE, WIDTH = 2112, 45, 400, 88


def imported(path: Path, package: tuple[str, ...]) -> set[str]:
    """Modules of ddad that a file imports anywhere, as dotted names below ddad."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.removeprefix("ddad.") for name in node.names
                      if name.name.startswith("ddad.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, module] if module else above)
            elif module == "ddad" or module.startswith("ddad."):
                base = module.removeprefix("ddad").removeprefix(".")
            else:
                continue
            # `from . import a` names modules, `from .a import b` one module
            found |= {base} if base else {name.name for name in node.names}
    return found


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(one + ".") for one in allowed)


def faults(root: Path) -> list[str]:
    """A sentence for each rule that the tree at `root` breaks."""
    said, core = [], sorted((root / "ddad").glob("*.py"))
    said += [f"{path.name} is no module of the core" for path in core
             if path.stem not in CORE]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in core)
    if lines > BUDGET:
        said.append(f"the core has {lines} lines, more than {BUDGET}")
    for path in core:
        allowed = ((*PAPER, "settings") if path.stem in PAPER
                   else ("runtime",) if path.stem == "settings"
                   else (*CORE, *ROOMS))
        said += [f"{path.name} imports {name}" for name in imported(path, ())
                 if not within(name, allowed)]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    said.append(f"{path.name}: {node.name} has {length} lines")
    for room, allowed in BELOW.items():
        for path in sorted((root / "ddad" / room).rglob("*.py")):
            said += [f"{room}/{path.name} imports {name}"
                     for name in imported(path, (room,)) if not within(name, allowed)]
    return said + too_large(root)


def too_large(root: Path) -> list[str]:
    """Files that are too long, lines that are too wide; notebooks' code as well."""
    said = []
    for folder in ("ddad", "tests", "book"):
        for path in sorted((root / folder).rglob("*.py")):
            lines = path.read_text(encoding="utf-8").splitlines()
            where = path.relative_to(root).as_posix()
            said += [f"{where}:{n} is {len(line)} columns wide"
                     for n, line in enumerate(lines, 1) if len(line) > WIDTH]
            if len(lines) > LONGEST_FILE:
                said.append(f"{where} has {len(lines)} lines")
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
            said += [f"{path.name}: {line}" for line in source.splitlines()
                     if len(line) > WIDTH]
    return said


def test_the_tree_keeps_the_rules():
    assert faults(ROOT) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A copy of the package and the notebooks."""
    root = tmp_path_factory.mktemp("tree")
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for folder in ("ddad", "notebooks"):
        shutil.copytree(ROOT / folder, root / folder, ignore=skip)
    return root


LONG = "\n\ndef endless():\n" + "    x = 1\n" * 45
BREAKS = {
    "ddad/scaled_denoising.py": ("\nfrom .runtime import files\n",
                                 "scaled_denoising.py imports runtime"),
    "ddad/anomaly_map.py": ("\nfrom .networks.features import depth\n",
                            "anomaly_map.py imports networks.features"),
    "ddad/settings.py": ("\nimport ddad.detector\n", "settings.py imports detector"),
    "ddad/detector.py": ("\nfrom .deploy.folder import inspect\n",
                         "detector.py imports deploy.folder"),
    "ddad/training.py": (LONG, "training.py: endless has 46 lines"),
    "ddad/calibration.py": ("#" * 89 + "\n", "ddad/calibration.py:N is 89 columns"),
    "ddad/saved_model.py": ("\n" * BUDGET,
                            f"the core has N lines, more than {BUDGET}"),
    "ddad/extra.py": ("", "extra.py is no module of the core"),
    "ddad/runtime/files.py": ("\nfrom ..detector import Detector\n",
                              "runtime/files.py imports detector"),
    "ddad/evaluation/metrics.py": ("\n" * 400, "ddad/evaluation/metrics.py has N li"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_rule_is_told(whole, name):
    path, (added, expected) = whole / name, BREAKS[name]
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text((before or "") + added, encoding="utf-8")
    try:
        told = faults(whole)
    finally:
        path.write_text(before, encoding="utf-8") if before else path.unlink()
    start, _, end = expected.partition("N")
    assert any(one.startswith(start) and end in one for one in told), told
