"""Scaled denoising (paper, section 3.3, Algorithm 1): no noise is added; the latent is
scaled, then denoised towards itself.

    z_That = sqrt(abar_That) z0                             scaled, not noised
    for t = T_hat, T_hat - k, .., k:                        DDIM, stride k = T_hat / 10
        e        = eps_theta(z_t, t)
        target_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) e     where the input would be
        e_hat    = e - w sqrt(1 - abar_t) (target_t - z_t)  guidance: equation 8
        z0_hat   = (z_t - sqrt(1 - abar_t) e_hat) / sqrt(abar_t)
        z_prev   = sqrt(abar_prev) z0_hat + sqrt(1 - abar_prev) e_hat

The network was trained to call "noise" whatever does not belong to a good latent.
Handed a scaled latent, it finds little of it where the image is good and much of it
where the image is not: a defect is taken for noise and removed. At the start target_t -
z_t = sqrt(1 - abar) e, so e_hat = e (1 - w (1 - abar)): guidance takes away a share of
the noise found.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EpsTheta = Callable[[Tensor, Tensor], Tensor]       # (z_t (B, C, h, w), t (B,)) -> e


def timesteps(T_hat: Tensor, steps: int = 10, first_call: str = "latent") -> Tensor:
    """The steps each image visits, first to last: T_hat (B,) -> (steps + 1, B); the
    last row is -1, where abar is 1.

    "latent": T_hat, .., 2k, k: the first call is at the step the latent is at. "below",
    as in the official code: one stride lower, .., k, 0, though the latent starts at
    T_hat.
    """
    countdown = torch.arange(steps, 0, -1, device=T_hat.device).unsqueeze(1)
    path = T_hat * (countdown - int(first_call == "below")) // steps
    return torch.cat([path, torch.full_like(T_hat, -1).unsqueeze(0)])


def scaled_denoising(
    eps_theta: EpsTheta, z0: Tensor, T_hat: Tensor, abar: Tensor, w: float, *,
    step_map: Tensor | None = None, path: Tensor | None = None,
    start: Tensor | None = None, z0_from: str = "e_hat", zero_first: bool = False,
    callback: Callable[[dict], None] | None = None,
) -> Tensor:
    """Algorithm 1 for a batch of images whose steps differ, in one pass; returns z0_hat
    (B, C, h, w) float32.

    z0: scaled latents (B, C, h, w) of the input. T_hat: (B,) whole numbers, each
    image's step. abar: of all steps. w: weight of guidance. step_map: (B, h, w), each
    position's own step, at most its image's (an extension: module `step_map`). path: of
    `timesteps`. start: another z_That than the scaled one, such as a noised one.
    z0_from: z0_hat from the guided "e_hat", or from the bare "e". zero_first: the first
    update drops e_hat, a fault of the official code's static sampler. callback gets, at
    each step, a dict with i, t, z_t, e, e_hat and z0_hat.
    """
    at = torch.cat([abar, abar.new_ones(1)]).view(-1, 1, 1, 1)      # abar_-1 = 1: clean
    path = timesteps(T_hat) if path is None else path
    z_t = at[T_hat].sqrt() * z0 if start is None else start
    for i, (t, prev) in enumerate(zip(path[:-1], path[1:])):
        abar_t, abar_prev = at[t], at[prev]
        if step_map is not None:        # a position whose turn has not come is put back
            turn = step_map >= t.view(-1, 1, 1)
            z_t = torch.where(turn.unsqueeze(1), z_t, abar_t.sqrt() * z0)
        e = eps_theta(z_t, t)
        target_t = abar_t.sqrt() * z0 + (1 - abar_t).sqrt() * e
        e_hat = e - w * (1 - abar_t).sqrt() * (target_t - z_t)
        e_0 = e_hat if z0_from == "e_hat" else e
        z0_hat = (z_t - (1 - abar_t).sqrt() * e_0) / abar_t.sqrt()
        if callback is not None:
            callback({"i": i, "t": t, "z_t": z_t, "e": e, "e_hat": e_hat,
                      "z0_hat": z0_hat})
        if zero_first and i == 0:
            e_hat = torch.zeros_like(e_hat)
        z_t = abar_prev.sqrt() * z0_hat + (1 - abar_prev).sqrt() * e_hat
    return z_t


def call_every(eps_theta: EpsTheta, n: int, abar: Tensor) -> EpsTheta:
    """eps_theta called at every n-th step of one path only; a new one for each path.

    In zbar = z / sqrt(abar) and sigma = sqrt(1 - abar) / sqrt(abar), a step without
    guidance is zbar_prev = zbar_t + (sigma_prev - sigma_t) e: e is the slope of the
    path, and changes slowly along it. Between the calls e is held until there are two
    of them, then follows the line, in sigma, through the last two.
    """
    calls: list[tuple[Tensor, Tensor]] = []             # sigma and e of the last two
    i = -1

    def e_at(z_t: Tensor, t: Tensor) -> Tensor:
        nonlocal calls, i
        i += 1
        abar_t = abar[t].view(-1, 1, 1, 1)
        sigma_t = ((1 - abar_t) / abar_t).sqrt()
        if i % n == 0:
            e = eps_theta(z_t, t)
            calls = [*calls[-1:], (sigma_t, e)]
            return e
        if len(calls) == 1:
            return calls[0][1]
        (sigma_0, e_0), (sigma_1, e_1) = calls
        along = (sigma_t - sigma_1) / (sigma_1 - sigma_0)
        # two calls at one step have no slope
        along = torch.where(sigma_1 < sigma_0, along, torch.zeros_like(along))
        return e_1 + along * (e_1 - e_0)
    return e_at
