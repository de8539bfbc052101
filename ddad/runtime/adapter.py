"""The networks of a detector as the method calls them: plain functions of float32
tensors.

Everything that only makes them run well is applied here: device, memory layout,
precision, how many images at once, a CUDA graph, `torch.compile`. The method sees none
of it.
"""
from __future__ import annotations

import subprocess
from collections.abc import Callable
from copy import copy

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from . import processes
from .devices import tell_if_slow
from .errors import ModelError
from .graphs import captured

# images that the autoencoder takes at once on a CPU: at full resolution its cache holds
# no more
AT_ONCE = 2
SMALL = 1024                # positions below which PyTorch norms channels_last slowly


def mixed(device: torch.device, precision: str):
    """Convolutions and products in bfloat16 inside this context, or, with "float32",
    nothing changed.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def latents(encoded) -> Tensor:
    """What an autoencoder without a posterior gives, as each of diffusers' names it."""
    for name in ("latents", "latent"):
        encoded = getattr(encoded, name, encoded)
    return encoded


class Networks:
    """Autoencoder, U-Net and features of one detector on `device`, frozen.

    vae: a diffusers AutoencoderKL, AutoencoderTiny or AutoencoderDC, or any object with
    `encode` and `decode` on tensors. unet: a diffusers UNet2DModel; None until one is
    trained. phi: the features. precision: "float32" or "bfloat16", of all but the
    features of x0.
    """

    def __init__(self, vae, unet: nn.Module | None, phi: nn.Module,
                 device: torch.device | str = "cpu", precision: str = "float32"):
        self.device, self.precision = torch.device(device), precision
        tell_if_slow(self.device, precision)
        if isinstance(vae, nn.Module):
            vae = vae.eval().requires_grad_(False)
        self.vae = self._placed(vae)
        if self.device.type == "cpu":
            _keep_group_norm_exact(vae)
        self.place_unet(unet)
        self.phi = self._placed(phi)
        self.graphs: dict = {}          # on CUDA, the last call of the U-Net recorded
        self.compiled = 0                   # the batch that they are compiled for

    def _placed(self, network):
        if not isinstance(network, nn.Module):
            return network
        return network.to(self.device, memory_format=torch.channels_last)

    def place_unet(self, unet: nn.Module | None) -> None:
        """Take a U-Net that was trained, or none yet."""
        self.unet = None if unet is None else self._placed(unet.eval())
        if self.device.type == "cpu":
            _norm_small_maps_fast(self.unet)

    def at(self, precision: str) -> Networks:
        """The same networks in another precision."""
        other = copy(self)
        other.precision = precision
        if precision != self.precision:
            other.graphs = {}           # each would drop what the other has recorded
        return other

    def E(self, x0: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation of the latent, unscaled, of x0 (B, 3, H, W): two
        (B, C, H/8, W/8); None in place of the deviation where there is no variance.
        """
        def encode(part: Tensor) -> list[Tensor]:
            out = self.vae.encode(part)
            if hasattr(out, "latent_dist"):
                return [out.latent_dist.mean, out.latent_dist.std]
            return [latents(out)]
        return (*self._call(encode, x0.to(self.device), at_once=AT_ONCE), None)[:2]

    def D(self, z: Tensor) -> Tensor:
        """The decoder: z (B, C, h, w), unscaled, to an image (B, 3, 8h, 8w)."""
        def decode(part: Tensor) -> list[Tensor]:
            out = self.vae.decode(part)
            return [getattr(out, "sample", out)]
        return self._call(decode, z, at_once=AT_ONCE)[0]

    def eps_theta(self, z_t: Tensor, t: Tensor) -> Tensor:
        """e, the noise predicted in z_t (B, C, h, w) at steps t (B,); on a CUDA device
        recorded as a graph at the first call of a shape.
        """
        if self.device.type != "cuda":
            return self._predict(z_t, t)
        # the graph reads this network's weights where they lie
        key = (self.unet, *z_t.shape, self.precision)
        if key not in self.graphs:
            self.graphs.clear()                     # each holds the memory of a call
            self.graphs[key] = captured(self._predict, z_t, t)
        return self.graphs[key](z_t, t)

    def _predict(self, z_t: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            return self._call(lambda z, t: [self.unet(z, t).sample], z_t, t)[0]

    def features(self, x0: Tensor, precision: str = "float32") -> list[Tensor]:
        """[phi_1(x0), phi_2(x0), ..] of x0 (B, 3, H, W): (B, C_j, h_j, w_j) each."""
        return self._call(self.phi, x0, precision=precision)

    def _call(self, network: Callable[..., list[Tensor]], *inputs: Tensor,
              at_once: int = 0, precision: str | None = None) -> list[Tensor]:
        """The network's outputs in float32, whatever it is called in."""
        B = len(inputs[0])
        if self.compiled > B:                       # compiled for one shape: filled up
            inputs = [torch.cat([x, x[-1:].expand(self.compiled - B, *x.shape[1:])])
                      for x in inputs]
        inputs = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
                  for x in inputs]
        on_cpu = self.device.type == "cpu"
        at_once = at_once if at_once and on_cpu else max(1, len(inputs[0]))
        with mixed(self.device, precision or self.precision):
            pieces = zip(*(x.split(at_once) for x in inputs))
            outs = [network(*piece) for piece in pieces]
        whole = [torch.cat([part.float() for part in parts]) if len(outs) > 1
                 else parts[0].float() for parts in zip(*outs)]
        return [x[:B] for x in whole] if self.compiled > B else whole

    def compile(self, batch: int, trial: Callable[[], object]) -> None:
        """Compile all networks by `torch.compile` for batches of so many images; a
        short batch is filled up. An autoencoder other than diffusers' is left as it is.

        trial: what calls them once. Takes seconds to minutes, anew in every process.
        Raises ModelError where this machine lacks a compiler; they are then as before.
        """
        autoencoders = (AutoencoderKL, AutoencoderTiny)
        halves = ([self.vae.encoder, self.vae.decoder]
                  if isinstance(self.vae, autoencoders) else [])
        networks = [self.unet, self.phi, *halves]
        for network in networks:
            network.compile(dynamic=False)
        self.graphs.clear()                         # of the network as it was
        self.compiled = batch
        try:
            trial()
        except (RuntimeError, subprocess.CalledProcessError) as error:
            for network in networks:
                # torch has no method to undo `compile`
                network._compiled_call_impl = None
            self.compiled = 0
            raise ModelError(
                f"torch.compile does not work on this machine ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); install a C++ compiler, on a GPU also "
                "Triton, or leave compiling out") from error


def _keep_group_norm_exact(vae) -> None:
    """In channels_last its sums lose a digit on a CPU, by the number of threads."""
    for module in vae.modules() if isinstance(vae, nn.Module) else ():
        hooked = _contiguous in module._forward_pre_hooks.values()
        if isinstance(module, nn.GroupNorm) and not hooked:
            module.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, inputs: tuple) -> tuple:
    return (inputs[0].contiguous(),)


def _norm_small_maps_fast(unet) -> None:
    """On a CPU PyTorch's norm of few positions in channels_last takes many times as
    long in bfloat16. Float32 gains little, and keeps its bits.
    """
    for module in unet.modules() if isinstance(unet, nn.Module) else ():
        hooked = _contiguous_if_small in module._forward_pre_hooks.values()
        if isinstance(module, nn.GroupNorm) and not hooked:
            module.register_forward_pre_hook(_contiguous_if_small)


def _contiguous_if_small(module: nn.Module, inputs: tuple) -> tuple | None:
    x = inputs[0]
    small = x.dtype == torch.bfloat16 and x[0, 0].numel() < SMALL
    return (x.contiguous(),) if small else None


def trainable(unet: nn.Module, device: torch.device, precision: str) -> tuple:
    """eps_theta with gradients, as training calls it, and what to record of several
    processes: see `processes.prepare`.
    """
    network, launched = processes.prepare(unet)
    tell_if_slow(device, precision)

    def eps_theta(z_t: Tensor, t: Tensor) -> Tensor:
        with mixed(device, precision):
            return network(z_t, t).sample.float()
    return eps_theta, launched


def expect(what: str, has, needs) -> None:
    """ModelError where a network gives another shape than the saved detector needs."""
    if tuple(has) != tuple(needs):
        raise ModelError(f"the {what} are {tuple(has)}, the saved detector is for "
                         f"{tuple(needs)}; use those it was made with")
