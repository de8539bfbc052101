"""Settings: every choice of the method in one place, as data, recorded with every model and result.

Where the paper's text and its official code differ, the difference is a named setting. Three presets choose for all of
them at once: `paper` follows the text and, where the text is silent, the code that produced its figures, but for three faults of
that code (edges, masks, corners); `official` follows the code, its faults included, so that its figures can be rerun; `clean`,
the default, takes nothing from test data. A fourth, `fast`, is `clean` with fewer network calls to almost the same answer.
"""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import get_type_hints

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class SettingsError(ValueError):
    """A setting that does not exist or whose value does not fit; the sentence names the field and what it may be."""


@dataclass(frozen=True)
class Settings:
    """All choices of one run; immutable. The numbers in brackets are the rows of the table in book/paper_against_code.md.

    Raises SettingsError when built with a value outside what its comment allows.
    """

    preset: str = "clean"
    seed: int = 0                               # (21) every random draw starts from it
    image_size: int = 256                       # H = W of x0, in pixels
    calibration_images: int = 32                # held-out images that a calibration uses, as they are and damaged
    precision: str = "float32"                  # or "bfloat16": the networks outside training, but for the features of x0; see book/speed.md
    train_precision: str = "float32"            # or "bfloat16": the U-Net's training; weights and optimiser stay float32
    held_out: float = 0.2                       # share of train/good kept for ranges, threshold, calibration, unless validation/good exists

    # latent projection
    vae: str = "stabilityai/sd-vae-ft-mse"      # Hugging Face id, folder, "embedded", "pixels", or FILE.py:CALLABLE
    train_vae: str = ""                         # (11) another VAE for the training latents; "" uses the same one
    posterior: str = "mode"                     # (10) z0 = "mode" of the VAE's posterior, or a "sample" of it

    # schedule and noise predictor
    timesteps: int = 1000                       # T
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    beta_schedule: str = "linear"               # (13) "linear" in beta, or "scaled_linear", linear in sqrt(beta)
    unet_channels: tuple[int, ...] = (64, 96, 160)      # (12) one entry a level, multiples of 32
    unet_layers: int = 1                        # residual blocks a level
    unet_attention_from: int = 1                # first level with self-attention
    unet_heads: int = 0                         # (12) attention heads at every level; 0 gives heads of 32 channels
    train_length: str = "3000 steps"            # "N steps" or "N epochs"
    train_batch: int = 16
    learning_rate: float = 5e-4
    learning_rate_schedule: str = "one-cycle"   # or "constant"
    weight_decay: float = 0.01
    gradient_clip: float = 1.0                  # largest norm of a step's gradient; 0: not limited
    ema: float = 0.999                          # decay of the averaged weights; 0 keeps the last ones

    # dynamic noise
    dynamic: bool = True                        # False: every image gets T_max
    neighbour_stage: int = 2                    # (4) block j of phi whose features are compared
    neighbour_pool: int = 16                    # side of the grid they are pooled to
    neighbours: int = 20                        # K
    self_neighbour: bool = False                # (3) True: a training image is its own nearest neighbour
    bins: int = 10                              # |B|
    smallest_bin: int = 2
    edge_bin: str = "upper"                     # (2) a distance on an inner edge falls in the "upper" or "lower" bin
    T_max: int = 80
    level_rounding: str = "floor"               # (1) "floor" b/|B| T_max before rounding to tens, or "half-up" only

    # scaled denoising
    noise: bool = False                         # True: noise is added at the start; False: the latent is only scaled
    ddim_steps: int = 10
    call_every: int = 1                         # the U-Net is called at every n-th of these steps; in between e is held or extrapolated
    first_call: str = "latent"                  # (5) the first U-Net call is at the "latent"'s step or one stride "below"
    static_first_step: str = "same"             # (6) "zeroed": static runs and fine-tuning drop e_hat in their first update
    z0_from: str = "e_hat"                      # (7) z0_hat from the guided "e_hat", or from the bare "e"
    guidance: float = 4.0                       # (16) w
    clamp: bool = True                          # (–) x0_hat is clamped to [-1, 1], or left as the decoder has it

    # features and fine-tuning
    features: str = "efficientnet-lite0"        # or a Hugging Face ResNet id or folder, such as microsoft/resnet-34
    tune_epochs: int = 1                        # (17)
    tune_batch: int = 16
    tune_learning_rate: float = 1e-4
    tune_stages: tuple[int, ...] = (1, 2, 3)    # blocks in the fine-tuning loss
    tune_level: str = "image"                   # (8) one random level an "image", or a "batch" with abar of the unrounded step
    tune_cosine: str = "position"               # (9) cosine at each "position", then averaged, or of the "flattened" map
    tune_gradient: str = "reconstruction"       # (9) through the reconstruction's features only, or through "both"
    tune_batch_norm: str = "frozen"             # (9) or "training"

    # anomaly map, score, evaluation
    map_stages: tuple[int, ...] = (2, 3)        # J
    map_range: str = "held-out"                 # (14) maps scaled to [0, 1] by their range on "held-out" good or all "test" images
    latent_blur: float = 0.0                    # sigma, in cells of the latent, of a Gaussian over z0 - z0_hat, sign and all; 0: none, as published
    lam: float = 0.85                           # (15) lambda, the latent map's share
    sigma: float = 4.0                          # of the Gaussian, in pixels of an image of 256
    align_corners: bool = False                 # how maps are upsampled (–, a difference without a number)
    threshold: str = "quantile"                 # (20) "quantile" of held-out good scores, or "youden" on the test labels
    quantile: float = 0.95
    pro: str = "exact"                          # (18) or "200-thresholds"
    mask_rule: str = "area"                     # (19) or "bilinear"

    CHOICES = {
        "precision": ("float32", "bfloat16"), "train_precision": ("float32", "bfloat16"), "posterior": ("mode", "sample"),
        "beta_schedule": ("linear", "scaled_linear"), "edge_bin": ("upper", "lower"),
        "learning_rate_schedule": ("one-cycle", "constant"), "level_rounding": ("floor", "half-up"),
        "first_call": ("latent", "below"), "static_first_step": ("same", "zeroed"), "z0_from": ("e_hat", "e"),
        "tune_level": ("image", "batch"), "tune_cosine": ("position", "flattened"), "tune_batch_norm": ("frozen", "training"),
        "tune_gradient": ("reconstruction", "both"), "map_range": ("held-out", "test"), "threshold": ("quantile", "youden"),
        "pro": ("exact", "200-thresholds"), "mask_rule": ("area", "bilinear"), "preset": ("clean", "fast", "paper", "official"),
    }
    BOUNDS = {
        "image_size": (32, 4096), "held_out": (0, 0.9), "calibration_images": (8, 100000), "timesteps": (20, 10000),
        "beta_start": (1e-8, 0.999), "beta_end": (1e-8, 0.999),
        "unet_layers": (1, 8), "train_batch": (1, 4096), "ema": (0, 0.999999), "neighbours": (1, 10000), "bins": (1, 1000),
        "neighbour_pool": (1, 256), "neighbour_stage": (1, 4), "unet_heads": (0, 32),
        "T_max": (10, 9999), "ddim_steps": (1, 1000), "call_every": (1, 1000), "tune_epochs": (0, 1000),
        "tune_batch": (1, 4096), "lam": (0, 1), "sigma": (0.1, 100), "quantile": (0, 1), "guidance": (0, 1000), "smallest_bin": (1, 1000),
        "latent_blur": (0, 100), "learning_rate": (0, 1), "tune_learning_rate": (0, 1), "weight_decay": (0, 1), "gradient_clip": (0, 1e6),
        "seed": (0, 2**31),
    }

    def __post_init__(self):
        hints = get_type_hints(Settings)
        for field in fields(self):
            value, kind = getattr(self, field.name), hints[field.name]
            if kind is float and type(value) is int and abs(value) < 2**53:
                object.__setattr__(self, field.name, float(value))
            elif kind == tuple[int, ...] and isinstance(value, (list, tuple)) and all(type(v) is int for v in value) and value:
                object.__setattr__(self, field.name, tuple(value))
            elif type(value) is not kind:
                raise SettingsError(f"setting {field.name}: {value!r} is not {KINDS.get(kind, 'a list of whole numbers, such as [32,64]')}")
        for name, allowed in self.CHOICES.items():
            if getattr(self, name) not in allowed:
                raise SettingsError(f"setting {name}: {getattr(self, name)!r} is none of {', '.join(allowed)}")
        for name, (low, high) in self.BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"setting {name}: {getattr(self, name)} lies outside {low} .. {high}")
        if self.T_max >= self.timesteps:
            raise SettingsError(f"setting T_max: {self.T_max} must be below timesteps, {self.timesteps}")
        if self.held_out == 0 and (self.map_range == "held-out" or self.threshold == "quantile"):
            raise SettingsError("setting held_out: map_range 'held-out' and threshold 'quantile' need a share above 0")
        if self.smallest_bin > self.bins:
            raise SettingsError(f"setting smallest_bin: {self.smallest_bin} must not exceed bins, {self.bins}")
        if self.image_size % 8:
            raise SettingsError(f"setting image_size: {self.image_size} must be a multiple of 8")
        for name in ("map_stages", "tune_stages"):
            if not all(1 <= j <= 4 for j in getattr(self, name)):
                raise SettingsError(f"setting {name}: {getattr(self, name)} must be blocks 1 to 4")
        if len(self.unet_channels) > 10 or any(c % 32 or not 32 <= c <= 4096 for c in self.unet_channels):
            raise SettingsError(f"setting unet_channels: {self.unet_channels} must be at most ten multiples of 32, none beyond 4096")
        if self.unet_heads and any(c % self.unet_heads for c in self.unet_channels):
            raise SettingsError(f"setting unet_heads: {self.unet_heads} must divide each of unet_channels, {self.unet_channels}")
        number, _, unit = self.train_length.partition(" ")
        if not number.isdecimal() or len(number) > 9 or unit not in ("steps", "epochs"):
            raise SettingsError(f"setting train_length: {self.train_length!r} is neither 'N steps' nor 'N epochs'")

    def steps_for(self, images: int) -> int:
        """Optimiser steps of a training on so many images."""
        number, unit = self.train_length.split()
        return int(number) if unit == "steps" else int(number) * max(1, images // self.train_batch)

    def change(self, **values) -> Settings:
        """A copy with other values; SettingsError names one that does not exist."""
        unknown = set(values) - {f.name for f in fields(self)}
        if unknown:
            near = [match for name in sorted(unknown) for match in get_close_matches(name, [f.name for f in fields(self)], 1)]
            raise SettingsError(f"no setting is called {', '.join(sorted(unknown))}; {'did you mean ' + ', '.join(near) + '? ' if near else ''}"
                                "`ddad settings` lists them")
        return replace(self, **values)

    def parse(self, assignments: list[str]) -> Settings:
        """A copy changed by 'name=value' strings, as the command line gives them; JSON values, bare words as text."""
        values = {}
        for item in assignments:
            name, equals, text = item.partition("=")
            if not equals:
                raise SettingsError(f"{item!r} is not of the form name=value")
            try:
                values[name] = json.loads(text)
            except (ValueError, RecursionError):
                values[name] = text
            if get_type_hints(Settings).get(name) is str and type(values[name]) is not str:
                values[name] = text                                    # train_length=100: its own sentence says what is missing
        return self.change(**values)

    def as_dict(self) -> dict:
        """JSON-ready: tuples become lists."""
        return json.loads(json.dumps(asdict(self)))


_AS_PUBLISHED = dict(
    unet_channels=(192, 384, 384, 768, 768), unet_layers=2, unet_attention_from=0, unet_heads=8, train_batch=30,
    train_length="300 epochs", learning_rate=1e-4, learning_rate_schedule="constant", gradient_clip=0.0, ema=0.0, features="microsoft/resnet-34",
    held_out=0.0, map_range="test", threshold="youden", self_neighbour=True, tune_level="batch", tune_gradient="both",
    tune_batch_norm="training", tune_batch=30, seed=42, clamp=False,
)
FAST = dict(call_every=4)
PRESETS: dict[str, Settings] = {
    "clean": Settings(),
    "fast": Settings(preset="fast", **FAST),
    "paper": Settings(preset="paper", **_AS_PUBLISHED, tune_epochs=3, z0_from="e"),
    "official": Settings(
        preset="official", **_AS_PUBLISHED, tune_epochs=1, train_vae="CompVis/stable-diffusion-v1-4/vae", posterior="sample",
        edge_bin="lower", level_rounding="half-up", first_call="below", static_first_step="zeroed", tune_cosine="flattened",
        align_corners=True, pro="200-thresholds", mask_rule="bilinear"),
}


def preset(name: str = "clean", **changes) -> Settings:
    """The named preset, with changes. SettingsError for an unknown name."""
    if name not in PRESETS:
        raise SettingsError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name].change(**changes)
