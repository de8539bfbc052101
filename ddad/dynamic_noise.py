"""Dynamic noise (paper, section 3.2, Algorithm 2): the step an image is denoised from
follows how anomalous it looks at first.

    y      = pool(phi_j(x0)), flattened             feature of an image
    d      = mean L1 distance from y to its K nearest training features
    b      = the bin of d among the equal bins over the training images' own d
    T_hat  = floor(max(b, smallest bin) / bins T_max), rounded to the nearest ten,
             and 10 at least

A larger anomaly lies farther from the good images, gets a later step, and can be
reconstructed as good; a good image is kept. With the last bin as the smallest one every
image gets T_max: the static method.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def feature(stage: Tensor, pool: int) -> Tensor:
    """y: a feature map phi_j(x0) (B, C, h, w), average-pooled to pool x pool and
    flattened, (B, C * pool * pool).
    """
    return F.adaptive_avg_pool2d(stage, min(pool, stage.shape[-1])).flatten(1)


def mean_distance(y: Tensor, bank: Tensor, K: int, skip_self: bool = False) -> Tensor:
    """d: mean over features of the L1 distance to the K nearest rows of the bank; y (B,
    F), bank (N, F) -> (B,).

    skip_self leaves out the nearest row, which is the image itself when y is part of
    the bank. The L1 distance is divided by F, so that d does not grow with the size of
    the feature; bins and their edges are the same either way.
    """
    distance = torch.cdist(y.float(), bank.float(), p=1) / bank.shape[1]
    nearest = distance.topk(K + skip_self, largest=False, sorted=True).values
    return nearest[:, 1:].mean(1) if skip_self else nearest.mean(1)


@dataclass(frozen=True)
class MemoryBank:
    """The training images' features y (N, F), and the distance (N,) of each of them
    to the others: all that Algorithm 2 needs to know of the good images.
    """

    y: Tensor
    distances: Tensor

    @classmethod
    def fit(cls, y: Tensor, K: int, self_neighbour: bool = False) -> MemoryBank:
        """From the features (N, F) of the training images; ValueError for fewer than K
        + 1 of them. self_neighbour: an image counts as its own nearest neighbour.
        """
        if len(y) < K + 1:
            raise ValueError(
                f"setting neighbours: K = {K} needs at least {K + 1} training images, "
                f"there are {len(y)}; add good images or lower neighbours")
        d = [mean_distance(part, y, K, not self_neighbour) for part in y.split(64)]
        return cls(y, torch.cat(d))

    def distance(self, y: Tensor, K: int) -> Tensor:
        """d of new images, from their features (B, F): (B,) float32."""
        return mean_distance(y, self.y, K)


def bin_edges(distances: Tensor, bins: int) -> Tensor:
    """(bins + 1,) increasing: equal bins over the training images' distances (N,)."""
    low, high = distances.min(), distances.max()
    return torch.linspace(low, high, bins + 1, device=distances.device)


def choose_bin(d: Tensor, edges: Tensor, edge_bin: str = "upper") -> Tensor:
    """b in 1 .. bins of distances d (B,), by binary search; below the first edge bin 1,
    beyond the last the last bin. On an inner edge the "upper" or the "lower" bin.
    """
    inner = edges[1:-1].contiguous()
    return torch.bucketize(d, inner, right=edge_bin == "upper") + 1


def select_step(b: Tensor, T_max: int, bins: int = 10, smallest_bin: int = 2,
                rounding: str = "floor", T: int = 1000) -> Tensor:
    """T_hat for bins b (B,) in 1 .. bins: a multiple of ten, at least 10; (B,) int64.

    T_max 80 and 10 bins, smallest 2: bins 2 .. 10 give 20 20 30 40 50 60 60 70 80.
    """
    # of each bin, on the CPU: not every device has float64
    n = torch.arange(bins + 1).clamp(min=smallest_bin).double()
    # half-up divides first, as the official code: 0.7 T_max falls just short of a tie
    level = n / bins * T_max if rounding == "half-up" else n * T_max / bins
    return nearest_ten(level, rounding, T).to(b.device)[b]


def nearest_ten(level: Tensor, rounding: str = "floor", T: int = 1000) -> Tensor:
    """Levels (B,) to the nearest multiple of ten, at least 10, below T; (B,) int64.

    "floor": the fraction is dropped first, and a tie goes to the even ten, as round()
    has it. "half-up": a tie goes up.
    """
    tens = ((level.floor() / 10).round() if rounding == "floor"
            else (level / 10 + 0.5).floor())
    return (10 * tens).long().clamp(10, T - 1)
