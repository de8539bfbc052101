"""Runs the notebooks with papermill: `update` writes them back executed, `check` compares a new run's metrics with the committed ones.

    python book/run_notebooks.py check  [--scale smoke] [notebooks/05_..ipynb ..]
    python book/run_notebooks.py update [notebooks/05_..ipynb ..]

A notebook carries a fingerprint of all that shapes its outputs: its own cells, the package's source and weights, and the lock. `update`
runs only those whose fingerprint does not match; a test fails while there is one.
"""
import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import nbformat
from ledger import metrics
from set_repository import with_set_up

from ddad.writing import whole

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
WORKERS = min(4, os.cpu_count() or 1)
CELL_SECONDS = 600      # a cell that takes longer is taken to hang
TOLERANCE, LEAST = 0.03, 0.0005      # of a metric's committed value, and in itself: between two machines with the same lock
UNUSED = {"bench.py", "export.py", "memory.py", "official.py"}       # no notebook runs them
SHAPING = [*sorted(path for path in (ROOT / "ddad").glob("*.py") if path.name not in UNUSED), *sorted((ROOT / "ddad/weights").rglob("*.safetensors")),
           *sorted((ROOT / "ddad/weights").rglob("manifest.json")), ROOT / "requirements.lock"]
PACKAGES = ("torch", "diffusers", "numpy", "scikit-learn")


def sources() -> dict[str, str]:
    """SHA-256 of every file outside the notebooks that shapes an output; line ends do not count in text."""
    def content(path: Path) -> bytes:
        whole = path.read_bytes()
        return whole if path.suffix == ".safetensors" else whole.replace(b"\r\n", b"\n")
    return {path.relative_to(ROOT).as_posix(): hashlib.sha256(content(path)).hexdigest() for path in SHAPING}


def fingerprint(notebook, files: dict[str, str] | None = None) -> str:
    """SHA-256 over the code cells with their tags, and `sources`. The prose, the set-up and the foot change no output."""
    cells = [[cell.source, cell.metadata.get("tags", [])] for cell in notebook.cells
             if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", [])]
    return hashlib.sha256(json.dumps([cells, files or sources()], sort_keys=True).encode()).hexdigest()


def differences(committed: dict, new: dict) -> list[str]:
    """A sentence for each metric that is missing, new, or further than TOLERANCE from what was committed."""
    said = [f"{name} is recorded in one of the two runs only" for name in sorted(committed.keys() ^ new.keys())]
    for name in sorted(committed.keys() & new.keys()):
        if abs(new[name] - committed[name]) > max(TOLERANCE * abs(committed[name]), LEAST):
            said.append(f"{name} is {new[name]:.6g}, committed {committed[name]:.6g}")
    return said


def run(path: Path, scale: str | None) -> tuple[Path, float, str]:
    """Execute the notebook in an empty folder: where it then lies, the seconds it took, and its error or ""."""
    import papermill
    folder = ROOT / "build" / "notebooks" / str(os.getpid()) / path.stem      # what a killed run left going writes elsewhere
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = folder / path.name
    started = time.perf_counter()
    try:
        papermill.execute_notebook(path, out, {"SCALE": scale} if scale else None, kernel_name="python3", cwd=folder, progress_bar=False,
                                   execution_timeout=CELL_SECONDS, coalesce_streams=True)
    except Exception as error:                           # of a cell, or of a kernel that died: the other notebooks go on
        return out, time.perf_counter() - started, str(error)
    return out, time.perf_counter() - started, ""


def tidy(notebook, path: Path, seconds: float) -> None:
    """Leave what a reader needs: outputs without bars and the times of each cell, the fingerprint, and a foot that says what was run."""
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in ("tags", "mystnb") and v}
        if cell.cell_type == "code":                                    # progress bars and the libraries' warnings
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr" and WIDGET not in output.get("data", {})]
    notebook.cells = [cell for cell in notebook.cells if "foot" not in cell.metadata.get("tags", [])]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"
    import torch
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    from importlib.metadata import version
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    words = (f"Executed {datetime.now(timezone.utc):%Y-%m-%d} in {seconds:.0f} s on {platform.system()}, {device}; package at commit {commit}; "
             f"Python {platform.python_version()}, {versions}.")
    foot = nbformat.v4.new_markdown_cell("---\n" + words, metadata={"tags": ["foot"]})
    foot.id = "foot"
    notebook.cells.append(foot)
    with_set_up(notebook)
    own = {"fingerprint": fingerprint(notebook)}
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}, "ddad": own}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("check", "update"))
    options.add_argument("--scale", help="smoke, laptop or paper, instead of what the notebook says; metrics are then not compared")
    options.add_argument("notebooks", nargs="*", type=Path)
    given = options.parse_args()
    failed, paths = False, [p.resolve() for p in given.notebooks] or NOTEBOOKS
    if given.what == "update":
        paths = [path for path in paths if (nb := nbformat.read(path, 4)).metadata.get("ddad", {}).get("fingerprint") != fingerprint(nb)]
    os.environ["OMP_NUM_THREADS"] = "1"                   # one core for each notebook: threads that wait for one another cost more
    with ProcessPoolExecutor(WORKERS) as pool:
        for path, (out, seconds, error) in zip(paths, pool.map(run, paths, [given.scale] * len(paths))):
            if error:
                print(f"{path.name}: {error}", flush=True)
                failed = True
                continue
            committed, executed = nbformat.read(path, 4), nbformat.read(out, 4)
            said = [] if given.what == "update" or given.scale else differences(metrics(committed), metrics(executed))
            print(f"{path.name}: {seconds:.0f} s, {len(metrics(executed))} metrics" + "".join(f"\n  {line}" for line in said), flush=True)
            failed |= bool(said)
            if given.what == "update":
                tidy(executed, path, seconds)
                with whole(path) as aside:
                    nbformat.write(executed, aside)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
