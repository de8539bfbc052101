"""The benchmark's sections on what surrounds the networks: metrics and neighbours, many
and large images, memory, and the start of a process.
"""
from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..data.product import load_train
from ..deploy.folder import inspect
from ..detector import Detector
from ..dynamic_noise import mean_distance
from ..evaluation import metrics, official
from ..noise_predictor import build_unet
from ..runtime.devices import peak_memory, pick_device
from ..settings import preset
from ..training import train_noise_predictor
from .memory import reckon
from .timing import board, networks, seconds, untrained

PROCESSES = 2
TOLD = {"as it comes": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
        "one thread each": {"OMP_NUM_THREADS": "1"},
        "one thread each, passive": {"OMP_NUM_THREADS": "1",
                                     "OMP_WAIT_POLICY": "PASSIVE"}}


def metric(drawn: Path, device: str, scale: str) -> dict:
    """PRO of 100 maps of 256 x 256, and the neighbours of 1000 images."""
    maps, masks = _maps_and_masks()
    pixels = maps.ravel()
    exact, by_thresholds, sort, argsort = seconds(
        partial(metrics.pro, maps, masks), partial(official.pro, maps, masks),
        partial(np.sort, pixels), partial(np.argsort, pixels), repeats=1)
    images = load_train(board(drawn), preset("clean"))
    detector = untrained(scale, images, device)
    y = torch.randn(1000, detector.memory_bank.y.shape[1], device=detector.device)
    near, whole = seconds(
        lambda: [mean_distance(part, y[:200], 20) for part in y.split(16)],
        lambda: detector.predict(images[:16]), repeats=1)
    return {"pro_seconds": exact, "pro200_over_exact": by_thresholds / exact,
            "pro_over_sort": exact / sort, "pro_over_argsort": exact / argsort,
            "neighbours": {"images": 1000, "bank": 200, "features": y.shape[1],
                           "seconds": near,
                           "share_of_detection": near / (1000 * whole / 16)}}


def _maps_and_masks() -> tuple[np.ndarray, np.ndarray]:
    """100 maps of 256 x 256, float32, and their masks, bool: every other one is
    defective, with two regions.
    """
    rng = np.random.default_rng(0)
    maps = [gaussian_filter(rng.normal(size=(256, 256)), 4) for _ in range(100)]
    maps = np.stack(maps).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    for n in range(0, 100, 2):
        for _ in range(2):
            (y, x), side = rng.integers(0, 200, 2), int(rng.integers(4, 56))
            masks[n, y : y + side, x : x + side] = True
            maps[n, y : y + side, x : x + side] += 0.05
    return maps, masks


def scaling(drawn: Path, device: str, scale: str) -> dict:
    """Time an image and peak memory of `ddad detect`, overlays and maps written, by
    number of images and by their size.
    """
    counts = {128: (1, 10, 100, 300), 256: (16,), 384: (8,), 512: (8,)}
    rows, names = [], sorted((board(drawn) / "train" / "good").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for size in counts:
            model = folder / f"detector-{size}"
            _save_detector(model, folder / "vae", drawn, device, size)
            for count in counts[size]:
                given = folder / f"images-{size}-{count}"
                given.mkdir()
                for n in range(count):
                    shutil.copy(names[n % len(names)], given / f"{n:04d}.png")
                out = folder / f"out-{size}-{count}"
                spent, peak = _in_a_process(inspect_alone, model, given, out, device)
                rows.append({"size": size, "images": count,
                             "seconds_an_image": spent / count, "peak_memory": peak})
    return {"rows": rows}


def _save_detector(model: Path, vae_folder: Path, drawn: Path, device: str,
                   size: int) -> None:
    """An untrained detector for images of size x size, small networks, saved."""
    settings, vae, unet, phi = networks("laptop", image_size=size)
    vae.save_pretrained(vae_folder)
    good = load_train(board(drawn), settings)[: settings.neighbours + 4]
    detector = Detector.fit(good, settings.change(vae=str(vae_folder)),
                            held_out=good[:4], device=device, unet=unet, phi=phi)
    detector.save_pretrained(model)


def _in_a_process(function: Callable, *arguments):
    """What the function returns in a new process, whose memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def inspect_alone(model: Path, images: Path, out: Path,
                  device: str) -> tuple[float, int]:
    """Seconds and peak memory of `inspect` on a folder; to be called in a process of
    its own.
    """
    detector = Detector.from_pretrained(model, device=device)
    started = time.perf_counter()
    inspect(detector, sorted(images.iterdir()), out)
    return time.perf_counter() - started, peak_memory(detector.device)


def memory(drawn: Path, device: str, scale: str) -> dict:
    """What fits a GPU at the paper's 256 x 256, with Stable Diffusion's autoencoder and
    the U-Net of either scale; on a GPU also what a detection and two steps of training
    of 16 images really hold at once, with the larger U-Net.
    """
    where = pick_device(device)

    def with_small_unet():
        _, vae, _, phi = networks("paper")
        return vae, build_unet(preset("clean"), 4, 32), phi

    found = {"laptop": reckon(with_small_unet),
             "paper": reckon(lambda: networks("paper")[1:])}
    if where.type == "cuda":
        found["of_16"] = _measured(drawn, where, found["paper"])
    return found


def _measured(drawn: Path, where: torch.device, reckoned: dict) -> dict:
    """Bytes that a detection and a training of 16 images held on a CUDA device, beside
    those reckoned.
    """
    images = load_train(board(drawn), preset("clean"))
    detector = untrained("paper", images, str(where))
    x0, latents = torch.zeros(16, 3, 256, 256), torch.randn(16, 4, 32, 32)
    settings = detector.settings.change(train_batch=16, train_length="2 steps")

    def train() -> None:
        train_noise_predictor(networks("paper")[2], latents, None, settings, where)

    rows = {}
    for name, run in (("detect", lambda: detector.predict(x0)), ("train", train)):
        torch.cuda.reset_peak_memory_stats()
        # the detector is no part of training
        before = torch.cuda.memory_allocated() if name == "train" else 0
        run()
        total = reckoned[name]["fixed"] + 16 * reckoned[name]["an_image"]
        rows[name] = {"reckoned": total, "measured": peak_memory(where) - before}
    return rows


def together(drawn: Path, device: str, scale: str) -> dict:
    """A step's time where two processes train at once on the CPU, by what they are told
    of threads.
    """
    code = "from ddad.reproduction.overheads import a_step; print(a_step())"
    rows, command = {}, [sys.executable, "-c", code]
    for name, told in TOLD.items():
        known = {key: value for key, value in os.environ.items()
                 if not key.startswith("OMP_")}
        both = [subprocess.Popen(command, env=known | told, text=True,
                                 stdout=subprocess.PIPE) for _ in range(PROCESSES)]
        rows[name] = statistics.mean(float(one.communicate()[0]) for one in both)
    return {"processes": PROCESSES, "cores": os.cpu_count(), "rows": rows}


def a_step() -> float:
    """The median time of a step of the small U-Net's training, seconds."""
    _, _, unet, _ = networks("laptop", image_size=128)
    z, t = torch.randn(16, 4, 16, 16), torch.full((16,), 40)
    return seconds(lambda: unet(z, t).sample.square().mean().backward(), repeats=20)[0]


def start_up(drawn: Path, device: str, scale: str) -> dict:
    """What `import ddad` adds to importing torch, and `ddad --help`; seconds."""
    def python(code: str) -> Callable[[], object]:
        command = [sys.executable, "-c", code]
        return partial(subprocess.run, command, check=True, capture_output=True)

    torch_alone, both, page, detector = seconds(
        python("import torch"), python("import torch, ddad"),
        python("from ddad.cli import parser; parser().format_help()"),
        python("from ddad import Detector"))
    return {"import_torch": torch_alone, "import_ddad_beyond_torch": both - torch_alone,
            "help": page, "detector_class": detector}
