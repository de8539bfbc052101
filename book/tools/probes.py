"""Miniatures of the commands that make the records: what each computes, in seconds.

A record was made by hours of a code that has changed since. Whether the change matters
is told by a probe: the same command on a few small images, with three steps of
training. Its outcome is kept with the record. As long as the present code has the same
one, the record stands.
"""
from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
from PIL import Image
from records import figures

# between two machines with the same lock: of the value, and in itself
TOLERANCE, LEAST = 1e-3, 1e-5
EXACT = {"drawn": 1e-6, "counted": 1e-9}        # nothing is trained there
PROBED = ("p_auroc", "pro", "threshold", "score")
SIZE = 64
TINY = ["image_size=64", "vae=pixels", "timesteps=100", "train_timesteps=100",
        "T_max=40", "ddim_steps=2", "guidance=1", "unet_channels=[32]",
        "unet_layers=1", "train_length=3 steps", "train_batch=4", "train_vae=",
        "learning_rate=0.001", "held_out=0.4", "features=efficientnet-lite0",
        "neighbour_pool=4", "neighbours=3", "tune_epochs=1", "tune_batch=8",
        "calibration_images=8"]


def outcome(names: tuple[str, ...]) -> dict[str, float]:
    """What the probes give with the present code: "probe: figure" -> value."""
    return {f"{name}: {what}": float(f"{value:.12g}") for name in names
            for what, value in _run(name).items()}


@cache
def _run(name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        return PROBES[name](Path(folder))


def apart(then: dict[str, float], now: dict[str, float]) -> list[str]:
    """A sentence for each figure that only one outcome has, or that differs."""
    said = [f"{name} is in one outcome only" for name in sorted(then.keys() ^ now)]
    for name in sorted(then.keys() & now):
        bound = EXACT.get(name.split(":")[0], TOLERANCE)
        if not math.isclose(then[name], now[name], rel_tol=bound, abs_tol=LEAST):
            said.append(f"{name} was {then[name]:.6g}, is {now[name]:.6g}")
    return said


# --- images that no code of the package draws

def toy(root: Path) -> Path:
    """A product's folder: 20 images to train on, 4 good and 4 defective to test on."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    for part, n in (("train/good", 20), ("test/good", 4), ("test/square", 4)):
        for i in range(n):
            shift, tint = rng.uniform(-0.05, 0.05), rng.uniform(0.6, 0.9, 3)
            disc = np.hypot(y - 0.5 - shift, x - 0.5) < 0.3
            image = np.where(disc[..., None], tint, 0.2 + 0.2 * x[..., None])
            image += rng.normal(0, 0.02, image.shape)
            if part == "test/square":
                mask = np.zeros((SIZE, SIZE), bool)
                mask[20 : 28 + 6 * i, 16 : 26 + 4 * i] = True
                image[mask] = (0.1, 0.2, 0.9)
                _save(root / "ground_truth/square" / f"{i:02}_mask.png", mask)
            _save(root / part / f"{i:02}.png", image)
    return root


def _save(path: Path, levels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((levels.clip(0, 1) * 255).round().astype(np.uint8)).save(path)


def _ddad(*arguments: object) -> None:
    from ddad.cli import main
    if code := main([*map(str, arguments), "--device", "cpu"]):
        raise RuntimeError(f"ddad {arguments[0]} ended with {code}")


def _read(path: Path) -> dict[str, float]:
    """Of a record: its metrics and thresholds, and the mean of each row of scores.

    Not those of the autoencoder alone: pixels decode to themselves, so they are of
    rounding errors, and of the processor.
    """
    rows: dict[str, list[float]] = {}
    record = json.loads(path.read_text(encoding="utf-8"))
    for place, value in figures(record, PROBED).items():
        if "autoencoder_" not in place:
            rows.setdefault(re.sub(r"score\.\d+$", "score", place), []).append(value)
    return {place: float(np.mean(values)) for place, values in rows.items()}


# --- the commands

def train(folder: Path) -> dict[str, float]:
    """`ddad train --calibrate`, then `ddad evaluate` with all that it can add."""
    data, model = toy(folder / "toy"), folder / "model"
    _ddad("train", data, model, "--calibrate", "--set", *TINY)
    _ddad("evaluate", model, data, "--baselines", "--bootstrap", 3, "--regret", 4)
    return _read(model / "results.json")


def reproduce(folder: Path) -> dict[str, float]:
    toy(folder / "data" / "toy")
    _ddad("reproduce", "toy", folder / "data", folder / "runs", "--seeds", 0,
          "--presets", "clean", "paper", "official", "--set", *TINY)
    return _read(folder / "runs" / "receipt.json")


def ablate(folder: Path) -> dict[str, float]:
    _ddad("ablate", toy(folder / "toy"), folder / "out", "--seeds", 0, "--variants",
          "full method", "static steps", "noise added", "--set", *TINY)
    return _read(folder / "out" / "receipt.json")


# --- what the records of the drawn products rest on besides

def drawn(folder: Path) -> dict[str, float]:
    """An image of each product and kind: brightness, contrast, where it is bright, and
    the share that is defect.
    """
    from ddad.synthetic.products import KINDS, PRODUCTS, render
    found = {}
    for product in PRODUCTS:
        for kind in (None, *KINDS[product]):
            image, mask, name = render(product, 128, 7, kind)
            ramp = np.linspace(0, 1, image.size).reshape(image.shape)
            found |= {f"{product}.{name}.{what}": float(value) for what, value in (
                ("mean", image.mean()), ("std", image.std()),
                ("place", (ramp * image).mean()), ("defect", mask.mean()))}
    return found


def shipped(folder: Path) -> dict[str, float]:
    """What the shipped detectors say of a good image and a defective one."""
    from ddad.detector import Detector
    from ddad.synthetic.weights import WEIGHTS
    found = {}
    for product, x0 in _pairs().items():
        result = Detector.from_pretrained(WEIGHTS / product, device="cpu").predict(x0)
        for i, name in enumerate(("good", "defective")):
            found |= {f"{product}.{name}.score": result.score[i].item(),
                      f"{product}.{name}.map": result.map[i].mean().item()}
    return found


def decoded(folder: Path) -> dict[str, float]:
    """How far the embedded autoencoder's decodings of them lie from the images."""
    from ddad.detector import Detector
    from ddad.synthetic.weights import WEIGHTS
    space = Detector.from_pretrained(WEIGHTS / "board", device="cpu").projection
    return {product: (space.decode(space.encode(x0)) - x0).abs().mean().item()
            for product, x0 in _pairs().items()}


def _pairs() -> dict:
    """A good image and one with a defect of each product, (2, 3, 128, 128)."""
    import torch

    from ddad.synthetic.products import KINDS, PRODUCTS, render
    images = {product: [render(product, 128, 7, kind)[0]
                        for kind in (None, [*KINDS[product]][-1])]
              for product in PRODUCTS}
    return {product: torch.from_numpy(np.stack(pair)).permute(0, 3, 1, 2) / 127.5 - 1
            for product, pair in images.items()}


def counted(folder: Path) -> dict[str, float]:
    """Weights and operations: of the paper's U-Net, and of all networks at a small
    size.
    """
    import torch

    from ddad.noise_predictor import build_unet
    from ddad.reproduction.plan import counted as count
    from ddad.settings import preset
    with torch.device("meta"):
        unet = build_unet(preset("paper"), 4, 32)
    small = count(preset("clean").parse(TINY))
    return {"paper.unet": sum(w.numel() for w in unet.parameters()),
            **figures(small, ("parameters", "operations"))}


PROBES: dict[str, Callable[[Path], dict[str, float]]] = {
    f.__name__: f for f in (train, reproduce, ablate, drawn, shipped, decoded, counted)}
