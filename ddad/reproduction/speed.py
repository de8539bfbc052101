"""The benchmark's sections on time: detection, the networks alone, training, and fewer
calls of the U-Net.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..calibration import drawn, sweep
from ..data.product import TestSet, load_good, load_test, load_train
from ..detector import Detector
from ..evaluation import official
from ..evaluation.baselines import METRICS
from ..evaluation.scoring import summary
from ..runtime.adapter import AT_ONCE, mixed
from ..runtime.devices import pick_device
from ..runtime.graphs import cuda_graph
from ..settings import FAST, preset
from ..synthetic.defects import Trial
from ..training import train_noise_predictor
from .runs import portable
from .timing import bare, board, by_threads, networks, seconds, untrained

# U-Net calls of a detection: fewer steps, or fewer calls in ten steps
PATHS = [{"ddim_steps": steps, "call_every": 1} for steps in (10, 5, 3)]
PATHS += [{"ddim_steps": 10, "call_every": every} for every in (2, 3, 4, 5)]


MOST = 75               # test images of a curve: each n-th of a larger set


def detection(drawn: Path, device: str, scale: str) -> dict:
    """Detection over its network calls timed bare, and the official evaluation over
    detection, in each precision and path, all in turns; on a GPU also with compiled
    networks. An image alone, by threads.
    """
    images = load_train(board(drawn), preset("clean"))
    x0, rows = images[:16], {}
    theirs, on_cuda = _official(images, x0, device, scale)
    paths = {"float32": {}, "bfloat16": {"precision": "bfloat16"}, "fast": FAST,
             "fast, bfloat16": FAST | {"precision": "bfloat16"}}
    if on_cuda:
        paths["fast, bfloat16, compiled"] = paths["fast, bfloat16"]
    base, runs = untrained(scale, images, device), {}
    for name, changes in paths.items():
        ours = base.under(base.settings.change(**changes))
        if name.endswith("compiled"):
            ours = untrained(scale, images, device, **changes)
            ours.compile()
        runs[name] = partial(ours.predict, x0), bare(ours, x0)
        rows[name] = {"alone": by_threads(partial(ours.predict, x0[:1]))}
    transcribed, *taken = seconds(theirs, *chain(*runs.values()), repeats=2)
    for name, whole, networks_alone in zip(rows, taken[::2], taken[1::2]):
        rows[name] |= {"seconds": whole / len(x0),
                       "over_networks": whole / networks_alone,
                       "official_over_ours": transcribed / whole}
    return {"images": len(x0), "size": images.shape[-1], "rows": rows}


def _official(images: Tensor, x0: Tensor, device: str,
              scale: str) -> tuple[Callable[[], object], bool]:
    """The official evaluation of x0, and whether it runs on a CUDA device."""
    theirs = untrained(scale, images, device, first_call="below", self_neighbour=True)
    own = theirs.networks
    for network in (own.vae, own.unet, own.phi):
        # as the official code has them
        network.to(memory_format=torch.contiguous_format)
    memory = official.remember(own.phi, images, theirs.settings)
    run = partial(official.official_evaluation, own.unet, own.vae, own.phi,
                  theirs.projection.s, memory, x0, theirs.settings)
    return run, theirs.device.type == "cuda"


def layouts(drawn: Path, device: str, scale: str) -> dict:
    """What each network alone costs for 16 images by precision, memory layout and
    images at once, compiled or not, on a CUDA device also as one graph; each over
    float32, contiguous, all at once, as it comes. The autoencoder encodes and decodes.
    """
    _, vae, unet, phi = networks(scale)
    where, at_once = pick_device(device), 16
    plain, last = torch.contiguous_format, torch.channels_last
    x0 = torch.rand(16, 3, 256, 256, device=where) * 2 - 1
    z, t = torch.randn(16, 4, 32, 32, device=where), torch.full((16,), 40, device=where)
    given = {"autoencoder": (vae, x0), "U-Net": (unet, z, t), "features": (phi, x0)}
    variants = {"float32": ("float32", plain, 16),
                "float32, channels last": ("float32", last, 16),
                "bfloat16": ("bfloat16", plain, 16),
                "bfloat16, channels last": ("bfloat16", last, 16)}
    if where.type == "cpu":
        at_once = AT_ONCE
        variants[f"the same, {at_once} at once"] = ("bfloat16", last, at_once)
    rows, compiling = {}, {}
    for name, (network, *inputs) in given.items():
        runs = {title: _call(deepcopy(network), inputs, *variant)
                for title, variant in variants.items()}
        compiled = torch.compile(deepcopy(network))
        run = _call(compiled, inputs, "bfloat16", last, at_once)
        try:
            started = time.perf_counter()
            run()
            runs["the same, compiled"] = run
            compiling[name] = time.perf_counter() - started
        except Exception as error:
            # no compiler on this machine is a result as well
            compiling[name] = f"{type(error).__name__}: not compiled here"
        if where.type == "cuda":
            call = _call(deepcopy(network), inputs, "bfloat16", last, 16)
            runs["bfloat16, channels last, one CUDA graph"] = cuda_graph(call)
        taken = seconds(*runs.values(), repeats=3)
        rows[name] = {title: one / taken[0] for title, one in zip(runs, taken)}
    return {"time_over_float32": rows, "compiling": compiling}


def _call(network: nn.Module, inputs: list[Tensor], precision: str,
          layout: torch.memory_format, at_once: int) -> Callable[[], None]:
    """A call of the network for all of its inputs, so many images at once."""
    x, *rest = inputs
    network = network.to(x.device, memory_format=layout).eval()

    @torch.no_grad()
    def run() -> None:
        with mixed(x.device, precision):
            for part in x.contiguous(memory_format=layout).split(at_once):
                network(part, *(one[: len(part)] for one in rest))
    return run


def training(drawn: Path, device: str, scale: str) -> dict:
    """Images a second of training on latents encoded once, over encoding in every
    epoch, also with gradients through the encoder; on a GPU in both precisions, the
    encoder's like the U-Net's. A step is what some more steps add to the first, which
    pays for what is made once.
    """
    where = pick_device(device)
    settings, vae, unet, _ = networks(scale)
    batch = preset("paper" if scale == "paper" else "clean").train_batch
    if (scale, where.type) == ("paper", "cpu"):
        batch = 2
    vae = vae.to(where).eval()
    images = load_train(board(drawn), settings)[:batch].to(where)
    latents, rows = None, {}

    def train(steps: int, precision: str) -> None:
        own = settings.change(train_batch=batch, train_length=f"{steps} steps",
                              train_precision=precision)
        train_noise_predictor(unet.requires_grad_(True), *latents, own, where)

    def through_encoder(precision: str) -> None:
        vae.requires_grad_(True)
        mean, std = _encode(vae, images, precision)
        # as much work as the gradient of the loss
        spread = 0 if std is None else std.square().mean()
        (mean.square().mean() + spread).backward()
        vae.zero_grad()

    precisions, more = ("float32", "bfloat16"), 20
    if where.type == "cpu":
        precisions, more = ("float32",), 2
    for precision in precisions:
        frozen = torch.no_grad()(partial(_encode, vae, images, precision))
        latents = frozen()
        first, longer, encoding, with_gradient = seconds(
            partial(train, 1, precision), partial(train, 1 + more, precision), frozen,
            partial(through_encoder, precision), repeats=1)
        step = (longer - first) / more
        rows[precision] = {"images_a_second": batch / step,
                           "every_epoch_over_once": (step + encoding) / step,
                           "through_encoder_over_once": (step + with_gradient) / step}
    kept = sum(part[0].numel() * 4 for part in latents if part is not None)
    return {"batch": batch, "rows": rows, "bytes_an_image": kept}


def _encode(vae, x0: Tensor, precision: str) -> tuple[Tensor, Tensor | None]:
    """The latents' mean and deviation, scaled; None for an autoencoder without any."""
    scale = vae.config.scaling_factor
    with mixed(x0.device, precision):
        out = vae.encode(x0)
    if not hasattr(out, "latent_dist"):
        return out.latents.float() * scale, None
    mean, std = out.latent_dist.mean, out.latent_dist.std
    return mean.float() * scale, std.float() * scale


def calls(detector: Detector, data: Path) -> dict:
    """Time and metrics of a test set by steps, U-Net calls and precision; and what a
    choice may rest on, the metrics of held-out good images as they are and with
    synthetic defects. The ranges are made anew on the held-out good images each time.
    Of a large test set each n-th image, MOST at most; one of them alone, by threads.
    """
    settings, test = detector.settings, load_test(data, detector.settings)
    every = -(-len(test.images) // MOST)
    test = TestSet(*(part[::every] for part in (
        test.images, test.masks, test.labels, test.kinds, test.paths)))
    held_out = drawn(load_good(data, settings)[1], settings)
    trial = Trial.of(held_out, settings.seed)
    chosen = [(settings.precision, PATHS)]
    if settings.precision != "bfloat16":
        chosen.append(("bfloat16", [PATHS[0], PATHS[0] | FAST]))
    rows = []
    for precision, paths in chosen:
        own = detector.under(settings.change(precision=precision))
        on_held_out = sweep(own, trial.images, trial.masks, paths, [{}]).table
        for path, held in zip(tqdm(paths, f"calls, {data.name}", leave=False),
                              on_held_out):
            one = own.under(own.settings.change(**path))
            one.set_ranges(held_out)
            started = time.perf_counter()
            found = one.predict(test.images)
            spent = (time.perf_counter() - started) / len(test.images)
            measured = summary(found.score, found.map, test)
            steps = path["ddim_steps"]
            rows.append(
                {"precision": precision, "steps": steps,
                 "calls": len(range(0, steps, path["call_every"])), "seconds": spent,
                 "alone": by_threads(partial(one.predict, test.images[:1]))}
                | {name: measured[name] for name in METRICS}
                | {"held_out": {name: held[name] for name in ("i_auroc", "pro")}})
    return {"images": len(test.images), "every": every, "held_out": len(held_out),
            "settings": portable(settings), "rows": rows}
