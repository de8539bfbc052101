"""What the sections of the benchmark share: times taken in turns, and untrained
networks at two scales.
"""
from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from ..detector import Detector
from ..networks.features import empty_features, load_features
from ..noise_predictor import build_unet
from ..runtime.adapter import AT_ONCE, mixed
from ..settings import Settings, preset
from ..synthetic.products import make

SCALES, THREADS = ("laptop", "paper"), (1, 2, 4)
RESNET_34 = dict(depths=[3, 4, 6, 3], hidden_sizes=[64, 128, 256, 512],
                 layer_type="basic", embedding_size=64)


def seconds(*runs: Callable[[], object], repeats: int = 5) -> list[float]:
    """The median time of each of several runs, taken in turns after one round that is
    not counted; waits for a CUDA device.
    """
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    taken = [[] for _ in runs]
    for _ in range(repeats + 1):
        for times, run in zip(taken, runs):
            wait()
            started = time.perf_counter()
            run()
            wait()
            times.append(time.perf_counter() - started)
    return [statistics.median(times[1:]) for times in taken]


def by_threads(run: Callable[[], object]) -> dict[str, float]:
    """The median time of a run by the number of threads, as many as there are cores at
    most.
    """
    before, taken = torch.get_num_threads(), {}
    try:
        for threads in THREADS:
            if threads <= (os.cpu_count() or 1):
                torch.set_num_threads(threads)
                taken[str(threads)] = seconds(run, repeats=3)[0]
    finally:
        torch.set_num_threads(before)
    return taken


def board(images: Path) -> Path:
    """The folder of 80 good images of a board, 256 x 256; made, if it is not there."""
    make(images, ("board",), size=256, train=80, test_good=0, test_defect=0)
    return images / "board"


def networks(scale: str, **changes) -> tuple[Settings, nn.Module, nn.Module, nn.Module]:
    """Settings, autoencoder, U-Net and features, untrained, of a scale."""
    torch.manual_seed(0)
    settings = preset("clean", tune_epochs=0, **changes)
    if scale == "laptop":
        vae, phi = AutoencoderTiny(), load_features(settings)
    else:
        sizes = ("unet_channels", "unet_layers", "unet_blocks", "unet_attention_from",
                 "unet_attention_to", "unet_heads")
        paper = preset("paper")
        settings = settings.change(**{name: getattr(paper, name) for name in sizes})
        vae, phi = _stable_diffusion(), empty_features(settings, RESNET_34)
    return settings, vae, build_unet(settings, 4, settings.image_size // 8), phi


def _stable_diffusion() -> AutoencoderKL:
    """Stable Diffusion's autoencoder, without its weights."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4,
        scaling_factor=0.18215)


def untrained(scale: str, images: Tensor, device: str, **changes) -> Detector:
    """A detector with a memory bank of `images` and with ranges from them; `changes` of
    its settings.
    """
    size = images.shape[-1]
    settings, vae, unet, phi = networks(scale, image_size=size, **changes)
    return Detector.fit(images, settings, held_out=images[:16], device=device, vae=vae,
                        unet=unet, phi=phi)


def bare(detector: Detector, x0: Tensor) -> Callable[[], None]:
    """The network calls of one batch's detection and nothing else: encode, the U-Net's
    calls, decode, features of both.
    """
    settings, own, last = detector.settings, detector.networks, torch.channels_last
    x0 = x0.to(detector.device).contiguous(memory_format=last)
    z0 = detector.projection.encode(x0).contiguous(memory_format=last)
    t = torch.full((len(x0),), 40, device=detector.device)
    at_once = AT_ONCE if detector.device.type == "cpu" else len(x0)

    @torch.no_grad()
    def run() -> None:
        with mixed(detector.device, settings.precision):
            for part in x0.split(at_once):
                own.vae.encode(part)
            for _ in range(0, settings.ddim_steps, settings.call_every):
                own.unet(z0, t)
            for part in z0.split(at_once):
                own.vae.decode(part)
            own.phi(x0)
        own.phi(x0)                             # of the input, in float32 always
    return run
