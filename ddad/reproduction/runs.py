"""Reproduction: categories x presets x seeds, one folder a run, and all that a second
person needs to check it.

A run is a folder OUT/<category>/<preset>-<seed> with the detector and run.json, written
last: a run that has one is done.
"""
from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import saved_model
from ..data.images import Images, held_out_items, test_items, train_items
from ..data.layouts import CONFIG, GROUPS, Item, beside, list_images
from ..data.product import TestSet, load_held_out, load_test, load_train
from ..detector import Detector, Prediction
from ..evaluation.baselines import one_call
from ..evaluation.by_image import areas, parts, short
from ..evaluation.metrics import PixelRanking
from ..evaluation.scoring import evaluate, lacking
from ..networks.autoencoders import load_vae
from ..networks.features import load_features
from ..runtime.checkpoints import fitted
from ..runtime.devices import peak_memory
from ..runtime.errors import DataError, SettingsError
from ..runtime.files import sha256, sole_writer, whole, write_json
from ..runtime.latent_cache import weights_hash
from ..runtime.manifest import read_manifest, versions
from ..settings import EPS_THETA, Settings, preset, shaping
from ..training import hold_out
from .questions import PATHS, ask

RUN, DETECTOR, MAPS = "run.json", "detector", "maps.npy"
MADE_FROM = "made_from.json"
BY_CATEGORY = Path(__file__).parent / "by_category"
# "laptop": sizes of the networks, length and course of their training; of the table
# that tells the presets apart only the rows of those.
SCALES: dict[str, dict] = {
    "paper": {},
    "laptop": dict(
        image_size=128, unet_channels=(32, 64, 96), unet_layers=1,
        unet_blocks="diffusers", unet_attention_from=1, unet_attention_to=9,
        unet_heads=0, neighbour_pool=4, train_vae="", train_length="300 steps",
        train_batch=16, train_order="drawn", learning_rate=1e-3,
        learning_rate_schedule="one-cycle", ema=0.999, features="efficientnet-lite0",
        tune_batch=16),
}


@dataclass(frozen=True)
class Run:
    """One cell of the matrix."""

    category: str
    preset: str
    seed: int

    def folder(self, out: Path) -> Path:
        return out / self.category / f"{self.preset}-{self.seed}"


def settings_of(run: Run, scale: str, table: dict | None, changes: list[str],
                vae: str | None) -> Settings:
    """The preset at a scale; then the category's settings, where a table is given; then
    the changes by hand. SettingsError.
    """
    if scale not in SCALES:
        there = ", ".join(SCALES)
        raise SettingsError(f"no scale is called {scale!r}; there are {there}")
    of_category = table["categories"].get(run.category, {}) if table else {}
    settings = preset(run.preset, **SCALES[scale], seed=run.seed)
    settings = settings.change(**of_category).parse(changes)
    return settings.change(vae=vae) if vae else settings


def by_category(name: str | None) -> dict | None:
    """A table of settings by category: one of those in the folder by_category, or a
    file of the same form. SettingsError.
    """
    if name is None:
        return None
    path = Path(name) if name.endswith(".json") else BY_CATEGORY / f"{name}.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        _check_table(table)
        return table
    except (OSError, ValueError, KeyError, TypeError) as error:
        there = ", ".join(sorted(path.stem for path in BY_CATEGORY.glob("*.json")))
        raise SettingsError(
            f"{path} is no table of settings by category ({error}): it needs title, "
            f"source, provenance, test_data and categories; shipped are {there}"
        ) from error


def _check_table(table: dict) -> None:
    told = [table[key] for key in ("title", "source", "provenance", "test_data")]
    words = all(isinstance(text, str) for text in told)
    if not words or not isinstance(table["categories"], dict):
        raise KeyError("a field is of the wrong kind")
    for category, chosen in table["categories"].items():
        names_code = isinstance(chosen, dict) and any(
            ".py:" in str(chosen.get(key)) for key in ("vae", "train_vae"))
        if not isinstance(chosen, dict) or names_code:
            raise ValueError(f"{category} holds no settings, or one that names code to "
                             "run, which only --vae may")


def reproduce(run: Run, dataset: str, data: Path, out: Path, settings: Settings, *,
              table: dict | None = None, vae=None, device: str = "auto",
              calibrate: bool = False, maps: bool = False) -> dict:
    """Train, evaluate and question one detector; its run.json, or, where that is
    written already, what it holds.

    Killed at any point and started again, it goes on from the last checkpoint or the
    saved detector, to the same metrics. calibrate: choose the constants without
    test data, but not those of the presets "paper" and "official", which are part of
    what they are. maps: keep the anomaly maps. Raises DataError, SettingsError where
    the folder holds a run of other settings, and WriteError where another process makes
    this run, or the folder cannot be written to.
    """
    folder = run.folder(out)
    calibrate = calibrate and run.preset not in ("paper", "official")
    asked = _asked(run, dataset, settings, calibrate, table)
    for change in PATHS.values() if run.preset == "clean" else ():
        settings.change(**change)       # refused before the training, not after it
    with sole_writer(folder / ".lock", folder / RUN, folder / MAPS):
        made_of = sources(data, settings, vae)
        if not (finished := (folder / RUN).exists()):
            held_out, test = load_held_out(data, settings), load_test(data, settings)
            if reason := lacking(test):             # before the training
                raise DataError(f"{data}: {reason}; a run needs good and defective "
                                "images with masks")
        refuse_others(folder, asked | made_of, folder.glob("[!.]*"))
        if finished:
            return json.loads((folder / RUN).read_text(encoding="utf-8"))
        train = load_train(data, settings)
        detector = fitted(
            folder / DETECTOR,
            lambda checkpoint: _trained(
                folder, made_of, train, settings, held_out=held_out, device=device,
                vae=vae, calibrate=calibrate, checkpoint=checkpoint),
            lambda saved: Detector.from_pretrained(saved, device=device, vae=vae))
        started = time.perf_counter()
        result, found = evaluate(detector, test)
        seconds = round(time.perf_counter() - started, 2)
        if maps:
            with whole(folder / MAPS) as aside, aside.open("wb") as file:
                np.save(file, found.map.numpy())
        test = by_area(test, data, settings)
        record = asked | measured(detector, data, test, result, found)
        record |= made_with(detector, fingerprint(data), folder / DETECTOR)
        record |= {"cost": cost(detector, seconds, len(test.images))}
        good = hold_out(train, settings, held_out)[1]
        if run.preset == "regional":
            # it has no threshold to keep images for: all of them choose its step
            record["one_call"] = one_call(detector, good, test)
        if run.preset == "clean":
            record["questions"] = ask(detector, train, held_out, test, found,
                                      every_constant=run.seed == 0)
        write_json(folder / RUN, record)
    return record


def _trained(folder: Path, made_of: dict, train: Images, settings: Settings, **how
             ) -> Detector:
    """A detector of one run. Where a finished run beside it has trained a U-Net from
    the same images under the same settings, with the same seed, that one is taken: a
    second training would end with the same weights.
    """
    trained_with, own = (*shaping(EPS_THETA), "train_length"), portable(settings)
    own = json.loads(json.dumps(own))
    for path in sorted(folder.parent.glob(f"*/{MADE_FROM}")):
        if not path.with_name(RUN).exists():
            continue
        made_from, run = (json.loads(file.read_text(encoding="utf-8"))
                          for file in (path, path.with_name(RUN)))
        if (run.get("training") and made_of.items() <= made_from.items()
                and all(run["asked"].get(name) == own[name] for name in trained_with)):
            unet = saved_model.read(path.parent / DETECTOR).unet
            detector = Detector.fit(train, settings, unet=unet, **how)
            detector.record["training"] = run["training"]
            return detector
    return Detector.fit(train, settings, **how)


def _asked(run: Run, dataset: str, settings: Settings, calibrate: bool,
           table: dict | None) -> dict:
    """What the run was asked to be: a finished one is kept only under the same."""
    told = {k: v for k, v in table.items() if k != "categories"} if table else None
    return {"dataset": dataset, "category": run.category, "preset": run.preset,
            "seed": run.seed, "asked": portable(settings), "calibrate": calibrate,
            "by_category": told}


def sources(root: Path, settings: Settings, vae) -> dict:
    """What a run is made from beside its settings: images, masks and split, groups and
    regions; the pretrained networks. vae: in place of the one that the settings name.
    """
    tables = {name: sha256(path) for name in (GROUPS, CONFIG)
              if (path := beside(root, name))}
    return {"images, masks and split": fingerprint(root)["sha256"],
            "the autoencoder's weights": weights_hash(
                load_vae(settings.vae) if vae is None else vae),
            "the features' weights": weights_hash(load_features(settings))} | tables


def refuse_others(out: Path, made_from: dict, held: Iterable[Path]) -> None:
    """Notes in `out` what its runs are made from; SettingsError where that is noted
    already and was something else, or where `out` holds runs without that note.
    """
    path, here = out / MADE_FROM, json.loads(json.dumps(made_from))
    if not path.exists():
        if any(held):
            raise SettingsError(f"{out} holds runs and no {MADE_FROM}, which says what "
                                "they were made from; choose another folder")
        write_json(path, here)
    there = json.loads(path.read_text(encoding="utf-8"))
    short = lambda value: value[:12] if isinstance(value, str) else value
    differs = [f"{name} ({short(there.get(name))}, now {short(here.get(name))})"
               for name in {**there, **here} if there.get(name) != here.get(name)]
    if differs:
        raise SettingsError(f"{out} was made from other: {', '.join(differs)}; choose "
                            "another folder, or delete it")


def by_area(test: TestSet, data: Path, settings: Settings) -> TestSet:
    """The test images under one rule of masks for all presets, beside their own."""
    area = settings.change(mask_rule="area")
    return test if settings == area else load_test(data, area)


def measured(detector: Detector, data: Path, test: TestSet, result: dict,
             found: Prediction) -> dict:
    """The metrics, and of each test image all that they can be computed again from.

    test: with its masks by area.
    """
    masks = test.masks > 0.5
    ranking = PixelRanking(found.map.numpy(), masks)
    d, b = found.distance, found.bin        # None where no features are compared
    images = {
        "image": [path.relative_to(data).as_posix() for path in test.paths],
        "kind": test.kinds, "area": areas(masks),
        "regions": ranking.overlap_by_image()[1].tolist(),
        "group": None if test.groups is None else test.groups.tolist(),
        "T_hat": found.T_hat.tolist(),
        "bin": b if b is None else b.tolist(),
        "distance": d if d is None else short(d.numpy()),
        **parts(found.score.numpy(), ranking, masks)}
    return {"settings": portable(detector.settings),
            "result": result | {"pro_exact": ranking.pro(0.3)}, "images": images}


def made_with(detector: Detector, data: dict, saved: Path) -> dict:
    """Data (their `fingerprint`), weights, split, training, versions and device of a
    run.
    """
    record, hashes = detector.record, read_manifest(saved)["sha256"]
    return {"data": data,
            "weights": hashes | {"vae": weights_hash(detector.networks.vae)},
            "held_out_from": record["held_out_from"], "train": record["images"],
            "held_out": record["held_out"], "training": record.get("training"),
            "versions": versions(), "device": str(detector.device), "commit": commit()}


def cost(detector: Detector, detecting: float, images: int) -> dict:
    """Seconds by stage, bytes and numbers of weights; `detecting`: seconds of the test
    images' prediction and scores.
    """
    networks, record = detector.networks, detector.record
    sizes = {"unet": networks.unet, "vae": networks.vae, "features": networks.phi}
    return {"seconds": record["seconds"] | {"detect and score": detecting},
            "images": images, "peak_memory": peak_memory(detector.device),
            "peak_memory_by_stage": record.get("peak_memory"),
            "parameters": {name: _count(network) for name, network in sizes.items()}}


def portable(settings: Settings) -> dict:
    """Settings without folders of this machine: an autoencoder's file is recorded by
    its name, its weights by their hash.
    """
    name = settings.vae
    on_disk = ".py:" in name or Path(name).is_dir()
    portable = Path(name).name if "/" in name and on_disk else name
    return settings.as_dict() | {"vae": portable}


def _count(network) -> int:
    is_module = isinstance(network, torch.nn.Module)
    return sum(w.numel() for w in network.parameters()) if is_module else 0


def fingerprint(root: Path) -> dict:
    """What a category's folder holds: number of images for each use, and a SHA-256 over
    the names and bytes of all of them and their masks.

    Another split of the same images has another hash. Raises DataError.
    """
    uses = {"train": train_items(root), "validation": held_out_items(root),
            "test": test_items(root)}
    digest = hashlib.sha256()
    for use, items in uses.items():
        for item in items:
            for path in _files(item):
                name = path.relative_to(root).as_posix()
                digest.update(f"{use} {item.kind} {name} {sha256(path)}\n".encode())
    counts = {use: len(items) for use, items in uses.items()}
    return counts | {"sha256": digest.hexdigest()}


def _files(item: Item) -> Iterator[Path]:
    """An image's file and those of its mask, which may be a folder of them."""
    yield item.path
    if item.mask is not None:
        yield from list_images(item.mask) if item.mask.is_dir() else [item.mask]


def commit() -> str | None:
    """The commit, with -dirty when files of the package differ from it; None outside a
    checkout of it.
    """
    package = Path(__file__).resolve().parents[1]
    git = lambda *asked: subprocess.run(
        ["git", "-C", str(package), *asked], text=True, capture_output=True, timeout=20,
        check=True).stdout.strip()
    try:
        git("ls-files", "--error-unmatch", "__init__.py")   # not of another project
        return git("rev-parse", "HEAD") + "-dirty" * bool(
            git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return None


def categories_in(data: Path) -> list[str]:
    """The categories that lie in a data set's folder, sorted: those of its folders that
    hold good training images. DataError.
    """
    found = []
    for folder in sorted(path for path in data.glob("[!.]*") if path.is_dir()):
        try:
            train_items(folder)
            found.append(folder.name)
        except DataError:
            continue
    if not found:
        raise DataError(f"{data} holds no category: give the folder that holds the "
                        "categories' folders, each with its training images")
    return found
