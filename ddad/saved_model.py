"""A detector on disk: a manifest in JSON, weights in safetensors; nothing in it is ever
executed.
"""
from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .anomaly_map import Ranges
from .networks.features import can_be_read_again, empty_features
from .noise_predictor import build_unet
from .runtime.errors import ModelError
from .runtime.files import sha256, whole
from .runtime.latent_cache import weights_hash
from .runtime.manifest import (
    FORMAT,
    MANIFEST,
    STATE,
    UNET,
    bound,
    check_bound,
    may_hold,
    read_manifest,
    versions,
)
from .runtime.model_card import write_card
from .runtime.tensors import fill, load_tensors
from .settings import Settings, preset

EXACT = ("distances", "patch_range")                # stay float32


@dataclass
class SavedModel:
    """What was read: networks frozen, in evaluation mode; bank (N, F) and distances
    (N,) float32; all on the CPU.
    """

    settings: Settings
    unet: nn.Module
    phi: nn.Module
    bank: Tensor
    distances: Tensor
    scale: float
    ranges: Ranges | None
    patches: tuple[Tensor, Tensor] | None           # of a `PatchBank`
    held_out_scores: Tensor | None
    record: dict
    autoencoder: str | None                         # the hash of its weights


def write(folder: Path, detector, dtype: torch.dtype) -> None:
    """All files or none: the older detector stays until the new one is whole.
    FileExistsError: see `may_hold`; WriteError: see `whole`.
    """
    may_hold(folder)
    networks, bank, scores = (detector.networks, detector.memory_bank,
                              detector.held_out_scores)
    unet, phi, ranges = networks.unet, networks.phi, detector.ranges
    resnet = phi.config.to_dict() if hasattr(phi, "config") else None
    can_be_read_again(phi, detector.settings, resnet)
    state = {f"phi/{name}": value for name, value in phi.state_dict().items()}
    state |= {"bank": bank.y, "distances": bank.distances}
    if patches := detector.patch_bank:
        state |= {"patches": patches.f, "patch_range": patches.low_high}
    for name, value in state.items():
        shorter = value.is_floating_point() and name not in EXACT
        state[name] = (value.to(dtype) if shorter else value).contiguous().cpu()
    latent = [unet.config.in_channels, unet.config.sample_size]
    with whole(folder) as aside:
        aside.mkdir()
        copy_of = build_unet(detector.settings, *latent)
        copy_of.load_state_dict(unet.state_dict())
        # diffusers' own `to` warns of layers this network does not have
        nn.Module.to(copy_of, dtype).save_pretrained(aside / "unet")
        save_file(state, aside / STATE)
        manifest = {
            "format": FORMAT, "latent": latent, "settings": detector.settings.as_dict(),
            "scale": detector.projection.s, "threshold": detector.threshold,
            "held_out_scores": None if scores is None else scores.tolist(),
            "record": detector.record, "ranges": asdict(ranges) if ranges else None,
            "device": str(detector.device), "autoencoder": weights_hash(networks.vae),
            "resnet": resnet, "versions": versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "sha256": {name: sha256(aside / name) for name in (STATE, UNET)}}
        manifest["sha256"]["bound"] = bound(manifest)
        text = json.dumps(manifest, indent=1)
        (aside / MANIFEST).write_text(text, encoding="utf-8")
        write_card(aside, folder.name)


def read(folder: Path) -> SavedModel:
    """The detector in `folder`. Raises ModelError."""
    manifest = read_manifest(folder)
    try:
        return _read(folder, manifest)
    except ModelError:
        raise
    except Exception as error:
        # hostile files reach far into json, safetensors, diffusers and torch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}: the saved detector cannot be read ({reason}); "
                         "save or copy it again") from error


def _read(folder: Path, manifest: dict) -> SavedModel:
    settings = preset(manifest["settings"]["preset"], **manifest["settings"])
    hashes, K = manifest["sha256"], settings.neighbours
    state, weights = (load_tensors(folder / name, hashes[name])
                      for name in (STATE, UNET))
    # no more memory than the files' tensors take, whatever the manifest says
    with torch.device("meta"):
        unet = build_unet(settings, *manifest["latent"])
        phi = empty_features(settings, manifest["resnet"])
    fill(unet, weights)
    fill(phi, {name.removeprefix("phi/"): value for name, value in state.items()
               if name.startswith("phi/")})
    scale, scores = manifest["scale"], manifest["held_out_scores"]
    record, given = manifest["record"], manifest["ranges"]
    ranges = None if given is None else Ranges(
        **{name: pair and tuple(pair) for name, pair in given.items()})
    patches = None if not settings.by_patch else (
        state["patches"].float(), state["patch_range"].float())
    bank, distances = state["bank"].float(), state["distances"].float()
    fits = bank.ndim == 2 and len(bank) >= K and distances.shape == bank.shape[:1]
    for holds, otherwise in (
            (_finite(scale) and scale > 0, "scale is no number above 0"),
            (scores is None or len(scores) and all(map(_finite, scores)),
             "held_out_scores are no numbers"),
            (ranges is None or _pairs(ranges, settings),
             "ranges are no pairs of numbers, one for each map"),
            (isinstance(record, dict), "record is no table"),
            (patches is None or patches[0].ndim == 2 and len(patches[0])
             and patches[1].shape == (2,), "patches are none, or no (n, F)"),
            (fits, f"bank and distances are not those of {K} or more images")):
        if not holds:
            raise ValueError(f"{MANIFEST}: {otherwise}")
    check_bound(manifest)
    return SavedModel(settings, unet, phi, bank, distances, scale, ranges, patches,
                      None if scores is None else torch.tensor(scores), record,
                      manifest.get("autoencoder"))


def _pairs(ranges: Ranges, s: Settings) -> bool:
    needed = {"latent": True, "feature": s.decode, "patch": s.by_patch}
    return all(len(pair) == 2 and all(map(_finite, pair)) if pair
               else pair is None and not needed[name]
               for name, pair in vars(ranges).items())


def _finite(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
