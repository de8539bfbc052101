"""Breaks a line of the method on purpose and runs the notebook that teaches it: its metrics must change, or the notebook guards nothing.

The last row breaks nothing: run in the same way, its notebook must not notice, or the others' red says nothing either.

    python book/sabotage.py
"""
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from run_notebooks import ROOT, WORKERS, differences, metrics

# module, the line, the same line broken, the notebook that must turn red; the last one is whole and must stay green
SABOTAGES = [
    ("scaled_denoising", "z_t = abar_start.sqrt() * z0 if eps", "z_t = z0 if eps", "06_scaled_denoising"),
    ("dynamic_noise", "b = b.clamp(min=settings.smallest_bin)", "b = settings.bins + 1 - b", "05_dynamic_noise"),
    ("anomaly_map", "settings.lam *", "(1 - settings.lam) *", "08_anomaly_map"),
    ("anomaly_map", "settings.lam *", "settings.lam *", "08_anomaly_map"),
]


def red(module: str, line: str, broken: str, name: str) -> str:
    """How the notebook noticed: its error, or the first metrics that differ; "" when it did not."""
    import papermill
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "ddad", Path(folder) / "ddad")
        path = Path(folder) / "ddad" / f"{module}.py"
        source = path.read_text(encoding="utf-8")
        if source.count(line) != 1:
            raise SystemExit(f"{module}.py has the line {line!r} {source.count(line)} times; bring the list above up to date")
        path.write_text(source.replace(line, broken), encoding="utf-8")
        os.environ["PYTHONPATH"] = folder                               # found before the installed package
        notebook = ROOT / "notebooks" / f"{name}.ipynb"
        try:
            papermill.execute_notebook(notebook, Path(folder) / "out.ipynb", kernel_name="python3", cwd=folder, progress_bar=False)
        except papermill.PapermillExecutionError as error:
            return f"{error.ename}: {error.evalue}"
        return "; ".join(differences(metrics(nbformat.read(notebook, 4)), metrics(nbformat.read(Path(folder) / "out.ipynb", 4)))[:3])


if __name__ == "__main__":
    failed = False
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(red, *zip(*SABOTAGES)))
    for (module, line, broken, name), noticed in zip(SABOTAGES, outcomes):
        right = bool(noticed) == (line != broken)
        print(f"{module}.py: {line} -> {broken}\n  {name}: {'' if right else 'WRONG: '}{noticed or 'nothing noticed'}", flush=True)
        failed |= not right
    sys.exit(failed)
