"""Tensors from a file that anybody may have written."""
from __future__ import annotations

import os
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import ModelError
from .files import sha256


def load_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    """What a .safetensors file holds. ModelError when it is not the file with that
    SHA-256; ValueError for a NaN or infinity.
    """
    if not os.path.isfile(path) or sha256(path) != expected:
        raise ModelError(f"{path} is not the file the manifest describes; copy the "
                         "folder again")
    tensors = load_file(path)
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"{path.name}: {name} holds NaN or infinity")
    return tensors


def fill(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Give a network made on the meta device its tensors, each of the type it has
    there; it is then frozen, in evaluation mode.
    """
    dtype = {name: value.dtype for name, value in network.state_dict().items()}
    state = {name: value.to(dtype.get(name)) for name, value in state.items()}
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()
