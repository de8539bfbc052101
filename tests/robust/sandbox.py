"""One trial in a process of its own, with limits that the kernel keeps: a hang, a crash or a flood of memory is that trial's failure."""
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

from ddad.latent_projection import BackboneError
from ddad.layouts import DataError
from ddad.manifest import ModelError
from ddad.settings import SettingsError
from ddad.writing import WriteError

SECONDS, MEMORY = 5, 2 << 30
DOCUMENTED = (DataError, ModelError, SettingsError, BackboneError, WriteError, FileExistsError)


def attempt(trial: Callable[[Path], object]) -> tuple[str, float, int]:
    """`trial(folder)` in a fork: "result", the name of the documented error it ended in, or "FAIL: " and why; CPU seconds; peak memory in bytes.

    More than 5 s of computing, 15 s of waiting, 2 GiB beyond what the fork began with, or 2 GiB resident fail.
    """
    folder = Path(tempfile.mkdtemp(prefix="ddad-hostile-"))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.write(write, _inside(trial, folder).encode("utf-8", "backslashreplace")[:4000])
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
        said = f"FAIL: {'hung for over 5 s' if hung else 'crashed'} ({signal.Signals(number).name})"
    elif peak > MEMORY:
        said = f"FAIL: took {peak / 2**30:.1f} GiB"
    return said or "FAIL: ended without a word", cpu, peak


def _inside(trial, folder: Path) -> str:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    begun = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (begun + MEMORY, begun + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(3 * SECONDS)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    try:
        os.chdir(folder)
        trial(folder)
        return "result"
    except DOCUMENTED as error:
        if type(error) not in DOCUMENTED or not str(error).strip():
            return f"FAIL: {type(error).__name__} without a sentence: {error}"
        cause = error.__cause__
        return "FAIL: out of memory" if isinstance(cause, MemoryError) else type(error).__name__
    except BaseException as error:
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        return f"FAIL: {type(error).__name__}: {error} in {Path(frame.tb_frame.f_code.co_filename).name}, line {frame.tb_lineno}"


def trials(make: Callable[[int, int], tuple[str, Callable[[Path], object]]], count: int, seed: int) -> tuple[dict, list[str]]:
    """Counts and failures of `count` trials; `make(seed, number)` gives what is tried, in a word or two, and the trial."""
    ends, longest, largest, failures = Counter(), 0.0, 0, []
    for number in range(count):
        what, trial = make(seed, number)
        said, cpu, peak = attempt(trial)
        longest, largest = max(longest, cpu), max(largest, peak)
        if said.startswith("FAIL"):
            failures.append(f"seed {seed}, number {number}, {what}: {said[6:]}")
        else:
            ends[said] += 1
    return {"trials": count, **dict(sorted(ends.items())), "longest, s": round(longest, 2), "most memory, GiB": round(largest / 2**30, 2)}, failures


def one_alone(make, arguments: list[str]) -> None:
    """`python tests/robust/<module>.py SEED NUMBER`: one trial in this process, without limits, for a debugger."""
    seed, number = map(int, arguments)
    what, trial = make(seed, number)
    print(what, file=sys.stderr)
    folder, started = Path(tempfile.mkdtemp(prefix="ddad-hostile-")), time.perf_counter()
    os.chdir(folder)
    try:
        print(trial(folder))
    finally:
        print(f"{folder}; {time.perf_counter() - started:.2f} s", file=sys.stderr)
