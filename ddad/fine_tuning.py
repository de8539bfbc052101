"""Fine-tuning the features (paper, section 3.4): the extractor phi learns to overlook
what the decoder alters.

A pretrained autoencoder and a denoiser leave marks that a frozen phi takes for defects.
So good images are reconstructed by the method itself, at a random level, and phi is
trained to give image and reconstruction the same direction:

    loss = sum over blocks j of 1 - cos(phi_j(x0), phi_j(x0_hat))
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from .dynamic_noise import nearest_ten
from .settings import Settings


def feature_loss(target: list[Tensor], reconstructed: list[Tensor],
                 stages: tuple[int, ...], cosine: str = "position") -> Tensor:
    """Sum over the blocks j in `stages` of the mean of 1 - cosine; lists of
    (B, C_j, h_j, w_j), a scalar in 0 .. 2 * blocks.

    The cosine is taken at each "position" and averaged, or, as in the official code, of
    the whole "flattened" map.
    """
    start_dim = 2 if cosine == "position" else 1
    loss = target[0].new_zeros(())
    for j in stages:
        a = target[j - 1].flatten(start_dim)
        b = reconstructed[j - 1].flatten(start_dim)
        loss = loss + (1 - F.cosine_similarity(a, b, dim=1)).mean()
    return loss


def random_level(B: int, T_max: int, generator: torch.Generator, *,
                 level: str = "image", rounding: str = "floor", T: int = 1000
                 ) -> tuple[Tensor, Tensor]:
    """T_hat = T_max / 10 * uniform{1..10} to the nearest ten, and the step whose abar
    scales the start; (B,) int64 each.

    One draw an "image", the start at T_hat. For a "batch", as in the official code, one
    draw for all, the start at the unrounded step.
    """
    tenth = torch.randint(1, 11, (B if level == "image" else 1,), generator=generator)
    unrounded = (T_max * tenth / 10).expand(B)
    T_hat = nearest_ten(unrounded.double(), rounding, T)
    return T_hat, T_hat if level == "image" else unrounded.long()


def fine_tune(phi: nn.Module, images: Tensor, reconstruct: Callable[..., Tensor],
              settings: Settings) -> list[float]:
    """Train phi in place for `tune_epochs` on good images (N, 3, H, W) in [-1, 1]; the
    mean loss of each epoch.

    reconstruct(rows, T_hat, start) -> x0_hat (B, 3, H, W): the method's own
    reconstruction of images[rows] from those steps.
    """
    s, generator = settings, torch.Generator().manual_seed(settings.seed)
    device = next(phi.parameters()).device
    phi.requires_grad_(True).train(s.tune_batch_norm == "training")
    optimiser = torch.optim.AdamW(phi.parameters(), lr=s.tune_learning_rate)
    history = []
    for epoch in range(1, s.tune_epochs + 1):
        order = torch.randperm(len(images), generator=generator).split(s.tune_batch)
        losses, what = [], f"fine-tune, epoch {epoch} of {s.tune_epochs}"
        for rows in tqdm(order, what, leave=False, delay=2):
            x0 = images[rows].to(device)
            x0_hat = reconstruct(rows, *random_level(
                len(rows), s.T_max, generator, level=s.tune_level,
                rounding=s.level_rounding, T=s.timesteps))
            with torch.set_grad_enabled(s.tune_gradient == "both"):
                target = phi(x0)
            loss = feature_loss(target, phi(x0_hat), s.tune_stages, s.tune_cosine)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        history.append(torch.stack(losses).mean().item())
    phi.requires_grad_(False).eval()
    return history
