"""Latent projection (paper, section 3.1; Rombach et al. 2022): z0 = E(x0) * s, and back, x0_hat = D(z0_hat / s).

A frozen, pretrained autoencoder with 8x downsampling. Diffusion then works on what an image shows, not on its grain:
fine texture is left to the decoder, and a missing part as large as a palm is a few latent positions wide.
"""
from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from . import distributed
from .writing import whole

EMBEDDED = Path(__file__).parent / "weights" / "vae"
KEPT = 256                      # images whose latents are kept in one file
AT_ONCE = 2                     # images that the autoencoder takes at once on a CPU, whose cache holds no more at full resolution


class BackboneError(RuntimeError):
    """A pretrained network cannot be had; the sentence says which, why, and what to pass instead."""


class PixelSpace:
    """The autoencoder that projects nothing: each 8 x 8 block of pixels becomes 192 channels, without loss. For the ablation."""

    def encode(self, x0: Tensor) -> Tensor:
        return F.pixel_unshuffle(x0, 8)

    def decode(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z, 8)


class LatentProjection:
    """E and D of one frozen autoencoder, and the scale s between them.

    `vae` is a diffusers AutoencoderKL or AutoencoderTiny, or any object with `encode` and `decode` on tensors.
    `scale` is s; None takes the autoencoder's own `scaling_factor` (0.18215 for Stable Diffusion), or 1 where it has none.
    `precision` is that of its convolutions, see `mixed`.
    """

    def __init__(self, vae, scale: float | None = None, device: torch.device | str = "cpu", precision: str = "float32"):
        if isinstance(vae, nn.Module):
            vae = vae.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
            for module in vae.modules() if torch.device(device).type == "cpu" else ():
                if isinstance(module, nn.GroupNorm) and _contiguous not in module._forward_pre_hooks.values():
                    module.register_forward_pre_hook(_contiguous)      # in channels_last its sums lose a digit, by the number of threads
        self.vae, self.device, self.precision = vae, torch.device(device), precision
        self.s = scale if scale is not None else float(getattr(getattr(vae, "config", None), "scaling_factor", 1.0))

    @torch.no_grad()
    def posterior(self, x0: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation of z0 given x0 (B, 3, H, W) in [-1, 1]: two (B, C, H/8, W/8) float32; None for a VAE without variance."""
        with mixed(self.device, self.precision):
            outs = [self.vae.encode(part) for part in self.parts(x0.to(self.device))]
        if hasattr(outs[0], "latent_dist"):
            return tuple(torch.cat([getattr(out.latent_dist, name).float() for out in outs]) * self.s for name in ("mean", "std"))
        return torch.cat([getattr(out, "latents", out).float() for out in outs]) * self.s, None

    def encode(self, x0: Tensor, posterior: str = "mode", generator: torch.Generator | None = None) -> Tensor:
        """z0 (B, C, H/8, W/8) float32: the posterior's "mode", or a "sample" drawn with the CPU `generator`."""
        return draw(*self.posterior(x0), posterior, generator)

    @torch.no_grad()
    def decode(self, z0: Tensor, clamp: bool = True) -> Tensor:
        """x0_hat = D(z0 / s), (B, 3, H, W) float32, clamped to [-1, 1] unless told otherwise."""
        with mixed(self.device, self.precision):
            outs = [self.vae.decode(part) for part in self.parts(z0 / self.s)]
        x0_hat = torch.cat([getattr(out, "sample", out).float() for out in outs])
        return x0_hat.clamp(-1, 1) if clamp else x0_hat

    def parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        """A batch as the autoencoder takes it: channels last, on a CPU AT_ONCE images at a time."""
        return batch.contiguous(memory_format=torch.channels_last).split(AT_ONCE if self.device.type == "cpu" else max(1, len(batch)))

    def encode_all(self, images: Tensor, batch: int = 16, keep: Path | None = None) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation (N, C, H/8, W/8) of many images, on the CPU: training encodes each of them once.

        keep: a folder for a file of latents for each KEPT images, from which a later call goes on. A file is found by the hash of
        those images and of the autoencoder's weights; an autoencoder that is no torch module has none, and nothing is kept.
        """
        network = weights_hash(self.vae) if keep else None
        made_by, parts = f"{network} {self.s} {self.precision} {batch}".encode(), []
        for x0 in tqdm(images.split(KEPT), "encode", leave=False, delay=2):
            path = network and keep / (hashlib.sha256(made_by + x0.contiguous().numpy().tobytes()).hexdigest() + ".safetensors")
            if path and path.exists():
                found = load_file(path)
            else:
                mean, std = zip(*[self.posterior(part) for part in x0.split(batch)])
                found = {"mean": torch.cat(mean).cpu().contiguous()} | ({} if std[0] is None else {"std": torch.cat(std).cpu().contiguous()})
                if path and distributed.main():
                    with whole(path) as aside:
                        save_file(found, aside)
            parts.append(found)
        return torch.cat([part["mean"] for part in parts]), torch.cat([part["std"] for part in parts]) if "std" in parts[0] else None


def weights_hash(network) -> str | None:
    """SHA-256 of a network's named tensors; None for an object without any."""
    if not isinstance(network, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _contiguous(module: nn.Module, inputs: tuple) -> tuple:
    return (inputs[0].contiguous(),)


def mixed(device: torch.device, precision: str):
    """Convolutions and products in bfloat16 inside this context, or, with "float32", nothing changed."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def draw(mean: Tensor, std: Tensor | None, posterior: str, generator: torch.Generator | None = None) -> Tensor:
    """The mode, or mean + std * eps with eps drawn on the CPU, so that a seed gives the same latents on every device."""
    if posterior == "mode" or std is None:
        return mean
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)


def load_vae(name: str):
    """The autoencoder called `name`, in evaluation mode.

    "embedded": trained by this project, for 128 x 128 images, 8 channels. "pixels": `PixelSpace`. "FILE.py:CALLABLE": what
    the named function of your own file returns. Else a folder or a Hugging Face id ("owner/name", or "owner/name/subfolder")
    of an AutoencoderKL or AutoencoderTiny. Raises BackboneError.
    """
    if name == "pixels":
        return PixelSpace()
    if ".py:" in name:
        return _from_file(name)
    import diffusers
    folder = EMBEDDED if name == "embedded" else Path(name)
    source, where = (str(folder), {}) if folder.is_dir() else ("/".join(name.split("/")[:2]), {})
    if not folder.is_dir():
        if name.count("/") == 2:
            where["subfolder"] = name.split("/")[2]
        print(f"autoencoder {name}: from the Hugging Face cache, else fetched from the hub", file=sys.stderr)
    try:
        kind = diffusers.AutoencoderKL.load_config(source, **where).get("_class_name", "AutoencoderKL")
        if kind not in ("AutoencoderKL", "AutoencoderTiny"):
            raise BackboneError(f"{name} holds a {kind}; give an AutoencoderKL or an AutoencoderTiny")
        vae = getattr(diffusers, kind).from_pretrained(source, use_safetensors=True, **where).eval()
        if bad := [key for key, value in vae.state_dict().items() if value.is_meta or not value.isfinite().all()]:
            raise BackboneError(f"{name}: {bad[0]} is missing or holds NaN or infinity; copy the autoencoder again")
        return vae
    except BackboneError:
        raise
    except Exception as error:                                         # a damaged folder reaches far into json, safetensors, diffusers and torch
        raise BackboneError(f"autoencoder {name!r} can be neither found as a folder nor fetched from the Hugging Face hub ({_first_line(error)}); "
                            "pass a folder that holds one, FILE.py:CALLABLE, or 'embedded'") from error


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
        raise BackboneError(f"autoencoder {name!r}: {_first_line(error)}; it must be FILE.py:CALLABLE, and the call must return "
                            "an object with encode and decode") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
