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
from .networks.features import empty_features
from .noise_predictor import build_unet
from .runtime.errors import ModelError
from .runtime.files import sha256, whole
from .runtime.manifest import MANIFEST, STATE, UNET, may_hold, read_manifest, versions
from .runtime.model_card import write_card
from .runtime.tensors import fill, load_tensors
from .settings import Settings, preset


@dataclass
class SavedModel:
    """What was read: networks frozen, in evaluation mode; bank (N, D) and distances
    (N,) float32; all on the CPU.
    """

    settings: Settings
    unet: nn.Module
    phi: nn.Module
    bank: Tensor
    distances: Tensor
    scale: float
    ranges: Ranges | None
    threshold: float | None
    record: dict


def write(folder: Path, detector, dtype: torch.dtype) -> None:
    """All files or none: the older detector stays until the new one is whole.
    FileExistsError: see `may_hold`; WriteError: see `whole`.
    """
    may_hold(folder)
    networks, bank = detector.networks, detector.memory_bank
    unet, phi, ranges = networks.unet, networks.phi, detector.ranges
    state = {f"phi/{name}": value for name, value in phi.state_dict().items()}
    state |= {"bank": bank.y, "distances": bank.distances}
    for name, value in state.items():
        shorter = value.is_floating_point() and name != "distances"
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
            "format": 1, "latent": latent, "settings": detector.settings.as_dict(),
            "scale": detector.projection.s, "threshold": detector.threshold,
            "record": detector.record, "ranges": asdict(ranges) if ranges else None,
            "device": str(detector.device),
            "resnet": phi.config.to_dict() if hasattr(phi, "config") else None,
            "versions": versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "sha256": {name: sha256(aside / name) for name in (STATE, UNET)}}
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
    scale, threshold = manifest["scale"], manifest["threshold"]
    record, given = manifest["record"], manifest["ranges"]
    ranges = given and Ranges(tuple(given["latent"]), tuple(given["feature"]))
    pairs = (ranges.latent, ranges.feature) if ranges else ()
    bank, distances = state["bank"].float(), state["distances"].float()
    fits = bank.ndim == 2 and len(bank) >= K and distances.shape == bank.shape[:1]
    for holds, otherwise in (
            (_finite(scale) and scale > 0, "scale is no number above 0"),
            (threshold is None or _finite(threshold), "threshold is no number"),
            (all(len(pair) == 2 and all(map(_finite, pair)) for pair in pairs),
             "ranges are no pairs of numbers"),
            (isinstance(record, dict), "record is no table"),
            (fits, f"bank and distances are not those of {K} or more images")):
        if not holds:
            raise ValueError(f"{MANIFEST}: {otherwise}")
    return SavedModel(settings, unet, phi, bank, distances, scale, ranges, threshold,
                      record)


def _finite(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
