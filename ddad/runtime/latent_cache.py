"""The training images' latents, encoded once and kept beside the training's
checkpoint.
"""
from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import processes
from .errors import ModelError
from .files import whole

KEPT = 256                      # images whose latents are kept in one file


def encode_all(projection, networks, images: Tensor, keep: Path | None = None,
               batch: int = 16) -> tuple[Tensor, Tensor | None]:
    """Mean and deviation (N, C, H/8, W/8) of images (N, 3, H, W), on the CPU; None in
    place of the deviation for an autoencoder without variance.

    projection: the LatentProjection of `networks`. keep: a folder for a file of latents
    for each KEPT images, from which a later call goes on. A file is found by the hash
    of those images and of the autoencoder's weights; an autoencoder that is no torch
    module has none, and nothing is kept.
    """
    network = weights_hash(networks.vae) if keep else None
    made_by = f"{network} {projection.s} {networks.precision} {batch}".encode()
    parts = []
    for some in tqdm(images.split(KEPT), "encode", leave=False, delay=2):
        x0 = some.to("cpu")
        made_from = hashlib.sha256(made_by)
        made_from.update(x0.contiguous().numpy())
        name = f"{made_from.hexdigest()}.safetensors"
        path = keep / name if network else None
        if path and path.exists():
            with suppress(SafetensorError):     # one that was cut is made again
                parts.append(load_file(path))
                continue
        means, stds = zip(*[projection.posterior(part) for part in x0.split(batch)])
        found = {"mean": torch.cat(means).cpu().contiguous()}
        if stds[0] is not None:
            found["std"] = torch.cat(stds).cpu().contiguous()
        if path and processes.is_main():
            with whole(path) as aside:
                save_file(found, aside)
        parts.append(found)
    mean = torch.cat([part["mean"] for part in parts])
    return mean, torch.cat([p["std"] for p in parts]) if "std" in parts[0] else None


def weights_hash(network) -> str | None:
    """SHA-256 of a network's named tensors; None for an object without any."""
    is_module = isinstance(network, nn.Module)
    return tensors_hash(network.state_dict()) if is_module else None


def same_autoencoder(folder: Path | str, made_with: str | None, vae) -> None:
    """ModelError for other weights than the detector in `folder` was made with, as far
    as they are known: see `weights_hash`.
    """
    if None not in (made_with, here := weights_hash(vae)) and made_with != here:
        raise ModelError(f"{folder} was made with an autoencoder of other weights, and "
                         "its scores mean nothing with this one; pass the same (vae, "
                         "--vae), or train anew")


def tensors_hash(tensors: dict[str, Tensor | None]) -> str:
    """SHA-256 of tensors by name; one that is None has no values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        if tensor is not None:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
