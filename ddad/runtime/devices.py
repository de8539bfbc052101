"""Where the networks compute, and how much memory that took."""
from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

from . import processes


def pick_device(name: str = "auto") -> torch.device:
    """"auto" takes CUDA, else the CPU; Apple's MPS, which was not tried yet, has to be
    asked for. Of several processes each gets its own. ValueError for one that this
    machine lacks.
    """
    has = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available,
           "cpu": lambda: True}
    if name == "auto":
        name = "cuda" if has["cuda"]() else "cpu"
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    numbered = not index or index.isdecimal() and int(index) < count
    if kind not in has or not has[kind]() or not numbered:
        raise ValueError(f"device {name!r} is not available here; choose auto or cpu")
    return processes.own_device(torch.device(name))


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a CUDA device so far, else the most main
    memory that this process has held.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # getrusage starts at what the parent process held
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    if held := re.search(r"VmHWM:\s+(\d+) kB", text):
        return int(held[1]) * 1024
    try:
        import resource
    except ImportError:                                                # Windows
        import psutil
        return psutil.Process().memory_info().peak_wset
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
