"""Breaks a line of the method on purpose and runs the chapter that teaches it.

    python book/tools/sabotage.py

Its metrics must change, or the chapter guards nothing. The last row breaks nothing: run
in the same way, its chapter must not notice, or the others' red says nothing either.
"""
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from run_notebooks import ROOT, WORKERS, differences, metrics

# module; the line; the same line broken; the chapter that must turn red. The last line
# is whole, and its chapter must stay green.
SABOTAGES = [
    ("scaled_denoising", "z_t = at[T_hat].sqrt() * z0 if", "z_t = z0 if",
     "06_scaled_denoising"),
    ("dynamic_noise", "b = b.clamp(min=smallest_bin)", "b = bins + 1 - b",
     "05_dynamic_noise"),
    ("anomaly_map", "A = lam * A +", "A = (1 - lam) * A +", "08_anomaly_map"),
    ("anomaly_map", "A = lam * A +", "A = lam * A +", "08_anomaly_map"),
]


def red(module: str, line: str, broken: str, name: str) -> str:
    """How the chapter noticed: its error, or the first metrics that differ; else ""."""
    import papermill
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "ddad", Path(folder) / "ddad")
        path, out = Path(folder) / "ddad" / f"{module}.py", Path(folder) / "out.ipynb"
        source = path.read_text(encoding="utf-8")
        if source.count(line) != 1:
            raise SystemExit(f"{module}.py has the line {line!r} {source.count(line)} "
                             "times; bring the list above up to date")
        path.write_text(source.replace(line, broken), encoding="utf-8")
        os.environ["PYTHONPATH"] = folder       # found before the installed package
        notebook = ROOT / "notebooks" / f"{name}.ipynb"
        try:
            papermill.execute_notebook(notebook, out, kernel_name="python3",
                                       cwd=folder, progress_bar=False)
        except papermill.PapermillExecutionError as error:
            return f"{error.ename}: {error.evalue}"
        committed, new = (metrics(nbformat.read(one, 4)) for one in (notebook, out))
        return "; ".join(differences(committed, new)[:3])


if __name__ == "__main__":
    failed = False
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with ProcessPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(red, *zip(*SABOTAGES)))
    for (module, line, broken, name), noticed in zip(SABOTAGES, outcomes):
        right = bool(noticed) == (line != broken)
        print(f"{module}.py: {line} -> {broken}\n  {name}: "
              f"{'' if right else 'WRONG: '}{noticed or 'nothing noticed'}", flush=True)
        failed |= not right
    sys.exit(failed)
