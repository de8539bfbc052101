"""Detector: the thin conductor. It calls the modules of the method in the order data
flows, and holds no mathematics itself. What it leaves to `training`, inference can do
without: see "Inference alone" in book/install.md.
"""
from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from . import anomaly_map as maps
from . import conformal, saved_model
from .data.images import Images, as_images
from .dynamic_noise import MemoryBank, bin_edges, choose_bin, feature, select_step
from .evaluation.patches import drawn_patches, patch_parts, stacked
from .latent_projection import LatentProjection, draw, draws_of
from .networks.autoencoders import load_vae, scaling_factor
from .noise_predictor import alpha_bar, q_sample
from .runtime import hub, processes
from .runtime.adapter import Networks, expect
from .runtime.batches import in_batches
from .runtime.devices import pick_device
from .runtime.errors import ModelError
from .runtime.latent_cache import same_autoencoder
from .scaled_denoising import call_every, scaled_denoising, timesteps
from .settings import Settings
from .step_map import DRAWN, PatchBank, widened

TOGETHER, PART = 256, 64        # maps weighed at once; held-out images' maps held


@dataclass
class Observed:
    """A batch before its step is chosen: latents z0 and, where wanted, noise eps
    (B, C, h, w); features phi_j(x0); distances d (B,), of patches d_p (B, h, w).
    """

    z0: Tensor
    eps: Tensor | None
    phi_x0: list[Tensor]
    d: Tensor | None
    d_p: Tensor | None


@dataclass
class Prediction:
    """What the method says of N images of side H; every tensor on the CPU. What the
    settings leave out is None: see `decode`.
    """

    score: Tensor                   # (N,) float32, the largest value of the map
    map: Tensor                     # (N, H, H) float32, A
    latent_map: Tensor              # (N, H, H) float32, before normalisation
    feature_map: Tensor | None      # (N, H, H) float32, before normalisation
    reconstruction: Tensor | None   # (N, 3, H, H) float32, x0_hat, in [-1, 1]
    T_hat: Tensor                   # (N,) int64, the chosen step
    bin: Tensor | None              # (N,) int64 in 1 .. bins, of a region the largest
    distance: Tensor | None         # (N,) float32, d
    patch_map: Tensor | None = None  # (N, H, H) float32, d(p), before normalisation
    step_map: Tensor | None = None   # (N, h, w) int64, T(p)


class Response(NamedTuple):
    """A batch reconstructed, z0_hat (B, C, h, w), and what `Prediction` has of it."""

    z0_hat: Tensor
    A_l: Tensor
    A_f: Tensor | None
    x0_hat: Tensor | None
    T_hat: Tensor
    b: Tensor | None
    d: Tensor | None
    A_p: Tensor | None
    step_map: Tensor | None


class Detector:
    """One product's detector: `Detector.fit(images, settings)`, then `predict`;
    `save_pretrained`, `from_pretrained`.
    """

    def __init__(self, settings: Settings, networks: Networks,
                 scale: float | None = None):
        """scale: s; None takes the autoencoder's own."""
        self.settings, self.networks = settings, networks
        s = scaling_factor(networks.vae) if scale is None else scale
        self.projection = LatentProjection(networks.E, networks.D, s)
        self.abar = alpha_bar(settings, networks.device)
        self.memory_bank: MemoryBank | None = None
        self.patch_bank: PatchBank | None = None
        self.ranges: maps.Ranges | None = None
        self.held_out_scores: Tensor | None = None
        self.record: dict = {}

    @property
    def device(self) -> torch.device:
        return self.networks.device

    @classmethod
    def fit(cls, images, settings: Settings | None = None, **how) -> Detector:
        """Learn one product from its good images: see `training.fit`."""
        from .training import fit  # inference needs nothing of the training
        return fit(images, settings, **how)

    @property
    def threshold(self) -> float | None:
        """The score above which an image is flagged; None without held-out images, or
        with map_range "test", by which new scores are on another scale.
        """
        if self.held_out_scores is None or self.settings.map_range == "test":
            return None
        return conformal.threshold(self.held_out_scores, self.settings.false_alarms)

    def set_banks(self, train: Images, good: Images) -> None:
        """Memory banks, of images and, where settings need it, of patches: from the
        good images (N, 3, H, W) that were trained on, and held-out ones.
        """
        s, phi = self.settings, self.networks.phi
        self.memory_bank = MemoryBank.fit(self.features(train), s.neighbours,
                                          s.self_neighbour)
        self.patch_bank = None
        if s.by_patch:
            rows = drawn_patches(phi, train, s, DRAWN * s.patch_bank, s.seed)
            self.patch_bank = PatchBank.fit(rows, patch_parts(phi, good, s),
                                            s.patch_bank, s.seed)

    def set_ranges(self, good: Images, keep: bool = True) -> Prediction | None:
        """Map ranges from held-out good images (N, 3, H, W), and, unless keep is false,
        what was predicted of them; nothing where there are none.
        """
        if not len(good):
            return None
        self.ranges, ranges = None, []              # of other maps, maybe
        for part in good.split(len(good) if keep else PART):
            found = self.predict(part)
            ranges.append(maps.Ranges.of(found.latent_map, found.feature_map,
                                         found.patch_map))
        self.ranges = maps.Ranges.joined(ranges)
        return self.weigh(found) if keep else None

    def set_held_out_scores(self, good: Images) -> None:
        """What the threshold comes from: the scores of held-out good images, (N, 3, H,
        W); nothing where there are none.
        """
        n = PART if self.settings.map_range == "held-out" else max(1, len(good))
        scores = [self.predict(part).score for part in good.split(n) if len(part)]
        self.held_out_scores = torch.cat(scores) if scores else None

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """y of Algorithm 2 for images (N, 3, H, W): (N, F) on the device."""
        return torch.cat([self._feature(self.networks.features(x0.to(self.device)))
                          for x0 in images.split(32)])

    def _feature(self, phi_x0: list[Tensor]) -> Tensor:
        s = self.settings
        return feature(phi_x0[s.neighbour_stage - 1], s.neighbour_pool)

    def under(self, settings: Settings) -> Detector:
        """The same networks and training images under other settings. Ranges and
        threshold are still those of the first: `training.adapt` makes them anew.
        """
        other = copy(self)
        networks = self.networks.at(settings.precision)
        other.settings, other.networks = settings, networks
        other.projection = replace(self.projection, E=networks.E, D=networks.D)
        return other

    # --- the method, in the order data flows

    @torch.no_grad()
    def observe(self, x0: Tensor) -> Observed:
        """What does not depend on the step: latents, features, distance. An image's
        draws come from the seed and its own levels: its place in the list is nothing.
        """
        s, x0 = self.settings, x0.to(self.device)
        mean, std = self.projection.posterior(x0)
        z0, eps, d, d_p = [], [], None, None
        drawn = s.noise or s.posterior == "sample"
        for n in range(len(x0)):
            # only where something is drawn: it waits for the device
            draws = draws_of(x0[n], s.seed) if drawn else None
            deviation = None if std is None else std[n]
            z0.append(draw(mean[n], deviation, s.posterior, draws))
            if s.noise:
                eps.append(torch.randn(mean[n].shape, generator=draws).to(self.device))
        z0, unet = torch.stack(z0), self.networks.unet.config
        latent = (unet.in_channels, unet.sample_size, unet.sample_size)
        expect("autoencoder's latents", z0.shape[1:], latent)
        if not s.decode:
            return Observed(z0, torch.stack(eps) if eps else None, [], None, None)
        phi_x0 = self.networks.features(x0)     # in float32: its d chooses the step
        y = self._feature(phi_x0)
        expect("features", y.shape[1:], self.memory_bank.y.shape[1:])
        d = self.memory_bank.distance(y, s.neighbours)
        if s.by_patch:
            if self.patch_bank is None:
                raise ModelError("the detector has no bank of patches, which step_rule "
                                 "'region' and patch_share need; make it with them")
            f = stacked(phi_x0, s.map_stages)
            expect("patches", f.shape[3:], self.patch_bank.f.shape[1:])
            d_p = self.patch_bank.distance(f, z0.shape[-1])
        return Observed(z0, torch.stack(eps) if eps else None, phi_x0, d, d_p)

    @torch.no_grad()
    def respond(self, seen: Observed, size: int) -> Response:
        """Reconstruction, maps and steps of a batch; maps (B, size, size)."""
        s, A_p, step_map = self.settings, None, None
        T, b = self.step_map(seen)
        z0_hat = self.reconstruct(seen, T)
        A_l, A_f, x0_hat = self.compare(seen, z0_hat, size)
        if seen.d_p is not None:
            A_p = maps.upsample(seen.d_p, size, s.align_corners)
        if s.step_rule == "region":
            step_map, T = T, T.flatten(1).amax(1)
        return Response(z0_hat, A_l, A_f, x0_hat, T, b, seen.d, A_p, step_map)

    def reconstruct(self, seen: Observed, T: Tensor) -> Tensor:
        """z0_hat (B, C, h, w) from steps T, (B,) or (B, h, w)."""
        static = self.settings.step_rule == "static"
        return self.denoise(seen.z0, T, eps=seen.eps, static=static)

    @torch.no_grad()
    def compare(self, seen: Observed, z0_hat: Tensor, size: int) -> tuple:
        """A_l and A_f (B, size, size), x0_hat; the latter two None without `decode`."""
        s = self.settings
        A_l = maps.latent_map(seen.z0, z0_hat, size, s.latent_blur, s.align_corners)
        if not s.decode:
            return A_l, None, None
        x0_hat = self.projection.decode(z0_hat, s.clamp)
        phi_x0_hat = self.networks.features(x0_hat, s.precision)
        A_f = maps.feature_map(seen.phi_x0, phi_x0_hat, size, s.map_stages,
                               s.align_corners)
        return A_l, A_f, x0_hat

    def step_map(self, seen: Observed) -> tuple[Tensor, Tensor | None]:
        """T_hat of the images, (B,), or, by region, of their positions, (B, h, w); and
        the images' bins (B,), None where there are no distances.
        """
        s, b = self.settings, None
        if seen.d is not None:
            edges = bin_edges(self.memory_bank.distances, s.bins)
            b = choose_bin(seen.d, edges, s.edge_bin)
        if s.step_rule == "static":
            return torch.full((len(seen.z0),), s.T_max, device=self.device), b
        if s.step_rule == "image":
            return self.step(b), b
        b_p = choose_bin(seen.d_p, bin_edges(self.patch_bank.low_high, s.bins),
                         s.edge_bin)
        return widened(self.step(b_p)), b_p.flatten(1).amax(1)

    def step(self, b: Tensor) -> Tensor:
        """T_hat for bins b, of any shape."""
        s = self.settings
        return select_step(b, s.T_max, s.bins, s.smallest_bin, s.level_rounding,
                           s.timesteps)

    def denoise(self, z0: Tensor, T_hat: Tensor, *, start: Tensor | None = None,
                eps: Tensor | None = None, static: bool = False, callback=None
                ) -> Tensor:
        """z0_hat (B, C, h, w): Algorithm 1 with this detector's network and settings.

        T_hat: a step for each image, (B,), or for each position, (B, h, w). start: (B,)
        steps whose abar scales the start, T_hat unless given. eps: noise to add there.
        static: as the official code's static sampler, where settings say so.
        """
        s, T_hat, z_That = self.settings, T_hat.to(self.device), None
        step_map, T_hat = (None, T_hat) if T_hat.ndim == 1 else (
            T_hat, T_hat.flatten(1).amax(1))
        if start is not None or eps is not None:        # else scaled, as the paper says
            at = T_hat if start is None else start.to(self.device)
            abar_start = self.abar[at].view(-1, 1, 1, 1)
            z_That = (abar_start.sqrt() * z0 if eps is None
                      else q_sample(z0, abar_start, eps.to(self.device)))
        eps_theta = self.networks.eps_theta
        if s.call_every > 1:
            eps_theta = call_every(eps_theta, s.call_every, self.abar)
        return scaled_denoising(
            eps_theta, z0, T_hat, self.abar, s.guidance, step_map=step_map,
            path=timesteps(T_hat, s.ddim_steps, s.first_call), start=z_That,
            z0_from=s.z0_from, callback=callback,
            zero_first=static and s.static_first_step == "zeroed")

    def predict(self, images, batch: int = 16) -> Prediction:
        """Scores, maps, reconstructions and steps of images: (N, 3, H, W) in [-1, 1],
        or what else `data.images.as_images` takes, such as a list of paths.

        With map_range "held-out" an image's result depends on nothing but that image;
        with "test" on all those given. Several processes share the images out; each
        returns the whole prediction. Raises ValueError for what is no image, and
        ModelError where the networks do not fit together or a map is not finite.
        """
        size = self.settings.image_size
        images = as_images(images, size)

        def found_in(first: int, end: int) -> tuple[Tensor, ...]:
            return self.respond(self.observe(images[first:end]), size)[1:]

        found = in_batches(len(images), batch, found_in, "detect")
        # score and map are made by weigh
        return self.weigh(Prediction(None, None, *found))

    def weigh(self, found: Prediction) -> Prediction:
        """The prediction with its map and score made, or made anew, from its single
        maps by these settings.
        """
        s, ranges, A = self.settings, self.ranges, []
        single = found.latent_map, found.feature_map, found.patch_map
        if s.map_range == "test" or ranges is None:
            ranges = maps.Ranges.of(*single)
        for n in range(0, len(found.latent_map), TOGETHER):
            A_l, A_f, A_p = (m if m is None else m[n : n + TOGETHER].to(self.device)
                             for m in single)
            A.append(maps.combine(A_l, A_f, ranges, s.lam, s.sigma, A_p,
                                  s.patch_share).cpu())
        A = torch.cat(A)
        if not A.isfinite().all():
            raise ModelError("the map holds NaN or infinity, from the detector's "
                             "weights or from the images given; make them anew")
        return replace(found, map=A, score=maps.score(A))

    # --- on disk, and compiled

    def save_pretrained(self, folder: str | Path,
                        dtype: torch.dtype = torch.float32) -> None:
        """Write manifest.json (settings, record, versions, hashes), the U-Net,
        state.safetensors (phi, memory bank) and a model card. The autoencoder is
        recorded by name.

        dtype: float16 halves the files. Of several processes the main one writes, the
        others wait. Raises FileExistsError when `folder` holds something else.
        """
        if processes.is_main():
            saved_model.write(Path(folder), self, dtype)
        processes.wait()

    def push_to_hub(self, name: str, private: bool = True) -> str:
        """Commit it to "user/name" on the hub; the address. Raises WriteError."""
        return hub.upload(self.save_pretrained, name, private)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, vae=None,
                        device: str = "auto") -> Detector:
        """A detector saved in a folder, or on the hub as "user/name[@revision]". vae:
        stands in for the recorded autoencoder; one recorded as an object or as
        FILE.py:CALLABLE has to be given, since nothing is executed because a manifest
        says so. Raises ModelError.
        """
        device, saved = pick_device(device), saved_model.read(hub.local(folder))
        s = saved.settings
        if vae is None and (s.vae == "given" or ".py:" in s.vae):
            raise ModelError(
                f"{folder} was made with the autoencoder {s.vae!r}, which is not "
                "loaded from a manifest; pass it as vae")
        vae = load_vae(s.vae) if vae is None else vae
        networks = Networks(vae, saved.unet, saved.phi, device, s.precision)
        same_autoencoder(folder, saved.autoencoder, networks.vae)
        self = cls(s, networks, saved.scale)
        self.memory_bank = MemoryBank(saved.bank.to(device), saved.distances.to(device))
        if saved.patches is not None:
            self.patch_bank = PatchBank(*(one.to(device) for one in saved.patches))
        self.ranges, self.held_out_scores = saved.ranges, saved.held_out_scores
        self.record = saved.record
        return self

    def compile(self, batch: int = 16) -> Detector:
        """This detector, its networks compiled for batches of so many images. Results
        differ by rounding. Raises ModelError: see `Networks.compile`.
        """
        blank = -torch.ones(batch, 3, *[self.settings.image_size] * 2)
        self.networks.compile(batch, lambda: self.predict(blank, batch))
        return self
