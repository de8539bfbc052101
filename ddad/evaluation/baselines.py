"""What any detector has to stand above, and a strong peer.

Above: nearest neighbours alone, and the autoencoder alone. The peer: PatchCore, with
the same features.
"""
from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from .. import anomaly_map as maps
from ..data.product import TestSet
from ..detector import Detector
from ..latent_projection import LatentProjection
from ..networks.features import load_features
from ..settings import Settings
from .scoring import summary

# Of PatchCore: share of the patches in its core set, patches it is chosen from, b of
# its score.
SHARE, POOL, NEAREST = 0.1, 20_000, 9


def baselines(detector: Detector, train: Tensor, test: TestSet) -> dict:
    """All of them, with the ImageNet features the method starts from.

    The keys are neighbours, patchcore and vae, which has pixels and features.
    """
    settings = detector.settings
    phi = load_features(settings).to(detector.device)
    return {"neighbours": neighbours(phi, train, test, settings),
            "patchcore": patchcore(phi, train, test, settings),
            "vae": autoencoder(detector.projection, phi, test, settings)}


def patch_features(phi, images: Tensor, settings: Settings) -> Tensor:
    """(B, D, h, w): the map's blocks averaged over 3 x 3 and stacked.

    They are brought to the finest of them (PatchCore's locally aware patches).
    """
    stages = phi(images)
    stages = [F.avg_pool2d(stages[j - 1], 3, 1, 1) for j in settings.map_stages]
    size = (max(stage.shape[-1] for stage in stages),) * 2
    return torch.cat([F.interpolate(stage, size=size, mode="bilinear")
                      for stage in stages], 1)


def _patches(phi, images: Tensor, settings: Settings, most: int) -> Tensor:
    """At most `most` patches (M, D) of the images, an equal number of each.

    They are drawn with the settings' seed.
    """
    device, each = next(phi.parameters()).device, -(-most // len(images))
    draws, parts = torch.Generator().manual_seed(settings.seed), []
    for x0 in images.split(16):
        patches = patch_features(phi, x0.to(device), settings).flatten(2).mT
        drawn = torch.randperm(patches.shape[1], generator=draws)[:each]
        parts.append(patches[:, drawn].flatten(0, 1))
    return torch.cat(parts)[:most]


def _detect(phi, test: TestSet, settings: Settings, bank: Tensor, what: str,
            score: Callable[[Tensor], Tensor] | None = None) -> dict:
    """Each patch's distance to the bank as the map, scored.

    The image's score is the map's largest value, or score(distances (B, P, M)).
    """
    started, size = time.perf_counter(), test.images.shape[-1]
    parts, scores = [], []
    for x0 in tqdm(test.images.split(4), what, leave=False, delay=2):
        f = patch_features(phi, x0.to(bank.device), settings)
        distance = torch.cdist(f.flatten(2).mT.flatten(0, 1), bank)
        distance = distance.unflatten(0, (len(x0), -1))
        if score is not None:
            scores.append(score(distance).cpu())
        nearest = distance.amin(2).view(len(x0), *f.shape[-2:])
        parts.append(maps.upsample(nearest, size, settings.align_corners).cpu())
    A = maps.smooth(torch.cat(parts), settings.sigma * size / 256)
    seconds = round(time.perf_counter() - started, 2)
    found = summary(torch.cat(scores) if scores else maps.score(A), A, test)
    return found | {"patches": len(bank), "seconds": seconds}


@torch.no_grad()
def neighbours(phi, train: Tensor, test: TestSet, settings: Settings,
               patches: int = 10_000) -> dict:
    """Nearest neighbours alone: each patch against `patches` of the training images.

    Those are drawn. The map's largest value is the score.
    """
    bank = _patches(phi, train, settings, patches)
    return _detect(phi, test, settings, bank, "neighbours")


@torch.no_grad()
def patchcore(phi, train: Tensor, test: TestSet, settings: Settings) -> dict:
    """PatchCore (Roth et al., CVPR 2022).

    A core set of the training patches, and a score that weighs how well its nearest
    patch is surrounded. The core set is a tenth of at most 20,000 patches drawn from
    the training images: that limit, for two cores, is ours.
    """
    pool = _patches(phi, train, settings, POOL)
    size = max(NEAREST, round(SHARE * len(pool)))
    bank = pool[core_set(pool, size, settings.seed)]
    # of each patch its b nearest, itself the first
    b = min(NEAREST, len(bank))
    around = torch.cdist(bank, bank).topk(b, largest=False).indices

    def score(distance: Tensor) -> Tensor:
        """s = (1 - exp d* / sum over the b nearest of m* of exp d) d*: equation 7."""
        nearest, m = distance.min(2)
        s, patch = nearest.max(1)
        rows = torch.arange(len(distance), device=distance.device)
        d = distance[rows, patch].gather(1, around[m[rows, patch]])
        return (1 - d.softmax(1)[:, 0]) * s

    return _detect(phi, test, settings, bank, "PatchCore", score)


def core_set(pool: Tensor, size: int, seed: int, dimensions: int = 128) -> Tensor:
    """Indices (size,) of a greedy k-centre cover of `pool` (M, D).

    Each next patch is the one farthest from those chosen. Distances are taken in a
    seeded random projection to `dimensions`, where D is larger, as the paper does.
    """
    draws = torch.Generator().manual_seed(seed)
    if pool.shape[1] > dimensions:
        to_fewer = torch.randn(pool.shape[1], dimensions, generator=draws)
        pool = pool @ (to_fewer / dimensions**0.5).to(pool)
    chosen = [int(torch.randint(len(pool), (1,), generator=draws))]
    farthest = torch.full((len(pool),), torch.inf, device=pool.device)
    for _ in tqdm(range(size - 1), "core set", leave=False, delay=2):
        to_last = (pool - pool[chosen[-1]]).square().sum(1)
        farthest = torch.minimum(farthest, to_last)
        chosen.append(int(farthest.argmax()))
    return torch.tensor(chosen, device=pool.device)


@torch.no_grad()
def autoencoder(projection: LatentProjection, phi, test: TestSet,
                settings: Settings) -> dict:
    """The autoencoder alone: D(E(x0)) against x0, without any denoising.

    By pixels and by the features' cosine.
    """
    device, size = next(phi.parameters()).device, test.images.shape[-1]
    stages, corners = settings.map_stages, settings.align_corners
    pixels, features = [], []
    for x0 in tqdm(test.images.split(16), "autoencoder", leave=False, delay=2):
        x0 = x0.to(device)
        x0_hat = projection.decode(projection.encode(x0))
        pixels.append((x0 - x0_hat).abs().mean(1).cpu())
        A_f = maps.feature_map(phi(x0), phi(x0_hat), size, stages, corners)
        features.append(A_f.cpu())
    result = {}
    for name, part in (("pixels", pixels), ("features", features)):
        A = maps.smooth(torch.cat(part), settings.sigma * size / 256)
        result[name] = summary(maps.score(A), A, test)
    return result
