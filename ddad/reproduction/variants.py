"""The variants of the ablation: the full method, and each of its claims switched off.

Most are settings. Four are controls that the method has no setting for.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from ..calibration import BLUR, LAMBDA
from ..detector import Detector, Observed
from ..latent_projection import draws_of
from ..networks.autoencoders import PixelSpace
from ..settings import Settings

DRAWS = 4                           # of the noise, whose maps are averaged
PATCH = 3 * 8 * 8                   # numbers in one patch of pixels: see PixelSpace


class NotScaled(Detector):
    """Denoises from T_hat a latent that is not scaled to T_hat, which tells the scaling
    from the denoising. It starts at sqrt(abar_0) z0: z0 to a thousandth.
    """

    def denoise(self, z0: Tensor, T_hat: Tensor, *, start: Tensor | None = None,
                **how) -> Tensor:
        start = torch.zeros(len(z0), dtype=torch.long)
        return super().denoise(z0, T_hat, start=start, **how)


class NoiseAveraged(Detector):
    """Noise is added, and both maps are means over DRAWS draws of it: what is left
    against it is not that one draw is random. It makes DRAWS times the calls.

    Fine-tuning, which sees each image once an epoch, takes one draw.
    """

    def observe(self, x0: Tensor) -> Observed:
        """The draws lie side by side as channels, (B, DRAWS C, h, w); the first is that
        of one draw.
        """
        seen, seed = super().observe(x0), self.settings.seed * DRAWS
        eps = [seen.eps]
        for draw in range(1, DRAWS):
            # that of one draw has no sign
            eps.append(torch.stack([
                torch.randn(z.shape, generator=draws_of(x, -seed - draw))
                for z, x in zip(seen.z0, x0)]).to(self.device))
        z0 = seen.z0.repeat(1, DRAWS, 1, 1)
        return replace(seen, z0=z0, eps=torch.cat(eps, 1))

    def reconstruct(self, seen: Observed, T: Tensor) -> Tensor:
        """z0_hat of all draws, side by side."""
        return torch.cat([super(NoiseAveraged, self).reconstruct(one, T)
                          for one in draws_apart(seen)], 1)

    def compare(self, seen: Observed, z0_hat: Tensor, size: int) -> tuple:
        """As `Detector.compare`, the means over the draws. The latent map's mean over
        all their channels is that of the draws.
        """
        pairs = zip(draws_apart(seen), z0_hat.chunk(DRAWS, 1))
        made = [super(NoiseAveraged, self).compare(one, z, size) for one, z in pairs]
        return tuple(torch.stack(parts).mean(0) for parts in zip(*made))


def draws_apart(seen: Observed) -> list[Observed]:
    """The draws of `NoiseAveraged`, as observed with one draw each."""
    both = zip(seen.z0.chunk(DRAWS, 1), seen.eps.chunk(DRAWS, 1))
    return [replace(seen, z0=z0, eps=eps) for z0, eps in both]


class ScaledPixels(PixelSpace):
    """Pixels, times the s that brings good images' to the variance that the noise
    schedule expects: 1.
    """

    def __init__(self, good: Tensor):
        self.config = SimpleNamespace(scaling_factor=1 / good.to("cpu").std().item())


def wide_enough(settings: Settings) -> Settings:
    """For pixels: no level of the U-Net narrower than the PATCH numbers of a position.

    A narrower one loses them at its first layer, and what it then lacks is no fault of
    pixels. So theirs has more parameters than the latents', and as many steps take it
    longer; both are recorded. At the same number of either it would be narrower again,
    or trained less.
    """
    wide = tuple(max(channels, PATCH) for channels in settings.unet_channels)
    return settings.change(vae="pixels", train_vae="", unet_channels=wide)


@dataclass(frozen=True)
class Variant:
    """What is switched off: by settings, by another path, by what calibration may
    choose, or by another latent space.
    """

    change: dict = field(default_factory=dict)
    path: type[Detector] = Detector
    lam: Sequence[float] = LAMBDA
    blur: Sequence[float] = BLUR
    space: str = "latents"


FULL, STATIC, UNTUNED = "full method", "static steps", "features not fine-tuned"
NOISE, AVERAGED, UNSCALED = "noise added", "noise averaged", "not scaled"
LATENT_MAP, FEATURE_MAP = "latent map alone", "feature map alone"
PIXELS = "pixels, not latents"
VARIANTS = {
    FULL: Variant(),
    LATENT_MAP: Variant(lam=(1.0,)),
    FEATURE_MAP: Variant(lam=(0.0,), blur=(0.0,)),
    STATIC: Variant({"step_rule": "static"}),
    NOISE: Variant({"noise": True}),
    AVERAGED: Variant({"noise": True}, NoiseAveraged),
    UNSCALED: Variant(path=NotScaled),
    UNTUNED: Variant({"tune_epochs": 0}),
    PIXELS: Variant(space="pixels"),
}
