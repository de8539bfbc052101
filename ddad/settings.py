"""Settings: every choice of the method in one place, as data, recorded with every model
and result.

Where the paper's text and its official code differ, the difference is a named setting.
Three presets choose for all of them at once: `paper` follows the text and, where the
text is silent, the code that produced its figures, but for three faults of that code
(edges, masks, corners); `official` follows the code, its faults included, so that its
figures can be rerun; `clean`, the default, takes nothing from test data. `fast` is
`clean` with fewer network calls to almost the same answer.

Two leave the paper, with the network of `clean`: `regional` gives each region its own
step; `one-call` takes a single call of the U-Net and nothing else.
"""
from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

from .runtime.choices import Choices, setting
from .runtime.errors import SettingsError

EPS_THETA, PHI = "eps_theta", "phi"         # the networks that a setting can shape
# Another value needs another training: of the U-Net, and so of phi, which is tuned on
# its reconstructions; of phi alone.
trained = partial(setting, shapes=(EPS_THETA, PHI))
tuned = partial(setting, shapes=(PHI,))


@dataclass(frozen=True)
class Settings(Choices):
    """All choices of one run. SettingsError for a value that does not fit."""

    preset: str = setting(
        "clean", "the preset that it began with",
        choices=("clean", "fast", "paper", "official", "regional", "one-call"))
    seed: int = trained(
        0, "every random draw starts from it", row="21", bounds=(0, 2**31))
    image_size: int = trained(256, "H = W of x0, in pixels", bounds=(32, 4096))
    calibration_images: int = setting(
        32, "held-out images that a calibration uses, as they are and with defects",
        bounds=(8, 100000))
    precision: str = setting(
        "float32", "of the networks outside training, but for the features of x0",
        choices=("float32", "bfloat16"))
    train_precision: str = trained(
        "float32", "of the U-Net's training; weights and optimiser stay float32",
        choices=("float32", "bfloat16"))
    held_out: float = trained(
        0.2, "share of train/good kept for ranges, threshold and calibration, unless "
        "there is validation/good", row="14", bounds=(0, 0.9))

    # latent projection
    vae: str = trained(
        "stabilityai/sd-vae-ft-mse", "the autoencoder: a Hugging Face id, a folder, "
        "embedded, pixels, or FILE.py:CALLABLE", row="11")
    train_vae: str = trained(
        "", "another autoencoder for the training latents; empty: the same one",
        row="11")
    posterior: str = trained(
        "mode", "z0 is the mode of the autoencoder's posterior, or a sample of it",
        row="10", choices=("mode", "sample"))

    # schedule and noise predictor
    timesteps: int = trained(1000, "T", bounds=(20, 10000))
    beta_start: float = trained(0.0015, "beta_1", bounds=(1e-8, 0.999))
    beta_end: float = trained(0.0195, "beta_T", bounds=(1e-8, 0.999))
    beta_schedule: str = trained(
        "linear", "linear in beta, or scaled_linear: linear in sqrt(beta)", row="13",
        choices=("linear", "scaled_linear"))
    unet_channels: tuple[int, ...] = trained(
        (64, 96, 160), "one entry a level, multiples of 32", row="12")
    unet_layers: int = trained(1, "residual blocks a level", row="12", bounds=(1, 8))
    unet_blocks: str = trained(
        "diffusers", "a convolution between two levels, or, as in guided-diffusion, a "
        "residual block, every block starting as the identity", row="12",
        choices=("diffusers", "guided-diffusion"))
    unet_attention_from: int = trained(1, "first level with self-attention", row="12")
    unet_attention_to: int = trained(9, "last level with self-attention", row="12")
    unet_heads: int = trained(
        0, "attention heads at every level; 0 gives heads of 32 channels", row="12",
        bounds=(0, 32))
    train_timesteps: int = trained(
        1000, "training draws t below it; 500 is as far as a calibrated detector's "
        "sampling goes", bounds=(10, 10000))
    masked_share: float = trained(
        0.0, "share of a step's images that have noise on random patches only",
        bounds=(0, 1))
    # plain: a checkpoint states its steps, and a finished network serves under others
    train_length: str = setting("3000 steps", "N steps or N epochs", row="-")
    train_batch: int = trained(
        16, "images in a training step", row="-", bounds=(1, 4096))
    train_order: str = trained(
        "drawn", "a step's images are drawn anew, or dealt from epochs, each shuffled "
        "and without the images left over", row="-", choices=("drawn", "epochs"))
    learning_rate: float = trained(
        5e-4, "of AdamW, at its peak", row="-", bounds=(0, 1))
    learning_rate_schedule: str = trained(
        "one-cycle", "its course", row="-", choices=("one-cycle", "constant"))
    weight_decay: float = trained(0.01, "of AdamW", bounds=(0, 1))
    gradient_clip: float = trained(
        1.0, "largest norm of a step's gradient; 0: not limited", row="-",
        bounds=(0, 1e6))
    ema: float = trained(
        0.999, "decay of the averaged weights; 0 keeps the last ones", row="21",
        bounds=(0, 0.999999))

    # dynamic noise
    step_rule: str = setting(
        "image", "a step for each image (the paper), for each region of one, or T_max "
        "for all: static", choices=("image", "region", "static"))
    patch_bank: int = setting(
        4000, "patches of good images that a region is compared with, at most",
        bounds=(2, 1000000))
    neighbour_stage: int = setting(
        2, "block j of phi whose features are compared", row="4", bounds=(1, 4))
    neighbour_pool: int = setting(
        16, "side of the grid they are pooled to", row="4", bounds=(1, 256))
    neighbours: int = setting(20, "K", bounds=(1, 10000))
    self_neighbour: bool = setting(
        False, "true: a training image is its own nearest neighbour", row="3")
    bins: int = setting(10, "how many bins", bounds=(1, 1000))
    smallest_bin: int = setting(2, "no image's bin is lower", bounds=(1, 1000))
    edge_bin: str = setting(
        "upper", "the bin that a distance on an inner edge falls in", row="2",
        choices=("upper", "lower"))
    T_max: int = setting(80, "the largest step", bounds=(10, 9999))
    level_rounding: str = setting(
        "floor", "floor b / bins T_max before rounding to tens, or half-up only",
        row="1", choices=("floor", "half-up"))

    # scaled denoising
    noise: bool = setting(
        False, "true: noise is added at the start; false: the latent is only scaled")
    ddim_steps: int = setting(10, "rounds of Algorithm 1", bounds=(1, 1000))
    call_every: int = setting(
        1, "the U-Net is called at every n-th round; in between e is held or "
        "extrapolated", bounds=(1, 1000))
    first_call: str = setting(
        "latent", "the first call is at the latent's step, or one stride below it",
        row="5", choices=("latent", "below"))
    static_first_step: str = setting(
        "same", "zeroed: static runs and fine-tuning drop e_hat in their first update",
        row="6", choices=("same", "zeroed"))
    z0_from: str = setting(
        "e_hat", "z0_hat from the guided e_hat, or from the bare e", row="7",
        choices=("e_hat", "e"))
    guidance: float = setting(4.0, "w", row="16", bounds=(0, 1000))
    decode: bool = setting(
        True, "false: the latent map is all, without decoder and features")
    clamp: bool = setting(
        True, "x0_hat is clamped to [-1, 1], or left as the decoder has it", row="-")

    # features and fine-tuning
    features: str = tuned(
        "efficientnet-lite0", "or a Hugging Face ResNet id or folder, such as "
        "microsoft/resnet-34", row="-")
    tune_epochs: int = tuned(1, "epochs of fine-tuning", row="17", bounds=(0, 1000))
    tune_batch: int = tuned(16, "images in a step of it", row="-", bounds=(1, 4096))
    tune_learning_rate: float = tuned(1e-4, "of its AdamW", bounds=(0, 1))
    tune_stages: tuple[int, ...] = tuned((1, 2, 3), "blocks in its loss")
    tune_level: str = tuned(
        "image", "one random level an image, or a batch, with abar of the unrounded "
        "step", row="8", choices=("image", "batch"))
    tune_cosine: str = tuned(
        "position", "cosine at each position, then averaged, or of the flattened map",
        row="9", choices=("position", "flattened"))
    tune_gradient: str = tuned(
        "reconstruction", "through the reconstruction's features only, or through both",
        row="9", choices=("reconstruction", "both"))
    tune_batch_norm: str = tuned(
        "frozen", "batch norm in fine-tuning", row="9", choices=("frozen", "training"))

    # anomaly map, score, evaluation
    map_stages: tuple[int, ...] = setting((2, 3), "J, the blocks of the feature map")
    map_range: str = setting(
        "held-out", "maps are brought to [0, 1] by their range on held-out good "
        "images, or on all test images", row="14", choices=("held-out", "test"))
    latent_blur: float = setting(
        0.0, "sigma, in cells of the latent, of a Gaussian over z0 - z0_hat, sign and "
        "all; 0: none, as published", row="-", bounds=(0, 100))
    lam: float = setting(
        0.85, "lambda, the latent map's share", row="15", bounds=(0, 1))
    patch_share: float = setting(
        0.0, "share of a third map, the patches' distances; 0: none, as published",
        row="-", bounds=(0, 1))
    sigma: float = setting(
        4.0, "of the Gaussian over the map, in pixels of an image of 256",
        bounds=(0.1, 100))
    align_corners: bool = setting(False, "how maps are upsampled", row="-")
    threshold_share: float = setting(
        0.0, "share of the held-out images that serves the threshold alone; 0: all "
        "serve constants, ranges and threshold", bounds=(0, 0.9))
    threshold: str = setting(
        "conformal", "what few held-out good images exceed; or youden: the best on the "
        "test labels, found by `evaluate`", row="20", choices=("conformal", "youden"))
    false_alarms: float = setting(
        0.05, "the share of good images that a conformal threshold lets be flagged",
        bounds=(0.0001, 0.9999))
    pro: str = setting(
        "exact", "PRO from every score, or from 200 thresholds", row="18",
        choices=("exact", "200-thresholds"))
    mask_rule: str = setting(
        "area", "how masks are resized", row="19", choices=("area", "bilinear"))

    def disagreements(self):
        """(setting, what is wrong), where settings do not fit one another."""
        for name in ("T_max", "train_timesteps"):
            last = self.timesteps - (name == "T_max")
            if getattr(self, name) > last:
                yield name, (f"{getattr(self, name)} must be at most {last}, since "
                             f"timesteps is {self.timesteps}")
        if self.held_out == 0:
            for name, value in (
                    ("map_range", "held-out"), ("threshold", "conformal"),
                    ("step_rule", "region")):
                if getattr(self, name) == value:
                    yield "held_out", f"{name} {value!r} needs a share above 0"
            if self.patch_share:
                yield "held_out", f"patch_share {self.patch_share} needs it above 0"
        if self.step_rule == "region" and self.noise:
            yield "noise", "is not added where step_rule is 'region'"
        if not self.decode and (self.step_rule != "static" or self.lam < 1
                                or self.patch_share):
            yield "decode", ("false leaves the latent map alone: it needs step_rule "
                             "'static', lam 1 and patch_share 0")
        if self.smallest_bin > self.bins:
            yield "smallest_bin", (f"{self.smallest_bin} must not exceed bins, "
                                   f"{self.bins}")
        if self.image_size % 8:
            yield "image_size", f"{self.image_size} must be a multiple of 8"
        for name in ("map_stages", "tune_stages"):
            if not all(1 <= j <= 4 for j in getattr(self, name)):
                yield name, f"{getattr(self, name)} must be blocks 1 to 4"
        channels, heads = self.unet_channels, self.unet_heads
        if len(channels) > 10 or any(c % 32 or not 32 <= c <= 4096 for c in channels):
            yield "unet_channels", (f"{channels} must be at most ten multiples of 32, "
                                    "none beyond 4096")
        if heads and any(c % heads for c in channels):
            yield "unet_heads", f"{heads} must divide each of unet_channels, {channels}"
        number, _, unit = self.train_length.partition(" ")
        known = unit in ("steps", "epochs")
        if not number.isdecimal() or len(number) > 9 or not known:
            yield "train_length", (f"{self.train_length!r} is neither 'N steps' nor "
                                   "'N epochs'")

    @property
    def by_patch(self) -> bool:
        """Whether regions of an image are compared with those of good images."""
        return self.step_rule == "region" or self.patch_share > 0

    def steps_for(self, images: int) -> int:
        """Optimiser steps of a training on so many images."""
        number, unit = self.train_length.split()
        each = 1 if unit == "steps" else max(1, images // self.train_batch)
        return int(number) * each


def shaping(network: str) -> tuple[str, ...]:
    """The settings that shape a trained network, "eps_theta" or "phi"."""
    return tuple(one.name for one in fields(Settings)
                 if network in one.metadata["shapes"])


_AS_PUBLISHED = dict(
    unet_channels=(192, 384, 384, 768, 768), unet_layers=2,
    unet_blocks="guided-diffusion", unet_attention_from=0, unet_attention_to=3,
    unet_heads=8, train_batch=30, train_order="epochs", train_length="300 epochs",
    learning_rate=1e-4, learning_rate_schedule="constant", gradient_clip=0.0, ema=0.0,
    features="microsoft/resnet-34", held_out=0.0, map_range="test", threshold="youden",
    self_neighbour=True, tune_level="batch", tune_gradient="both",
    tune_batch_norm="training", tune_batch=30, seed=42, clamp=False)
FAST = dict(call_every=4)
REGIONAL = dict(step_rule="region", guidance=0.0, threshold_share=0.5)
ONE_CALL = dict(step_rule="static", T_max=20, ddim_steps=1, guidance=0.0, lam=1.0,
                decode=False, tune_epochs=0, threshold_share=0.5)
PRESETS: dict[str, Settings] = {
    "clean": Settings(),
    "fast": Settings(preset="fast", **FAST),
    "regional": Settings(preset="regional", **REGIONAL),
    "one-call": Settings(preset="one-call", **ONE_CALL),
    "paper": Settings(preset="paper", **_AS_PUBLISHED, tune_epochs=3, z0_from="e"),
    "official": Settings(
        preset="official", **_AS_PUBLISHED, tune_epochs=1,
        train_vae="CompVis/stable-diffusion-v1-4/vae", posterior="sample",
        edge_bin="lower", level_rounding="half-up", first_call="below",
        static_first_step="zeroed", tune_cosine="flattened", align_corners=True,
        pro="200-thresholds", mask_rule="bilinear"),
}


def preset(name: str = "clean", **changes) -> Settings:
    """The named preset, with changes. SettingsError for an unknown name."""
    if name not in PRESETS:
        there = ", ".join(PRESETS)
        raise SettingsError(f"no preset is called {name!r}; there are {there}")
    return PRESETS[name].change(**changes)
