"""Breaks a line on purpose in a copy of the project and runs the check that watches over it, which has to fail.

    python tests/robust/sabotage.py [CHECK ..]

Writes book/results/robustness_broken.json; what is not run keeps its row.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from run import ROOT

from ddad.manifest import write_json

RECORD = ROOT / "book" / "results" / "robustness_broken.json"
# check, trials, file, the line, what stands there instead
SABOTAGES = [
    ("killed-train", 4, "ddad/training.py", '"step": torch.tensor(float(done))', '"step": torch.tensor(0.0)'),
    ("killed-encode", 8, "ddad/latent_projection.py", "found = load_file(path)", "found = {k: 1.001 * v for k, v in load_file(path).items()}"),
    ("killed-reproduce", 4, "ddad/training.py", "manual_seed(settings.seed * 1_000_003 + i)", "manual_seed(settings.seed * 1_000_003 + i - done)"),
    ("killed-notebook", 6, "book/run_notebooks.py", "nbformat.write(executed, aside)",
     "path.write_text('{'), time.sleep(2), nbformat.write(executed, aside)"),
    ("full-disk", 1, "ddad/writing.py", "except (OSError, SafetensorError) as error:", "except KeyError as error:"),
    ("read-only", 1, "ddad/writing.py", "except (OSError, SafetensorError) as error:", "except KeyError as error:"),
    ("models", 300, "ddad/saved_model.py", "except Exception as error:", "except OSError as error:"),
    ("pictures", 300, "ddad/data.py", "except Exception as error:  #", "except KeyError as error:  #"),
    ("same-bytes", 1, "ddad/detector.py", "torch.manual_seed(settings.seed) ", "torch.seed() "),
    ("same-scores", 2, "ddad/latent_projection.py", "module.register_forward_pre_hook(_contiguous)", "pass"),
    ("same-figures", 1, "ddad/products.py", "number = np.random.SeedSequence([seed, ",
     "number = np.random.SeedSequence([seed, __import__('os').getpid(), "),
    ("finite", 1, "ddad/anomaly_map.py", "max(high - low, 1e-8)", "(0 * (high - low))"),
    ("held-out-unlike", 20, "ddad/dynamic_noise.py", "ks_2samp(d, own)", "ks_2samp(d, d)"),
    ("many-pictures", 100, "ddad/inspection.py", "except DataError as error:", "except KeyError as error:"),
    ("many-pictures", 400, "ddad/inspection.py", "faults = lines + made, faults + refused",
     "faults = lines + [line | {'kept': torch.ones(10**6)} for line in made], faults + refused"),
    ("one-folder", 2, "ddad/writing.py", "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
]


def failure(check: str, count: int, name: str, line: str, instead: str) -> str:
    """The first failure of the check in the broken copy; "" when it passes all the same."""
    with tempfile.TemporaryDirectory() as scratch:
        for part in ("ddad", "book", "tests", "notebooks"):
            shutil.copytree(ROOT / part, Path(scratch) / part, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        for part in ("requirements.lock", "_config.yml", "pyproject.toml"):
            shutil.copy(ROOT / part, scratch)
        path = Path(scratch) / name
        source = path.read_text(encoding="utf-8")
        if source.count(line) != 1:
            raise SystemExit(f"{name} has the line {line!r} {source.count(line)} times; bring the list above up to date")
        path.write_text(source.replace(line, instead), encoding="utf-8")
        out = Path(scratch) / "record.json"
        subprocess.run([sys.executable, Path(scratch) / "tests/robust/run.py", "--only", check, "--count", str(count), "--out", out],
                       env=os.environ | {"PYTHONPATH": scratch}, stdout=subprocess.DEVNULL)
        said = (json.loads(out.read_text(encoding="utf-8"))[check]["failures"] or [""])[0].strip().splitlines() or [""]
        return re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+", "..", said[-1])     # of a traceback the error; no folder of this machine


if __name__ == "__main__":
    failed = False
    for check, count, name, line, instead in SABOTAGES:
        if len(sys.argv) > 1 and check not in sys.argv[1:]:
            continue
        noticed = failure(check, count, name, line, instead)
        print(f"{check}, {name}: {line} -> {instead}\n  {noticed or 'NOT NOTICED'}", flush=True)
        failed |= not noticed
        rows = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
        rows[f"{check}: {name}: {line.strip()}"] = {"check": check, "count": count, "file": name, "line": line.strip(), "instead": instead.strip(),
                                                    "failure": noticed[-300:]}
        write_json(RECORD, dict(sorted(rows.items())))
    sys.exit(failed)
