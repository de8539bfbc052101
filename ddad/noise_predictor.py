"""The noise predictor eps_theta and its objective (paper, section 3.1, equations 1 to
3; Ho et al. 2020).

    abar_t = product of (1 - beta_s) for s <= t
    z_t    = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps         eps ~ N(0, 1)
    loss   = (eps - eps_theta(z_t, t))^2, averaged          t uniform in 0 .. T-1
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F

from .settings import Settings


def alpha_bar(settings: Settings, device: torch.device | str = "cpu") -> Tensor:
    """abar, (T,) float32, decreasing from almost 1 to almost 0."""
    schedule = DDPMScheduler(
        num_train_timesteps=settings.timesteps, beta_start=settings.beta_start,
        beta_end=settings.beta_end, beta_schedule=settings.beta_schedule)
    return schedule.alphas_cumprod.to(device)


def q_sample(z0: Tensor, abar_t: Tensor, eps: Tensor) -> Tensor:
    """z_t; all (B, C, h, w), abar_t (B, 1, 1, 1)."""
    return abar_t.sqrt() * z0 + (1 - abar_t).sqrt() * eps


def epsilon_loss(eps_theta: Callable[[Tensor, Tensor], Tensor], z0: Tensor, t: Tensor,
                 eps: Tensor, abar: Tensor) -> Tensor:
    """Mean of (eps - eps_theta(z_t, t))^2, a scalar; t (B,) whole numbers in 0 ..
    T-1.
    """
    z_t = q_sample(z0, abar[t].view(-1, 1, 1, 1), eps)
    return F.mse_loss(eps_theta(z_t, t), eps)


def build_unet(settings: Settings, channels: int, size: int) -> UNet2DModel:
    """An untrained eps_theta for latents (B, channels, size, size): no condition, no
    class, no text, no dropout. ValueError for a size that its levels cannot halve.

    diffusers' configuration cannot express unet_heads: a network with it is to be built
    here, and given saved weights.
    """
    levels = len(settings.unet_channels)
    if size % 2 ** (levels - 1):
        raise ValueError(
            f"setting unet_channels: {levels} levels need latents whose side is a "
            f"multiple of {2 ** (levels - 1)}, not {size}")
    attention = [level >= settings.unet_attention_from for level in range(levels)]
    unet = UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels,
        block_out_channels=settings.unet_channels,
        layers_per_block=settings.unet_layers, norm_num_groups=32,
        attention_head_dim=32,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D"
                               for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D"
                             for a in reversed(attention)))
    for layer in unet.modules() if settings.unet_heads else ():
        # diffusers sizes a head, and so gives wider levels more of them
        if isinstance(layer, Attention):
            layer.heads = settings.unet_heads
    return unet
