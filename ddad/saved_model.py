"""A detector on disk: a manifest in JSON, weights in safetensors; nothing in it is ever executed."""
from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .anomaly_map import Ranges
from .features import empty_features
from .manifest import MANIFEST, ModelError, read_manifest, sha256, versions
from .noise_predictor import build_unet
from .settings import Settings, preset
from .writing import whole

STATE, UNET = "state.safetensors", "unet/diffusion_pytorch_model.safetensors"


@dataclass
class SavedModel:
    """What was read: networks frozen, in evaluation mode; bank (N, D) and distances (N,) float32; all on the CPU."""

    settings: Settings
    unet: nn.Module
    phi: nn.Module
    bank: Tensor
    distances: Tensor
    scale: float
    ranges: Ranges | None
    threshold: float | None
    record: dict


def write(folder: Path, settings: Settings, unet: nn.Module, state: dict[str, Tensor], manifest: dict, dtype: torch.dtype) -> None:
    """All files or none: the older detector stays until the new one is whole. FileExistsError: see `may_hold`; WriteError: see `whole`."""
    may_hold(folder)
    with whole(folder) as aside:
        aside.mkdir()
        channels, size = unet.config.in_channels, unet.config.sample_size
        copy_of = build_unet(settings, channels, size)
        copy_of.load_state_dict(unet.state_dict())
        nn.Module.to(copy_of, dtype).save_pretrained(aside / "unet")   # diffusers' own `to` warns of layers this network does not have
        save_file({k: (v.to(dtype) if v.is_floating_point() and k != "distances" else v).contiguous().cpu() for k, v in state.items()}, aside / STATE)
        manifest = {"format": 1, "latent": [channels, size], **manifest, "versions": versions(),
                    "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                    "sha256": {name: sha256(aside / name) for name in (STATE, UNET)}}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read(folder: Path) -> SavedModel:
    """The detector in `folder`. Raises ModelError."""
    manifest = read_manifest(folder)
    try:
        settings = preset(manifest["settings"]["preset"], **manifest["settings"])
        state, weights = (_tensors(folder / name, manifest["sha256"][name]) for name in (STATE, UNET))
        with torch.device("meta"):                                     # no more memory than the files' tensors take, whatever the manifest says
            unet, phi = build_unet(settings, *manifest["latent"]), empty_features(settings, manifest["resnet"])
        _fill(unet, weights)
        _fill(phi, {k.removeprefix("phi/"): v for k, v in state.items() if k.startswith("phi/")})
        given, threshold = manifest["ranges"], manifest["threshold"]
        ranges = None if given is None else Ranges(tuple(given["latent"]), tuple(given["feature"]))
        _expect(_finite(manifest["scale"]) and manifest["scale"] > 0, f"{MANIFEST}: scale is no number above 0")
        _expect(threshold is None or _finite(threshold), f"{MANIFEST}: threshold is no number")
        _expect(not ranges or all(len(pair) == 2 and all(map(_finite, pair)) for pair in (ranges.latent, ranges.feature)),
                f"{MANIFEST}: ranges are no pairs of numbers")
        _expect(isinstance(manifest["record"], dict), f"{MANIFEST}: record is no table")
        bank, distances = state["bank"].float(), state["distances"].float()
        _expect(bank.ndim == 2 and len(bank) >= settings.neighbours and distances.shape == bank.shape[:1],
                f"{STATE}: bank and distances are not those of at least {settings.neighbours} training images")
        return SavedModel(settings, unet.requires_grad_(False).eval(), phi.requires_grad_(False).eval(), bank, distances, manifest["scale"], ranges,
                          threshold, manifest["record"])
    except ModelError:
        raise
    except Exception as error:                                         # hostile files reach far into json, safetensors, diffusers and torch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}: the saved detector cannot be read ({reason}); save or copy it again") from error


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _finite(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _fill(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a network made on the meta device its tensors, each of the type that it has there."""
    dtype = {name: value.dtype for name, value in network.state_dict().items()}
    network.load_state_dict({name: value.to(dtype.get(name)) for name, value in state.items()}, assign=True)


def _tensors(path: Path, expected: str) -> dict[str, Tensor]:
    """What a .safetensors file holds. ModelError when it is not the file with that hash; ValueError for a NaN or infinity."""
    if not os.path.isfile(path) or sha256(path) != expected:
        raise ModelError(f"{path} is not the file the manifest describes; copy the folder again")
    tensors = load_file(path)
    for name, value in tensors.items():
        _expect(bool(value.isfinite().all()), f"{path.name}: {name} holds NaN or infinity")
    return tensors


def may_hold(folder: Path) -> None:
    """FileExistsError when `folder` holds something else than a saved detector, which saving would delete."""
    if not folder.exists():
        return
    if not folder.is_dir() or any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise FileExistsError(f"{folder} holds something that is no saved detector; choose another folder")
    if beside := sorted({path.name for path in folder.iterdir()} - {MANIFEST, STATE, Path(UNET).parts[0], ".DS_Store"}):
        raise FileExistsError(f"{folder} holds {', '.join(beside)} beside a detector, and saving would delete it; move it, or choose another folder")
