"""What the candidates of a calibration share, made once.

Encoding, features and distances do not depend on a candidate. An image's reconstruction
depends on its step, or its map of steps, and on how it is denoised from there, but not
on the rule that gave it this step: at T_max 160 the fifth of ten bins starts where the
static rule starts at 80. So what is made of an image is kept under its number, its step
and all settings but those that only give steps or weigh maps.

Reconstructions are made as many at a time as a prediction makes them. A batch is filled
with what the next candidates need, and at the end with its last row, again and again:
so each comes out with the same bits whoever asks for it.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

BATCH = 16
# they give steps, weigh maps, or are done with before an image is seen
FREE = ("preset", "step_rule", "T_max", "smallest_bin", "bins", "edge_bin",
        "level_rounding", "latent_blur", "lam", "sigma", "patch_share", "tune_epochs")


class SharedPaths:
    """Reconstructions and feature maps of `images` (N, 3, H, W), under any candidate of
    one detector. Its networks, its banks and its other settings must stay as they are.
    """

    def __init__(self, detector, images: Tensor, side: int):
        """side: of the maps, at most that of the images."""
        self.seen = _each(lambda *parts: torch.cat(parts), *(
            detector.observe(x0) for x0 in images.split(BATCH)))
        self.size, self.batch = min(side, images.shape[-1]), min(BATCH, len(images))
        # (1, C, h, w) and (1, size, size), of one image each
        self.z0_hat: dict[tuple, Tensor] = {}
        self.A_f: dict[tuple, Tensor | None] = {}
        self.steps: dict[tuple, Tensor] = {}    # of all keys, in the order of need

    def expect(self, candidates: Sequence) -> None:
        """Candidates that will be asked for, in this order: the detector under other
        settings each.
        """
        for one in candidates:
            self._keys(one)

    def of(self, candidate) -> tuple[Tensor, Tensor | None]:
        """z0_hat (N, C, h, w), and A_f (N, size, size) on the CPU or None, of all
        images under a candidate.
        """
        keys = self._keys(candidate)

        def reconstruct(some: list[tuple], seen) -> Tensor:
            T = torch.stack([self.steps[key] for key in some])
            return candidate.reconstruct(seen, T)

        def compare(some: list[tuple], seen) -> Tensor | None:
            z0_hat = torch.cat([self.z0_hat[key] for key in some])
            return candidate.compare(seen, z0_hat, self.size)[1]

        self._make(self.z0_hat, keys, reconstruct)
        self._make(self.A_f, keys, compare)
        A_f = [self.A_f[key] for key in keys]
        return (torch.cat([self.z0_hat[key] for key in keys]),
                None if A_f[0] is None else torch.cat(A_f).cpu())

    def _keys(self, candidate) -> list[tuple]:
        """What the reconstruction of each image depends on: how, which, from where."""
        s = candidate.settings
        zeroed = s.step_rule == "static" and s.static_first_step == "zeroed"
        T = candidate.step_map(self.seen)[0]
        how = repr([type(candidate), zeroed, T.shape[1:], *(
            (name, value) for name, value in s.as_dict().items() if name not in FREE)])
        keys = [(how, n, str(step.tolist())) for n, step in enumerate(T)]
        self.steps = {**self.steps, **dict(zip(keys, T))}
        return keys

    def _make(self, made: dict, keys: list[tuple], run: Callable) -> None:
        """What is not made yet of `keys`; batches are filled with what will be needed.
        """
        needed = [key for key in keys if key not in made]
        later = [key for key in self.steps
                 if needed and key[0] == needed[0][0] and key not in made]
        queue = [*dict.fromkeys(needed + later)]
        for first in range(0, len(needed), self.batch):
            some = queue[first : first + self.batch]
            full = some + some[-1:] * (self.batch - len(some))
            rows = run(full, self._rows([n for _, n, _ in full]))
            made |= dict(zip(some, [None] * len(some) if rows is None
                             else rows.split(1)))

    def _rows(self, numbers: list[int]):
        """What was seen of these images."""
        # joined, not indexed: it keeps the layout in memory, and so the bits
        return _each(lambda x: torch.cat([x[n : n + 1] for n in numbers]), self.seen)


def progress(table: list[dict], of: int) -> str:
    """How many candidates of so many are left, and the best so far."""
    best = max(table, key=lambda row: row["i_auroc"] + row["pro"])
    told = ", ".join(f"{name} {value:.4g}" for name, value in best.items()
                     if name != "step_rule")
    left, rule = of - len(table), best["step_rule"]
    return f"{left} candidates left, best so far: {rule}, {told}"


def _each(change: Callable[..., Tensor], *parts):
    """`Observed` with its tensors made from those of the parts; None stays."""
    made = {}
    for name in (one.name for one in fields(parts[0])):
        of = [getattr(part, name) for part in parts]
        if isinstance(of[0], list):
            made[name] = [change(*tensors) for tensors in zip(*of)]
        elif of[0] is not None:
            made[name] = change(*of)
    return replace(parts[0], **made)
