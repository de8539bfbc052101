"""A step for each region: Algorithm 2, asked of each position of the latent.

    f(p) = phi_j(x0) of the blocks j in J, averaged over 3 x 3 at p         a patch
    d(p) = distance of f(p) to the nearest patch of the good images
    b(p) = the bin of d(p) among the equal bins over held-out good images' d
    T(p) = T_hat of b(p), and the largest of that among p and its eight neighbours

An extension, not the paper's. One step for a whole image follows what most of it looks
like: a small defect changes that little, and gets too early a step; a large one gets a
late step, and so does all that is good around it. With a step map each region is
denoised from where it has to be, in the same calls: see `scaled_denoising`.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .evaluation.patches import core_set, neighbours

FROM = 0.05             # the bins begin at this quantile of held-out good patches' d
DRAWN = 8               # patches that the core set is chosen among, for each of it


@dataclass(frozen=True)
class PatchBank:
    """Patches f (n, F) of good images, and the range of d on held-out ones: all that a
    step map needs to know of them.
    """

    f: Tensor
    low_high: Tensor        # (2,)

    @classmethod
    def fit(cls, rows: Tensor, good: Iterable, size: int, seed: int) -> PatchBank:
        """From patches of training images (n, F), drawn, DRAWN times `size` of them,
        and all of held-out ones, parts (N, h, w, F) as `patches.stacked` has them: a
        core set of at most `size`.
        """
        bank = rows[core_set(rows, min(size, len(rows)), seed)]
        d = torch.cat([neighbours(bank, f).flatten() for f in good]).sort().values
        return cls(bank, torch.stack([d[int(FROM * (len(d) - 1))], d[-1]]))

    def distance(self, f: Tensor, size: int) -> Tensor:
        """d of new images, from their patches (B, h, w, F): (B, size, size) float32."""
        d = neighbours(self.f, f).unsqueeze(1)
        return F.interpolate(d, size=(size, size), mode="bilinear")[:, 0]


def widened(T: Tensor) -> Tensor:
    """Each step the largest among its own and its eight neighbours', (B, h, w) int64: a
    patch that holds an edge of a defect looks good.
    """
    return F.max_pool2d(T.float().unsqueeze(1), 3, 1, 1)[:, 0].long()
