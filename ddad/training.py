"""Training: one loop for eps_theta and for an autoencoder, and `fit`, which takes one
product's good images through all that a detector learns from them.

Every draw of step i comes from a generator seeded by (seed, i), so a resumed run needs
no generator's state: on a CPU it ends with the same weights as one that was never
interrupted. For the same reason several processes draw the same batch, and each trains
on its share of the rows.
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .calibration import Calibration, enough
from .data.images import Images, as_images, parted
from .detector import Detector
from .evaluation.likeness import compared
from .fine_tuning import fine_tune
from .latent_projection import draw
from .networks.autoencoders import load_vae
from .networks.features import load_features
from .noise_predictor import alpha_bar, build_unet, epsilon_loss, patch_mask
from .runtime import processes
from .runtime.adapter import Networks, trainable
from .runtime.checkpoints import Checkpoint, kept_latents
from .runtime.devices import pick_device
from .runtime.graphs import gradients
from .runtime.latent_cache import encode_all, tensors_hash
from .runtime.manifest import versions
from .runtime.refused import as_trained, enough_images
from .runtime.stages import Stages
from .settings import EPS_THETA, PHI, Settings, preset, shaping

STEPS = 1_000_003                               # between the draws of two seeds' steps
FEW = 20                # a conformal threshold at 5% needs 19 images


def hold_out(images: Images, settings: Settings,
             held_out: Images | None = None) -> tuple[Images, Images]:
    """Training and held-out good images: all of `images` and those given as held out,
    or, without any, a share of `images` drawn with the settings' seed, each in the
    order given.
    """
    if held_out is not None:
        return images, held_out
    return parted(images, round(len(images) * settings.held_out), settings.seed)[::-1]


def split(good: Images, settings: Settings) -> tuple[Images, Images]:
    """Held-out good images: those that constants and ranges are made from, and those
    that the threshold is. A share of them each, or, where a part would be smaller than
    FEW, all for both.
    """
    first = len(good) - round(len(good) * settings.threshold_share)
    if min(first, len(good) - first) < FEW:
        return good, good
    return parted(good, first, settings.seed + 2)       # files may drift with time


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
             checkpoint: Path | None = None, made_from: dict | None = None) -> dict:
    """AdamW with averaged weights on `loss_of(*batch_at(draws))`, a scalar loss whose
    randomness all comes from `draws`; what to record of it.

    `model` ends frozen, in evaluation mode, with the averaged weights. checkpoint: a
    .safetensors path that the state is kept at, and that a later call goes on from, if
    it is `made_from` the same: see `Checkpoint` (SettingsError; ModelError where the
    training diverges). loss_of: see `graphs.gradients`.
    """
    s, chosen = settings, settings.as_dict()
    names, weights = zip(*model.train().named_parameters())
    averaged = [w.detach().clone() for w in weights]
    optimiser = torch.optim.AdamW(
        weights, lr=s.learning_rate, weight_decay=s.weight_decay,
        fused=weights[0].device.type == "cuda")
    made_with = {"what": what, "steps": steps} | {
        name: chosen[name] for name in shaping(EPS_THETA)} | (made_from or {})
    state = Checkpoint(checkpoint, made_with, names, weights, averaged, optimiser)
    done, loss_and_gradients = state.resume(), gradients(optimiser, loss_of)
    for i in tqdm(range(done, steps), what, initial=done, total=steps, mininterval=1,
                  delay=2, disable=not processes.is_main()):
        batch = batch_at(torch.Generator().manual_seed(s.seed * STEPS + i))
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


def rows_of(draws: torch.Generator, images: int, settings: Settings) -> Tensor:
    """Which of the images a step takes, (train_batch,) int64; the seed of `draws`, its
    own generator, tells the step. With fewer images than rows some come again.
    """
    s, rows = settings, torch.arange(settings.train_batch)
    if s.train_order == "drawn":
        return torch.randint(images, rows.shape, generator=draws)
    step = draws.initial_seed() - s.seed * STEPS
    epoch, nth = divmod(step, max(1, images // len(rows)))
    # a negative seed, which no step has
    shuffle = torch.Generator().manual_seed(-1 - s.seed * STEPS - epoch)
    order = torch.randperm(images, generator=shuffle)
    return order[(nth * len(rows) + rows) % images]


def train_noise_predictor(unet: nn.Module, mean: Tensor, std: Tensor | None,
                          settings: Settings, device: torch.device,
                          checkpoint: Path | None = None) -> dict:
    """Train `unet` in place on the posterior mean and deviation (N, C, h, w) of the
    training latents, encoded once; what to record of it.

    Several processes, each with the same latents, share out the rows of a batch. Raises
    SettingsError for fewer rows than processes. Warns where nothing was learned.
    """
    s, abar, unet = settings, alpha_bar(settings, device), unet.to(device)
    mean, std = mean.to(device), None if std is None else std.to(device)
    eps_theta, launched = trainable(unet, device, s.train_precision)

    def batch_at(draws: torch.Generator) -> tuple[Tensor, ...]:
        rows = rows_of(draws, len(mean), s).to(device)
        deviation = None if std is None else std[rows]
        z0 = draw(mean[rows], deviation, s.posterior, draws)
        t = torch.randint(s.train_timesteps, (len(z0),), generator=draws).to(device)
        eps = torch.randn(z0.shape, generator=draws).to(device)
        m = patch_mask(len(z0), z0.shape[-1], s.masked_share, draws).to(device)
        return z0, t, eps * m

    def loss_of(z0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return epsilon_loss(eps_theta, z0, t, eps, abar)

    share = processes.shared(batch_at, loss_of, s.train_batch)
    made_from = checkpoint and {
        "images or autoencoder": tensors_hash({"mean": mean, "std": std})} | versions()
    record = optimise(unet, *share, s.steps_for(len(mean)), "train eps_theta", s,
                      checkpoint, made_from)
    if record["steps"] >= 50 and record["loss"] >= 1:
        warnings.warn(f"the training's loss is {record['loss']:.2f} at its end, and "
                      "that of a network that predicts no noise at all is 1: it has "
                      "learned nothing; lower learning_rate, or raise train_length",
                      stacklevel=2)
    return record | launched


def fit(images, settings: Settings | None = None, *, held_out=None,
        device: str = "auto", vae=None, unet=None, phi=None,
        like: Detector | None = None, calibrate: bool = False,
        checkpoint: str | Path | None = None) -> Detector:
    """Learn one product from its good images: (N, 3, H, W) in [-1, 1], or what else
    `data.images.as_images` takes, such as a list of paths: of many, the images are read
    a batch at a time, and only latents and features are held.

    held_out: good images for ranges, threshold and calibration; else a share of
    `images` is kept back. vae, unet, phi: networks in place of those the settings name;
    a given unet is not trained. like: a detector of the same product, whose autoencoder
    and U-Net serve, on its device; held-out images are compared with those it saw.
    calibrate: choose constants (`calibration`) before phi is fine-tuned. checkpoint:
    where the training's state is kept, and a later call goes on from. Several
    processes, given the same images, share out the training and end alike. Warns of
    held-out images unlike the others. SettingsError, also for what `like` was trained
    with; BackboneError; WriteError; ValueError: too few images, vae or unet with like.
    """
    s, device = settings or preset(), pick_device(device)
    images = as_images(images, s.image_size)
    held_out = None if held_out is None else as_images(held_out, s.image_size)
    train, good = hold_out(images, s, held_out)
    enough_images(train, good, s)
    if calibrate:
        enough(good)
    if like is not None:
        as_trained(like, s, shaping(EPS_THETA), vae, unet)
        vae, unet, device = like.networks.vae, like.networks.unet, like.device
    elif vae is not None and s.vae == Settings.vae:
        s = s.change(vae="given")       # an object of which the settings know no name
    stages = Stages(device)
    # features first: a name that cannot be had is told of before the training
    phi = load_features(s) if phi is None else phi
    vae = load_vae(s.vae) if vae is None else vae
    detector = Detector(s, Networks(vae, unet, phi, device, s.precision))
    detector.record = {
        "seconds": stages.seconds, "peak_memory": stages.peak_memory,
        "held_out_from": _source(held_out),
        "images": len(train) + len(good), "held_out": len(good)}
    _learn(detector, train, good, calibrate, checkpoint and Path(checkpoint), stages)
    if like is not None:
        detector.record["training"] = like.record.get("training")
    detector.record["held_out_distances"] = compared(like or detector, detector, good)
    return detector


def _source(held_out: Images | None) -> str:
    return "a share of the images" if held_out is None else "images given"


def _encode(detector: Detector, images: Images, checkpoint: Path | None) -> tuple:
    """Posterior mean and deviation of the images' latents, each encoded once."""
    keep = checkpoint and kept_latents(checkpoint)
    return encode_all(detector.projection, detector.networks, images, keep)


def _train(detector: Detector, train: Images, z0: tuple,
           checkpoint: Path | None) -> None:
    """Gives the detector a trained U-Net."""
    s, networks, source = detector.settings, detector.networks, z0
    if s.train_vae:                                             # row 11
        other = Networks(load_vae(s.train_vae), None, networks.phi, networks.device,
                         s.precision)
        source = _encode(Detector(s, other), train, checkpoint)
    torch.manual_seed(s.seed)                                   # its initial weights
    unet = build_unet(s, z0[0].shape[1], z0[0].shape[-1])
    detector.record["training"] = train_noise_predictor(
        unet, *source, s, networks.device, checkpoint)
    networks.place_unet(unet)


def _learn(detector: Detector, train: Images, good: Images, calibrate: bool,
           checkpoint: Path | None, stages: Stages) -> None:
    """A U-Net, unless it has one; calibration, fine-tuning, banks, ranges, threshold.
    """
    z0 = _encode(detector, train, checkpoint)
    stages.done("encode")
    if detector.networks.unet is None:
        _train(detector, train, z0, checkpoint)
        stages.done("train")
    good, for_threshold = split(good, detector.settings)
    if calibrate:
        detector.set_banks(train, good)
        calibration = Calibration([(detector, good)])
        chosen, table = processes.from_main(calibration.path())
        detector.settings = detector.settings.change(**chosen)
        stages.done("calibrate path")
    phi, reconstruct = detector.networks.phi, reconstruct_rows(detector, *z0)
    detector.record["tune_loss"] = fine_tune(phi, train, reconstruct, detector.settings)
    processes.copy_weights(phi)
    stages.done("fine-tune")
    detector.set_banks(train, good)
    if calibrate:                                   # with the features that are used
        chosen, more = processes.from_main(calibration.map())
        detector.settings = detector.settings.change(**chosen)
        detector.record["calibration"] = [*table[0], *more[0]]
        stages.done("calibrate map")
    detector.set_ranges(good, keep=False)
    detector.set_held_out_scores(for_threshold)
    stages.done("banks, ranges, threshold")


def reconstruct_rows(detector: Detector, mean: Tensor, std: Tensor | None
                     ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """For fine-tuning: rows, T_hat, start -> x0_hat of the images whose latents have
    this posterior mean and deviation (N, C, h, w).
    """
    s = detector.settings
    draws = torch.Generator().manual_seed(s.seed + 1)

    def reconstruct(rows: Tensor, T_hat: Tensor, start: Tensor) -> Tensor:
        deviation = None if std is None else std[rows]
        z0 = draw(mean[rows], deviation, s.posterior, draws).to(detector.device)
        eps = torch.randn(z0.shape, generator=draws) if s.noise else None
        # static: the official code fine-tunes with its static sampler (row 6)
        z0_hat = detector.denoise(z0, T_hat, start=start, eps=eps, static=True)
        return detector.projection.decode(z0_hat, s.clamp)
    return reconstruct


def adapt(detector: Detector, images: Images, settings: Settings,
          held_out: Images | None = None) -> Detector:
    """The same networks under other settings, with memory bank, ranges and threshold
    made anew from the images they were trained on.

    Warns of held-out images unlike those. Raises SettingsError for a setting that the
    networks were trained with: it needs a new training.
    """
    as_trained(detector, settings, shaping(PHI))
    train, good = hold_out(images, settings, held_out)
    enough_images(train, good, settings)
    other = detector.under(settings)
    for_ranges, for_threshold = split(good, settings)
    other.set_banks(train, for_ranges)
    other.set_ranges(for_ranges, keep=False)
    other.set_held_out_scores(for_threshold)
    other.record = detector.record | {
        "held_out_from": _source(held_out),
        "images": len(train) + len(good), "held_out": len(good),
        "held_out_distances": compared(detector, other, good)}
    return other
