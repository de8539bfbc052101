"""Short versions of the long checks in tests/robust, and what runs and records them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import good_images, tiny, tiny_vae
from odd_images import odd_images

from ddad.detector import Detector

HERE = Path(__file__).parent
ROBUST = HERE / "robust"
linux = pytest.mark.skipif(sys.platform != "linux",
                           reason="the checks use fork and /proc")


def scripted(script):
    """What a script prints that imports the checks' modules, in a process of its own.
    """
    path = os.pathsep.join(map(str, (ROBUST, HERE, HERE.parent)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return done.stdout


@linux
@pytest.mark.parametrize("names", [
    ("killed-train", "many-pictures", "one-folder"), ("killed-encode", "read-only")])
def test_short_versions_hold(tmp_path, names):
    out = tmp_path / "record.json"
    done = subprocess.run(
        [sys.executable, ROBUST / "run.py", "--only", *names, "--count", "2", "--out",
         out], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads(out.read_text())
    assert list(records) == list(names)
    for record in records.values():
        assert record["passed"] and record["count"] == 2
        assert record["counts"] and record["versions"]["torch"]


FAILING = """
import json, sys, run
def breaks(count, seed): return {"made": 1}, ["it broke"]
def raises(count, seed): return 1 / 0
def dies(count, seed): sys.exit(3)
print(json.dumps([run.outcome(run.Check("x", 1, "nothing", check), 1)
                  for check in (breaks, raises, dies)]))
"""


@linux
def test_a_check_that_fails_or_dies_is_recorded():
    records = json.loads(scripted(FAILING))
    told = ("it broke", "ZeroDivisionError", "died")
    for record, said in zip(records, told, strict=True):
        assert not record["passed"] and record["failed"] == 1
        assert said in record["failures"][0]


SABOTAGED = """
import run
from sabotage import SABOTAGES
for sabotage in SABOTAGES:
    text = (run.ROOT / sabotage.file).read_text(encoding="utf-8")
    assert sabotage.broken(run.ROOT) != text
assert {one.check for one in SABOTAGES} == {check.name for check in run.checks()}
"""


@linux
def test_each_check_has_a_line_to_break():
    """And the line is still there, in one place."""
    scripted(SABOTAGED)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_odd_images_get_finite_scores(tmp_path, precision):
    settings = tiny(precision=precision, train_precision=precision, vae="given")
    fitted = Detector.fit(good_images(16), settings, vae=tiny_vae(), device="cpu")
    fitted.save_pretrained(tmp_path / "half", torch.float16)
    half = Detector.from_pretrained(tmp_path / "half", vae=tiny_vae(), device="cpu")
    for detector in (fitted, half):
        found = detector.predict(odd_images(2, 64, 0))
        assert found.score.isfinite().all() and found.map.isfinite().all()
        assert found.reconstruction.isfinite().all()
