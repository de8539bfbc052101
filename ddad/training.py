"""Training, apart from the method's own modules: one loop, which can be interrupted and resumed, for eps_theta and for a VAE.

Every draw of step i comes from a generator seeded by (seed, i), so a resumed run needs no generator's state: on a CPU it
ends with the same weights as one that was never interrupted. For the same reason several processes draw the same batch, and
each trains on its share of the rows: see `distributed`.
"""
from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from . import distributed
from .latent_projection import draw, mixed
from .noise_predictor import alpha_bar, captured, epsilon_loss
from .settings import Settings, SettingsError
from .writing import whole

# The settings that shape training: a checkpoint is resumed only under the same ones.
SHAPING = ("seed", "image_size", "held_out", "vae", "train_vae", "posterior", "timesteps", "beta_start", "beta_end", "beta_schedule", "unet_channels",
           "unet_layers", "unet_attention_from", "unet_heads", "train_batch", "learning_rate", "learning_rate_schedule", "weight_decay",
           "gradient_clip", "ema", "train_precision")


def learning_rate(i: int, steps: int, peak: float, schedule: str) -> float:
    """At step i of `steps`: "constant", or "one-cycle", a linear rise over the first 5% and then half a cosine to zero."""
    rise = max(1, steps // 20)
    if schedule == "constant":
        return peak
    return peak * (i + 1) / rise if i < rise else peak * (1 + math.cos(math.pi * (i - rise) / max(1, steps - rise))) / 2


def optimise(model: nn.Module, batch_at: Callable[[torch.Generator], tuple[Tensor, ...]], loss_of: Callable[..., Tensor], steps: int, what: str,
             settings: Settings, checkpoint: Path | None = None, every: int = 250) -> dict:
    """AdamW with averaged weights on `loss_of(*batch_at(draws))`, a scalar loss whose randomness all comes from `draws`; a record.

    On one CUDA device the loss and its gradients are recorded as a graph at the first step: `batch_at` gives tensors of the same
    shapes at each, and `loss_of` does not wait for the device.
    `model` ends frozen, in evaluation mode, with the averaged weights. With `checkpoint`, a .safetensors path, the state is
    kept every so many steps and a later call goes on from it; SettingsError when it was made with other settings, or when
    several processes do not see the same file. Of several processes the main one writes it, and losses are the mean over all.
    """
    made_with = json.dumps({"what": what, "steps": steps} | {name: settings.as_dict()[name] for name in SHAPING})
    names, weights = zip(*model.train().named_parameters())
    averaged = [w.detach().clone() for w in weights]
    on_cuda = weights[0].device.type == "cuda"
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=on_cuda)
    done, losses = 0, []
    if checkpoint is not None and checkpoint.exists():
        done, losses = _resume(checkpoint, names, weights, averaged, optimiser, made_with)
    if checkpoint is not None and len(set(distributed.gathered([done]))) > 1:
        raise SettingsError(f"{checkpoint} is not the same file for all processes; keep it in a folder that all machines share, or delete it")

    def with_gradients(*batch: Tensor) -> Tensor:
        optimiser.zero_grad(set_to_none=False)                         # a graph adds up gradients where they lie
        loss = loss_of(*batch)
        loss.backward()
        return loss.detach()

    step, to_record = with_gradients, on_cuda and distributed.processes() == 1
    for i in tqdm(range(done, steps), what, initial=done, total=steps, mininterval=1, delay=2, disable=not distributed.main()):
        batch = batch_at(torch.Generator().manual_seed(settings.seed * 1_000_003 + i))
        if to_record:
            step, to_record = captured(with_gradients, *batch), False
        loss = step(*batch)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(i, steps, settings.learning_rate, settings.learning_rate_schedule)
        if settings.gradient_clip:
            nn.utils.clip_grad_norm_(weights, settings.gradient_clip)
        optimiser.step()
        decay = min(settings.ema, (1 + i) / (10 + i))                 # short memory first, or the random start would linger
        torch._foreach_lerp_(averaged, [w.detach() for w in weights], 1 - decay)
        losses.append(distributed.mean(loss))
        if checkpoint is not None and distributed.main() and ((i + 1) % every == 0 or i + 1 == steps):
            _save(checkpoint, i + 1, losses, names, weights, averaged, optimiser, made_with)
    with torch.no_grad():
        for w, a in zip(weights, averaged):
            w.copy_(a)
    optimiser.zero_grad()                                              # as much memory as the weights
    model.eval().requires_grad_(False)
    tail = [float(x) for x in losses[-100:]]
    return {"steps": steps, "loss": sum(tail) / max(1, len(tail)), "parameters": sum(w.numel() for w in weights)}


def train_noise_predictor(unet: nn.Module, mean: Tensor, std: Tensor | None, settings: Settings, device: torch.device,
                          checkpoint: Path | None = None) -> dict:
    """Train `unet` in place on the posterior mean and deviation (N, C, h, w) of the training latents, encoded once.

    Several processes, each with the same latents, share out the rows of a batch. Raises SettingsError for fewer rows than processes.
    """
    abar, unet = alpha_bar(settings, device), unet.to(device)
    mean, std = mean.to(device), None if std is None else std.to(device)
    B, P = settings.train_batch, distributed.processes()
    if B < P:
        raise SettingsError(f"setting train_batch: {B} is less than the {P} processes; raise it or start fewer processes")
    network, shared = distributed.prepare(unet)
    first, end = distributed.share(B)
    weight = (end - first) * P / B                                    # makes the mean over the processes the whole batch's

    def batch_at(draws: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(len(mean), (B,), generator=draws).to(device)
        z0 = draw(mean[rows], None if std is None else std[rows], settings.posterior, draws)
        t = torch.randint(settings.timesteps, (len(z0),), generator=draws).to(device)
        eps = torch.randn(z0.shape, generator=draws).to(device)
        return z0[first:end], t[first:end], eps[first:end]

    def loss_of(z0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        with mixed(device, settings.train_precision):
            return weight * epsilon_loss(network, z0, t, eps, abar)

    return optimise(unet, batch_at, loss_of, settings.steps_for(len(mean)), "train eps_theta", settings, checkpoint) | shared


def train_vae(vae: nn.Module, images: Tensor, settings: Settings, checkpoint: Path | None = None) -> dict:
    """Train an AutoencoderKL in place on images (N, 3, H, W) in [-1, 1]; sets its scaling factor to 1 / std of the latents.

    Half of the pictures get patches of others, with their colours exchanged: a pretrained autoencoder has seen more than good
    parts, and so must draw a defect as well as a good part. Loss: mean absolute error and 1e-6 of the KL divergence.
    """
    down = 2 ** (len(vae.config.block_out_channels) - 1)
    latent = (settings.train_batch, vae.config.latent_channels, images.shape[-2] // down, images.shape[-1] // down)

    def batch_at(draws: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(len(images), (settings.train_batch,), generator=draws)
        return patched(images[rows], draws), torch.randn(latent, generator=draws)

    def loss_of(x0: Tensor, eps: Tensor) -> Tensor:
        posterior = vae.encode(x0).latent_dist
        x0_hat = vae.decode(posterior.mean + posterior.std * eps).sample
        return F.l1_loss(x0_hat, x0) + 1e-6 * posterior.kl().mean()

    record = optimise(vae, batch_at, loss_of, settings.steps_for(len(images)), "train VAE", settings, checkpoint)
    with torch.no_grad():
        z = torch.cat([vae.encode(x0).latent_dist.mean for x0 in images.split(16)])
        x0 = images[:: max(1, len(images) // 64)]
        x0_hat = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1) for part in x0.split(16)])
        error = (x0_hat - x0).square().mean((1, 2, 3))
    vae.register_to_config(scaling_factor=1 / z.std().item())
    return record | {"psnr": (10 * torch.log10(4 / error)).mean().item()}


def patched(x0: Tensor, draws: torch.Generator) -> Tensor:
    """A batch in which every second picture has three random rectangles of its neighbour, their channels in another order."""
    x0, size = x0.clone(), x0.shape[-1]
    other = x0.roll(1, 0)[:, torch.randperm(3, generator=draws)]
    for n in range(0, len(x0), 2):
        for _ in range(3):
            h, w = (size * 0.5 ** torch.empty(2).uniform_(1, 5, generator=draws)).long().clamp(min=2).tolist()
            top, left = (int(torch.randint(size - side, (1,), generator=draws)) for side in (h, w))
            x0[n, :, top : top + h, left : left + w] = other[n, :, top : top + h, left : left + w]
    return x0


def kept_latents(checkpoint: Path) -> Path:
    """The folder beside a checkpoint that keeps the latents of the training images, encoded once."""
    return checkpoint.with_suffix(".latents")


def forget(checkpoint: Path) -> None:
    """Remove a checkpoint and the latents beside it, once the detector is saved."""
    checkpoint.unlink(missing_ok=True)
    shutil.rmtree(kept_latents(checkpoint), ignore_errors=True)


def _save(path: Path, done: int, losses: list, names, weights, averaged, optimiser, made_with: str) -> None:
    tensors = {"losses": torch.stack([torch.as_tensor(x).cpu() for x in losses])}
    for name, w, a in zip(names, weights, averaged):
        state = optimiser.state[w]
        tensors |= {f"weight/{name}": w.detach(), f"average/{name}": a, f"first/{name}": state["exp_avg"], f"second/{name}": state["exp_avg_sq"]}
    with whole(path) as aside:
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, aside, {"done": str(done), "made_with": made_with})


def _resume(path: Path, names, weights, averaged, optimiser, made_with: str) -> tuple[int, list]:
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    if meta["made_with"] != made_with:
        raise SettingsError(f"{path} was made with other settings; delete it to start anew, or restore them to go on")
    tensors, done = load_file(path), int(meta["done"])
    with torch.no_grad():
        for name, w, a in zip(names, weights, averaged):
            w.copy_(tensors[f"weight/{name}"])
            a.copy_(tensors[f"average/{name}"])
            counter = torch.tensor(float(done), device=w.device if w.device.type == "cuda" else "cpu")      # where AdamW keeps it
            optimiser.state[w] = {"step": counter, "exp_avg": tensors[f"first/{name}"].to(w.device),
                                  "exp_avg_sq": tensors[f"second/{name}"].to(w.device)}
    return done, list(tensors["losses"])
