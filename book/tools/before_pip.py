"""Says, before pip downloads, that it will, and whether CUDA comes with PyTorch.

    python book/tools/before_pip.py [options of pip install]

Needs nothing but pip; asks its indexes what they would give.
"""
import json
import subprocess
import sys

CPU = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"


def planned(options: list[str]) -> list[str] | None:
    """The packages that pip would install for PyTorch; None where it cannot say."""
    asked = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report",
             "-", *options, "torch"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
        report = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return [one["metadata"]["name"].lower() for one in report["install"]]


def told(packages: list[str] | None) -> str:
    """What to read before the download begins; empty where PyTorch is there already."""
    if packages is not None and "torch" not in packages:
        return ""
    said = "Packages are downloaded now, PyTorch among them: this takes minutes."
    if any(name.startswith(("nvidia-", "cuda-")) for name in packages or ()):
        said += ("\nPyTorch brings CUDA here, 2 GB or more. Without an NVIDIA GPU you "
                 "do not need it: stop (Ctrl-C), and say so before the same command:\n"
                 f"    {CPU} make demo")
    return said


if __name__ == "__main__":
    if words := told(planned(sys.argv[1:])):
        print(words, flush=True)
