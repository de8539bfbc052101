"""Autoencoders by name: shipped, from the Hugging Face hub, from a folder, from a file
of your own.
"""
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from textwrap import shorten

from torch import Tensor
from torch.nn import functional as F

from ..runtime.errors import BackboneError

KINDS = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")  # of diffusers
EMBEDDED = Path(__file__).parent.parent / "weights" / "vae"


class PixelSpace:
    """The autoencoder that projects nothing: each 8 x 8 block of pixels becomes 192
    channels, without loss. For the ablation.
    """

    def encode(self, x0: Tensor) -> Tensor:
        return F.pixel_unshuffle(x0, 8)

    def decode(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z, 8)


def scaling_factor(vae) -> float:
    """s of an autoencoder: 0.18215 for Stable Diffusion's, 1 where it names none."""
    return float(getattr(getattr(vae, "config", None), "scaling_factor", 1.0))


def load_vae(name: str):
    """The autoencoder called `name`, in evaluation mode. Raises BackboneError.

    "embedded": trained by this project, for 128 x 128 images, 8 channels. "pixels":
    `PixelSpace`. "FILE.py:CALLABLE": what the named function of your own file returns.
    Else a folder or a Hugging Face id ("owner/name", or "owner/name/subfolder") of an
    AutoencoderKL, AutoencoderTiny or AutoencoderDC.
    """
    if name == "pixels":
        return PixelSpace()
    if ".py:" in name:
        return _from_file(name)
    folder = EMBEDDED if name == "embedded" else Path(name)
    try:
        return _from_diffusers(name, folder)
    except BackboneError:
        raise
    except Exception as error:
        # a damaged folder reaches far into json, safetensors, diffusers and torch
        raise BackboneError(
            f"autoencoder {name!r} can be neither found as a folder nor fetched from "
            f"the Hugging Face hub ({_first_line(error)}); pass --vae embedded, which "
            "needs no download but learned from drawn scenery alone: what it blurs in "
            "a photograph is not found; or a folder that holds one, or "
            "FILE.py:CALLABLE") from error


def _from_diffusers(name: str, folder: Path):
    import diffusers
    source, where = str(folder), {}
    if not folder.is_dir():
        source = "/".join(name.split("/")[:2])
        if name.count("/") == 2:
            where["subfolder"] = name.split("/")[2]
        print(f"autoencoder {name}: from the Hugging Face cache, else fetched from the "
              "hub", file=sys.stderr)
    config = diffusers.AutoencoderKL.load_config(source, **where)
    kind = config.get("_class_name", "AutoencoderKL")
    if kind not in KINDS:
        raise BackboneError(f"{name} holds a {kind}; give one of {', '.join(KINDS)}")
    load = getattr(diffusers, kind).from_pretrained
    vae = load(source, use_safetensors=True, **where).eval()
    for key, value in vae.state_dict().items():
        if value.is_meta or not value.isfinite().all():
            raise BackboneError(f"{name}: {key} is missing or holds NaN or infinity; "
                                "copy the autoencoder again")
    return vae


def _from_file(name: str):
    file, _, attribute = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for part in attribute.split("."):
            module = getattr(module, part)
        return module()
    except (OSError, AttributeError, ImportError) as error:
        raise BackboneError(
            f"autoencoder {name!r}: {_first_line(error)}; it must be "
            "FILE.py:CALLABLE, and the call must return an object with encode and "
            "decode") from error


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return shorten(line, 120, placeholder=" ..")
