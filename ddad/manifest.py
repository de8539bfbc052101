"""The records beside models and results: JSON, written whole or not at all; read without torch."""
from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

from .writing import whole

MANIFEST = "manifest.json"


class ModelError(ValueError):
    """A saved detector that is missing, damaged or does not fit; the sentence names the file and what to do."""


def read_manifest(folder: str | Path) -> dict:
    """manifest.json of a saved detector; ModelError when there is none or it is not one."""
    path = Path(folder) / MANIFEST
    if not os.path.isfile(path):
        raise ModelError(f"{folder} holds no {MANIFEST}: give the folder of a detector saved by `ddad train`")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON ({error}); copy the folder again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != 1:
        raise ModelError(f"{path} is no manifest of format 1; it was made by another version of ddad, or by another program")
    return manifest


def write_json(path: Path, value) -> None:
    """Written whole or not at all: see `whole`."""
    with whole(path) as aside:
        aside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex, read a megabyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def peak_memory(device) -> int:
    """Bytes: the most that was allocated on a CUDA device so far, else the most main memory that this process has held."""
    if device.type == "cuda":
        import torch
        return torch.cuda.max_memory_allocated(device)
    if (status := Path("/proc/self/status")).exists() and (held := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(held[1]) * 1024                                     # getrusage's figure starts at what the parent process held
    try:
        import resource
    except ImportError:                                                # Windows
        import psutil
        return psutil.Process().memory_info().peak_wset
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def versions() -> dict:
    """Versions that shape a result: Python, the packages that compute, and this one."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("ddad", "torch", "diffusers", "numpy")}
