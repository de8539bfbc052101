"""Many images, a batch at a time, shared out over the processes that there are."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import processes


def in_batches(n: int, batch: int, run: Callable[[int, int], tuple],
               what: str) -> list[Tensor | None]:
    """run(first, end) for each batch of n rows: tensors with a row for each of the
    batch, put together on the CPU, in every process those of all n rows. None stays.
    ValueError for a batch of none.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; give 1 or more")
    start, end = processes.share(n)
    own: list[Tensor | None] = []
    for first in tqdm(range(start, end, batch), what, leave=False, delay=2):
        parts = run(first, min(first + batch, end))
        own = own or [
            None if part is None
            else torch.empty(end - start, *part.shape[1:], dtype=part.dtype)
            for part in parts]
        # into its place: parts joined at the end would be there twice
        for whole, part in zip(own, parts):
            if part is not None:
                whole[first - start :][: len(part)] = part
    shares = [share for share in processes.gathered([own]) if share]
    if len(shares) == 1:
        return shares[0]
    return [None if parts[0] is None else torch.cat(parts) for parts in zip(*shares)]
