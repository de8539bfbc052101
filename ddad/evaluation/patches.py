"""Detectors that compare patches, without diffusion: nearest neighbours, PatchCore and
PaDiM.

An ImageNet network describes each patch of an image by F numbers. A patch is as
anomalous as it lies far from the patches of good images; what is kept of those differs.
Each is a pair of functions: what it learns from the features of the training
images (N, h, w, F), and the map (M, h, w) it makes of those of M test images. All of it
runs, and is held, on the device of the features: 4 N h w F bytes, 37 MB for 240 images
of 128 pixels and 209 MB for 335 of 256 (F = 152). A search takes as much again.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data.images import Images
from ..settings import Settings

# The search's block of distances: 8 MB, which a processor's cache holds in part.
QUERIES, BANK = 512, 4096
PART = 64                           # images whose patches are held at once
REACH = 2                           # cells a neighbour in place may lie away
SHARE, NEAREST = 0.1, 9             # PatchCore: of the patches kept; b of its score
DIMENSIONS, RIDGE = 100, 0.01       # PaDiM: of the F numbers; added to the covariance


@torch.no_grad()
def patch_features(phi, images: Images, settings: Settings) -> Tensor:
    """`stacked` (N, h, w, F) float32 on phi's device, of images (N, 3, H, W)."""
    device, features = next(phi.parameters()).device, None
    for start in tqdm(range(0, len(images), 16), "features", leave=False, delay=2):
        batch = slice(start, start + 16)
        part = stacked(phi(images[batch].to(device)), settings.map_stages)
        if features is None:        # filled in place: parts would be there twice
            features = part.new_empty(len(images), *part.shape[1:])
        features[batch] = part
    return features


def drawn_patches(phi, images: Images, settings: Settings, most: int, seed: int
                  ) -> Tensor:
    """At most so many of all patches of images (N, 3, H, W), drawn with the seed: the
    rows (n, F) of `patch_features` that a permutation of them puts first.
    """
    order = drawn = None
    for nth, f in enumerate(patch_parts(phi, images, settings)):
        f = rows(f)
        if drawn is None:               # the first is the largest, its images as many
            each = len(f) // min(PART, len(images))
            order = torch.randperm(len(images) * each,
                                   generator=torch.Generator().manual_seed(seed))[:most]
            order = order.to(f.device)
            drawn = f.new_empty(len(order), f.shape[1])
        own = order - nth * PART * each
        here = (own >= 0) & (own < len(f))
        drawn[here] = f[own[here]]
    return drawn


def patch_parts(phi, images: Images, settings: Settings) -> Iterator[Tensor]:
    """`patch_features` of PART images at a time."""
    for part in images.split(PART):
        yield patch_features(phi, part, settings)


def stacked(stages: list[Tensor], J: tuple[int, ...]) -> Tensor:
    """(B, h, w, F) from phi_j, (B, C_j, h_j, w_j) each: the blocks j in J averaged over
    3 x 3, brought to the finest of them and stacked (PatchCore's locally aware patches,
    section 3.1).
    """
    stages = [F.avg_pool2d(stages[j - 1], 3, 1, 1) for j in J]
    size = (max(stage.shape[-1] for stage in stages),) * 2
    stages = [F.interpolate(stage, size=size, mode="bilinear") for stage in stages]
    return torch.cat(stages, 1).permute(0, 2, 3, 1)


def rows(features: Tensor) -> Tensor:
    """Every patch a row: (N h w, D), the same memory."""
    return features.flatten(0, 2)


def nearest(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """The distance to, and the index of, each query's nearest row of the bank: (Q,)
    each, from (Q, F) and (B, F). Exact.

    |q - b|^2 = |q|^2 + |b|^2 - 2 q b makes the search a product of matrices, in blocks
    of QUERIES x BANK; beside them there is one copy of the bank. The distance to the
    one that is found is then taken directly.
    """
    middle = bank.mean(0)           # squares of large numbers would cost digits
    bank = bank - middle
    squared, distance = bank.square().sum(1), queries.new_empty(len(queries))
    index = torch.empty(len(queries), dtype=torch.long, device=queries.device)
    for start in tqdm(range(0, len(queries), QUERIES), "nearest", leave=False, delay=2):
        block = slice(start, start + QUERIES)
        q = queries[block] - middle
        least = q.new_full((len(q),), torch.inf)
        at = torch.zeros(len(q), dtype=torch.long, device=q.device)
        for first in range(0, len(bank), BANK):
            part = slice(first, first + BANK)
            # short of |q|^2, which is the same for every b
            d2, found = torch.addmm(squared[part], q, bank[part].T, alpha=-2).min(1)
            at = torch.where(d2 < least, first + found, at)
            least = torch.minimum(d2, least)
        distance[block], index[block] = (q - bank[at]).norm(dim=1), at
    return distance, index


# --- nearest neighbours

def neighbours(bank: Tensor, test: Tensor) -> Tensor:
    """Each patch's distance to the nearest of all training patches, `rows(train)`
    (N h w, D), wherever in an image those lie: PatchCore's map with nothing left out.
    """
    return nearest(rows(test), bank)[0].view(test.shape[:3])


def local_neighbours(train: Tensor, test: Tensor) -> Tensor:
    """Each patch's distance to the nearest of the training patches at most REACH cells
    from its own place.

    It sees a part that is good elsewhere, and needs images that lie alike. One window
    of the training features is copied at a time: N (2 REACH + 1)^2 F numbers.
    """
    A = test.new_empty(test.shape[:3])
    for y in tqdm(range(A.shape[1]), "neighbours in place", leave=False, delay=2):
        for x in range(A.shape[2]):
            up, left = max(0, y - REACH), max(0, x - REACH)
            window = train[:, up : y + REACH + 1, left : x + REACH + 1]
            A[:, y, x] = nearest(test[:, y, x], rows(window))[0]
    return A


# --- PatchCore: Roth et al., CVPR 2022

def core(train: Tensor, seed: int) -> Tensor:
    """PatchCore's memory bank (K, F): a share of 0.1 of all training patches that
    covers them (Algorithm 1).

    The time grows with the square of their number: 6,144 of 61,440 take 4 seconds of a
    core, 34,304 of 343,040 some minutes. Memory: 4 N h w min(F, 128) bytes twice.
    """
    bank = rows(train)
    size = min(len(bank), max(NEAREST, round(SHARE * len(bank))))
    return bank[core_set(bank, size, seed)]


def core_set(bank: Tensor, size: int, seed: int, dimensions: int = 128) -> Tensor:
    """Indices (size,) of a greedy k-centre cover of the bank (B, F).

    Each next patch is the one farthest from those chosen; the first is drawn. Distances
    are taken in a seeded random projection to `dimensions`, where F is larger, as the
    paper does.
    """
    draws = torch.Generator().manual_seed(seed)
    if bank.shape[1] > dimensions:
        to_fewer = torch.randn(bank.shape[1], dimensions, generator=draws)
        bank = bank @ (to_fewer / dimensions**0.5).to(bank)
    new = torch.randint(len(bank), (1,), generator=draws).to(bank.device)
    chosen, to_chosen = new, bank.new_full((len(bank),), torch.inf)
    bar = tqdm(total=size, desc="core set", leave=False, delay=2)
    while len(chosen) < size:
        to_chosen = torch.minimum(to_chosen, nearest(bank, bank[new])[0])
        # distances only shrink: until all of the farthest have come nearer than the
        # others are, the others need not be looked at
        d, far = to_chosen.topk(-(-len(bank) // 16))
        new = far[_farthest(bank[far], d, size - len(chosen))]
        chosen = torch.cat([chosen, new])
        bar.update(len(new))
    bar.close()
    return chosen


def _farthest(points: Tensor, d: Tensor, most: int) -> Tensor:
    """Indices of at most `most` points, each the farthest from all before it; d are the
    distances to what was chosen earlier, and none below their least counts.
    """
    least, apart = d.min(), torch.empty_like(points)
    found = torch.empty(most, dtype=torch.long, device=d.device)
    for n in range(most):
        farthest, at = d.max(0)
        if farthest < least:
            return found[:n]
        found[n] = at
        # in place: thousands of steps would leave memory in pieces
        torch.sub(points, points[at], out=apart)
        d = torch.minimum(d, torch.linalg.vector_norm(apart, dim=1), out=d)
    return found


def patchcore(bank: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Each patch's distance to the core set (M, h, w), and the images' scores (M,).

    The score is the largest distance s*, of the patch m_test, weighed by how well its
    nearest patch m* is surrounded: where m* is alone, it counts for more (equation 7).

        s = (1 - exp |m_test - m*| / sum over the b nearest of m*, of exp |m_test - m|)
            s*
    """
    distance, index = nearest(rows(test), bank)
    s, worst = distance.view(len(test), -1).max(1)
    image = torch.arange(len(test), device=test.device)
    m_test = test.flatten(1, 2)[image, worst]
    m = bank[index.view(len(test), -1)[image, worst]]
    to_bank = torch.cdist(m, bank, compute_mode="donot_use_mm_for_euclid_dist")
    around = to_bank.topk(min(NEAREST, len(bank)), largest=False).indices  # m* first
    d = (m_test.unsqueeze(1) - bank[around]).norm(dim=2)
    return distance.view(test.shape[:3]), (1 - d.softmax(1)[:, 0]) * s


# --- PaDiM: Defard et al., ICPR workshops 2021

class Gaussians(NamedTuple):
    """A Gaussian for each of P = h w places, of d of the F numbers."""

    kept: Tensor                    # (d,) int64, which
    mean: Tensor                    # (P, 1, d)
    root: Tensor                    # (P, d, d) lower triangular: covariance = L L^T


def gaussians(train: Tensor, seed: int) -> Gaussians:
    """What PaDiM learns (section III-B): mean and covariance of each place over the
    training images, of 100 dimensions drawn with the seed.

    RIDGE on the diagonal lets it be of full rank with fewer images than dimensions.
    Memory: 4 h w d^2 bytes, 10 MB for 16 x 16 places.
    """
    draws = torch.Generator().manual_seed(seed)
    kept = torch.randperm(train.shape[-1], generator=draws)[:DIMENSIONS]
    x = _by_place(train, kept)
    mean = x.mean(1, keepdim=True)
    x = x - mean
    covariance = x.mT @ x / (x.shape[1] - 1) + RIDGE * torch.eye(len(kept)).to(x)
    return Gaussians(kept, mean, torch.linalg.cholesky(covariance))


def padim(learned: Gaussians, test: Tensor) -> Tensor:
    """Each patch's Mahalanobis distance to its place's Gaussian (equation 2):
    sqrt((x - mu)^T (L L^T)^-1 (x - mu)) = |L^-1 (x - mu)|.
    """
    x = _by_place(test, learned.kept) - learned.mean
    A = torch.linalg.solve_triangular(learned.root, x.mT, upper=False).norm(dim=1)
    return A.T.reshape(test.shape[:3])


def _by_place(features: Tensor, kept: Tensor) -> Tensor:
    """(h w, N, d)."""
    return features[..., kept].flatten(1, 2).transpose(0, 1)
