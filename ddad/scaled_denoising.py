"""Scaled denoising (paper, section 3.3, Algorithm 1): no noise is added; the latent is scaled, then denoised towards itself.

    z_That = sqrt(abar_That) z0                                                    the start: scaled, not noised
    for t = T_hat, T_hat - k, .., k:                                               DDIM with stride k = T_hat / 10
        e        = eps_theta(z_t, t)
        target_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) e                            where the input would be at step t
        e_hat    = e - w sqrt(1 - abar_t) (target_t - z_t)                         equation 8: guidance towards the input
        z0_hat   = (z_t - sqrt(1 - abar_t) e_hat) / sqrt(abar_t)                   with e in place of e_hat: `z0_from`
        z_prev   = sqrt(abar_prev) z0_hat + sqrt(1 - abar_prev) e_hat              DDIM, eta = 0

In zbar = z / sqrt(abar) and sigma = sqrt(1 - abar) / sqrt(abar), a step without guidance is zbar_prev = zbar_t + (sigma_prev - sigma_t) e: e is
the slope of the path, and changes slowly along it. With `call_every` = n the network is called at every n-th step only; in between e
is held until there are two calls, then follows the line, in sigma, through the last two. All steps are taken, guidance included; how near few calls
end to where all do is measured in book/speed.md.

At the start target_t - z_t = sqrt(1 - abar) e, so e_hat = e (1 - w (1 - abar)): guidance takes away a share of the noise found.

The network was trained to call "noise" whatever does not belong to a good latent. Handed a scaled latent, it finds little
of it where the image is good and much of it where the image is not: a defect is taken for noise and removed.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .noise_predictor import q_sample
from .settings import Settings


def timesteps(T_hat: Tensor, settings: Settings) -> Tensor:
    """The steps each image visits, first to last: T_hat (B,) -> (ddim_steps + 1, B); the last row is -1, where abar is 1.

    With first_call "latent" the path is T_hat, .., 2k, k, stride k = T_hat / 10: the first call is at the step the latent is
    at. With "below", as in the official code, it is one stride lower, .., k, 0, though the latent starts at T_hat.
    """
    S = settings.ddim_steps
    countdown = torch.arange(S, 0, -1, device=T_hat.device).unsqueeze(1)                # S, S-1, .., 1
    path = T_hat * (countdown - int(settings.first_call == "below")) // S
    return torch.cat([path, torch.full_like(T_hat, -1).unsqueeze(0)])


def scaled_denoising(
    eps_theta: Callable[[Tensor, Tensor], Tensor], z0: Tensor, T_hat: Tensor, abar: Tensor, settings: Settings, *,
    eps: Tensor | None = None, start: Tensor | None = None, zero_first: bool = False, callback: Callable[[dict], None] | None = None,
) -> Tensor:
    """Algorithm 1 for a batch of images whose steps differ, in one pass; returns z0_hat (B, C, h, w) float32.

    eps_theta: (z_t (B, C, h, w), t (B,)) -> e, the predicted noise. z0: scaled latents (B, C, h, w) of the input. T_hat: (B,)
    whole numbers, the step chosen for each image. abar: (T,) of `alpha_bar`. eps: noise (B, C, h, w) to start from
    sqrt(abar) z0 + sqrt(1 - abar) eps instead, for the comparison with noise. start: (B,) steps whose abar scales the start,
    T_hat unless given. zero_first: the first update drops e_hat, a fault of the official code's static sampler. callback
    gets, at each step, a dict with i, t, z_t, e, e_hat and z0_hat.
    """
    w = settings.guidance
    table = torch.cat([abar, abar.new_ones(1)])                       # index -1, the last entry, is the clean latent: abar = 1

    def at(t: Tensor) -> Tensor:
        return table[t].view(-1, 1, 1, 1)

    path = timesteps(T_hat, settings)
    abar_start = at(T_hat if start is None else start)
    z_t = abar_start.sqrt() * z0 if eps is None else q_sample(z0, abar_start, eps)
    calls: list[tuple[Tensor, Tensor]] = []                            # sigma and e of the last two
    for i, (t, prev) in enumerate(zip(path[:-1], path[1:])):
        abar_t, abar_prev = at(t), at(prev)
        sigma_t = ((1 - abar_t) / abar_t).sqrt()
        if i % settings.call_every == 0:
            e = eps_theta(z_t, t)
            calls = [*calls[-1:], (sigma_t, e)]
        elif len(calls) == 2:
            (sigma_0, e_0), (sigma_1, e_1) = calls
            along = (sigma_t - sigma_1) / (sigma_1 - sigma_0)
            along = torch.where(sigma_1 < sigma_0, along, torch.zeros_like(along))             # two calls at one step have no slope
            e = e_1 + along * (e_1 - e_0)
        target_t = abar_t.sqrt() * z0 + (1 - abar_t).sqrt() * e
        e_hat = e - w * (1 - abar_t).sqrt() * (target_t - z_t)
        z0_hat = (z_t - (1 - abar_t).sqrt() * (e_hat if settings.z0_from == "e_hat" else e)) / abar_t.sqrt()
        direction = torch.zeros_like(e_hat) if zero_first and i == 0 else e_hat
        z_prev = abar_prev.sqrt() * z0_hat + (1 - abar_prev).sqrt() * direction
        if callback is not None:
            callback({"i": i, "t": t, "z_t": z_t, "e": e, "e_hat": e_hat, "z0_hat": z0_hat})
        z_t = z_prev
    return z_t
