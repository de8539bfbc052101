"""The shipped weights: how an autoencoder and a detector for each of the drawn products
are trained.
"""
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from ..calibration import choose
from ..data.product import load_test, load_train
from ..detector import Detector
from ..evaluation.scoring import evaluate
from ..runtime.checkpoints import fitted
from ..runtime.files import write_json
from ..runtime.manifest import versions
from ..settings import Settings, preset
from ..training import hold_out, optimise
from .products import PRODUCTS, make

WEIGHTS = Path(__file__).parent.parent / "weights"
# 128 x 128 pixels and 8-channel latents of 16 x 16; half the paper's size, and a grid
# of pooled features small enough to ship.
SETTINGS = preset(
    "clean",
    image_size=128,
    vae="embedded",
    unet_channels=(32, 64, 96),
    neighbour_pool=4,
    train_length="2000 steps",
    learning_rate=1e-3,
)
VAE_SETTINGS = preset(
    "clean",
    image_size=128,
    train_length="1500 steps",
    train_batch=8,
    learning_rate=1.5e-3,
    weight_decay=0.0,
)
TOLERANCE = 0.03  # between two trainings of the same weights on different machines
METRICS = ("i_auroc", "p_auroc", "pro")


def train_weights(
    out: Path,
    data: Path,
    settings: Settings = SETTINGS,
    vae_settings: Settings = VAE_SETTINGS,
    device: str = "auto",
) -> dict:
    """Make the products, train the autoencoder on their good images and a detector for
    each; the better part of an hour on 2 cores.

    One setting serves all three: T_max, smallest bin, guidance, blur and lambda have
    the best mean over them on held-out good images and synthetic defects. Interrupted,
    it goes on from the last checkpoint. Returns the results on the test sets.
    """
    make(data)
    work = out / "work"
    images = {p: load_train(data / p, settings) for p in PRODUCTS}
    vae = _autoencoder(out / "vae", images, vae_settings, work / "vae.safetensors")

    def load(folder: Path) -> Detector:
        return Detector.from_pretrained(folder, device=device, vae=vae)

    fit, first = partial(Detector.fit, device=device, vae=vae), {}
    for product in PRODUCTS:
        def train(checkpoint: Path, images: Tensor = images[product]) -> Detector:
            return fit(images, settings.change(tune_epochs=0), checkpoint=checkpoint)

        first[product] = fitted(work / product, train, load)
    good = {product: hold_out(images[product], settings)[1] for product in PRODUCTS}
    chosen, tables = choose([(first[product], good[product]) for product in PRODUCTS])
    results = {}
    for product, table in zip(PRODUCTS, tables):
        unet, training = first[product].networks.unet, first[product].record["training"]
        detector = fit(images[product], settings.change(**chosen), unet=unet)
        detector.record |= {"training": training, "calibration": table}
        detector.save_pretrained(out / product, torch.float16)
        test = load_test(data / product, settings)
        results[product], _ = evaluate(load(out / product), test)
    made_with = {"versions": versions(), "device": str(detector.device)}
    write_json(out / "results.json", results | made_with)
    return results


def agrees(results: dict, weights: Path = WEIGHTS) -> dict[str, bool]:
    """Whether each product's I-AUROC, P-AUROC and PRO lie within TOLERANCE of those of
    the shipped weights.
    """
    shipped = json.loads((weights / "results.json").read_text(encoding="utf-8"))

    def apart(product: str) -> float:
        return max(abs(results[product][m] - shipped[product][m]) for m in METRICS)

    return {product: apart(product) <= TOLERANCE for product in PRODUCTS}


# --- the autoencoder ------------------------------------------------------------------

def build_vae() -> AutoencoderKL:
    """An untrained autoencoder of 0.9 M parameters.

    (B, 3, 128, 128) => (B, 8, 16, 16).
    """
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=16,
        sample_size=128,
        mid_block_add_attention=False,
    )


def _autoencoder(
    folder: Path, images: dict[str, Tensor], settings: Settings, checkpoint: Path
) -> AutoencoderKL:
    """The autoencoder of `folder`, trained and saved there unless it is."""
    if not (folder / "record.json").exists():
        torch.manual_seed(settings.seed)
        vae = build_vae()
        record = train_vae(vae, torch.cat(list(images.values())), settings, checkpoint)
        vae.to(torch.float16).save_pretrained(folder)
        made_with = {"settings": settings.as_dict(), "record": record}
        write_json(folder / "record.json", made_with | {"versions": versions()})
    return AutoencoderKL.from_pretrained(folder, use_safetensors=True).eval()


def train_vae(
    vae: nn.Module, images: Tensor, settings: Settings, checkpoint: Path | None = None
) -> dict:
    """Train an AutoencoderKL in place on images (N, 3, H, W) in [-1, 1].

    Sets its scaling factor to 1 / std of the latents. Half of the images get patches of
    others, with their colours exchanged: a pretrained autoencoder has seen more than
    good parts, and so must draw a defect as well as a good part. Loss: mean absolute
    error and 1e-6 of the KL divergence. Returns what to record: that of `optimise`, and
    psnr, the mean over up to 64 of the images, in dB.
    """
    batch, channels = settings.train_batch, vae.config.latent_channels
    down = 2 ** (len(vae.config.block_out_channels) - 1)
    latent = (batch, channels, images.shape[-2] // down, images.shape[-1] // down)

    def batch_at(draws: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(len(images), (batch,), generator=draws)
        return patched(images[rows], draws), torch.randn(latent, generator=draws)

    def loss_of(x0: Tensor, eps: Tensor) -> Tensor:
        posterior = vae.encode(x0).latent_dist
        x0_hat = vae.decode(posterior.mean + posterior.std * eps).sample
        return F.l1_loss(x0_hat, x0) + 1e-6 * posterior.kl().mean()

    steps = settings.steps_for(len(images))
    record = optimise(vae, batch_at, loss_of, steps, "train VAE", settings, checkpoint)
    vae.register_to_config(scaling_factor=1 / _latents(vae, images).std().item())
    return record | {"psnr": _psnr(vae, images[:: max(1, len(images) // 64)])}


@torch.no_grad()
def _latents(vae: nn.Module, images: Tensor) -> Tensor:
    """The latents' means, unscaled: (N, C, H/8, W/8)."""
    return torch.cat([vae.encode(x0).latent_dist.mean for x0 in images.split(16)])


@torch.no_grad()
def _psnr(vae: nn.Module, x0: Tensor) -> float:
    """Mean peak signal-to-noise ratio of reconstructions of x0, in dB."""
    x0_hat = torch.cat([
        vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
        for part in x0.split(16)
    ])
    error = (x0_hat - x0).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / error)).mean().item()


def patched(x0: Tensor, draws: torch.Generator) -> Tensor:
    """A batch (B, 3, H, H) whose every second image has three patches of its neighbour:
    random rectangles, their channels in another order.
    """
    x0, size = x0.clone(), x0.shape[-1]
    other = x0.roll(1, 0)[:, torch.randperm(3, generator=draws)]
    for n in range(0, len(x0), 2):
        for _ in range(3):
            share = 0.5 ** torch.empty(2).uniform_(1, 5, generator=draws)
            h, w = (size * share).long().clamp(min=2).tolist()
            top = int(torch.randint(size - h, (1,), generator=draws))
            left = int(torch.randint(size - w, (1,), generator=draws))
            at = n, slice(None), slice(top, top + h), slice(left, left + w)
            x0[at] = other[at]
    return x0
