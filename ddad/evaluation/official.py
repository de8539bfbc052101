"""The official evaluation, transcribed as it stands; it shares no code with the method.

JustinTebbe/Dynamic-noise-AD: test.py, sample.py, anomaly_map.py and metrics.py. It
takes networks, tensors and numbers, and imports nothing of ddad, so that the preset
"official" can be held against it and detection timed against it. It is slow where that
code is: float32; every sampling step goes to the CPU and comes back; features are taken
five times, once for the neighbours and twice for each of two feature maps, of which one
is only drawn; neighbours by brute force; PRO by labelling and visiting every region
again at each of 200 thresholds.
"""
from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import auc
from torch import Tensor
from torch.nn import functional as F


def remember(phi, images: Tensor, settings,
             batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """The memory of the training images (N, 3, H, W): features (N, F), distances (N,).

    Each image is its own nearest neighbour.
    """
    with torch.no_grad():
        y = [features(phi, x0, settings) for x0 in images.split(batch)]
    bank = np.concatenate(y)
    return bank, nearest(bank, bank, settings.neighbours)


def features(phi, x0: Tensor, settings) -> np.ndarray:
    """(B, F): one block of phi, averaged over a grid; as fine as the block at most."""
    x0 = x0.to(next(phi.parameters()).device)
    stage = phi(x0)[settings.neighbour_stage - 1]
    side = min(settings.neighbour_pool, stage.shape[-1])
    return F.adaptive_avg_pool2d(stage, side).flatten(1).cpu().numpy()


def nearest(y: np.ndarray, bank: np.ndarray, K: int) -> np.ndarray:
    """Mean L1 distance (B,) of features y (B, F) to their K nearest rows of the bank.

    One image after the other.
    """
    return np.array([np.sort(np.abs(bank - one).sum(1))[:K].mean() for one in y])


def bins_of(training: np.ndarray, tested: np.ndarray, count: int) -> np.ndarray:
    """Bins 1 .. count of distances: an edge belongs to the bin below it."""
    _, edges = np.histogram(training, bins=count)
    return np.clip(np.digitize(tested, edges, right=True), 1, count)


def level(b: np.ndarray, settings) -> np.ndarray:
    """T_hat of bins: to tens, without the floor, and a tie goes up."""
    share = np.maximum(b, settings.smallest_bin) / settings.bins
    tens = np.floor(share * settings.T_max / 10 + 0.5).astype(int)
    return 10 * np.maximum(tens, 1)


def encode(vae, x0: Tensor, draw: Tensor | None = None) -> Tensor:
    """A sample of the posterior, unscaled, by the given draw or one of its own.

    An autoencoder that has no posterior gives its latents.
    """
    out = vae.encode(x0)
    if not hasattr(out, "latent_dist"):
        return getattr(out, "latents", getattr(out, "latent", out))
    mean, std = out.latent_dist.mean, out.latent_dist.std
    return mean + std * (torch.randn_like(mean) if draw is None else draw.to(mean))


def schedule(settings) -> Tensor:
    """abar of every step, float32, and behind the last a 1 for the step -1."""
    beta = np.linspace(settings.beta_start, settings.beta_end, settings.timesteps)
    return torch.from_numpy(np.append(np.cumprod(1 - beta), 1)).float()


def sample(unet, z0: Tensor, T_hat: Tensor, settings) -> Tensor:
    """z0_hat (B, C, h, w) of z0, scaled for T_hat (B,), first called one stride below.

    Both samplers, which differ in one point: the static one drops the noise in its
    first step.
    """
    device, abar = z0.device, schedule(settings).to(z0.device)
    visited = [torch.arange(0, end, max(end // settings.ddim_steps, 1))
               for end in T_hat.tolist()]
    last = len(visited[0]) - 1

    def at(t: Tensor) -> Tensor:
        return abar[t.to(device)].view(-1, 1, 1, 1)

    # All is kept to the end, the first guesses only to be kept.
    kept, guesses = [(at(T_hat).sqrt() * z0).to("cpu")], []
    for i in range(last, -1, -1):
        t = torch.tensor([steps[i] for steps in visited])
        following = torch.tensor([steps[i - 1] if i else -1 for steps in visited])
        a, a_next, z = at(t), at(following), kept[-1].to(device)
        e = unet(z, t.to(device)).sample
        target = a.sqrt() * z0 + (1 - a).sqrt() * e
        e_hat = e - (1 - a).sqrt() * settings.guidance * (target - z)
        z0_hat = (z - (1 - a).sqrt() * e_hat) / a.sqrt()
        guesses.append(z0_hat.to("cpu"))
        noise = (1 - a_next).sqrt() * e_hat
        if i == last and settings.step_rule == "static":
            noise = 0 * noise
        kept.append((a_next.sqrt() * z0_hat + noise).to("cpu"))
    return kept[-1].to(device)


def enlarged(values: Tensor, size: int) -> Tensor:
    """(B, 1, h, w) -> (B, 1, size, size), bilinear, the corners aligned."""
    return F.interpolate(values, size=size, mode="bilinear", align_corners=True)


def latent_distance(z0: Tensor, z0_hat: Tensor, size: int) -> Tensor:
    """(B, 1, size, size)."""
    return enlarged((z0 - z0_hat).abs().mean(1, keepdim=True), size)


def feature_distance(phi, x0: Tensor, x0_hat: Tensor, settings) -> Tensor:
    """(B, 1, H, H): the cosine distances of the map's blocks, added up."""
    pairs = list(zip(phi(x0), phi(x0_hat)))
    distances = [1 - F.cosine_similarity(*pairs[j - 1]) for j in settings.map_stages]
    return sum(enlarged(one.unsqueeze(1), x0.shape[-1]) for one in distances)


def blurred(A: Tensor, sigma: float) -> Tensor:
    """Gaussian of `sigma` pixels, cut at 4 sigma, mirrored at the border."""
    side = 2 * int(4 * sigma + 0.5) + 1
    x = torch.arange(side, device=A.device) - side // 2
    kernel = torch.softmax(-x**2 / (2 * sigma**2), 0)
    A = F.pad(A, (side // 2,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(A, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def scaled(parts: list[Tensor]) -> Tensor:
    """All batches' maps as one; 0 and 1 are the least and the most of the test set."""
    low, high = min(one.min() for one in parts), max(one.max() for one in parts)
    return torch.cat([(one - low) / (high - low) for one in parts])


@torch.no_grad()
def official_evaluation(
    unet, vae, phi, scale: float, memory: tuple[np.ndarray, np.ndarray], images: Tensor,
    settings, *, draws: Tensor | None = None, batch: int = 16,
) -> dict[str, np.ndarray]:
    """Maps (N, H, H), scores, bins and levels (N,) of images (N, 3, H, H) in [-1, 1].

    unet, vae and phi: the networks themselves, on one device. scale: what latents are
    multiplied by. memory: see `remember`. draws (N, C, h, w): the noise of each image's
    sample of the posterior; None leaves them to torch's own generator. settings:
    numbers by the names that ddad gives them. The bin is the one of the distance,
    before the smallest bin counts. Returns {"map", "score", "bin", "T_hat"}.
    """
    bank, training = memory
    device, size = next(unet.parameters()).device, images.shape[-1]
    sigma = settings.sigma * size / 256
    latent, cosine, drawn, bins, levels = [], [], [], [], []
    for n, x0 in enumerate(images.split(batch)):
        y = features(phi, x0, settings)
        b = bins_of(training, nearest(y, bank, settings.neighbours), settings.bins)
        T_hat = level(b, settings)
        if settings.step_rule == "static":
            T_hat = np.full_like(b, settings.T_max)
        x0, draw = x0.to(device), None if draws is None else draws.split(batch)[n]
        z0 = encode(vae, x0, draw) * scale
        z0_hat = sample(unet, z0, torch.from_numpy(T_hat), settings)
        x0_hat = vae.decode(z0_hat / scale)
        x0_hat = getattr(x0_hat, "sample", x0_hat)
        latent.append(latent_distance(z0, z0_hat, size))
        cosine.append(feature_distance(phi, x0, x0_hat, settings))
        drawn.append(blurred(latent_distance(z0, z0_hat, size), sigma))
        drawn.append(blurred(feature_distance(phi, x0, x0_hat, settings), sigma))
        bins.append(b)
        levels.append(T_hat)
    A = settings.lam * scaled(latent) + (1 - settings.lam) * scaled(cosine)
    A = blurred(A, sigma).squeeze(1)
    scores = np.array([torch.max(one).item() for one in A])
    return {"map": A.cpu().numpy(), "score": scores, "bin": np.concatenate(bins),
            "T_hat": np.concatenate(levels)}


def pro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """PRO of maps and masks (N, H, W), masks in 0 .. 1, by 200 thresholds.

    A region is where a mask, left grey by its resizing, is 1. Rates below the limit are
    stretched to reach 1.
    """
    low, high = float(maps.min()), float(maps.max())
    found, false = [], []
    for threshold in np.arange(low, high, (high - low) / 200):
        passed, shares = maps > threshold, []
        for one, mask in zip(passed, masks):
            regions, _ = ndimage.label(mask == 1, structure=np.ones((3, 3)))
            for number, box in enumerate(ndimage.find_objects(regions), 1):
                region = regions[box] == number
                shares.append(one[box][region].sum() / region.sum())
        found.append(np.mean(shares))
        false.append(np.logical_and(1 - masks, passed).sum() / (1 - masks).sum())
    found, false = np.array(found), np.array(false)
    kept = false < limit
    return float(auc(false[kept] / false[kept].max(), found[kept]))
