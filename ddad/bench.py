"""What detection, training and metrics cost beside the networks themselves: `ddad bench`.

Two things are compared by a ratio of times taken in turns, in one run; the rest are seconds, bytes and, for fewer U-Net calls, metrics. There
the detectors are trained, elsewhere untrained: a cost does not depend on weights. At the scale "laptop" the networks are those of the
preset "clean" with an AutoencoderTiny; at "paper" they have the sizes of the preset "paper", with Stable Diffusion's autoencoder.
"""
from __future__ import annotations

import json
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor
from tqdm.auto import tqdm

from . import metrics, official
from .calibration import sweep, synthetic_defects
from .detector import Detector, pick_device, split
from .dynamic_noise import mean_distance
from .embedded import WEIGHTS
from .evaluation import load_held_out, load_test, load_train, summary
from .features import empty_features, load_features
from .inspection import inspect
from .latent_projection import AT_ONCE, mixed
from .manifest import peak_memory, versions, write_json
from .memory import reckon
from .noise_predictor import build_unet, cuda_graph
from .products import PRODUCTS, make
from .settings import FAST, Settings, preset
from .training import train_noise_predictor

SCALES = ("laptop", "paper")
RESNET_34 = dict(depths=[3, 4, 6, 3], hidden_sizes=[64, 128, 256, 512], layer_type="basic", embedding_size=64)


def seconds(*runs: Callable[[], object], repeats: int = 5) -> list[float]:
    """The median time of each of several runs, taken in turns after one round that is not counted; waits for a CUDA device."""
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


def board(pictures: Path) -> Path:
    """The folder of 80 good pictures of a board, 256 x 256; made, if it is not there."""
    make(pictures, ("board",), size=256, train=80, test_good=0, test_defect=0)
    return pictures / "board"


def networks(scale: str, **changes) -> tuple[Settings, torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    """Settings, autoencoder, U-Net and features, untrained, of a scale."""
    torch.manual_seed(0)
    settings = preset("clean", tune_epochs=0, **changes)
    if scale == "laptop":
        vae, phi = AutoencoderTiny(), load_features(settings)
    else:                                                              # Stable Diffusion's autoencoder and ResNet-34, without their weights
        sizes = ("unet_channels", "unet_layers", "unet_attention_from", "unet_heads")
        settings = settings.change(**{name: getattr(preset("paper"), name) for name in sizes})
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
                            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4, scaling_factor=0.18215)
        phi = empty_features(settings, RESNET_34)
    return settings, vae, build_unet(settings, 4, settings.image_size // 8), phi


def untrained(scale: str, images: Tensor, device: str, **changes) -> Detector:
    """A detector with a bank of `images` and with ranges from them; `changes` of its settings."""
    settings, vae, unet, phi = networks(scale, image_size=images.shape[-1], **changes)
    return Detector.fit(images, settings, held_out=images[:16], device=device, vae=vae, unet=unet, phi=phi)


def bare(detector: Detector, x0: Tensor) -> Callable[[], None]:
    """The network calls of one batch's detection and nothing else: encode, the U-Net's calls, decode, features of both."""
    precision, x0, projection = detector.settings.precision, x0.to(detector.device).contiguous(memory_format=torch.channels_last), detector.projection
    z0 = projection.encode(x0).contiguous(memory_format=torch.channels_last)
    t = torch.full((len(x0),), 40, device=detector.device)

    @torch.no_grad()
    def run() -> None:
        with mixed(detector.device, precision):
            for part in projection.parts(x0):
                projection.vae.encode(part)
            for _ in range(0, detector.settings.ddim_steps, detector.settings.call_every):
                detector.unet(z0, t)
            for part in projection.parts(z0):
                projection.vae.decode(part)
            detector.phi(x0)
        detector.phi(x0)                                               # of the input, in float32 always
    return run


def detection(pictures: Path, device: str, scale: str) -> dict:
    """Detection over its network calls timed bare, and the official evaluation over detection, in each precision and path; on a GPU also
    with compiled networks.
    """
    images = load_train(board(pictures), preset("clean"))
    x0, rows = images[:16], {}
    theirs = untrained(scale, images, device, first_call="below", self_neighbour=True)
    for network in (theirs.projection.vae, theirs.unet, theirs.phi):
        network.to(memory_format=torch.contiguous_format)              # as the official code has them
    paths = {"float32": {}, "bfloat16": {"precision": "bfloat16"}, "fast": FAST, "fast, bfloat16": FAST | {"precision": "bfloat16"}}
    if theirs.device.type == "cuda":
        paths["fast, bfloat16, compiled"] = paths["fast, bfloat16"]
    for name, changes in tqdm(paths.items(), "detection", leave=False):
        ours = untrained(scale, images, device, **changes)
        if name.endswith("compiled"):
            ours.compile()
        whole, alone, transcribed = seconds(partial(ours.predict, x0), bare(ours, x0), partial(official.evaluate, theirs, x0), repeats=3)
        rows[name] = {"seconds": whole / len(x0), "over_networks": whole / alone, "official_over_ours": transcribed / whole}
    return {"images": len(x0), "size": images.shape[-1], "rows": rows}


def layouts(pictures: Path, device: str, scale: str) -> dict:
    """What each network alone costs for 16 pictures by precision, memory layout and pictures at once, compiled or not, on a CUDA device also as
    one graph; each over float32, contiguous, all at once, as it comes. The autoencoder encodes and decodes.
    """
    settings, vae, unet, phi = networks(scale)
    where, plain, last = pick_device(device), torch.contiguous_format, torch.channels_last
    at_once = AT_ONCE if where.type == "cpu" else 16
    x0, z = torch.rand(16, 3, 256, 256, device=where) * 2 - 1, torch.randn(16, 4, 32, 32, device=where)
    t = torch.full((16,), 40, device=where)
    given = {"autoencoder": (vae, x0, ()), "U-Net": (unet, z, (t,)), "features": (phi, x0, ())}
    variants = {"float32": ("float32", plain, 16), "float32, channels last": ("float32", last, 16), "bfloat16": ("bfloat16", plain, 16),
                "bfloat16, channels last": ("bfloat16", last, 16)}
    if at_once < 16:
        variants[f"the same, {at_once} at once"] = ("bfloat16", last, at_once)
    rows, compiling = {}, {}
    for name, (network, x, rest) in given.items():
        def call(net, precision: str, layout, at_once: int, x=x, rest=rest) -> Callable[[], None]:
            net = net.to(where, memory_format=layout).eval()

            @torch.no_grad()
            def run() -> None:
                with mixed(where, precision):
                    for part in x.contiguous(memory_format=layout).split(at_once):
                        net(part, *(one[: len(part)] for one in rest))
            return run

        runs = {title: call(deepcopy(network), *variant) for title, variant in variants.items()}
        try:
            started = time.perf_counter()
            (run := call(torch.compile(deepcopy(network)), "bfloat16", last, at_once))()
            runs["the same, compiled"], compiling[name] = run, time.perf_counter() - started
        except Exception as error:                                     # no compiler on this machine is a result as well
            compiling[name] = f"{type(error).__name__}: not compiled here"
        if where.type == "cuda":
            runs["bfloat16, channels last, one CUDA graph"] = cuda_graph(call(deepcopy(network), "bfloat16", last, 16))
        taken = seconds(*runs.values(), repeats=3)
        rows[name] = {title: one / taken[0] for title, one in zip(runs, taken)}
    return {"time_over_float32": rows, "compiling": compiling}


def training(pictures: Path, device: str, scale: str) -> dict:
    """Images a second of training on latents encoded once, over encoding in every epoch, also with gradients through the encoder; on a GPU in
    both precisions, the encoder's like the U-Net's. A step is what some more steps add to the first, which pays for what is made once.
    """
    where = pick_device(device)
    settings, vae, unet, _ = networks(scale)
    batch = 2 if (scale, where.type) == ("paper", "cpu") else preset("paper" if scale == "paper" else "clean").train_batch
    vae, images = vae.to(where).eval(), load_train(board(pictures), settings)[:batch].to(where)
    scaling, kept, rows = vae.config.scaling_factor, None, {}

    def encode(precision: str) -> tuple[Tensor, Tensor | None]:
        with mixed(where, precision):
            out = vae.encode(images)
        if hasattr(out, "latent_dist"):
            return out.latent_dist.mean.float() * scaling, out.latent_dist.std.float() * scaling
        return out.latents.float() * scaling, None

    def train(steps: int, precision: str) -> object:
        own = settings.change(train_batch=batch, train_length=f"{steps} steps", train_precision=precision)
        return train_noise_predictor(unet.requires_grad_(True), *kept, own, where)

    def through_encoder(precision: str) -> tuple[Tensor, Tensor | None]:
        vae.requires_grad_(True)
        mean, std = encode(precision)
        (mean.square().mean() + (0 if std is None else std.square().mean())).backward()    # as much work as the gradient of the loss
        vae.zero_grad()
        return mean.detach(), None if std is None else std.detach()

    precisions, more = (("float32",), 2) if where.type == "cpu" else (("float32", "bfloat16"), 20)
    for precision in precisions:
        frozen = torch.no_grad()(partial(encode, precision))
        kept = frozen()
        first, longer, encoding, with_gradient = seconds(partial(train, 1, precision), partial(train, 1 + more, precision), frozen,
                                                         partial(through_encoder, precision), repeats=3)
        step = (longer - first) / more
        rows[precision] = {"images_a_second": batch / step, "every_epoch_over_once": (step + encoding) / step,
                           "through_encoder_over_once": (step + with_gradient) / step}
    return {"batch": batch, "rows": rows, "bytes_an_image": sum(part[0].numel() * 4 for part in kept if part is not None)}


def calls(detector: Detector, data: Path) -> dict:
    """Time and metrics of a test set by steps, U-Net calls and precision; and what a choice may rest on, the
    metrics of held-out good images as they are and with synthetic defects. The ranges are made anew on the held-out good images each time.
    """
    settings = detector.settings
    test, train, held_out = (load(data, settings) for load in (load_test, load_train, load_held_out))
    held_out = (split(train, settings)[1] if held_out is None else held_out)[: settings.calibration_images]
    damaged, masks = synthetic_defects(held_out, settings.seed)
    made, masks = torch.cat([held_out, damaged]), np.concatenate([np.zeros_like(masks), masks])
    paths = [{"ddim_steps": steps, "call_every": every} for steps, every in ((10, 1), (5, 1), (3, 1), (10, 2), (10, 3), (10, 4), (10, 5))]
    rows = []
    for precision, chosen in [(settings.precision, paths)] + [("bfloat16", [paths[0], paths[0] | FAST])] * (settings.precision != "bfloat16"):
        own = detector.under(settings.change(precision=precision))
        on_held_out = sweep(own, made, masks, chosen, (settings.lam,), (settings.latent_blur,))
        for path, held in zip(tqdm(chosen, f"calls, {data.name}", leave=False), on_held_out):
            one = own.under(own.settings.change(**path))
            one.set_ranges(held_out)
            started = time.perf_counter()
            found = one.predict(test.images)
            spent = (time.perf_counter() - started) / len(test.images)
            rows.append({"precision": precision, "steps": path["ddim_steps"], "calls": len(range(0, path["ddim_steps"], path["call_every"])),
                         "seconds": spent, **summary(found.score, found.map, test), "held_out": {name: held[name] for name in ("i_auroc", "pro")}})
    return {"images": len(test.images), "held_out": len(held_out), "settings": settings.as_dict(), "rows": rows}


def metric(pictures: Path, device: str, scale: str) -> dict:
    """PRO of 100 maps of 256 x 256, and the neighbours of 1000 images."""
    rng = np.random.default_rng(0)
    maps = np.stack([metrics.ndimage.gaussian_filter(rng.normal(size=(256, 256)), 4) for _ in range(100)]).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    for n in range(0, 100, 2):                                         # half are defective, with two regions each
        for _ in range(2):
            (y, x), side = rng.integers(0, 200, 2), int(rng.integers(4, 56))
            masks[n, y : y + side, x : x + side] = True
            maps[n, y : y + side, x : x + side] += 0.05
    exact, by_thresholds, sort, argsort = seconds(
        lambda: metrics.pro(maps, masks), lambda: official.pro(maps, masks), lambda: np.sort(maps.ravel()), lambda: np.argsort(maps.ravel()),
        repeats=3)
    detector = untrained(scale, load_train(board(pictures), preset("clean")), device)
    y = torch.randn(1000, detector.dynamic_noise.bank.shape[1], device=detector.device)
    x0 = load_train(board(pictures), detector.settings)[:16]
    near, whole = seconds(lambda: [mean_distance(part, y[:200], 20) for part in y.split(16)], lambda: detector.predict(x0), repeats=3)
    return {"pro_seconds": exact, "pro200_over_exact": by_thresholds / exact, "pro_over_sort": exact / sort, "pro_over_argsort": exact / argsort,
            "neighbours": {"images": 1000, "bank": 200, "features": y.shape[1], "seconds": near, "share_of_detection": near / (1000 * whole / 16)}}


def inspect_alone(model: Path, pictures: Path, out: Path, device: str) -> tuple[float, int]:
    """Seconds and peak memory of `inspect` on a folder; to be called in a process of its own."""
    detector = Detector.from_pretrained(model, device=device)
    started = time.perf_counter()
    inspect(detector, sorted(pictures.iterdir()), out)
    return time.perf_counter() - started, peak_memory(detector.device)


def scaling(pictures: Path, device: str, scale: str) -> dict:
    """Time an image and peak memory of `ddad detect`, overlays and maps written, by number of images and by their size."""
    rows, names = [], sorted((board(pictures) / "train" / "good").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for size, counts in ((128, (1, 10, 100, 1000)), (256, (16,)), (384, (16,)), (512, (16,))):
            settings, vae, unet, phi = networks("laptop", image_size=size)
            vae.save_pretrained(folder / "vae")
            good, model = load_train(board(pictures), settings)[:48], folder / f"detector-{size}"
            detector = Detector.fit(good, settings.change(vae=str(folder / "vae")), held_out=good[:4], device=device, unet=unet, phi=phi)
            detector.save_pretrained(model)
            for count in counts:
                given, out = folder / f"pictures-{size}-{count}", folder / f"out-{size}-{count}"
                given.mkdir()
                for n in range(count):
                    shutil.copy(names[n % len(names)], given / f"{n:04d}.png")
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    spent, peak = pool.submit(inspect_alone, model, given, out, device).result()
                rows.append({"size": size, "images": count, "seconds_an_image": spent / count, "peak_memory": peak})
    return {"rows": rows}


def memory(pictures: Path, device: str, scale: str) -> dict:
    """What fits a GPU at the paper's 256 x 256, with Stable Diffusion's autoencoder and the U-Net of either scale; on a GPU also what a
    detection and two steps of training of 16 pictures really hold at once, with the larger U-Net.
    """
    small, where, measured = lambda: build_unet(preset("clean"), 4, 32), pick_device(device), {}
    found = {"laptop": reckon(lambda: (networks("paper")[1], small(), networks("paper")[3])), "paper": reckon(lambda: networks("paper")[1:])}
    if where.type == "cuda":
        detector = untrained("paper", load_train(board(pictures), preset("clean")), device)
        latents, settings = torch.randn(16, 4, 32, 32), detector.settings.change(train_batch=16, train_length="2 steps")
        runs = {"detect": lambda: detector.predict(torch.zeros(16, 3, 256, 256)),
                "train": lambda: train_noise_predictor(networks("paper")[2], latents, None, settings, where)}
        for name, run in runs.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() if name == "train" else 0               # the detector, which is no part of training
            run()
            reckoned = found["paper"][name]["fixed"] + 16 * found["paper"][name]["an_image"]
            measured[name] = {"reckoned": reckoned, "measured": peak_memory(where) - before}
    return found | ({"of_16": measured} if measured else {})


def start_up(pictures: Path, device: str, scale: str) -> dict:
    """What `import ddad` adds to importing torch, and `ddad --help`; seconds."""
    python = lambda code: lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    torch_alone, both, page, detector = seconds(
        python("import torch"), python("import torch, ddad"), python("from ddad.cli import parser; parser().format_help()"),
        python("from ddad import Detector"), repeats=5)
    return {"import_torch": torch_alone, "import_ddad_beyond_torch": both - torch_alone, "help": page, "detector_class": detector}


SECTIONS = dict(detection=detection, layouts=layouts, training=training, metric=metric, scaling=scaling, memory=memory, start_up=start_up)


def bench(out: Path, device: str = "auto", scale: str = "laptop", only: list[str] | None = None, curves: list[tuple[Detector, Path]] = ()) -> dict:
    """Measure and write out/bench.json, section by section as each is done; sections not asked for are kept. Returns its content.

    only: names of SECTIONS, or "calls", which is the curves of the embedded products. curves: trained detectors with the folders of their
    data; without `only` these are measured and nothing else. Raises ValueError for an unknown section or scale.
    """
    names = only or ([] if curves else [*SECTIONS, "calls"])
    if unknown := set(names) - {*SECTIONS, "calls"}:
        raise ValueError(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join([*SECTIONS, 'calls'])}")
    if scale not in SCALES:
        raise ValueError(f"no scale is called {scale!r}; there are {', '.join(SCALES)}")
    path, pictures, where = out / "bench.json", out / "pictures", pick_device(device)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"sections": {}}
    made = {"device": str(where), "gpu": torch.cuda.get_device_name() if where.type == "cuda" else None, "scale": scale,
            "threads": torch.get_num_threads(), "versions": versions()}
    title = lambda name: name if scale == "laptop" else f"{name}, {scale}"
    measures = {title(name): partial(SECTIONS[name], pictures, device, scale) for name in names if name != "calls"}
    if "calls" in names:
        make(out / "products")
        curves = [*((Detector.from_pretrained(WEIGHTS / p, device=device), out / "products" / p) for p in PRODUCTS), *curves]
    measures |= {f"calls, {data.name}": partial(calls, detector, data) for detector, data in curves}
    for name, measure in tqdm(measures.items(), "bench"):
        found["sections"][name] = measure() | {"made": made}
        found |= headline(found["sections"])
        write_json(path, found)
    return found


def headline(sections: dict) -> dict:
    """The figures asked about most, of the sections that are there."""
    figures = {"unet_calls_saved": Settings.ddim_steps / len(range(0, Settings.ddim_steps, FAST["call_every"]))}
    if detection := sections.get("detection", sections.get("detection, paper")):
        rows, where = detection["rows"], "gpu" if detection["made"]["gpu"] else "cpu"
        fastest = rows.get("fast, bfloat16, compiled", rows["fast, bfloat16"])
        figures |= {"detect_over_networks": rows["float32"]["over_networks"], f"official_over_ours_{where}": fastest["official_over_ours"]}
    if "metric" in sections:
        figures["pro200_over_exact"] = sections["metric"]["pro200_over_exact"]
    return figures
