"""What each stage of a training took."""
from __future__ import annotations

import time

import torch

from .devices import peak_memory


class Stages:
    """Seconds of each stage, and the peak memory in bytes so far, for the record."""

    def __init__(self, device: torch.device):
        self.device, self.since = device, time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.peak_memory: dict[str, int] = {}

    def done(self, stage: str) -> None:
        """This stage ends, and the next begins."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self.since, 2)
        self.peak_memory[stage] = peak_memory(self.device)
        self.since = now
