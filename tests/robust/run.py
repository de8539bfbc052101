"""Runs the long checks and records them in book/results/robustness.json, of which a
page of the book makes its tables.

    python tests/robust/run.py [--only NAME ..] [--count N] [--out FILE]

Every other module in this folder lists its checks in CHECKS. A check runs in a process
forked from this one, which has imported everything and computed nothing: so it starts
at once, may fork in turn, and what kills it is a failure of this check alone. What is
not run keeps its record, so that checks can be run one by one.
"""
import argparse
import importlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RECORD = ROOT / "book" / "results" / "robustness.json"
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
               "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent)]
# `from run import Check` in a module of checks finds this one
sys.modules.setdefault("run", sys.modules[__name__])


@dataclass(frozen=True)
class Check:
    """`run(count, seed)` makes `count` trials drawn from `seed` and returns (counts,
    failures).

    counts: what was done, and what came of it, a JSON object of numbers and short
    texts. failures: a sentence for each trial that failed; none when the check holds.
    An exception is a failure, too.
    """

    name: str
    point: int  # of the list on the page: 1 interrupted, 2 hostile input, ..
    says: str  # what holds when it passes, one sentence
    run: Callable[[int, int], tuple[dict, list[str]]]
    count: int = 1
    seed: int = 0


def checks() -> list[Check]:
    """All of them, by point and name."""
    names = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run")
    modules = [importlib.import_module(name) for name in names]
    found = [check for module in modules for check in getattr(module, "CHECKS", ())]
    return sorted(found, key=lambda check: (check.point, check.name))


def outcome(check: Check, count: int) -> dict:
    """The check's record, from a process of its own."""
    started = time.perf_counter()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_answer, args=(check, count, there))
    process.start()
    there.close()
    try:
        counts, failures = here.recv()
    except EOFError:
        process.join()
        died = f"the check's process died with exit code {process.exitcode}"
        counts, failures = {}, [died]
    process.join()
    from ddad.runtime.manifest import versions
    return {
        "point": check.point,
        "says": check.says,
        "count": count,
        "seed": check.seed,
        "passed": not failures,
        "counts": counts,
        "failures": failures[:20],
        "failed": len(failures),
        "seconds": round(time.perf_counter() - started, 1),
        "versions": versions(),
        "machine": f"{sys.platform}, {os.cpu_count()} CPU cores",
    }


def _answer(check: Check, count: int, there) -> None:
    try:
        there.send(check.run(count, check.seed))
    except Exception:
        there.send(({}, [traceback.format_exc().strip()[-1000:]]))


def _options(known: list[Check]) -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", metavar="NAME",
                         help="these checks instead of all")
    options.add_argument("--count", type=int,
                         help="trials of each, instead of its own number")
    options.add_argument("--out", type=Path, default=RECORD,
                         help="default: book/results/robustness.json")
    given, names = options.parse_args(), [check.name for check in known]
    if unknown := set(given.only or ()) - set(names):
        options.error(f"no check is called {', '.join(sorted(unknown))}; there are "
                      f"{', '.join(names)}")
    return given


def main() -> int:
    known = checks()
    given, failed = _options(known), False
    for check in known:
        if given.only and check.name not in given.only:
            continue
        found = outcome(check, given.count or check.count)
        failed |= not found["passed"]
        counts = ", ".join(f"{name} {n}" for name, n in found["counts"].items())
        word = "pass" if found["passed"] else "FAIL"
        print(f"{word} {check.name}: {counts}; {found['seconds']} s",
              *found["failures"], sep="\n  ", flush=True)
        old = {}
        if given.out.exists():
            old = json.loads(given.out.read_text(encoding="utf-8"))
        from ddad.runtime.files import write_json
        write_json(given.out, dict(sorted((old | {check.name: found}).items())))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
