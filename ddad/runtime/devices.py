"""Where the networks compute, and how much memory that took."""
from __future__ import annotations

import re
import sys
import time
import warnings
from functools import cache
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


def tell_if_slow(device: torch.device, precision: str) -> None:
    """Warns where the CPU takes longer in bfloat16 than in float32, as those without
    instructions for it do.
    """
    if device.type == "cpu" and precision == "bfloat16" and (times := slower()) > 1.5:
        warnings.warn(f"a convolution takes {times:.0f} times as long in bfloat16 as "
                      "in float32 on this CPU; where the settings are yours to choose, "
                      "set precision and train_precision to float32", stacklevel=3)


@cache
def slower() -> float:
    """How many times as long a convolution of the U-Net takes in bfloat16 as in
    float32 on this CPU: a probe of some milliseconds.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, w = (torch.ones(*shape, dtype=dtype)
                for shape in ((16, 64, 16, 16), (64, 64, 3, 3)))
        runs = []
        for _ in range(4):                          # the first one prepares
            started = time.perf_counter()
            torch.conv2d(x, w, padding=1)
            runs.append(time.perf_counter() - started)
        seconds[dtype] = min(runs)
    return seconds[torch.bfloat16] / seconds[torch.float32]


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
