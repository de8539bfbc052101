"""The threshold, and how rare a score is among good images: conformal p-values.

    p = (1 + number of held-out scores >= the score) / (M + 1)

of M good images that nothing was learnt from or chosen on. Of these and a new good one
any order is as likely, so P(p <= rate) <= rate however scores are spread (Vovk,
Gammerman and Shafer, 2005; Bates and others, 2023). An image is flagged where p is at
most the rate. An extension, not the paper's. The training images cannot serve as well:
the networks have learnt them, and their scores are lower than those of new ones, also
where the memory bank is cross-fitted (measured by book/tools/false_alarms.py).
"""
from __future__ import annotations

import math

import torch
from torch import Tensor


def p_value(scores: Tensor, held_out: Tensor) -> Tensor:
    """p of scores (N,) among held-out scores (M,): (N,) float64, 1 / (M + 1) .. 1."""
    known = held_out.double().sort().values
    lower = torch.searchsorted(known, scores.double())
    return (len(known) - lower + 1).double() / (len(known) + 1)


def threshold(held_out: Tensor, rate: float) -> float:
    """One of the held-out scores (M,); those above it have p <= promised(M, rate), no
    others: the k-th largest, k = floor(rate (M + 1)).

    Where k is 0, no score can have so small a p, and it is the largest: see `shortage`.
    Raises ValueError without any score, and for a rate that is not between 0 and 1.
    """
    if not len(held_out) or not 0 < rate < 1:
        raise ValueError(f"a threshold for {rate:g} false alarms from {len(held_out)} "
                         "held-out images: it needs a rate between 0 and 1, and images")
    k = rank(len(held_out), rate)
    return held_out.double().sort(descending=True).values[k - 1].item()


def promised(M: int, rate: float) -> float:
    """The rate that M held-out images can promise: `rate`, or 1 / (M + 1) if larger."""
    return max(rate, 1 / (M + 1))


def expected(M: int, rate: float) -> tuple[float, float, float]:
    """The share of good images that is flagged: its mean over draws of M held-out
    images, and the ends between which it lies in 90% of the draws.

    The k-th largest of M scores has Beta(k, M + 1 - k) above it (Vovk, 2012), or less
    where scores are equal.
    """
    from scipy.stats import beta  # slow to load, and detection needs none
    k = rank(M, rate)
    low, high = beta.interval(0.9, k, M + 1 - k)
    return k / (M + 1), float(low), float(high)


def shortage(M: int, rate: float) -> str:
    """What is wrong where M held-out images cannot support the rate; else empty."""
    if promised(M, rate) == rate:
        return ""
    needed = math.ceil(round(1 / rate, 9)) - 1
    return (f"{M} held-out images cannot promise {rate:.2%} false alarms, only "
            f"{promised(M, rate):.2%}; that takes {needed}")


def rank(M: int, rate: float) -> int:
    """k, 1 .. M, by the same divisions as in p, so that both agree to the bit."""
    return max(1, sum(i / (M + 1) <= rate for i in range(1, M + 1)))
