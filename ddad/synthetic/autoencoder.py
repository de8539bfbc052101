"""The embedded autoencoder: general, frozen, and blind to what is good.

It learns from `scenery` alone. The method's premise is an autoencoder that has seen
more than good images of one product: it must draw a defect as well as a good part.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC
from torch import Tensor, nn
from torch.nn import functional as F

from ..runtime.adapter import mixed
from ..runtime.files import write_json
from ..runtime.manifest import versions
from ..settings import Settings, preset
from ..training import optimise
from .scenery import sceneries

# First many small windows, then whole images, whose borders and norms are others.
SETTINGS = [
    preset("clean", image_size=size, train_length=length, train_batch=batch,
           learning_rate=rate, weight_decay=0.0, train_precision="bfloat16")
    for size, length, batch, rate in (
        (64, "6000 steps", 8, 1.5e-3), (128, "500 steps", 4, 3e-4))
]
SIZE, COUNT = 128, 4096  # of the scenery
HELD_OUT = 64  # its last images measure, and train nothing


def build_vae() -> AutoencoderDC:
    """An untrained autoencoder of 0.6 M parameters.

    (B, 3, 128, 128) => (B, 8, 16, 16). Its blocks learn what to add to a mere
    rearrangement of pixels into channels (Chen et al., "Deep Compression Autoencoder",
    ICLR 2025): on two cores it comes as far in minutes as the usual one in hours.
    """
    channels, layers = (16, 32, 64, 64), (1, 1, 1, 1)
    return AutoencoderDC(
        latent_channels=8,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=((),) * 4,
        decoder_qkv_multiscales=((),) * 4,
        downsample_block_type="pixel_unshuffle",
        upsample_block_type="pixel_shuffle",
    )


def load_or_train(
    folder: Path, checkpoints: Path, settings: list[Settings] = SETTINGS,
    count: int = COUNT,
) -> AutoencoderDC:
    """The autoencoder of `folder`, trained and saved there in float16 unless it is."""
    if not (folder / "record.json").exists():
        torch.manual_seed(settings[0].seed)
        vae, images = build_vae(), sceneries(count, SIZE, settings[0].seed)
        paths = [checkpoints / f"vae-{n}.safetensors" for n in range(len(settings))]
        stages = [
            train_vae(vae, images[:-HELD_OUT], stage, path)
            for stage, path in zip(settings, paths)
        ]
        record = {"images": count - HELD_OUT, "stages": stages} | scaled(
            vae, torch.from_numpy(images[-HELD_OUT:]))
        vae.to(torch.float16).save_pretrained(folder)
        made_with = {"settings": [stage.as_dict() for stage in settings]}
        write_json(folder / "record.json",
                   made_with | {"record": record, "versions": versions()})
    return AutoencoderDC.from_pretrained(folder, use_safetensors=True).eval()


def train_vae(
    vae: nn.Module, images: np.ndarray, settings: Settings,
    checkpoint: Path | None = None,
) -> dict:
    """Train an autoencoder in place on windows of images (N, H, W, 3) uint8.

    A window is image_size wide. Loss: mean absolute error. Returns what `optimise`
    records.
    """
    batch, size = settings.train_batch, settings.image_size

    def batch_at(draws: torch.Generator) -> tuple[Tensor]:
        rows = torch.randint(len(images), (batch,), generator=draws).tolist()
        room = images.shape[1] - size + 1
        corners = torch.randint(room, (batch, 2), generator=draws).tolist()
        windows = [images[n, y:y + size, x:x + size]
                   for n, (y, x) in zip(rows, corners, strict=True)]
        return (as_input(torch.from_numpy(np.stack(windows))),)

    def loss_of(x0: Tensor) -> Tensor:
        with mixed(x0.device, settings.train_precision):
            x0_hat = vae.decode(vae.encode(x0).latent).sample
        return F.l1_loss(x0_hat.float(), x0)

    steps = settings.steps_for(len(images))
    what = f"train VAE, {size} px"
    vae.requires_grad_(True)  # an earlier stage has frozen it
    return optimise(vae, batch_at, loss_of, steps, what, settings, checkpoint)


def as_input(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 as (N, 3, H, W) float32 in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def scaled(vae: nn.Module, images: Tensor) -> dict:
    """Set the scaling factor to 1 / std of the latents of images (N, H, W, 3) uint8.

    Returns what to record: the factor, and psnr of their reconstructions in dB.
    """
    latents, psnr = [], []
    for part in images.split(16):
        x0 = as_input(part)
        latents.append(z0 := vae.encode(x0).latent)
        error = (vae.decode(z0).sample.clamp(-1, 1) - x0).square().mean((1, 2, 3))
        psnr.append(10 * torch.log10(4 / error))
    factor = 1 / torch.cat(latents).std().item()
    vae.register_to_config(scaling_factor=factor)
    return {"scaling_factor": factor, "psnr": torch.cat(psnr).mean().item()}
