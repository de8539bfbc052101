"""Training, one loop for eps_theta and for an autoencoder.

Every draw of step i comes from a generator seeded by (seed, i), so a resumed run needs
no generator's state: on a CPU it ends with the same weights as one that was never
interrupted. For the same reason several processes draw the same batch, and each trains
on its share of the rows.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .latent_projection import draw
from .noise_predictor import alpha_bar, epsilon_loss
from .runtime import processes
from .runtime.adapter import mixed
from .runtime.checkpoints import Checkpoint
from .runtime.errors import SettingsError
from .runtime.graphs import gradients
from .settings import EPS_THETA, Settings, shaping


def hold_out(images: Tensor, settings: Settings,
             held_out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Training and held-out good images: all of `images` and those given as held out,
    or, without any, a share of `images` drawn with the settings' seed, each in the
    order given.
    """
    if held_out is not None:
        return images, held_out
    draws = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(images), generator=draws)
    keep = torch.ones(len(images), dtype=torch.bool)
    keep[order[: round(len(images) * settings.held_out)]] = False
    return images[keep], images[~keep]


def enough_to_train(train: Tensor, neighbours: int) -> None:
    """ValueError for fewer than K + 1 training images."""
    if len(train) < neighbours + 1:
        raise ValueError(
            f"{len(train)} training images are fewer than neighbours + 1 = "
            f"{neighbours + 1}; add good images, or lower neighbours or held_out")


def learning_rate(i: int, steps: int, peak: float, schedule: str) -> float:
    """At step i of `steps`: "constant", or "one-cycle", a linear rise over the first 5%
    and then half a cosine to zero.
    """
    rise = max(1, steps // 20)
    if schedule == "constant":
        return peak
    if i < rise:
        return peak * (i + 1) / rise
    return peak * (1 + math.cos(math.pi * (i - rise) / max(1, steps - rise))) / 2


def optimise(model: nn.Module,
             batch_at: Callable[[torch.Generator], tuple[Tensor, ...]],
             loss_of: Callable[..., Tensor], steps: int, what: str, settings: Settings,
             checkpoint: Path | None = None) -> dict:
    """AdamW with averaged weights on `loss_of(*batch_at(draws))`, a scalar loss whose
    randomness all comes from `draws`; what to record of it.

    `model` ends frozen, in evaluation mode, with the averaged weights. checkpoint: a
    .safetensors path that the state is kept at, and that a later call goes on from:
    see `Checkpoint` (SettingsError). loss_of: see `graphs.gradients`.
    """
    s, chosen = settings, settings.as_dict()
    names, weights = zip(*model.train().named_parameters())
    averaged = [w.detach().clone() for w in weights]
    optimiser = torch.optim.AdamW(
        weights, lr=s.learning_rate, weight_decay=s.weight_decay,
        fused=weights[0].device.type == "cuda")
    made_with = {"what": what, "steps": steps} | {
        name: chosen[name] for name in shaping(EPS_THETA)}
    state = Checkpoint(checkpoint, made_with, names, weights, averaged, optimiser)
    done, loss_and_gradients = state.resume(), gradients(optimiser, loss_of)
    for i in tqdm(range(done, steps), what, initial=done, total=steps, mininterval=1,
                  delay=2, disable=not processes.is_main()):
        batch = batch_at(torch.Generator().manual_seed(s.seed * 1_000_003 + i))
        loss = loss_and_gradients(*batch)
        rate = learning_rate(i, steps, s.learning_rate, s.learning_rate_schedule)
        optimiser.param_groups[0]["lr"] = rate
        if s.gradient_clip:
            nn.utils.clip_grad_norm_(weights, s.gradient_clip)
        optimiser.step()
        # short memory first, or the random start would linger
        decay = min(s.ema, (1 + i) / (10 + i))
        torch._foreach_lerp_(averaged, [w.detach() for w in weights], 1 - decay)
        state.after(i + 1, steps, processes.mean(loss))
    with torch.no_grad():
        for w, a in zip(weights, averaged):
            w.copy_(a)
    optimiser.zero_grad()                           # as much memory as the weights
    model.eval().requires_grad_(False)
    return {"steps": steps, "loss": state.recent_loss(),
            "parameters": sum(w.numel() for w in weights)}


def train_noise_predictor(unet: nn.Module, mean: Tensor, std: Tensor | None,
                          settings: Settings, device: torch.device,
                          checkpoint: Path | None = None) -> dict:
    """Train `unet` in place on the posterior mean and deviation (N, C, h, w) of the
    training latents, encoded once; what to record of it.

    Several processes, each with the same latents, share out the rows of a batch. Raises
    SettingsError for fewer rows than processes.
    """
    s, abar, unet = settings, alpha_bar(settings, device), unet.to(device)
    mean, std = mean.to(device), None if std is None else std.to(device)
    B, P = s.train_batch, processes.count()
    if B < P:
        raise SettingsError(f"setting train_batch: {B} is less than the {P} processes; "
                            "raise it or start fewer processes")
    network, launched = processes.prepare(unet)
    first, end = processes.share(B)
    weight = (end - first) * P / B      # makes the mean over the processes the batch's

    def eps_theta(z_t: Tensor, t: Tensor) -> Tensor:
        with mixed(device, s.train_precision):
            return network(z_t, t).sample.float()

    def batch_at(draws: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(len(mean), (B,), generator=draws).to(device)
        deviation = None if std is None else std[rows]
        z0 = draw(mean[rows], deviation, s.posterior, draws)
        t = torch.randint(s.timesteps, (len(z0),), generator=draws).to(device)
        eps = torch.randn(z0.shape, generator=draws).to(device)
        return z0[first:end], t[first:end], eps[first:end]

    def loss_of(z0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return weight * epsilon_loss(eps_theta, z0, t, eps, abar)

    steps = s.steps_for(len(mean))
    record = optimise(unet, batch_at, loss_of, steps, "train eps_theta", s, checkpoint)
    return record | launched
