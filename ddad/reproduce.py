"""Reproduction: categories x presets x seeds, one folder a run, and all that a second person needs to check it.

A run is a folder OUT/<category>/<preset>-<seed> with the detector and run.json, written last: a run that has one is done.
"""
from __future__ import annotations

import hashlib
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .data import DataError, held_out_items, test_items, train_items
from .detector import Detector, split
from .evaluation import evaluate, load_held_out, load_test, load_train
from .latent_projection import weights_hash
from .manifest import peak_memory, read_manifest, sha256, versions, write_json
from .metrics import PixelRanking
from .questions import ask, short
from .settings import Settings, SettingsError, preset
from .training import forget
from .writing import sole_writer, whole

RUN, CHECKPOINT = "run.json", "training.safetensors"
BY_CATEGORY = Path(__file__).parent / "by_category"
# "laptop": sizes of the networks, length and course of their training; of the table that tells the presets apart only the rows of those.
SCALES: dict[str, dict] = {
    "paper": {},
    "laptop": dict(image_size=128, unet_channels=(32, 64, 96), unet_layers=1, unet_attention_from=1, unet_heads=0, neighbour_pool=4, train_vae="",
                   train_length="300 steps", train_batch=16, learning_rate=1e-3, learning_rate_schedule="one-cycle", ema=0.999,
                   features="efficientnet-lite0", tune_batch=16),
}


@dataclass(frozen=True)
class Run:
    """One cell of the matrix."""

    category: str
    preset: str
    seed: int

    def folder(self, out: Path) -> Path:
        return out / self.category / f"{self.preset}-{self.seed}"


def settings_of(run: Run, scale: str, table: dict | None, changes: list[str], vae: str | None) -> Settings:
    """The preset at a scale; then the category's settings, where a table is given; then the changes by hand. SettingsError."""
    if scale not in SCALES:
        raise SettingsError(f"no scale is called {scale!r}; there are {', '.join(SCALES)}")
    settings = preset(run.preset, **SCALES[scale], seed=run.seed)
    settings = settings.change(**(table["categories"].get(run.category, {}) if table else {})).parse(changes)
    return settings.change(vae=vae) if vae else settings


def by_category(name: str | None) -> dict | None:
    """A table of settings by category: one of those in ddad/by_category, or a file of the same form. SettingsError."""
    if name is None:
        return None
    path = Path(name) if name.endswith(".json") else BY_CATEGORY / f"{name}.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        told = (table[key] for key in ("title", "source", "provenance", "test_data"))
        if not all(isinstance(text, str) for text in told) or not isinstance(table["categories"], dict):
            raise KeyError("a field is of the wrong kind")
        for category, chosen in table["categories"].items():
            if not isinstance(chosen, dict) or any(".py:" in str(chosen.get(key)) for key in ("vae", "train_vae")):
                raise ValueError(f"{category} holds no settings, or one that names code to run, which only --vae may")
        return table
    except (OSError, ValueError, KeyError, TypeError) as error:
        there = ", ".join(sorted(p.stem for p in BY_CATEGORY.glob("*.json")))
        raise SettingsError(f"{path} is no table of settings by category ({error}): it needs title, source, provenance, test_data and "
                            f"categories; shipped are {there}") from error


def reproduce(run: Run, dataset: str, data: Path, out: Path, settings: Settings, *, table: dict | None = None, vae=None, device: str = "auto",
              calibrate: bool = False, maps: bool = False) -> dict:
    """Train, evaluate and question one detector; its run.json, or, where that is written already, what it holds.

    Killed at any point and started again, it goes on from the last checkpoint or the saved detector, to the same metrics. calibrate:
    choose the constants of the presets "clean" and "fast" without test data; the others' are part of what they are. maps: keep the anomaly maps.
    Raises DataError, SettingsError where the folder holds a run of other settings, and WriteError where another process makes this
    run, or the folder cannot be written to.
    """
    folder = run.folder(out)
    with sole_writer(folder / ".lock", folder / "detector", folder / CHECKPOINT):
        return _reproduce(run, folder, dataset, data, settings, table, vae, device, calibrate and run.preset in ("clean", "fast"), maps)


def _reproduce(run: Run, folder: Path, dataset: str, data: Path, settings: Settings, table, vae, device: str, calibrate: bool, maps: bool) -> dict:
    asked = {"dataset": dataset, "category": run.category, "preset": run.preset, "seed": run.seed, "asked": _portable(settings.as_dict()),
             "calibrate": calibrate, "by_category": {k: v for k, v in table.items() if k != "categories"} if table else None}
    if (folder / RUN).exists():
        kept = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if other := [name for name in asked if kept.get(name) != json.loads(json.dumps(asked[name]))]:
            raise SettingsError(f"{folder} holds a run with another {', '.join(other)}; choose another folder, or delete it")
        return kept
    held_out, test = load_held_out(data, settings), load_test(data, settings)
    train = load_train(data, settings)
    checkpoint = folder / CHECKPOINT
    if not (folder / "detector").exists():
        fitted = Detector.fit(train, settings, held_out=held_out, device=device, vae=vae, calibrate=calibrate, checkpoint=checkpoint)
        fitted.save_pretrained(folder / "detector")
    forget(checkpoint)
    detector = Detector.from_pretrained(folder / "detector", device=device, vae=vae)
    started = time.perf_counter()
    result, found = evaluate(detector, test)
    seconds = detector.record["seconds"] | {"detect and score": round(time.perf_counter() - started, 2)}
    A, by_area = found.map.numpy(), settings.change(mask_rule="area")
    binary = (test.masks if settings == by_area else load_test(data, by_area).masks) > 0.5      # one rule for all presets, beside their own
    ranking = PixelRanking(A, binary)
    overlap, regions = ranking.overlap_by_image()
    if maps:
        with whole(folder / "maps.npy") as aside, aside.open("wb") as file:
            np.save(file, A)
    record = asked | {
        "settings": _portable(detector.settings.as_dict()), "result": result | {"pro_exact": ranking.pro(0.3)},
        "images": {"image": [path.relative_to(data).as_posix() for path in test.paths], "kind": test.kinds, "area": short(binary.mean(axis=(1, 2))),
                   "regions": regions.tolist(), "score": short(found.score.numpy()), "overlap": short(overlap), "T_hat": found.T_hat.tolist(),
                   "bin": found.bin.tolist(), "distance": short(found.distance.numpy())},
        "data": fingerprint(data), "weights": read_manifest(folder / "detector")["sha256"] | {"vae": weights_hash(detector.projection.vae)},
        "held_out_from": detector.record["held_out_from"], "train": detector.record["images"], "held_out": detector.record["held_out"],
        "training": detector.record.get("training"), "versions": versions(), "device": str(detector.device), "commit": commit(),
        "cost": {"seconds": seconds, "images": len(A), "peak_memory": peak_memory(detector.device),
                 "peak_memory_by_stage": detector.record.get("peak_memory"),
                 "parameters": {"unet": _count(detector.unet), "vae": _count(detector.projection.vae), "features": _count(detector.phi)}},
    }
    if run.preset == "clean":
        good = split(train, settings)[1] if held_out is None else held_out
        record["questions"] = ask(detector, train, good, test, found, every_constant=run.seed == 0)
    write_json(folder / RUN, record)
    return record


def _portable(settings: dict) -> dict:
    """Settings without folders of this machine: an autoencoder's file is recorded by its name, its weights by their hash."""
    name = settings["vae"]
    return settings | {"vae": name if "/" not in name or not (".py:" in name or Path(name).is_dir()) else Path(name).name}


def _count(network) -> int:
    return sum(p.numel() for p in network.parameters()) if isinstance(network, torch.nn.Module) else 0


def fingerprint(root: Path) -> dict:
    """What a category's folder holds: number of pictures for each use, and a SHA-256 over the names and bytes of all of them and their masks.

    Another split of the same pictures has another hash. Raises DataError.
    """
    uses = {"train": train_items(root), "validation": held_out_items(root), "test": test_items(root)}
    digest = hashlib.sha256()
    for use, items in uses.items():
        for item in items:
            masks = [] if item.mask is None else sorted(item.mask.iterdir()) if item.mask.is_dir() else [item.mask]
            for path in (item.path, *masks):
                digest.update(f"{use} {item.kind} {path.relative_to(root).as_posix()} {sha256(path)}\n".encode())
    return {name: len(items) for name, items in uses.items()} | {"sha256": digest.hexdigest()}


def commit() -> str | None:
    """The package's commit, with -dirty when files differ from it; None outside a checkout."""
    try:
        done = subprocess.run(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
                              capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def categories_in(data: Path) -> list[str]:
    """The categories that lie in a data set's folder, sorted: those of its folders that hold good training images. DataError."""
    found = []
    for folder in sorted(path for path in data.glob("[!.]*") if path.is_dir()):
        try:
            train_items(folder)
            found.append(folder.name)
        except DataError:
            continue
    if not found:
        raise DataError(f"{data} holds no category: give the folder that holds the categories' folders, each with its training pictures")
    return found
