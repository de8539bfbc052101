"""Choosing T_max, smallest bin, guidance, the blur of the latent map and lambda without test data: held-out good images, and damaged copies of them.

The paper's constants belong to Stable Diffusion's autoencoder and its own U-Net. Another latent space has another scale, and
a step that repaints a part there may not be enough here. So every candidate is tried on good images that training never saw
and on copies of them with synthetic defects of known place, and the best mean of image AUROC and PRO is taken.
"""
from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, gaussian_filter, label
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm.auto import tqdm

from . import anomaly_map as maps
from .metrics import PixelRanking
from .settings import Settings

T_MAX, SMALLEST_BIN = (80, 160, 300, 400, 500, 650), (0.2, 0.6, 1.0)        # the bin as a share of all bins
GUIDANCE, BLUR, LAMBDA = (0.33, 0.66), (0.0, 1.0), (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)
CHOSEN = ("T_max", "smallest_bin", "guidance", "latent_blur", "lam")


def region(picture: np.ndarray, area: float, rng: np.random.Generator) -> np.ndarray:
    """One patch of about `area` (share) of `picture` (H, H, 3) in [0, 1]; bool (H, H).

    A rectangle, a blob, a thin line, or a region bounded by the picture's own edges, as a missing part has the part's outline.
    """
    size = len(picture)
    yy, xx = np.mgrid[:size, :size] / size
    cy, cx = rng.uniform(0.12, 0.88, 2)
    kind = rng.integers(4)
    if kind == 2 and area >= 0.02:
        kind = 3
    if kind == 2:                                                     # line: as long as its width of 1 to 3% allows
        width, angle = rng.uniform(0.012, 0.03), rng.uniform(0, np.pi)
        along, across = (xx - cx) * np.cos(angle) + (yy - cy) * np.sin(angle), -(xx - cx) * np.sin(angle) + (yy - cy) * np.cos(angle)
        return (np.abs(along) <= area / width / 2) & (np.abs(across) <= width / 2)
    stretch = np.exp(rng.uniform(-0.7, 0.7))
    ry, rx = (yy - cy) * stretch, (xx - cx) / stretch
    distance = np.maximum(abs(ry), abs(rx)) if kind == 0 else np.hypot(ry, rx)
    if kind == 3:                                                     # like colours first, near ones before far ones
        colour = gaussian_filter(picture, (size / 128, size / 128, 0))
        distance = 0.5 * distance + np.abs(colour - colour[int(cy * size), int(cx * size)]).max(-1)
    elif kind != 0:
        distance = distance * np.exp(0.6 * _unit(gaussian_filter(rng.standard_normal((size, size)), size / 16, mode="wrap")))
    pixels = max(4, int(area * size * size))
    inside = distance <= np.partition(distance.ravel(), pixels)[pixels]
    if kind == 3:
        parts = label(inside)[0]
        inside = parts == parts.flat[distance.argmin()]
    return binary_fill_holes(inside)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / (np.abs(x).max() + 1e-8)


def damage(image: np.ndarray, other: np.ndarray, area: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A copy of `image` (H, W, 3) in [0, 1] with one synthetic defect, and its mask, bool (H, W).

    Four kinds: erased (filled from around it: a missing part), pasted (a patch from elsewhere, of this or the `other` image),
    recoloured, stained. A defect that hardly changes the picture is drawn again.
    """
    size = len(image)
    for _ in range(20):
        m = region(image, area, rng)
        kind = rng.integers(4)
        if kind == 0:
            sigma = max(1.5, np.sqrt(area) * size / 2)
            keep = gaussian_filter((~m).astype(np.float32), sigma)[..., None]
            new = gaussian_filter(image * ~m[..., None], (sigma, sigma, 0)) / np.maximum(keep, 1e-4)
        elif kind == 1:
            new = np.roll(image if rng.random() < 0.5 else other, tuple(rng.integers(size // 8, size - size // 8, 2)), (0, 1))
        elif kind == 2:
            new = np.clip(image[..., rng.permutation(3)] * rng.uniform(0.5, 1.5) + rng.uniform(-0.2, 0.2), 0, 1)
        else:
            grain = _unit(gaussian_filter(rng.standard_normal(image.shape), (2, 2, 0)))
            new = np.clip(rng.uniform(0, 1, 3) + 0.3 * grain, 0, 1)
        edge = gaussian_filter(m.astype(np.float32), 0.7)[..., None]
        new = image * (1 - edge) + new * edge
        change = np.abs(new - image).max(-1)
        if m.any() and change[m].mean() > 0.12:
            return new.astype(np.float32), m & (change > 0.03)
    return new.astype(np.float32), m


def synthetic_defects(images: Tensor, seed: int) -> tuple[Tensor, np.ndarray]:
    """Each image once, damaged: (N, 3, H, W) in [-1, 1] and masks (N, H, W) bool; sizes even in log area, 0.3% to 30%."""
    pictures = ((images + 1) / 2).permute(0, 2, 3, 1).numpy()
    order = np.random.default_rng(seed).permutation(len(pictures))
    damaged, masks = [], []
    for n, place in enumerate(order):
        rng = np.random.default_rng([seed, n])
        area = float(0.003 * 100 ** ((place + rng.random()) / len(order)))
        picture, mask = damage(pictures[n], pictures[order[n] if order[n] != n else n - 1], area, rng)
        damaged.append(picture)
        masks.append(mask)
    return torch.from_numpy(np.stack(damaged)).permute(0, 3, 1, 2) * 2 - 1, np.stack(masks)


def sweep(detector, images: Tensor, masks: np.ndarray, candidates: list[dict], lam=LAMBDA, blur=BLUR) -> list[dict]:
    """I-AUROC and PRO of every candidate, with every blur and lambda, on `images` (N, 3, H, W) with `masks` (N, H, W) bool.

    An image with an empty mask is good; the maps are scaled by the good ones' range. A candidate is a dict of settings.
    """
    observed = [detector.observe(x0, i * 16) for i, x0 in enumerate(images.split(16))]
    labels, table, size = masks.any((1, 2)), [], images.shape[-1]
    good = torch.from_numpy(~labels)
    for candidate in tqdm(candidates, "calibrate", leave=False, delay=2):
        changed = detector.under(detector.settings.change(**candidate))
        found = [changed.respond(seen, size)[:3] for seen in observed]
        A_f = torch.cat([part for _, _, part in found]).cpu()
        for sigma in blur:
            settings = changed.settings.change(latent_blur=sigma)
            A_l = torch.cat([maps.latent_map(seen.z0, z0_hat, size, settings) for seen, (z0_hat, _, _) in zip(observed, found)]).cpu()
            ranges = maps.Ranges.of(A_l[good], A_f[good])
            for weight in lam:
                A = maps.combine(A_l, A_f, ranges, settings.change(lam=weight))
                auroc = float(roc_auc_score(labels, maps.score(A).numpy()))
                table.append(candidate | {"latent_blur": sigma, "lam": weight, "i_auroc": auroc, "pro": PixelRanking(A.numpy(), masks).pro(0.3)})
    return table


def best(*tables: list[dict]) -> dict:
    """The candidate, blur and lambda with the best mean of I-AUROC and PRO over the tables, one a product."""
    mean = [sum(row["i_auroc"] + row["pro"] for row in rows) for rows in zip(*tables)]
    row = tables[0][mean.index(max(mean))]
    return {name: row[name] for name in CHOSEN}


def grid(settings: Settings) -> list[dict]:
    """Every T_max with every smallest bin, without guidance; the largest smallest bin is the static method."""
    bins = dict.fromkeys(max(1, round(share * settings.bins)) for share in SMALLEST_BIN)
    return [{"T_max": T, "smallest_bin": b, "guidance": 0.0} for T in T_MAX if T < settings.timesteps for b in bins]


def guided(chosen: dict, detector) -> list[dict]:
    """The chosen step with guidance that takes away the given shares of the first predicted noise: 1 - w (1 - abar) is left."""
    sigma2 = 1 - detector.abar[chosen["T_max"]].item()
    return [{name: chosen[name] for name in ("T_max", "smallest_bin")} | {"guidance": round(share / sigma2, 2)} for share in GUIDANCE]


def enough(good: Tensor) -> None:
    """ValueError for fewer than eight held-out images."""
    if len(good) < 8:
        raise ValueError(f"calibration needs at least 8 held-out good images, there are {len(good)}; raise held_out or add images")


def choose(fitted: list[tuple]) -> tuple[dict, list[list[dict]]]:
    """One choice for all (detector, held-out good images (N, 3, H, W)) pairs, and the table of each.

    T_max and smallest bin first, without guidance, then guidance; blur and lambda with both. At most `calibration_images` of each are
    used, as they are and damaged. ValueError for fewer than eight.
    """
    trials = []
    for detector, good in fitted:
        enough(good)
        good = good[: detector.settings.calibration_images]
        damaged, masks = synthetic_defects(good, detector.settings.seed)
        trials.append((detector, torch.cat([good, damaged]), np.concatenate([np.zeros_like(masks), masks])))
    tables = [sweep(*trial, grid(trial[0].settings)) for trial in trials]
    more = guided(best(*tables), trials[0][0])
    tables = [table + sweep(*trial, more) for table, trial in zip(tables, trials)]
    return best(*tables), tables
