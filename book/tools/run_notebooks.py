"""Runs the chapters with papermill, to write them back executed or to compare metrics.

    python book/tools/run_notebooks.py update [notebooks/05_..ipynb ..]
    python book/tools/run_notebooks.py check  [--scale smoke] [notebooks/05_..ipynb ..]

A chapter carries a fingerprint of all that shapes its outputs (chapters.py). `update`
runs those whose fingerprint does not match; a test fails while there is one. What comes
out as it was leaves the chapter as it is, but for the fingerprint; what is new is noted
with its day, time and versions in book/results/notebooks.json. `check` runs all.
"""
import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import nbformat
from chapters import ROOT, Package, fingerprint, own_cells
from figure_text import KEY as TEXT_KEY
from figure_text import moved_to_metadata
from set_repository import with_set_up

from ddad.notebook import METRICS
from ddad.runtime.files import whole, write_json

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RECORD = ROOT / "book/results/notebooks.json"
WIDGET = "application/vnd.jupyter.widget-view+json"
WORKERS = min(4, os.cpu_count() or 1)
CELL_SECONDS = 600             # a cell that takes longer is taken to hang
# for what a finished cell shows to arrive: by default 4, too few on a busy machine
OUTPUT_SECONDS = 120
# of a metric's committed value, and in itself: between two machines with the same lock
TOLERANCE, LEAST = 0.03, 0.0005
PACKAGES = ("torch", "diffusers", "numpy", "scikit-learn")


def differences(committed: dict, new: dict) -> list[str]:
    """A sentence for each metric that only one run has, or that is beyond TOLERANCE."""
    said = [f"{name} is recorded in one of the two runs only"
            for name in sorted(committed.keys() ^ new.keys())]
    for name in sorted(committed.keys() & new.keys()):
        allowed = max(TOLERANCE * abs(committed[name]), LEAST)
        if abs(new[name] - committed[name]) > allowed:
            said.append(f"{name} is {new[name]:.6g}, committed {committed[name]:.6g}")
    return said


def run(path: Path, scale: str | None) -> tuple[Path, float, str]:
    """Executes a notebook in an empty folder: where it lies, its seconds, its error."""
    import papermill
    # of this process: what a killed run left going writes elsewhere
    folder = ROOT / "build" / "notebooks" / str(os.getpid()) / path.stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out, error = folder / path.name, ""
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            path, out, {"SCALE": scale} if scale else None, kernel_name="python3",
            cwd=folder, progress_bar=False, execution_timeout=CELL_SECONDS,
            iopub_timeout=OUTPUT_SECONDS, coalesce_streams=True,
            extra_arguments=["--IPKernelApp.extra_extensions=figure_text"])
    except Exception as failed:     # of a cell, or of a kernel that died: others go on
        error = str(failed)
    return out, time.perf_counter() - started, error


def tidy(notebook) -> None:
    """Leaves what a reader needs: no progress bars, no warnings, no times of cells."""
    for cell in notebook.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items()
                         if name in ("tags", "mystnb") and value or name == TEXT_KEY}
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"
                            and WIDGET not in one.get("data", {})]
    moved_to_metadata([cell for cell in notebook.cells if cell.cell_type == "code"])
    with_set_up(notebook)


def outputs(notebook) -> list[list]:
    """What each cell shows, by which two runs are told apart."""
    aside = ("execution_count", "metadata")
    return [[cell.metadata.get(TEXT_KEY),
             *({name: value for name, value in one.items() if name not in aside}
               for one in cell.outputs)] for cell in own_cells(notebook)]


def metrics(notebook: dict) -> dict[str, float]:
    """All that the cells of a notebook, parsed as JSON, have recorded."""
    outputs = [one for cell in notebook["cells"] for one in cell.get("outputs", [])]
    found = [output.get("data", {}).get(METRICS, {}) for output in outputs]
    return {name: value for one in found for name, value in one.items()}


def stamp(notebook, package: Package) -> None:
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec,
                         "language_info": {"name": "python"},
                         "ddad": {"fingerprint": fingerprint(notebook, package)}}


def is_current(notebook, package: Package) -> bool:
    own = notebook.metadata.get("ddad", {}).get("fingerprint")
    return own == fingerprint(notebook, package)


def circumstances(seconds: float) -> dict:
    """When and on what a chapter was run: its row in RECORD."""
    import torch
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT,
                            capture_output=True, text=True).stdout.strip()
    device = (torch.cuda.get_device_name() if torch.cuda.is_available()
              else f"CPU, {os.cpu_count()} cores")
    versions = {name: version(name) for name in PACKAGES}
    return {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "seconds": round(seconds),
            "device": f"{platform.system()}, {device}",
            "versions": {"Python": platform.python_version(), **versions},
            "commit": commit or "unknown"}


def note(chapter: str, row: dict) -> None:
    """Writes a chapter's row into RECORD, in the order of the chapters."""
    rows = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    write_json(RECORD, dict(sorted((rows | {chapter: row}).items())))


def put_back(executed, path: Path, seconds: float, package: Package) -> bool:
    """Writes a run back over its notebook; whether it shows anything new.

    The row of a chapter comes first: killed in between, the chapter is still stale.
    """
    committed = nbformat.read(path, 4)
    tidy(executed)
    tidy(committed)
    if new := outputs(executed) != outputs(committed):
        if path in NOTEBOOKS:
            note(path.stem, circumstances(seconds))
    else:
        executed = committed
    stamp(executed, package)
    with whole(path) as aside:
        nbformat.write(executed, aside)
    return new


def parsed() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("check", "update"))
    options.add_argument("--scale", help="smoke, laptop or paper, instead of what the "
                         "notebook says; metrics are then not compared")
    options.add_argument("notebooks", nargs="*", type=Path)
    return options.parse_args()


def main() -> int:
    given, package, failed = parsed(), Package(), False
    paths = [path.resolve() for path in given.notebooks] or NOTEBOOKS
    if given.what == "update":
        paths = [p for p in paths if not is_current(nbformat.read(p, 4), package)]
    # the longest first: at the end no core is left without one
    took = json.loads(RECORD.read_text(encoding="utf-8"))
    paths = sorted(paths, key=lambda path: -took.get(path.stem, {}).get("seconds", 0))
    # one core a notebook: threads that wait for one another cost more
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    # where kernels find figure_text
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with ProcessPoolExecutor(WORKERS) as pool:
        runs = pool.map(run, paths, [given.scale] * len(paths))
        for path, (out, seconds, error) in zip(paths, runs):
            if error:
                print(f"{path.name}: {error}", flush=True)
                failed = True
                continue
            executed = nbformat.read(out, 4)
            said = f"{path.name}: {seconds:.0f} s, {len(metrics(executed))} metrics"
            if given.what == "update":
                new = put_back(executed, path, seconds, package)
                said += "" if new else ", as it was"
            elif not given.scale:
                committed = metrics(nbformat.read(path, 4))
                found = differences(committed, metrics(executed))
                said += "".join(f"\n  {one}" for one in found)
                failed |= bool(found)
            print(said, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
