"""The noise predictor eps_theta and its objective (paper, section 3.1, equations 1 to 3; Ho et al. 2020)."""
from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F

from .latent_projection import mixed
from .settings import Settings


def alpha_bar(settings: Settings, device: torch.device | str = "cpu") -> Tensor:
    """abar_t = product of (1 - beta_s) for s <= t; (T,) float32, decreasing from almost 1 to almost 0."""
    schedule = DDPMScheduler(num_train_timesteps=settings.timesteps, beta_start=settings.beta_start, beta_end=settings.beta_end,
                             beta_schedule=settings.beta_schedule)
    return schedule.alphas_cumprod.to(device)


def build_unet(settings: Settings, channels: int, size: int) -> UNet2DModel:
    """An untrained eps_theta for latents (B, channels, size, size): no condition, no class, no text, no dropout.

    diffusers' configuration cannot express unet_heads: a network with it is to be built here, and given saved weights. Raises ValueError for
    a size that the levels cannot halve.
    """
    levels = len(settings.unet_channels)
    if size % 2 ** (levels - 1):
        raise ValueError(f"setting unet_channels: {levels} levels need latents whose side is a multiple of {2 ** (levels - 1)}, not {size}")
    attention = [level >= settings.unet_attention_from for level in range(levels)]
    unet = UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels, block_out_channels=settings.unet_channels,
        layers_per_block=settings.unet_layers, norm_num_groups=32, attention_head_dim=32,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)))
    if settings.unet_heads:
        for layer in unet.modules():                                   # diffusers sizes a head, and so gives wider levels more of them
            if isinstance(layer, Attention):
                layer.heads = settings.unet_heads
    return unet


def q_sample(z0: Tensor, abar_t: Tensor, eps: Tensor) -> Tensor:
    """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps; all (B, C, h, w), abar_t (B, 1, 1, 1)."""
    return abar_t.sqrt() * z0 + (1 - abar_t).sqrt() * eps


def epsilon_loss(eps_theta, z0: Tensor, t: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """Mean of (eps - eps_theta(z_t, t))^2, a scalar; t (B,) whole numbers in 0 .. T-1."""
    z_t = q_sample(z0, abar[t].view(-1, 1, 1, 1), eps)
    return F.mse_loss(eps_theta(z_t, t).sample.float(), eps)


def epsilon(eps_theta, precision: str = "float32"):
    """eps_theta as a plain function (z_t, t) -> e, float32, as the sampler wants it."""
    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad(), mixed(z_t.device, precision):
            return eps_theta(z_t.contiguous(memory_format=torch.channels_last), t).sample.float()
    return predict


def cuda_graph(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`run` recorded as one CUDA graph on the current device: each call does its work again, from and into the same memory, in one launch.

    `run` must not wait for the device. Returns what `run` returned, overwritten by the next call; keeps all that `run` computes with.
    """
    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):                                      # before the recording, libraries choose their kernels and workspaces
        run()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph, stream=side):
        out = run()

    def replay(run=run) -> Tensor:                                     # with `run` live the networks whose weights the graph reads
        graph.replay()
        return out
    return replay


def captured(run: Callable[..., Tensor], *inputs: Tensor) -> Callable[..., Tensor]:
    """`run`, for tensors of these shapes on a CUDA device, recorded once: one launch in place of hundreds.

    inputs give shapes, types and device, not values. Not for several threads at once: all calls share the graph's memory.
    """
    own = [one.clone() for one in inputs]
    with torch.cuda.device(own[0].device):                             # of several GPUs, the one of the network
        replay = cuda_graph(lambda: run(*own))

    def run_again(*inputs: Tensor) -> Tensor:
        for place, given in zip(own, inputs, strict=True):
            place.copy_(given)
        return replay().clone()
    return run_again
