"""What any detector has to stand above: nearest neighbours alone, the autoencoder alone; and one strong peer, PatchCore, with the same features."""
from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from . import anomaly_map as maps
from .detector import Detector
from .evaluation import TestSet, summary
from .features import load_features
from .latent_projection import LatentProjection
from .settings import Settings

SHARE, POOL, NEAREST = 0.1, 20_000, 9    # of PatchCore: share of the patches in its core set, patches it is chosen from, b of its score


def floors(detector: Detector, train: Tensor, test: TestSet) -> dict:
    """All of them, with the ImageNet features the method starts from: neighbours, patchcore, vae (pixels, features)."""
    phi = load_features(detector.settings).to(detector.device)
    return {"neighbours": neighbour_floor(phi, train, test, detector.settings), "patchcore": patchcore(phi, train, test, detector.settings),
            "vae": vae_floor(detector.projection, phi, test, detector.settings)}


def patch_features(phi, images: Tensor, settings: Settings) -> Tensor:
    """(B, D, h, w): the map's blocks averaged over 3 x 3, brought to the finest of them and stacked (PatchCore's locally aware patches)."""
    stages = [F.avg_pool2d(phi(images)[j - 1], 3, 1, 1) for j in settings.map_stages]
    side = max(stage.shape[-1] for stage in stages)
    return torch.cat([F.interpolate(stage, size=(side, side), mode="bilinear") for stage in stages], 1)


def _patches(phi, images: Tensor, settings: Settings, most: int) -> Tensor:
    """At most `most` patches (M, D) of the images, an equal number of each, drawn with the settings' seed."""
    device, draws, each = next(phi.parameters()).device, torch.Generator().manual_seed(settings.seed), -(-most // len(images))
    return torch.cat([f.flatten(2).transpose(1, 2)[:, torch.randperm(f[0, 0].numel(), generator=draws)[:each]].flatten(0, 1)
                      for f in (patch_features(phi, x0.to(device), settings) for x0 in images.split(16))])[:most]


def _detect(phi, test: TestSet, settings: Settings, bank: Tensor, what: str, score: Callable[[Tensor], Tensor] | None = None) -> dict:
    """Each patch's distance to the bank as the map; its largest value, or score(distances (B, P, M)), as the image's score."""
    device, started, parts, scores = bank.device, time.perf_counter(), [], []
    for x0 in tqdm(test.images.split(4), what, leave=False, delay=2):
        f = patch_features(phi, x0.to(device), settings)
        distance = torch.cdist(f.flatten(2).transpose(1, 2).flatten(0, 1), bank).unflatten(0, (len(x0), -1))
        if score is not None:
            scores.append(score(distance).cpu())
        parts.append(maps.upsample(distance.amin(2).view(len(x0), *f.shape[-2:]), x0.shape[-1], settings).cpu())
    A = maps.smooth(torch.cat(parts), settings.sigma * test.images.shape[-1] / 256)
    seconds = round(time.perf_counter() - started, 2)
    return summary(torch.cat(scores) if scores else maps.score(A), A, test) | {"patches": len(bank), "seconds": seconds}


@torch.no_grad()
def neighbour_floor(phi, train: Tensor, test: TestSet, settings: Settings, patches: int = 10_000) -> dict:
    """Nearest neighbours alone: each patch against `patches` drawn from the training images; the map's largest value is the score."""
    bank = _patches(phi, train, settings, patches)
    return _detect(phi, test, settings, bank, "neighbours")


@torch.no_grad()
def patchcore(phi, train: Tensor, test: TestSet, settings: Settings) -> dict:
    """PatchCore (Roth et al., CVPR 2022): a core set of the training patches, and a score that weighs how well its nearest patch is surrounded.

    The core set is a tenth of at most 20,000 patches drawn from the training images: that limit, for two cores, is ours.
    """
    pool = _patches(phi, train, settings, POOL)
    bank = pool[core_set(pool, max(NEAREST, round(SHARE * len(pool))), settings.seed)]
    around = torch.cdist(bank, bank).topk(min(NEAREST, len(bank)), largest=False).indices     # of each patch its b nearest, itself the first

    def score(distance: Tensor) -> Tensor:
        """s = (1 - exp d* / sum over the b nearest of m* of exp d) d*: equation 7."""
        nearest, m = distance.min(2)
        s, patch = nearest.max(1)
        rows = torch.arange(len(distance), device=distance.device)
        d = distance[rows, patch].gather(1, around[m[rows, patch]])
        return (1 - d.softmax(1)[:, 0]) * s

    return _detect(phi, test, settings, bank, "PatchCore", score)


def core_set(pool: Tensor, size: int, seed: int, dimensions: int = 128) -> Tensor:
    """Indices (size,) of a greedy k-centre cover of `pool` (M, D): each next patch is the one farthest from those chosen.

    Distances are taken in a seeded random projection to `dimensions`, where D is larger, as the paper does.
    """
    draws = torch.Generator().manual_seed(seed)
    if pool.shape[1] > dimensions:
        pool = pool @ (torch.randn(pool.shape[1], dimensions, generator=draws) / dimensions**0.5).to(pool)
    chosen = [int(torch.randint(len(pool), (1,), generator=draws))]
    farthest = torch.full((len(pool),), torch.inf, device=pool.device)
    for _ in tqdm(range(size - 1), "core set", leave=False, delay=2):
        farthest = torch.minimum(farthest, (pool - pool[chosen[-1]]).square().sum(1))
        chosen.append(int(farthest.argmax()))
    return torch.tensor(chosen, device=pool.device)


@torch.no_grad()
def vae_floor(projection: LatentProjection, phi, test: TestSet, settings: Settings) -> dict:
    """The autoencoder alone: D(E(x0)) against x0, without any denoising, by pixels and by the features' cosine."""
    pixels, features, size = [], [], test.images.shape[-1]
    for x0 in tqdm(test.images.split(16), "autoencoder", leave=False, delay=2):
        x0 = x0.to(projection.device)
        x0_hat = projection.decode(projection.encode(x0))
        pixels.append((x0 - x0_hat).abs().mean(1).cpu())
        features.append(maps.feature_map(phi(x0), phi(x0_hat), size, settings).cpu())
    result = {}
    for name, part in (("pixels", pixels), ("features", features)):
        A = maps.smooth(torch.cat(part), settings.sigma * size / 256)
        result[name] = summary(maps.score(A), A, test)
    return result
