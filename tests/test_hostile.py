"""Short versions of the checks with hostile input, and the limits under which they run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROBUST = HERE / "robust"
pytestmark = pytest.mark.skipif(sys.platform != "linux",
                                reason="the checks use fork and /proc")


@pytest.mark.parametrize("name, count, ended", [
    ("pictures", 25, "result"), ("models", 24, "result"), ("folders", 18, "right")])
def test_a_few_of_each_kind(name, count, ended, tmp_path):
    out = tmp_path / "record.json"
    done = subprocess.run(
        [sys.executable, ROBUST / "run.py", "--only", name, "--count", str(count),
         "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(out.read_text())[name]["counts"]
    assert counts["trials"] == count and counts[ended]
    assert counts["most memory, GiB"] < 2


BREAKS_LIMITS = """
import os, time, run, sandbox
from ddad.runtime.errors import DataError
def refuse(folder): raise DataError("x.png is no image: give one.")
def mute(folder): raise DataError("")
def inside(folder): raise KeyError("x")
def flood(folder): bytearray(3 << 30)
def spin(folder):
    while True: pass
def wait(folder): time.sleep(60)
sandbox.SECONDS = 1
for trial in (lambda folder: None, refuse, mute, inside, flood, spin, wait,
              lambda folder: os.abort()):
    print(sandbox.attempt(trial)[0].split("(")[0])
"""


def test_what_breaks_a_limit_fails():
    """In a process of its own, since it forks."""
    path = os.pathsep.join(map(str, (ROBUST, HERE, HERE.parent)))
    done = subprocess.run([sys.executable, "-c", BREAKS_LIMITS], capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": path})
    said = done.stdout.splitlines()
    assert said[:2] == ["result", "DataError"], done.stderr
    reasons = ("without a sentence", "KeyError", "MemoryError", "hung", "hung",
               "crashed")
    for line, reason in zip(said[2:], reasons, strict=True):
        assert line.startswith("FAIL") and reason in line
