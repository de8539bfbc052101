"""Choosing constants without test data: on held-out good images, and on copies of them
with synthetic defects.

The paper's constants belong to Stable Diffusion's autoencoder and its own U-Net.
Another latent space has another scale, and a step that reconstructs a part there may
not be enough here. So every candidate is tried on good images that training never saw
and on copies of them with synthetic defects of known place, faint ones among them:
where all candidates find everything, nothing tells one from another.

    q_i    = share of good images that defect i's score exceeds + its part of PRO
    q_g    = mean of q_i over a group g: a kind of defect, a third of the sizes, or all
    lost_g = q_g of the candidate that is best for g - q_g
    J      = lost_all + the largest lost_g                          smaller is better

A candidate has to be good on the whole, and to give up no kind and no size. The safe
choice is the preset's own; another is taken only where its J is smaller by more than
the standard error of the difference, over resamples of the images.
"""
from __future__ import annotations

from itertools import product
from math import log
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from . import anomaly_map as maps
from .data.images import Images, parted
from .evaluation.metrics import defect_pixels, found_by
from .runtime.shared_paths import SharedPaths, progress
from .settings import Settings
from .synthetic.defects import Trial, groups_of

T_MAX = (80, 160, 320, 480)
ONE_CALL = (10, 20, 40, 80, 160, 320, 640)              # t, where a single call is all
SMALLEST_BIN = (0.2, 0.6)                               # as a share of all bins
GUIDANCE, BLUR = (0.33, 0.66), (0.0, 1.0)
LAMBDA = (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)
PATH = ("step_rule", "T_max", "smallest_bin", "guidance")
MAP = ("latent_blur", "lam")
CHOSEN = PATH + MAP
DEFECTS, SIDE, RESAMPLES, FEWEST = 64, 64, 200, 8


class Tried(NamedTuple):
    """Candidates: rows of settings with i_auroc and pro; q (rows, D) of D defects."""

    table: list[dict]
    q: np.ndarray


def sweep(detector, images: Tensor, masks: np.ndarray, paths: list[dict],
          weighings: list[dict], shared: SharedPaths | None = None,
          what: str = "sweep") -> Tried:
    """Every path with every weighing of its maps, both dicts of settings, on `images`
    (N, 3, H, W) with `masks` (N, H, W) bool.

    An image with an empty mask is good; the maps are scaled by the good ones' range,
    and measured with sides of at most SIDE. shared: what other sweeps of these images
    made, with the detector as it is. what: the name of its bar.
    """
    shared, labels = shared or SharedPaths(detector, images, SIDE), masks.any((1, 2))
    side, seen, table, q = shared.size, shared.seen, [], []
    masks = F.adaptive_max_pool2d(torch.from_numpy(masks).float(), side).numpy() > 0
    good, (_, *overlap) = torch.from_numpy(~labels), defect_pixels(masks, masks)
    tried = [detector.under(detector.settings.change(**path)) for path in paths]
    shared.expect(tried)
    A_p = None if seen.d_p is None else maps.upsample(
        seen.d_p, side, detector.settings.align_corners).cpu()
    for one in (bar := tqdm(tried, what, leave=False, delay=2)):
        z0_hat, A_f = shared.of(one)
        for change in weighings:
            s = one.settings.change(**change)
            A_l = maps.latent_map(seen.z0, z0_hat, side, s.latent_blur,
                                  s.align_corners).cpu()
            ranges = maps.Ranges.of(*(A if A is None else A[good]
                                      for A in (A_l, A_f, A_p)))
            A = maps.combine(A_l, A_f, ranges, s.lam, s.sigma, A_p, s.patch_share)
            parts = found_by(A.numpy(), masks, labels, overlap)
            i_auroc, pro = parts.mean(1).round(6).tolist()
            table.append({name: getattr(s, name) for name in CHOSEN}
                         | {"i_auroc": i_auroc, "pro": pro})
            q.append(parts.sum(0))
        bar.set_postfix_str(progress(table, len(tried) * len(weighings)), False)
    return Tried(table, np.stack(q))


def choose_row(tried: Tried, groups: np.ndarray, image: np.ndarray, seed: int
               ) -> tuple[int, np.ndarray, np.ndarray]:
    """The row with the smallest J, or the first one that is not worse by more than the
    standard error of the difference; J of each, and that error. groups: (G, D) bool,
    the first holds all; image: (D,) which image each defect was made on.
    """
    count = np.bincount(image)
    draws = np.random.default_rng(seed).multinomial(
        len(count), np.full(len(count), 1 / len(count)), RESAMPLES)
    weight = np.concatenate([np.ones((1, len(count))), draws])[:, image]   # (1 + R, D)
    J = []
    for w in weight:
        share = groups * w
        q = share @ tried.q.T / share.sum(1, keepdims=True).clip(1e-9)      # (G, rows)
        lost = q.max(1, keepdims=True) - q
        J.append(lost[0] + lost.max(0))
    J, resampled = J[0], np.stack(J[1:])
    error = (resampled - resampled[:, [J.argmin()]]).std(0)
    # equal candidates differ by rounding
    return int((J - J.min() <= error + 1e-9).argmax()), J, error


def paths(settings: Settings) -> list[dict]:
    """Step rules with T_max, without guidance, nearest to the settings' own first. The
    paper's method chooses between a step per image and one for all; a step per region
    is what it is, and one call can have no other than static.
    """
    s = settings
    chosen = s.decode and s.step_rule != "region"
    rules = dict.fromkeys((s.step_rule, "image", "static") if chosen
                          else [s.step_rule])
    steps = sorted((T for T in (T_MAX if s.decode else ONE_CALL)
                    if T < s.train_timesteps), key=lambda T: abs(log(T / s.T_max)))
    return [{"step_rule": rule, "T_max": T, "guidance": 0.0}
            for T, rule in product(steps, rules)]


def further(chosen: dict, detector) -> list[dict]:
    """The chosen path with the settings' own guidance and without any; and from it
    another smallest bin, or guidance that takes away the given shares of the first
    predicted noise: 1 - w (1 - abar) is left.
    """
    path, s = {name: chosen[name] for name in PATH}, detector.settings
    if not s.decode:
        return [path]
    static = path["step_rule"] == "static"
    bins = [] if static else [max(1, round(share * s.bins)) for share in SMALLEST_BIN]
    sigma2 = 1 - detector.abar[path["T_max"]].item()
    own = [{**path, "guidance": s.guidance}] if s.guidance else []
    return [*own, path, *({**path, "smallest_bin": b} for b in bins
                    if b != path["smallest_bin"]),
            *({**path, "guidance": round(share / sigma2, 2)} for share in GUIDANCE)]


def weighings(settings: Settings) -> list[dict]:
    """Blur with lambda, nearest to the settings' own first. Not the third map's share:
    a synthetic defect is foreign to the patches in a way that few true ones are.
    """
    s = settings
    lams = sorted(LAMBDA, key=lambda lam: abs(lam - s.lam)) if s.decode else [1.0]
    return [{"latent_blur": blur, "lam": lam} for blur, lam in product(BLUR, lams)]


def enough(good: Images) -> None:
    """ValueError for fewer than FEWEST held-out images."""
    if len(good) < FEWEST:
        raise ValueError(
            f"calibration needs at least {FEWEST} held-out good images, there are "
            f"{len(good)}; raise held_out or add images")


def drawn(good: Images, settings: Settings) -> Images:
    """The held-out images that a calibration uses: files may drift with time."""
    return parted(good, settings.calibration_images, settings.seed + 3)[0]


class Calibration:
    """One choice for all (detector, held-out good images (N, 3, H, W)) pairs. At most
    `calibration_images` of each are drawn, with DEFECTS defects or more on copies of
    them. ValueError for fewer images than FEWEST.
    """

    def __init__(self, fitted: list[tuple]):
        self.detectors, self.trials, self.before = [], [], []
        for detector, good in fitted:
            enough(good)
            good = drawn(good, detector.settings)
            self.detectors.append(detector)
            copies = -(-DEFECTS // len(good))
            self.trials.append(Trial.of(good, detector.settings.seed, copies))

    @property
    def settings(self) -> Settings:
        return self.detectors[0].settings

    def observed(self) -> list[SharedPaths]:
        """The trials, seen with the features as they are now."""
        return [SharedPaths(detector, trial.images, SIDE)
                for detector, trial in zip(self.detectors, self.trials)]

    def best(self, paths: list[dict], weighings: list[dict], shared: list[SharedPaths],
             what: str) -> tuple[dict, list]:
        """The chosen settings, and the table of each pair. what: of them is chosen."""
        tried = [sweep(detector, trial.images, trial.masks, paths, weighings, one,
                       f"calibrate {what}")
                 for detector, trial, one in zip(self.detectors, self.trials, shared)]
        both = Tried(tried[0].table, np.concatenate([one.q for one in tried], 1))
        image, first = [], 0
        for trial in self.trials:
            N = trial.kind.count("good")
            image.append(first + np.arange(N).repeat(len(trial.kind) // N - 1))
            first += N
        groups = np.concatenate([groups_of(trial) for trial in self.trials], 1)
        row, *told = choose_row(both, groups, np.concatenate(image), self.settings.seed)
        chosen = {name: tried[0].table[row][name] for name in CHOSEN}
        told = [{"J": J, "J_error": e} for J, e in np.stack(told, 1).round(6).tolist()]
        return chosen, [[a | b for a, b in zip(one.table, told)] for one in tried]

    def path(self) -> tuple[dict, list]:
        """Step rule and T_max, then smallest bin and guidance; the maps' weighing with
        both.
        """
        plain = weighings(self.settings)
        self.before = shared = self.before or self.observed()
        chosen, tables = self.best(paths(self.settings), plain, shared, "path")
        others = further(chosen, self.detectors[0])
        chosen, more = self.best(others, plain, shared, "guidance")
        return chosen, [a + b for a, b in zip(tables, more)]

    def map(self) -> tuple[dict, list]:
        """How the maps are weighed, with the features as they are now."""
        s, shared = self.settings, self.observed()
        for one, before in zip(shared, self.before):
            one.z0_hat = {**before.z0_hat}          # no feature is in these
        path = {name: getattr(s, name) for name in PATH}
        return self.best([path], weighings(s), shared, "map")
