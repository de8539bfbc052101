"""The method's formulas written out a second time, by hand, one image at a time."""
import math
from functools import cache

import torch

LEVELS = [20, 20, 30, 40, 50, 60, 60, 70, 80]           # of bins 2 .. 10 at T_max 80


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@cache
def abar_by_hand(schedule="linear", T=1000, low=0.0015, high=0.0195):
    product, out = 1.0, []
    for s in range(T):
        if schedule == "linear":
            beta = low + (high - low) * s / (T - 1)
        else:
            root = math.sqrt(low) + (math.sqrt(high) - math.sqrt(low)) * s / (T - 1)
            beta = root**2
        product *= 1 - beta
        out.append(product)
    return out


def made_up(z_t, t):
    """A nonlinear "noise" that depends on the step and on neighbouring values, so that
    a wrong step or latent shows.
    """
    strength = 0.6 + t.view(-1, 1, 1, 1) / 150
    return torch.tanh(1.3 * z_t + 0.4 * z_t.roll(1, -1)) * strength + 0.05


def denoise_by_hand(z0, T_hat, w, *, steps=10, z0_from="e_hat", first_call="latent",
                    drop_first=False, start=None, eps=None, every=1):
    """Algorithm 1, one image, in float64; (result, the steps called)."""
    abar, called, known = abar_by_hand(), [], []
    path = [T_hat * (steps - i - (first_call == "below")) // steps
            for i in range(steps)]
    a = abar[T_hat if start is None else start]
    z = math.sqrt(a) * z0 + (0 if eps is None else math.sqrt(1 - a) * eps)
    for i, t in enumerate(path):
        a, a_prev = abar[t], abar[path[i + 1]] if i + 1 < len(path) else 1.0
        sigma = math.sqrt(1 - a) / math.sqrt(a)
        if i % every == 0:
            e = made_up(z, torch.tensor([t], dtype=z.dtype))
            called.append(t)
            known.append((sigma, e))
        elif len(known) > 1:
            (sigma_0, e_0), (sigma_1, e_1) = known[-2:]
            # two calls at one step have no slope
            slope = (e_1 - e_0) / (sigma_1 - sigma_0) if sigma_1 < sigma_0 else 0
            e = e_1 + slope * (sigma - sigma_1)
        target = math.sqrt(a) * z0 + math.sqrt(1 - a) * e
        e_hat = e - w * math.sqrt(1 - a) * (target - z)
        guess = e if z0_from == "e" else e_hat
        z0_hat = (z - math.sqrt(1 - a) * guess) / math.sqrt(a)
        kept = 0 if drop_first and i == 0 else 1
        z = math.sqrt(a_prev) * z0_hat + math.sqrt(1 - a_prev) * kept * e_hat
    return z, called


def regions_by_hand(z0, T, w, steps=10):
    """Algorithm 1 with a step T[y][x] for each position of one latent (1, C, h, w), in
    float64: a position whose turn has not come is put back, one after the other.
    """
    abar, T_hat = abar_by_hand(), max(map(max, T))
    path = [T_hat * (steps - i) // steps for i in range(steps)]
    z = math.sqrt(abar[T_hat]) * z0
    for i, t in enumerate(path):
        a, a_prev = abar[t], abar[path[i + 1]] if i + 1 < len(path) else 1.0
        for y, row in enumerate(T):
            for x, turn in enumerate(row):
                if turn < t:
                    z[:, :, y, x] = math.sqrt(a) * z0[:, :, y, x]
        e = made_up(z, torch.tensor([t], dtype=z.dtype))
        target = math.sqrt(a) * z0 + math.sqrt(1 - a) * e
        e_hat = e - w * math.sqrt(1 - a) * (target - z)
        z0_hat = (z - math.sqrt(1 - a) * e_hat) / math.sqrt(a)
        z = math.sqrt(a_prev) * z0_hat + math.sqrt(1 - a_prev) * e_hat
    return z
