"""What the page on installing says of inference holds: without the rest of the package
a saved detector looks at an image.
"""
import os
import re
import shutil
import subprocess
import sys

import numpy as np
from chapters import ROOT
from PIL import Image

ALONE = (ROOT / "book/install.md").read_text(encoding="utf-8").partition(
    "## Inference alone")[2].partition("## ")[0]
GONE = ("training.py", "calibration.py", "fine_tuning.py", "synthetic", "reproduction",
        "notebook")
LEFT = {"evaluation": ("patches.py",),
        "data": ("images.py", "layouts.py", "masks.py", "on_disk.py"),
        "deploy": ("folder.py", "overlays.py", "doubts.py", "report.py")}


def test_the_page_names_what_goes_and_what_stays():
    named = set(re.findall(r"`([\w.]+)`", ALONE)) - {"ddad", "weights", "vae"}
    assert named == {*GONE, *LEFT, *(name for names in LEFT.values() for name in names)}


def test_a_detector_runs_without_them(tmp_path):
    package = tmp_path / "ddad"
    shutil.copytree(ROOT / "ddad", package,
                    ignore=shutil.ignore_patterns("__pycache__", "board*", "fabric"))
    for name in GONE:
        path = package / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder, left in LEFT.items():
        for path in (package / folder).iterdir():
            if path.name not in (*left, "__init__.py"):
                path.unlink()
    Image.fromarray(np.full((128, 128, 3), 90, np.uint8)).save(tmp_path / "one.png")
    shutil.copytree(ROOT / "ddad/weights/board", tmp_path / "board")
    ran = subprocess.run(
        [sys.executable, "-m", "ddad", "detect", "board", "one.png", "out", "--device",
         "cpu"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "report.html").exists()
