"""Point 6: training on many images, whose number memory does not follow."""
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from conftest import good_images, tiny_vae
from killed import SMALL, forked
from PIL import Image
from run import Check
from transformers import ResNetConfig, ResNetModel

from ddad.cli import main
from ddad.data import images

SIDE = 256                              # pixels
IMAGE, MOST = 12 * SIDE**2 / 1000, 200  # kB: an image in float32; what one may add
# few steps of a small network; a step for each region needs patches as well
CHANGED = SMALL | {"image_size": SIDE, "train_length": "3 steps", "ddim_steps": 1,
                   "patch_bank": 500, "held_out": 0.1}


def make_images(folder: Path, count: int, seed: int) -> Path:
    """So many good images of SIDE x SIDE pixels, no two alike."""
    (folder / "train" / "good").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    base = ((good_images(16, SIDE).permute(0, 2, 3, 1).numpy() + 1) * 127.5).round()
    for n in range(count):
        levels = base[n % 16] + rng.normal(0, 8, (SIDE, 1, 3))
        image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        image.save(folder / "train" / "good" / f"{n:06}.jpg")
    return folder


def train(scratch: Path, count: int, held: int, seed: int) -> int:
    """A training on so many images, with networks that were never trained; more than
    `held` images are not held.
    """
    images.HELD = min(images.HELD, held * 12 * SIDE**2)
    data = make_images(scratch / "data", count, seed)
    tiny_vae().save_pretrained(scratch / "vae")
    small = ResNetConfig(embedding_size=16, hidden_sizes=[16, 16, 32, 32],
                         depths=[1, 1, 1, 1], layer_type="basic")
    ResNetModel(small).save_pretrained(scratch / "features")
    changed = CHANGED | {"features": str(scratch / "features")}
    given = [f"{name}={json.dumps(value)}" for name, value in changed.items()
             if name != "vae"]
    return main(["train", str(data), str(scratch / "model"), "--device", "cpu", "--vae",
                 str(scratch / "vae"), "--preset", "regional", "--set", *given])


def peak(count: int, held: int, seed: int) -> tuple[int, float, str]:
    """Its exit code, MB at the most, and output."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        log = scratch / "log"
        pid = forked(partial(train, scratch, count, held, seed), str(log))
        _, status, used = os.wait4(pid, 0)
        said = log.read_text(encoding="utf-8", errors="replace")
        return os.waitstatus_to_exitcode(status), used.ru_maxrss / 1000, said


def many_trained(count: int, seed: int):
    """Trainings on a fourteenth, two sevenths and all of `count` images, of which the
    first may hold its images.
    """
    peaks, failures, started = {}, [], time.monotonic()
    for n in (count // 14, 2 * count // 7, count):
        code, peaks[n], said = peak(n, count // 14, seed)
        if code:
            failures.append(f"{n} images: it ended with {code}: {said[-300:]}")
    _, (few, low), (many, high) = peaks.items()
    each = (high - low) * 1000 / (many - few)
    if each > MOST:
        failures.append(f"an image adds {each:.0f} kB, more than {MOST}")
    shown = ", ".join(f"{n} images {mb:.0f}" for n, mb in peaks.items())
    return {"MB in memory at the most": shown,
            "kB that an image adds": round(each),
            "kB of an image in float32": round(IMAGE),
            "seconds": round(time.monotonic() - started)}, failures


CHECKS = [
    Check("many-trained", 6,
          f"`ddad train` on pictures of {SIDE} pixels a side, with a small network and "
          "few steps, in memory that hardly grows with their number: an image adds at "
          f"most {MOST} kB, which latents and features are",
          many_trained, 7000, 8),
]
