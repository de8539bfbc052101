"""The noise predictor eps_theta and its objective (paper, section 3.1, equations 1 to
3; Ho et al. 2020).

    abar_t = product of (1 - beta_s) for s <= t
    z_t    = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps         eps ~ N(0, 1)
    loss   = (eps - eps_theta(z_t, t))^2, averaged          t uniform in 0 .. T-1

An extension, not the paper's: eps is noise on random patches alone, eps m. A latent
that is scaled and not noised is then something that the network was trained on, and
"no noise here" an answer it has learnt (DeCo-Diff, CVPR 2025, noises patches too).
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from .settings import Settings

PATCHES = torch.tensor([1, 2, 4, 8])                # sides, in cells of the latent


def alpha_bar(settings: Settings, device: torch.device | str = "cpu") -> Tensor:
    """abar, (timesteps,) float32, decreasing from almost 1 to almost 0."""
    schedule = DDPMScheduler(
        num_train_timesteps=settings.timesteps, beta_start=settings.beta_start,
        beta_end=settings.beta_end, beta_schedule=settings.beta_schedule)
    return schedule.alphas_cumprod.to(device)


def patch_mask(B: int, size: int, masked: float, generator: torch.Generator) -> Tensor:
    """m, (B, 1, size, size) float32 of 0 and 1: where a training image has noise.

    A share `masked` of the images, in 0 .. 1, has it on patches only: of 1, 2, 4 or 8
    cells a side, and on a share of them, both drawn for each image. The others
    everywhere.
    """
    everywhere = torch.rand(B, 1, 1, generator=generator) >= masked
    side = PATCHES[torch.randint(len(PATCHES), (B, 1), generator=generator)]
    share = torch.rand(B, 1, 1, generator=generator)
    drawn = torch.rand(B, size, size, generator=generator)
    first = torch.arange(size) // side * side           # of each cell's patch
    drawn = drawn[torch.arange(B).view(B, 1, 1), first.unsqueeze(2), first.unsqueeze(1)]
    return ((drawn < share) | everywhere).unsqueeze(1).float()


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
    here, and given saved weights. Beside the levels, the middle always attends. With
    the blocks of guided-diffusion (Dhariwal and Nichol 2021) and the preset's sizes it
    is the official code's network.
    """
    s, levels = settings, len(settings.unet_channels)
    if size % 2 ** (levels - 1):
        raise ValueError(
            f"setting unet_channels: {levels} levels need latents whose side is a "
            f"multiple of {2 ** (levels - 1)}, not {size}")
    guided = s.unet_blocks == "guided-diffusion"
    between, plain = (("resnet", "Resnet{}sampleBlock2D") if guided
                      else ("conv", "{}Block2D"))
    blocks = ["Attn{}Block2D" if s.unet_attention_from <= level <= s.unet_attention_to
              else plain for level in range(levels)]
    unet = UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels,
        block_out_channels=s.unet_channels, layers_per_block=s.unet_layers,
        norm_num_groups=32, attention_head_dim=32,
        downsample_type=between, upsample_type=between, flip_sin_to_cos=not guided,
        down_block_types=tuple(block.format("Down") for block in blocks),
        up_block_types=tuple(block.format("Up") for block in reversed(blocks)))
    for layer in unet.modules() if s.unet_heads else ():
        # diffusers sizes a head, and so gives wider levels more of them
        if isinstance(layer, Attention):
            layer.heads = s.unet_heads
    for name, weight in unet.named_parameters() if guided else ():
        # the last layer of each block: untrained, the block passes its input on
        if any(last in name for last in (".conv2.", ".to_out.", "conv_out.")):
            nn.init.zeros_(weight)
    return unet
