"""Breaks a line on purpose in a copy of the project and runs the check that watches
over it, which has to fail.

    python tests/robust/sabotage.py [CHECK ..]

Writes book/results/robustness_broken.json. What is not run keeps its row; a row of a
sabotage that is no longer listed goes.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from run import ROOT

from ddad.runtime.files import write_json

RECORD = ROOT / "book" / "results" / "robustness_broken.json"


@dataclass(frozen=True)
class Sabotage:
    """A line of a file, and what stands there instead while a check makes trials."""

    check: str
    count: int
    file: str
    line: str
    instead: str

    @property
    def key(self) -> str:
        return f"{self.check}: {self.file}: {self.line}"

    def broken(self, folder: Path) -> str:
        """The file's text with the line broken; SystemExit unless it is there once."""
        text = (folder / self.file).read_text(encoding="utf-8")
        if (times := text.count(self.line)) != 1:
            raise SystemExit(f"{self.file} has the line {self.line!r} {times} times; "
                             "bring the list of sabotages up to date")
        return text.replace(self.line, self.instead)


SABOTAGES = [
    Sabotage("killed-train", 4, "ddad/runtime/checkpoints.py",
             '"step": torch.tensor(float(done)',
             '"step": torch.tensor(0.0'),
    Sabotage("killed-encode", 8, "ddad/runtime/latent_cache.py",
             "parts.append(load_file(path))",
             "parts.append({k: 1.001 * v for k, v in load_file(path).items()})"),
    Sabotage("killed-reproduce", 4, "ddad/training.py",
             "manual_seed(s.seed * STEPS + i)",
             "manual_seed(s.seed * STEPS + i - done)"),
    Sabotage("killed-notebook", 6, "book/tools/run_notebooks.py",
             "nbformat.write(executed, aside)",
             "path.write_text('{'), time.sleep(2), nbformat.write(executed, aside)"),
    Sabotage("full-disk", 1, "ddad/runtime/files.py",
             "except (OSError, SafetensorError) as error:",
             "except KeyError as error:"),
    Sabotage("read-only", 1, "ddad/runtime/files.py",
             "except (OSError, SafetensorError) as error:",
             "except KeyError as error:"),
    Sabotage("models", 300, "ddad/saved_model.py",
             "except Exception as error:",
             "except OSError as error:"),
    Sabotage("pictures", 300, "ddad/data/images.py",
             "except Exception as error:",
             "except KeyError as error:"),
    Sabotage("same-bytes", 1, "ddad/training.py",
             "torch.manual_seed(s.seed)",
             "torch.seed()"),
    Sabotage("same-scores", 2, "ddad/runtime/adapter.py",
             "module.register_forward_pre_hook(_contiguous)",
             "pass"),
    Sabotage("same-figures", 1, "ddad/synthetic/products.py",
             "np.random.SeedSequence([seed,",
             "np.random.SeedSequence([seed, __import__('os').getpid(),"),
    Sabotage("finite", 1, "ddad/anomaly_map.py",
             "max(high - low, 1e-8)",
             "(0 * (high - low))"),
    Sabotage("held-out-unlike", 20, "ddad/evaluation/likeness.py",
             "ks_2samp(d, own)",
             "ks_2samp(d, d)"),
    Sabotage("many-pictures", 100, "ddad/deploy/folder.py",
             "except DataError as error:",
             "except KeyError as error:"),
    Sabotage("many-pictures", 400, "ddad/deploy/folder.py",
             "faults = lines + made, faults + refused",
             "faults = lines + [line | {'kept': torch.ones(10**6)} for line in made],"
             " faults + refused"),
    Sabotage("folders", 36, "ddad/data/plausible.py",
             "if defect.mean() > MOST_OF_IT:",
             "if defect.mean() > 9:"),
    Sabotage("folders", 36, "ddad/data/plausible.py",
             "times = (levels > 0).sum() / max(1, (levels > 127).sum())",
             "times = 1"),
    Sabotage("folders", 36, "ddad/data/layouts.py",
             "in SUFFIXES and not os.path.isdir(path)",
             "in SUFFIXES and os.path.isfile(path)"),
    Sabotage("folders", 36, "ddad/deploy/folder.py",
             "return os.path.abspath(path)",
             "return path.name"),
    Sabotage("folders", 108, "ddad/deploy/folder.py",
             r'ended.split("\n")',
             "ended.splitlines()"),
    Sabotage("many-trained", 280, "ddad/data/images.py",
             "return ImageFiles(paths, size) if many else read_images(paths, size)",
             "return read_images(paths, size)"),
    Sabotage("one-folder", 2, "ddad/runtime/files.py",
             "held.acquire(blocking=False)",
             "pass"),
]


def failure(sabotage: Sabotage) -> str:
    """The check's first failure in the broken copy; "" when it passes all the same."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        for part in ("ddad", "book", "tests", "notebooks"):
            ignored = shutil.ignore_patterns("__pycache__", "_build")
            shutil.copytree(ROOT / part, home / part, ignore=ignored)
        for part in ("requirements.lock", "_config.yml", "pyproject.toml"):
            shutil.copy(ROOT / part, home)
        (home / sabotage.file).write_text(sabotage.broken(home), encoding="utf-8")
        out = home / "record.json"
        subprocess.run(
            [sys.executable, home / "tests/robust/run.py", "--only", sabotage.check,
             "--count", str(sabotage.count), "--out", out],
            env=os.environ | {"PYTHONPATH": scratch}, stdout=subprocess.DEVNULL)
        record = json.loads(out.read_text(encoding="utf-8"))[sabotage.check]
        said = "".join(record["failures"][:1]).strip().splitlines() or [""]
        # of a traceback the error; no folder of this machine
        return re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+", "..", said[-1])


def note(sabotage: Sabotage, noticed: str) -> None:
    old = {}
    if RECORD.exists():
        old = json.loads(RECORD.read_text(encoding="utf-8"))
    listed = {one.key for one in SABOTAGES}
    rows = {key: row for key, row in old.items() if key in listed}
    rows[sabotage.key] = asdict(sabotage) | {"failure": noticed[-300:]}
    write_json(RECORD, dict(sorted(rows.items())))


def main() -> int:
    failed = False
    for sabotage in SABOTAGES:
        if len(sys.argv) > 1 and sabotage.check not in sys.argv[1:]:
            continue
        noticed = failure(sabotage)
        print(f"{sabotage.key} -> {sabotage.instead}\n  {noticed or 'NOT NOTICED'}",
              flush=True)
        failed |= not noticed
        note(sabotage, noticed)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
