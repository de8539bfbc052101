"""What the claims of the method are worth: each switched off in turn."""
from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from ..data.product import load_held_out, load_test, load_train
from ..detector import Detector, Prediction
from ..evaluation.scoring import evaluate
from ..runtime.checkpoints import fitted
from ..runtime.files import write_json
from ..runtime.manifest import versions
from ..settings import Settings
from ..training import hold_out

# Each claim switched off: what changes in the settings of a fitted detector.
ONE_MAP = {"full method": {}, "latent map alone": {"lam": 1.0},
           "feature map alone": {"lam": 0.0}}
OTHER_PATH = {"noise added": {"noise": True}, "static steps": {"dynamic": False}}
UNTUNED, PIXELS = "features not fine-tuned", "pixels, not latents"


def ablate(root: Path, settings: Settings, seeds: list[int], out: Path, *, vae=None,
           device: str = "auto") -> list[dict]:
    """One row a seed and variant, kept in out/ablation.json; rows that are there
    already are not made again.

    For each seed a detector is trained in latents and another, of the same U-Net and
    constants, in pixels. Every variant gets its own map ranges from the same held-out
    good images; only the sampler's inputs differ, never the sampler.
    """
    path = out / "ablation.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    train, given = load_train(root, settings), load_held_out(root, settings)
    test = load_test(root, settings)
    fit = partial(Detector.fit, train, held_out=given, device=device)

    def fit_or_load(name: str, settings: Settings, vae) -> Detector:
        return fitted(
            out / name,
            lambda checkpoint: fit(settings, vae=vae, checkpoint=checkpoint),
            lambda saved: Detector.from_pretrained(saved, device=device, vae=vae))

    def add(variant: str, seed: int, detector: Detector,
            found: Prediction | None = None) -> Prediction:
        result, found = evaluate(detector, test, found=found)
        figures = ("i_auroc", "p_auroc", "pro", "p_ap")
        rows.append({"variant": variant, "seed": seed}
                    | {name: round(result[name], 4) for name in figures}
                    | {"settings": detector.settings.as_dict(), "versions": versions(),
                       "device": str(detector.device)})
        write_json(path, rows)
        return found

    for seed in seeds:
        seeded = settings.change(seed=seed)
        done = {row["variant"] for row in rows if row["seed"] == seed}
        missing = {*ONE_MAP, *OTHER_PATH, UNTUNED, PIXELS} - done
        if missing - {PIXELS}:
            detector = fit_or_load(f"latents-{seed}", seeded, vae)
            held_out = hold_out(train, seeded, given)[1]
            _switch_off(detector, held_out, missing, partial(add, seed=seed))
        if UNTUNED in missing:
            untuned = detector.settings.change(tune_epochs=0)
            unet = detector.networks.unet
            add(UNTUNED, seed, fit(untuned, vae=vae, unet=unet))
        if PIXELS in missing:
            in_pixels = seeded.change(vae="pixels", train_vae="")
            add(PIXELS, seed, fit_or_load(f"pixels-{seed}", in_pixels, None))
    return rows


def _switch_off(detector: Detector, held_out: Tensor, missing: set[str],
                add: Callable[..., Prediction]) -> None:
    """Those variants of one detector that are missing and need no training."""
    varied = lambda change: detector.under(detector.settings.change(**change))
    found = None
    for name, change in ONE_MAP.items():
        if name in missing:             # the same reconstructions, weighed differently
            found = add(name, detector=varied(change), found=found)
    for name, change in OTHER_PATH.items():
        if name in missing:
            variant = varied(change)
            variant.set_ranges(held_out)
            add(name, detector=variant)
