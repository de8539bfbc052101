"""Breaks a line of the method on purpose and runs the chapter that teaches it.

    python book/tools/sabotage.py

Its metrics must change, or the chapter guards nothing. Each chapter also runs with no
line broken, in the same way, at the scale "smoke"; the last one twice: the two must
agree, or red says nothing.
"""
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from run_notebooks import OUTPUT_SECONDS, ROOT, WORKERS, differences, metrics

# module; the line; the same line broken; the chapter that must turn red
SABOTAGES = [
    ("scaled_denoising", "z_t = at[T_hat].sqrt() * z0 if", "z_t = z0 if",
     "06_scaled_denoising"),
    ("dynamic_noise", "n = torch.arange(bins + 1)", "n = torch.arange(bins, -1, -1)",
     "05_dynamic_noise"),
    ("anomaly_map", "A = lam * A +", "A = (1 - lam) * A +", "08_anomaly_map"),
]
WHOLE = [(module, line, line, name) for module, line, _, name in SABOTAGES]


def shown(module: str, line: str, broken: str, name: str) -> dict | str:
    """The metrics that the chapter records with the line broken, or its error."""
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
        try:
            papermill.execute_notebook(
                ROOT / "notebooks" / f"{name}.ipynb", out, {"SCALE": "smoke"},
                kernel_name="python3", cwd=folder, progress_bar=False,
                iopub_timeout=OUTPUT_SECONDS)
        except papermill.PapermillExecutionError as error:
            return f"{error.ename}: {error.evalue}"
        return metrics(nbformat.read(out, 4))


def noticed(whole: dict | str, broken: dict | str) -> str:
    """What the chapter says of the broken line; "" where it does not notice."""
    if isinstance(whole, str):
        return f"it fails with no line broken: {whole}"
    if isinstance(broken, str):
        return broken
    return "; ".join(differences(whole, broken)[:3])


if __name__ == "__main__":
    failed = False
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with ProcessPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(shown, *zip(*SABOTAGES, *WHOLE, WHOLE[-1])))
    if differ := noticed(*outcomes[-2:]):
        sys.exit(f"{WHOLE[-1][-1]}, run twice with no line broken: WRONG: {differ}")
    pairs = zip(outcomes[len(SABOTAGES):], outcomes)
    for (module, line, broken, name), (whole, other) in zip(SABOTAGES, pairs):
        said = noticed(whole, other)
        right = said and not isinstance(whole, str)
        failed |= not right
        print(f"{module}.py: {line} -> {broken}\n  {name}: "
              f"{'' if right else 'WRONG: '}{said or 'nothing noticed'}", flush=True)
    sys.exit(int(failed))
