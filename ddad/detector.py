"""Detector: the thin conductor. It calls the rooms of the method in the order data flows, and holds no mathematics itself."""
from __future__ import annotations

import subprocess
import time
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor
from tqdm.auto import tqdm

from . import anomaly_map as maps
from . import distributed
from .calibration import choose, enough
from .dynamic_noise import DynamicNoise, feature
from .features import load_features
from .fine_tuning import fine_tune
from .latent_projection import LatentProjection, draw, load_vae, mixed
from .manifest import ModelError, peak_memory
from .noise_predictor import alpha_bar, build_unet, captured, epsilon
from .saved_model import read, write
from .scaled_denoising import scaled_denoising
from .settings import Settings, SettingsError, preset
from .training import SHAPING, kept_latents, train_noise_predictor

TOGETHER = 256                  # maps that are weighed at once
# The settings that the networks of a detector were trained with.
NETWORKS = (*SHAPING, "features", "tune_epochs", "tune_batch", "tune_learning_rate", "tune_stages", "tune_level", "tune_cosine", "tune_batch_norm",
            "tune_gradient")


@dataclass
class Observed:
    """A batch before its step is chosen: latents, noise where wanted, features phi_j(x0), and the distance d."""

    z0: Tensor
    eps: Tensor | None
    phi_x0: list[Tensor]
    d: Tensor


@dataclass
class Prediction:
    """What the method says of N images of side H; every tensor on the CPU."""

    score: Tensor            # (N,) float32, the largest value of the map
    map: Tensor              # (N, H, H) float32, A
    latent_map: Tensor       # (N, H, H) float32, before normalisation
    feature_map: Tensor      # (N, H, H) float32, before normalisation
    reconstruction: Tensor   # (N, 3, H, H) float32, in [-1, 1] where clamped, x0_hat
    T_hat: Tensor            # (N,) int64, the chosen step
    bin: Tensor              # (N,) int64 in 1 .. |B|
    distance: Tensor         # (N,) float32, d


def pick_device(name: str = "auto") -> torch.device:
    """"auto" takes CUDA, then Apple's MPS, then the CPU; of several processes each gets its own. ValueError for one that this machine lacks."""
    has = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if name == "auto":
        name = next(device for device, available in has.items() if available())
    kind, _, index = name.partition(":")
    if kind not in has or not has[kind]() or index and not (index.isdecimal() and int(index) < (torch.cuda.device_count() if kind == "cuda" else 1)):
        raise ValueError(f"device {name!r} is not available here; choose auto or cpu")
    return distributed.own_device(torch.device(name))


class Detector:
    """One product's detector: `Detector.fit(images, settings)`, then `predict`; `save_pretrained`, `from_pretrained`."""

    def __init__(self, settings: Settings, projection: LatentProjection, unet, phi, device: torch.device):
        self.settings, self.projection, self.device = settings, projection, device
        self.unet, self.phi = (network.to(device, memory_format=torch.channels_last) for network in (unet.eval(), phi))
        self.abar = alpha_bar(settings, device)
        self.graphs: dict = {}                                         # on a CUDA device, the last call of the U-Net that was recorded
        self.compiled = False
        self.dynamic_noise: DynamicNoise | None = None
        self.ranges: maps.Ranges | None = None
        self.threshold: float | None = None
        self.record: dict = {}

    @classmethod
    def fit(cls, images: Tensor, settings: Settings | None = None, *, held_out: Tensor | None = None, device: str = "auto",
            vae=None, unet=None, phi=None, calibrate: bool = False, checkpoint: Path | None = None) -> Detector:
        """Learn one product from its good images (N, 3, H, W) in [-1, 1].

        held_out: good images of the same product for ranges, threshold and calibration; else a share of `images` is kept back.
        vae, unet, phi: networks to use instead of those the settings name; a given unet is not trained. calibrate: choose
        T_max, smallest bin, guidance, blur and lambda on the held-out good images and synthetic defects on them, before the features
        are fine-tuned; the bank of features is made anew after it. checkpoint: see `training`; the encoded images are kept beside
        it, and `training.forget` removes both. Several processes (`distributed`), all given the same images, share out the training
        and the prediction of the held-out images; each does the rest, which is short, for itself. They choose as the main process
        does, and end with its weights. Warns of held-out images unlike the others: see `DynamicNoise.compare`.
        Raises SettingsError, BackboneError, WriteError where the checkpoint cannot be written, and ValueError for too few images.
        """
        settings, device = settings or preset(), pick_device(device)
        started, record = time.perf_counter(), {"seconds": {}, "peak_memory": {}}

        def timed(stage: str) -> None:
            nonlocal started
            record["seconds"][stage], started = round(time.perf_counter() - started, 2), time.perf_counter()
            record["peak_memory"][stage] = peak_memory(device)         # so far, in bytes

        record["held_out_from"] = "a share of the images" if held_out is None else "images given"
        train, held_out = split(images, settings) if held_out is None else (images, held_out)
        if len(train) < settings.neighbours + 1:
            raise ValueError(f"{len(train)} training images are fewer than neighbours + 1 = {settings.neighbours + 1}; "
                             "add good images, or lower neighbours or held_out")
        record |= {"images": len(train) + len(held_out), "held_out": len(held_out)}
        if calibrate:
            enough(held_out)
        if vae is not None and settings.vae == Settings.vae:           # an object of which the settings know no name
            settings = settings.change(vae="given")
        projection = LatentProjection(vae if vae is not None else load_vae(settings.vae), None, device, settings.precision)
        phi = phi if phi is not None else load_features(settings)      # a name that cannot be had is told of before the training
        keep = checkpoint and kept_latents(checkpoint)
        mean, std = projection.encode_all(train, keep=keep)
        timed("encode")
        if unet is None:
            torch.manual_seed(settings.seed)                          # the U-Net's initial weights
            unet = build_unet(settings, mean.shape[1], mean.shape[-1])
            other = settings.train_vae and LatentProjection(load_vae(settings.train_vae), None, device, settings.precision)
            source = other.encode_all(train, keep=keep) if other else (mean, std)
            record["training"] = train_noise_predictor(unet, *source, settings, device, checkpoint)
            del source
            timed("train")
        self = cls(settings, projection, unet, phi, device)
        self.record = record
        if calibrate:
            self.dynamic_noise = DynamicNoise.fit(self.features(train), settings)
            chosen, (record["calibration"],) = distributed.from_main(choose([(self, held_out)]))
            self.settings = settings.change(**chosen)
            timed("calibrate")
        record["tune_loss"] = fine_tune(self.phi, train, self._reconstruct_rows(mean, std), self.settings) if settings.tune_epochs else []
        distributed.copy_weights(self.phi)
        timed("fine-tune")
        self.dynamic_noise = DynamicNoise.fit(self.features(train), self.settings)
        good = self.set_ranges(held_out)
        record["held_out_distances"] = self.dynamic_noise.compare(good.distance) if good else None
        timed("bank, ranges, threshold")
        return self

    def set_ranges(self, held_out: Tensor) -> Prediction | None:
        """Map ranges and threshold from held-out good images (N, 3, H, W), and what was predicted of them; nothing where there are none."""
        if not len(held_out):
            return None
        good = self.predict(held_out)
        self.ranges = maps.Ranges.of(good.latent_map, good.feature_map)
        self.threshold = maps.quantile_threshold(self.weigh(good).score, self.settings.quantile)
        return good

    def features(self, images: Tensor) -> Tensor:
        """y of Algorithm 2 for images (N, 3, H, W): (N, D) on the device."""
        with torch.no_grad():
            return torch.cat([self._feature(self._phi(x0.to(self.device))) for x0 in images.split(32)])

    def _phi(self, x0: Tensor, precision: str = "float32") -> list[Tensor]:
        with mixed(self.device, precision):
            return [stage.float() for stage in self.phi(x0.contiguous(memory_format=torch.channels_last))]

    def _feature(self, phi_x0: list[Tensor]) -> Tensor:
        return feature(phi_x0[self.settings.neighbour_stage - 1], self.settings.neighbour_pool)

    def denoise(self, z0: Tensor, T_hat: Tensor, start: Tensor | None = None, *, static: bool = False, eps: Tensor | None = None, callback=None):
        """z0_hat (B, C, h, w): Algorithm 1 with this detector's network and settings."""
        eps_theta = epsilon(self.unet, self.settings.precision)
        if self.device.type == "cuda":
            key = (self.unet, *z0.shape, self.settings.precision)      # the graph reads this network's weights where they lie
            if key not in self.graphs:
                self.graphs.clear()                                    # each holds the memory of a call
                self.graphs[key] = captured(eps_theta, z0, T_hat.to(self.device))
            eps_theta = self.graphs[key]
        return scaled_denoising(eps_theta, z0, T_hat.to(self.device), self.abar, self.settings, eps=eps,
                                start=start, callback=callback, zero_first=static and self.settings.static_first_step == "zeroed")

    def compile(self, batch: int = 16) -> Detector:
        """This detector, its networks compiled by `torch.compile` for batches of so many images, with a short last one filled up.

        Takes seconds to minutes, anew in every process: for thousands of images on a GPU. Results differ by rounding. An
        autoencoder other than diffusers' is left as it is. Raises ModelError where this machine lacks a compiler; the detector is then as before.
        """
        vae = self.projection.vae
        parts = (vae.encoder, vae.decoder) if isinstance(vae, (AutoencoderKL, AutoencoderTiny)) else ()
        networks = (self.unet, self.phi, *parts)
        for network in networks:
            network.compile(dynamic=False)
        self.graphs.clear()                                            # of the network as it was
        self.compiled = True
        try:
            self.predict(torch.zeros(batch, 3, self.settings.image_size, self.settings.image_size), batch)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            for network in networks:
                network._compiled_call_impl = None                     # what `compile` set; torch has no method to undo it
            self.compiled = False
            raise ModelError(f"torch.compile does not work on this machine ({type(error).__name__}: {str(error).splitlines()[0]}); install a "
                             "C++ compiler, on a GPU also Triton, or leave compiling out") from error
        return self

    def _reconstruct_rows(self, mean: Tensor, std: Tensor | None):
        draws = torch.Generator().manual_seed(self.settings.seed + 1)

        def reconstruct(rows: Tensor, T_hat: Tensor, start: Tensor) -> Tensor:
            z0 = draw(mean[rows], None if std is None else std[rows], self.settings.posterior, draws).to(self.device)
            eps = torch.randn(z0.shape, generator=draws).to(self.device) if self.settings.noise else None
            # static: the official code fine-tunes with its static sampler (row 6)
            return self.projection.decode(self.denoise(z0, T_hat, start.to(self.device), static=True, eps=eps), self.settings.clamp)
        return reconstruct

    def under(self, settings: Settings) -> Detector:
        """The same networks and training images under other settings."""
        other = copy(self)
        other.settings = settings
        other.projection = copy(self.projection)
        other.projection.precision = settings.precision
        if self.dynamic_noise is not None:
            other.dynamic_noise = DynamicNoise(self.dynamic_noise.bank, self.dynamic_noise.distances, settings)
        return other

    def adapt(self, images: Tensor, settings: Settings, held_out: Tensor | None = None) -> Detector:
        """The same networks under other settings, with bank, ranges and threshold made anew from the images they were trained on.

        Warns of held-out images unlike those. Raises SettingsError for a setting that the networks were trained with: it needs a new training.
        """
        trained = [name for name in NETWORKS if getattr(settings, name) != getattr(self.settings, name)]
        if trained:
            raise SettingsError(f"setting {', '.join(trained)}: the networks were trained with another value; train anew instead")
        train, held_out = split(images, settings) if held_out is None else (images, held_out)
        other = self.under(settings)
        other.dynamic_noise = DynamicNoise.fit(other.features(train), settings)
        other.set_ranges(held_out)
        # against the images that the networks were trained on, which tells another product
        seen = self.dynamic_noise.compare(self.dynamic_noise.distance(self.features(held_out))) if len(held_out) else None
        other.record = self.record | {"held_out_distances": seen}
        return other

    @torch.no_grad()
    def observe(self, x0: Tensor, first: int = 0) -> Observed:
        """What does not depend on the step: latents, features, distance. Image n's draws come from (seed, first + n)."""
        x0 = x0.to(self.device)
        mean, std = self.projection.posterior(x0)
        z0, eps = [], []
        for n in range(len(x0)):
            draws = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + first + n)
            z0.append(draw(mean[n], None if std is None else std[n], self.settings.posterior, draws))
            if self.settings.noise:
                eps.append(torch.randn(mean[n].shape, generator=draws).to(self.device))
        phi_x0 = self._phi(x0)                                         # in float32: its distance chooses the step
        y, bank, network = self._feature(phi_x0), self.dynamic_noise.bank, self.unet.config
        for what, has, needs in (("autoencoder's latents", mean.shape[1:], (network.in_channels, *[network.sample_size] * 2)),
                                 ("features", y.shape[1:], bank.shape[1:])):
            if tuple(has) != tuple(needs):
                raise ModelError(f"the {what} are {tuple(has)}, the saved detector is for {tuple(needs)}; use those it was made with")
        d = self.dynamic_noise.distance(y)
        return Observed(torch.stack(z0), torch.stack(eps) if eps else None, phi_x0, d)

    @torch.no_grad()
    def respond(self, seen: Observed, size: int) -> tuple[Tensor, ...]:
        """Reconstruction, both maps and step of a batch: z0_hat, A_l, A_f, x0_hat, T_hat, b."""
        b = self.dynamic_noise.bin(seen.d)
        T_hat = self.dynamic_noise.step(b)
        z0_hat = self.denoise(seen.z0, T_hat, static=not self.settings.dynamic, eps=seen.eps)
        x0_hat = self.projection.decode(z0_hat, self.settings.clamp)
        A_l = maps.latent_map(seen.z0, z0_hat, size, self.settings)
        A_f = maps.feature_map(seen.phi_x0, self._phi(x0_hat, self.settings.precision), size, self.settings)
        return z0_hat, A_l, A_f, x0_hat, T_hat, b

    def predict(self, images: Tensor, batch: int = 16) -> Prediction:
        """Scores, maps, reconstructions and steps of images (N, 3, H, W) in [-1, 1].

        With map_range "held-out" an image's result depends on nothing but that image; with "test" on all those given. Several
        processes, all given the same images, share them out; each returns the whole prediction. Raises ValueError for
        another shape, and ModelError where the networks do not fit together or a map is not finite.
        """
        size = self.settings.image_size
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1:] != (3, size, size):
            given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"images must be a tensor (N, 3, {size}, {size}) in [-1, 1], as data.read_images gives them, not {given}")
        own, (first, end) = [], distributed.share(len(images))
        for n in tqdm(range(first, end, batch), "detect", leave=False, delay=2):
            x0 = images[n : min(n + batch, end)]
            count = len(x0)
            if self.compiled and count < batch:                        # compiled for one shape
                x0 = torch.cat([x0, x0[-1:].expand(batch - count, -1, -1, -1)])
            seen = self.observe(x0, n)
            found = (*self.respond(seen, size)[1:], seen.d)
            own = own or [torch.empty(end - first, *part.shape[1:], dtype=part.dtype) for part in found]
            for whole, part in zip(own, found):                        # into its place: parts joined at the end would be there twice
                whole[n - first :][:count] = part[:count]
        shares = [share for share in distributed.gathered([own]) if share]
        A_l, A_f, x0_hat, T_hat, b, d = shares[0] if len(shares) == 1 else map(torch.cat, zip(*shares))
        return self.weigh(Prediction(None, None, A_l, A_f, x0_hat, T_hat, b, d))   # score and map are made by weigh

    def weigh(self, found: Prediction) -> Prediction:
        """The prediction with its map and score made, or made anew, from its latent and feature map by these settings."""
        from_held_out = self.settings.map_range == "held-out" and self.ranges
        ranges = self.ranges if from_held_out else maps.Ranges.of(found.latent_map, found.feature_map)
        pairs = zip(found.latent_map.split(TOGETHER), found.feature_map.split(TOGETHER))
        A = torch.cat([maps.combine(A_l.to(self.device), A_f.to(self.device), ranges, self.settings).cpu() for A_l, A_f in pairs])
        if not A.isfinite().all():
            raise ModelError("the map holds NaN or infinity, which comes from the detector's weights or from the images given; make them anew")
        return replace(found, map=A, score=maps.score(A))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write manifest.json (settings, record, versions, hashes), the U-Net, and state.safetensors (phi, bank, distances).

        The autoencoder is recorded by name, not copied. dtype float16 halves the files. Of several processes the main one
        writes, the others wait. Raises FileExistsError when `folder` holds something else than a saved detector.
        """
        state = {f"phi/{name}": value for name, value in self.phi.state_dict().items()}
        state |= {"bank": self.dynamic_noise.bank, "distances": self.dynamic_noise.distances}
        manifest = {
            "settings": self.settings.as_dict(), "scale": self.projection.s, "threshold": self.threshold, "record": self.record,
            "ranges": asdict(self.ranges) if self.ranges else None, "device": str(self.device),
            "resnet": self.phi.config.to_dict() if hasattr(self.phi, "config") else None,
        }
        if distributed.main():
            write(Path(folder), self.settings, self.unet, state, manifest, dtype)
        distributed.wait()

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, vae=None, device: str = "auto") -> Detector:
        """A saved detector. `vae` stands in for the recorded autoencoder; one that was recorded as an object or as
        FILE.py:CALLABLE has to be given, since nothing is executed because a manifest says so. Raises ModelError.
        """
        device = pick_device(device)
        saved = read(Path(folder))
        settings = saved.settings
        if vae is None and (settings.vae == "given" or ".py:" in settings.vae):
            raise ModelError(f"{folder} was made with the autoencoder {settings.vae!r}, which is not loaded from a manifest; pass it as vae")
        projection = LatentProjection(vae if vae is not None else load_vae(settings.vae), saved.scale, device, settings.precision)
        self = cls(settings, projection, saved.unet, saved.phi, device)
        self.dynamic_noise = DynamicNoise(saved.bank.to(device), saved.distances.to(device), settings)
        self.ranges, self.threshold, self.record = saved.ranges, saved.threshold, saved.record
        return self


def split(images: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Training and held-out good images, drawn with the settings' seed, each in the order given."""
    n = round(len(images) * settings.held_out)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(settings.seed))[:n].sort().values
    keep = torch.ones(len(images), dtype=torch.bool)
    keep[chosen] = False
    return images[keep], images[~keep]
