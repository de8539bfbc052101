"""Dynamic noise (paper, section 3.2, Algorithm 2): the step an image is denoised from follows how anomalous it looks at first.

    y      = pool(phi_j(x0)), flattened                     feature of an image
    d      = mean L1 distance from y to its K nearest training features
    b      = the bin of d among |B| equal bins over the training images' own d, at least the smallest bin
    T_hat  = floor(b / |B| T_max), rounded to the nearest ten

A larger anomaly lies farther from the good images, gets a later step, and can be painted over; a good image is kept. With
the smallest bin equal to |B| every image gets T_max: the static method.
"""
from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torch.nn import functional as F

from .settings import Settings

ALIKE = 1e-3                    # held-out images as like the training images as chance would have them in all but one of 1000 fits


def feature(stage: Tensor, pool: int) -> Tensor:
    """y: a feature map phi_j(x0) (B, C, h, w), average-pooled to pool x pool and flattened, (B, C * pool * pool)."""
    return F.adaptive_avg_pool2d(stage, min(pool, stage.shape[-1])).flatten(1)


def mean_distance(y: Tensor, bank: Tensor, K: int, skip_self: bool = False) -> Tensor:
    """d: mean over features of the L1 distance to the K nearest rows of the bank; y (B, D), bank (N, D) -> (B,).

    skip_self leaves out the nearest row, which is the image itself when y is part of the bank. The L1 distance is divided by
    D, so that d does not grow with the size of the feature; bins and their edges are the same either way.
    """
    distance = torch.cdist(y.float(), bank.float(), p=1) / bank.shape[1]
    nearest = distance.topk(K + skip_self, largest=False, sorted=True).values
    return nearest[:, 1:].mean(1) if skip_self else nearest.mean(1)


def select_step(b: Tensor, settings: Settings) -> Tensor:
    """T_hat for bins b (B,) in 1 .. |B|: a multiple of ten, at least 10; (B,) int64.

    T_max 80 and 10 bins, smallest 2: bins 2 .. 10 give 20 20 30 40 50 60 60 70 80.
    """
    b = b.clamp(min=settings.smallest_bin)
    return nearest_ten((b * settings.T_max).double() / settings.bins, settings)


def nearest_ten(level: Tensor, settings: Settings) -> Tensor:
    """Levels (B,) to the nearest multiple of ten, at least 10; (B,) int64.

    "floor": the fraction is dropped first, and a tie goes to the even ten, as round() has it. "half-up": a tie goes up.
    """
    tens = (level.floor() / 10).round() if settings.level_rounding == "floor" else (level / 10 + 0.5).floor()
    return (10 * tens).long().clamp(10, settings.timesteps - 1)


class DynamicNoise:
    """The training images' features and the bins of their distances: everything Algorithm 2 needs at test time.

    bank: (N, D) features of the training images. edges: (|B| + 1,) increasing bin edges. distances: (N,) the training images' d.
    """

    def __init__(self, bank: Tensor, distances: Tensor, settings: Settings):
        self.bank, self.distances, self.settings = bank, distances, settings
        self.edges = torch.linspace(distances.min(), distances.max(), settings.bins + 1, device=bank.device)

    @classmethod
    def fit(cls, y: Tensor, settings: Settings) -> DynamicNoise:
        """From the features (N, D) of the training images; ValueError for fewer than K + 1 of them."""
        K = settings.neighbours
        if len(y) < K + 1:
            raise ValueError(f"setting neighbours: K = {K} needs at least {K + 1} training images, there are {len(y)}; "
                             "add good images or lower neighbours")
        parts = [mean_distance(part, y, K, skip_self=not settings.self_neighbour) for part in y.split(64)]
        return cls(y, torch.cat(parts), settings)

    def distance(self, y: Tensor) -> Tensor:
        """d of new images, from features y (B, D): (B,) float32."""
        return mean_distance(y, self.bank, self.settings.neighbours)

    def compare(self, d: Tensor) -> dict:
        """Whether distances d (M,) of held-out good images are spread as the training images' own, each without itself: a two-sample
        Kolmogorov-Smirnov test. {"ks", "p", "median_held_out", "median_training", "alike"}; warns where p is below ALIKE.

        Distances, not anomaly scores: those of the images that the networks were trained on are lower than any others'.
        """
        own = mean_distance(self.bank, self.bank, self.settings.neighbours, skip_self=True) if self.settings.self_neighbour else self.distances
        d, own = d.cpu().numpy(), own.cpu().numpy()
        ks, p = map(float, ks_2samp(d, own))
        if p < ALIKE:
            warnings.warn(f"the {len(d)} held-out good images are unlike the {len(own)} training images: their median distance to the nearest of "
                          f"these is {np.median(d):.4g}, that of the training images {np.median(own):.4g} (Kolmogorov-Smirnov, p = {p:.1e}); map "
                          "ranges and threshold come from the held-out images, so look whether product, camera and light are the same", stacklevel=3)
        return {"ks": ks, "p": p, "median_held_out": float(np.median(d)), "median_training": float(np.median(own)), "alike": p >= ALIKE}

    def bin(self, d: Tensor) -> Tensor:
        """b in 1 .. |B| of distances d (B,), by binary search; below the first edge bin 1, beyond the last the last bin."""
        inner = self.edges[1:-1].contiguous()
        return torch.bucketize(d, inner, right=self.settings.edge_bin == "upper") + 1

    def step(self, b: Tensor) -> Tensor:
        """T_hat (B,) for bins b; T_max for every image when `dynamic` is off."""
        return select_step(b, self.settings) if self.settings.dynamic else torch.full_like(b, self.settings.T_max)
