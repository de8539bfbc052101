"""What the claims of the method are worth: each switched off in turn, and how well its constants are chosen without test data."""
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from .calibration import BLUR, CHOSEN, LAMBDA, best, grid, sweep
from .detector import Detector, Prediction, split
from .evaluation import TestSet, evaluate, load_held_out, load_test, load_train
from .manifest import versions, write_json
from .settings import Settings

# Each claim switched off: what changes in the settings of a fitted detector.
ONE_MAP = {"full method": {}, "latent map alone": {"lam": 1.0}, "feature map alone": {"lam": 0.0}}
OTHER_PATH = {"noise added": {"noise": True}, "static steps": {"dynamic": False}}


def ablate(root: Path, settings: Settings, seeds: list[int], out: Path, *, vae=None, device: str = "auto") -> list[dict]:
    """One row a seed and variant, kept in out/ablation.json; rows that are there already are not made again.

    For each seed a detector is trained in latents and another, of the same U-Net and constants, in pixels. Every variant
    gets its own map ranges from the same held-out good images; only the sampler's inputs differ, never the sampler.
    """
    path = out / "ablation.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    images, validation, test = (load(root, settings) for load in (load_train, load_held_out, load_test))
    fit = partial(Detector.fit, images, held_out=validation, device=device)

    def add(name: str, seed: int, detector: Detector, found: Prediction | None = None) -> Prediction:
        result, found = evaluate(detector, test, found=found)
        figures = {k: round(result[k], 4) for k in ("i_auroc", "p_auroc", "pro", "p_ap")}
        made_with = {"settings": detector.settings.as_dict(), "versions": versions(), "device": str(detector.device)}
        rows.append({"variant": name, "seed": seed, **figures, **made_with})
        write_json(path, rows)
        return found

    for seed in seeds:
        seeded, done = settings.change(seed=seed), {row["variant"] for row in rows if row["seed"] == seed}
        if {*ONE_MAP, *OTHER_PATH, "features not fine-tuned"} - done:
            detector = _fit_or_load(fit, out / f"latents-{seed}", seeded, vae, device)
            held_out = split(images, seeded)[1] if validation is None else validation
            found = None
            for name, change in ONE_MAP.items():                      # the same reconstructions, weighed differently
                if name not in done:
                    found = add(name, seed, detector.under(detector.settings.change(**change)), found)
            for name, change in OTHER_PATH.items():
                if name not in done:
                    variant = detector.under(detector.settings.change(**change))
                    variant.set_ranges(held_out)
                    add(name, seed, variant)
            if "features not fine-tuned" not in done:
                untuned = detector.settings.change(tune_epochs=0)
                add("features not fine-tuned", seed, fit(untuned, vae=vae, unet=detector.unet))
        if "pixels, not latents" not in done:
            add("pixels, not latents", seed, _fit_or_load(fit, out / f"pixels-{seed}", seeded.change(vae="pixels", train_vae=""), None, device))
    return rows


def _fit_or_load(fit, folder: Path, settings: Settings, vae, device: str) -> Detector:
    if not folder.exists():
        checkpoint = folder.with_name(folder.name + ".safetensors")
        fit(settings, vae=vae, checkpoint=checkpoint).save_pretrained(folder)
    return Detector.from_pretrained(folder, device=device, vae=vae)


def regret(detector: Detector, test: TestSet, every: int = 1) -> dict:
    """How far the chosen constants are from the best of the calibration's own grid on the test set: shown, never used.

    every: take each n-th test image only, where the whole sweep would take too long.
    """
    images, masks = test.images[::every], test.masks[::every] > 0.5
    chosen = {name: getattr(detector.settings, name) for name in CHOSEN}
    table = sweep(detector, images, masks, grid(detector.settings) + [{name: chosen[name] for name in CHOSEN[:3]}],
                  (*LAMBDA, chosen["lam"]), dict.fromkeys((*BLUR, chosen["latent_blur"])))
    on_test = next(row for row in table if {name: row[name] for name in CHOSEN} == best(table))
    of_choice = next(row for row in table if {name: row[name] for name in CHOSEN} == chosen)
    return {"chosen": of_choice, "best_on_test": on_test, "images": len(images), "table": table,
            "regret": {name: on_test[name] - of_choice[name] for name in ("i_auroc", "pro")}}
