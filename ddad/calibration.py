"""Choosing T_max, smallest bin, guidance, the latent map's blur and lambda without test
data: on held-out good images, and on copies of them with synthetic defects.

The paper's constants belong to Stable Diffusion's autoencoder and its own U-Net.
Another latent space has another scale, and a step that reconstructs a part there may
not be enough here. So every candidate is tried on good images that training never saw
and on copies of them with synthetic defects of known place, and the best mean of image
AUROC and PRO is taken. The threshold is not chosen here: see `Detector.set_ranges`.
"""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm.auto import tqdm

from . import anomaly_map as maps
from .evaluation.metrics import PixelRanking
from .settings import Settings
from .synthetic.defects import synthetic_defects

T_MAX = (80, 160, 300, 400, 500, 650)
SMALLEST_BIN = (0.2, 0.6, 1.0)                          # as a share of all bins
GUIDANCE, BLUR = (0.33, 0.66), (0.0, 1.0)
LAMBDA = (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)
CHOSEN = ("T_max", "smallest_bin", "guidance", "latent_blur", "lam")


def sweep(detector, images: Tensor, masks: np.ndarray, candidates: list[dict],
          lam: Iterable[float] = LAMBDA, blur: Iterable[float] = BLUR) -> list[dict]:
    """I-AUROC and PRO of every candidate, with every blur and lambda, on `images`
    (N, 3, H, W) with `masks` (N, H, W) bool.

    An image with an empty mask is good; the maps are scaled by the good ones' range. A
    candidate is a dict of settings.
    """
    observed = [detector.observe(x0, i * 16) for i, x0 in enumerate(images.split(16))]
    labels, table, size = masks.any((1, 2)), [], images.shape[-1]
    good = torch.from_numpy(~labels)
    for candidate in tqdm(candidates, "calibrate", leave=False, delay=2):
        changed = detector.under(detector.settings.change(**candidate))
        s = changed.settings
        found = [changed.respond(seen, size)[:3] for seen in observed]
        A_f = torch.cat([part for _, _, part in found]).cpu()
        for cells in blur:
            A_l = torch.cat([
                maps.latent_map(seen.z0, z0_hat, size, cells, s.align_corners)
                for seen, (z0_hat, _, _) in zip(observed, found)]).cpu()
            ranges = maps.Ranges.of(A_l[good], A_f[good])
            for weight in lam:
                A = maps.combine(A_l, A_f, ranges, weight, s.sigma)
                auroc = float(roc_auc_score(labels, maps.score(A).numpy()))
                pro = PixelRanking(A.numpy(), masks).pro(0.3)
                table.append(candidate | {"latent_blur": cells, "lam": weight,
                                          "i_auroc": auroc, "pro": pro})
    return table


def best(*tables: list[dict]) -> dict:
    """The candidate, blur and lambda with the best mean of I-AUROC and PRO over the
    tables, one a product.
    """
    mean = [sum(row["i_auroc"] + row["pro"] for row in rows) for rows in zip(*tables)]
    row = tables[0][mean.index(max(mean))]
    return {name: row[name] for name in CHOSEN}


def grid(settings: Settings) -> list[dict]:
    """Every T_max with every smallest bin, without guidance; the largest smallest bin
    is the static method.
    """
    bins = dict.fromkeys(max(1, round(share * settings.bins)) for share in SMALLEST_BIN)
    return [{"T_max": T, "smallest_bin": b, "guidance": 0.0}
            for T in T_MAX if T < settings.timesteps for b in bins]


def guided(chosen: dict, detector) -> list[dict]:
    """The chosen step with guidance that takes away the given shares of the first
    predicted noise: 1 - w (1 - abar) is left.
    """
    sigma2 = 1 - detector.abar[chosen["T_max"]].item()
    step = {name: chosen[name] for name in ("T_max", "smallest_bin")}
    return [step | {"guidance": round(share / sigma2, 2)} for share in GUIDANCE]


def enough(good: Tensor) -> None:
    """ValueError for fewer than eight held-out images."""
    if len(good) < 8:
        raise ValueError(
            "calibration needs at least 8 held-out good images, there are "
            f"{len(good)}; raise held_out or add images")


def choose(fitted: list[tuple]) -> tuple[dict, list[list[dict]]]:
    """One choice for all (detector, held-out good images (N, 3, H, W)) pairs, and the
    table of each.

    T_max and smallest bin first, without guidance, then guidance; blur and lambda with
    both. At most `calibration_images` of each are used, as they are and with defects.
    ValueError for fewer than eight.
    """
    trials = []
    for detector, good in fitted:
        enough(good)
        good = good[: detector.settings.calibration_images]
        defective, masks = synthetic_defects(good, detector.settings.seed)
        masks = np.concatenate([np.zeros_like(masks), masks])
        trials.append((detector, torch.cat([good, defective]), masks))
    tables = [sweep(*trial, grid(trial[0].settings)) for trial in trials]
    more = guided(best(*tables), trials[0][0])
    tables = [table + sweep(*trial, more) for table, trial in zip(tables, trials)]
    return best(*tables), tables
