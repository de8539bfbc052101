"""What is simpler than the method, at full strength: a method has to stand above it.

    patches          a patch against all patches of the training images: `patches`
    one U-Net call   |eps_theta(sqrt(abar_t) z0, t)|, without any reconstruction
    autoencoder      D(E(x0)) against x0, without any diffusion

All start from the same ImageNet features, before any fine-tuning, and their maps are
upsampled and smoothed as the method's are.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from statistics import mean

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import anomaly_map as maps
from ..calibration import FEWEST, Calibration
from ..data.images import Images
from ..data.product import TestSet
from ..detector import Detector
from ..latent_projection import LatentProjection
from ..networks.features import load_features
from ..settings import ONE_CALL, Settings
from ..training import hold_out
from . import patches
from .scoring import summary

METRICS, PARTS = ("i_auroc", "p_auroc", "pro"), ("score", "overlap", "false")


def baselines(detector: Detector, train: Images, test: TestSet,
              held_out: Images | None = None,
              seeds: Iterable[int] = (0, 1, 2)) -> dict[str, dict]:
    """By name neighbours, local_neighbours, patchcore, padim, one_call,
    autoencoder_pixels and autoencoder_features: i_auroc, p_auroc, pro, and the seconds
    that the test set takes, without what is learnt or chosen before; patches, the size
    of a memory bank; score, overlap and false of each test image (`by_image.parts`);
    step and latent_blur, where they are chosen.

    train: good training images (N, 3, H, W) in [-1, 1]. held_out: good images given as
    such, else the share of `train` that `hold_out` keeps back: the one call's step is
    chosen on them. The patch baselines, which have nothing to choose, learn from both.
    seeds: PatchCore and PaDiM draw; their figures are means, and `seeds` has each with
    its scores. Raises BackboneError.
    """
    s = detector.settings
    phi = load_features(s).to(detector.device)
    alone = autoencoder(detector.projection, phi, test, s)
    good = hold_out(train, s, held_out)[1]
    every = [train] if held_out is None else [train, held_out]
    return {**of_patches(phi, every, test, s, seeds),
            "one_call": one_call(detector, good, test),
            **{f"autoencoder_{by}": row for by, row in alone.items()}}


def smoothed(A: Tensor, settings: Settings) -> Tensor:
    """The map (N, H, H) as the method's is smoothed, on the CPU."""
    return maps.smooth(A, settings.sigma * A.shape[-1] / 256).cpu()


def as_map(A: Tensor, size: int, settings: Settings) -> Tensor:
    """Values of patches (N, h, w) as a map (N, size, size), as the method's is made."""
    return smoothed(maps.upsample(A, size, settings.align_corners), settings)


def timed(run: Callable, *given) -> tuple:
    """What run(*given) returns, and its seconds."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    started = time.perf_counter()
    result = run(*given)
    wait()
    return result, time.perf_counter() - started


# --- patches

@torch.no_grad()
def of_patches(phi, train: Sequence[Images], test: TestSet, settings: Settings,
               seeds: Iterable[int] = (0,)) -> dict[str, dict]:
    """The four that compare patches, with those of one or more sets of good images;
    their features are computed once for all.

    Memory: the features of both sets, and what `patches` says of each.
    """
    known = torch.cat([patches.patch_features(phi, good, settings) for good in train])
    asked, looking = timed(patches.patch_features, phi, test.images, settings)

    def row(A: Tensor, seconds: float, score: Tensor | None = None, **more) -> dict:
        A, smoothing = timed(as_map, A, test.images.shape[-1], settings)
        score = maps.score(A) if score is None else score.cpu()
        seconds = round(looking + seconds + smoothing, 2)
        return summary(score, A, test) | {"seconds": seconds} | more

    bank, core_sets, densities = patches.rows(known), [], []
    everywhere = timed(patches.neighbours, bank, asked)
    in_place = timed(patches.local_neighbours, known, asked)
    for seed in seeds:
        core = patches.core(known, seed)
        (A, score), seconds = timed(patches.patchcore, core, asked)
        core_sets.append(row(A, seconds, score, patches=len(core), seed=seed))
        density = patches.gaussians(known, seed)
        densities.append(row(*timed(patches.padim, density, asked), seed=seed))
    return {"neighbours": row(*everywhere, patches=len(bank)),
            "local_neighbours": row(*in_place, patches=len(bank)),
            "patchcore": over_seeds(core_sets), "padim": over_seeds(densities)}


def over_seeds(rows: list[dict]) -> dict:
    """The means of rows that differ by their seed; the metrics of each, and what they
    are made of.
    """
    means = {name: None if value is None else mean(row[name] for row in rows)
             for name, value in rows[0].items() if name not in ("seed", *PARTS)}
    kept = [name for name in ("seed", *METRICS, *PARTS) if name in rows[0]]
    return means | {"seeds": [{name: row[name] for name in kept} for row in rows]}


# --- one call of the U-Net

def one_call(detector: Detector, good: Images, test: TestSet) -> dict:
    """What eps_theta takes for noise in a latent without any, |eps_theta(sqrt(abar_t)
    z0, t)|, as the map: its metrics, as those of `baselines`.
    """
    one = single(detector, good)
    found, seconds = timed(one.predict, test.images)
    made = {"step": one.settings.T_max, "latent_blur": one.settings.latent_blur}
    return summary(found.score, found.map, test) | {"seconds": round(seconds, 2)} | made


def single(detector: Detector, good: Images) -> Detector:
    """The preset `one-call` with this detector's networks. Step and blur are calibrated
    on held-out good images (N, 3, H, W), where there are enough.
    """
    s = detector.settings
    one = detector.under(s.change(**ONE_CALL, patch_share=0.0, map_range="test",
                                  noise=False, first_call="latent"))
    if len(good) < FEWEST:
        return one
    chosen, _ = Calibration([(one, good)]).path()
    return one.under(one.settings.change(**chosen))


# --- the autoencoder

@torch.no_grad()
def autoencoder(projection: LatentProjection, phi, test: TestSet,
                settings: Settings) -> dict:
    """The autoencoder alone: D(E(x0)) against x0, without any denoising.

    By pixels and by the features' cosine; seconds are those of both.
    """
    started, size = time.perf_counter(), test.images.shape[-1]
    device = next(phi.parameters()).device
    stages, corners = settings.map_stages, settings.align_corners
    pixels, features, result = [], [], {}
    for x0 in tqdm(test.images.split(16), "autoencoder", leave=False, delay=2):
        x0 = x0.to(device)
        x0_hat = projection.decode(projection.encode(x0))
        pixels.append(smoothed((x0 - x0_hat).abs().mean(1), settings))
        A_f = maps.feature_map(phi(x0), phi(x0_hat), size, stages, corners)
        features.append(smoothed(A_f, settings))
    seconds = round(time.perf_counter() - started, 2)
    for name, part in (("pixels", pixels), ("features", features)):
        A = torch.cat(part)
        result[name] = summary(maps.score(A), A, test) | {"seconds": seconds}
    return result
