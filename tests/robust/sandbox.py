"""One trial in a process of its own, with limits that the kernel keeps: a hang, a crash
or a flood of memory is that trial's failure.
"""
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ddad.runtime.errors import (
    BackboneError,
    DataError,
    ModelError,
    SettingsError,
    WriteError,
)

SECONDS, MEMORY = 5, 2 << 30
DOCUMENTED = (DataError, ModelError, SettingsError, BackboneError, WriteError,
              FileExistsError)
Trial = Callable[[Path], object]


def attempt(trial: Trial) -> tuple[str, float, int]:
    """`trial(folder)` in a fork: what came of it, CPU seconds, peak memory in bytes.

    It ends in the word that the trial returns or "result", in the name of a documented
    error, or in "FAIL: " and why. More
    than 5 s of computing, 15 s of waiting, 2 GiB beyond what the fork began with, or
    2 GiB resident fail.
    """
    folder = Path(tempfile.mkdtemp(prefix="ddad-hostile-"))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        said = _inside(trial, folder).encode("utf-8", "backslashreplace")
        os.write(write, said[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    _, status, used = os.wait4(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hung = number in (signal.SIGXCPU, signal.SIGALRM)
        why = "hung for over 5 s" if hung else "crashed"
        said = f"FAIL: {why} ({signal.Signals(number).name})"
    elif peak > MEMORY:
        said = f"FAIL: took {peak / 2**30:.1f} GiB"
    return said or "FAIL: ended without a word", cpu, peak


def _inside(trial: Trial, folder: Path) -> str:
    _limit()
    try:
        os.chdir(folder)
        ended = trial(folder)
        return ended if isinstance(ended, str) else "result"
    except DOCUMENTED as error:
        name = type(error).__name__
        if type(error) not in DOCUMENTED or not str(error).strip():
            return f"FAIL: {name} without a sentence: {error}"
        out_of_memory = isinstance(error.__cause__, MemoryError)
        return "FAIL: out of memory" if out_of_memory else name
    except BaseException as error:
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        file = Path(frame.tb_frame.f_code.co_filename).name
        where = f"{file}, line {frame.tb_lineno}"
        return f"FAIL: {type(error).__name__}: {error} in {where}"


def _limit() -> None:
    """The limits of time and memory, and nothing to read from or to write to."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(3 * SECONDS)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def trials(make: Callable[[int, int], tuple[str, Trial]], count: int,
           seed: int) -> tuple[dict, list[str]]:
    """Counts and failures of `count` trials; `make(seed, number)` gives what is tried,
    in a word or two, and the trial.
    """
    ends, longest, largest, failures = Counter(), 0.0, 0, []
    for number in range(count):
        what, trial = make(seed, number)
        said, cpu, peak = attempt(trial)
        longest, largest = max(longest, cpu), max(largest, peak)
        if said.startswith("FAIL"):
            failures.append(f"seed {seed}, number {number}, {what}: {said[6:]}")
        else:
            ends[said] += 1
    counts = {"trials": count, **dict(sorted(ends.items()))}
    most = {"longest, s": round(longest, 2),
            "most memory, GiB": round(largest / 2**30, 2)}
    return counts | most, failures


def one_alone(make, arguments: list[str]) -> None:
    """`python tests/robust/<module>.py SEED NUMBER`: one trial in this process, without
    limits, for a debugger.
    """
    seed, number = map(int, arguments)
    what, trial = make(seed, number)
    print(what, file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="ddad-hostile-"))
    started = time.perf_counter()
    os.chdir(folder)
    try:
        print(trial(folder))
    finally:
        print(f"{folder}; {time.perf_counter() - started:.2f} s", file=sys.stderr)
