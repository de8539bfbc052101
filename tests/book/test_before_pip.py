"""What is said before pip downloads."""
import subprocess
import sys
from pathlib import Path

import before_pip

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"


def test_cuda_is_named_before_it_comes():
    said = before_pip.told(["torch", "filelock", "nvidia-cublas-cu12"])
    assert "2 GB" in said and before_pip.CPU in said
    assert "CUDA" in before_pip.told(["torch", "cuda-toolkit"])
    assert "CUDA" not in before_pip.told(["torch", "filelock"])
    assert "downloaded" in before_pip.told(["torch"])


def test_nothing_is_said_where_torch_is_there():
    assert before_pip.planned(["--no-index"]) == []
    assert before_pip.told([]) == ""


def test_a_pip_that_cannot_say_stops_nothing(monkeypatch):
    failed = lambda *_, **__: subprocess.CompletedProcess([], 1, "no such option", "")
    monkeypatch.setattr(subprocess, "run", failed)
    assert before_pip.planned([]) is None
    assert "downloaded" in before_pip.told(None)


def test_it_comes_before_the_download_and_pip_shows_its_own():
    recipe = MAKEFILE.read_text(encoding="utf-8").partition("$(VENV)/dev:")[2]
    recipe = recipe.partition("\n\n")[0]
    said, install = recipe.index("before_pip.py"), recipe.index("pip install")
    assert said < install and "--quiet" not in recipe
    done = subprocess.run([sys.executable, before_pip.__file__, "--no-index"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
