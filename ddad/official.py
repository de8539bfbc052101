"""The official evaluation, transcribed as it stands, for `bench` to be timed against; nothing else calls it.

JustinTebbe/Dynamic-noise-AD, test.py, sample.py, anomaly_map.py and metrics.py: float32; every sampling step kept on the CPU; features
taken five times, once for the neighbours and twice for each of two feature maps, of which one is only drawn; neighbours by brute
force in NumPy; PRO by labelling and visiting every region again at each of 200 thresholds. On the device: autoencoder, U-Net and phi.
"""
from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import auc
from torch import Tensor
from torch.nn import functional as F

from .anomaly_map import smooth
from .detector import Detector


def nearest(y: np.ndarray, bank: np.ndarray, K: int) -> np.ndarray:
    """Mean L1 distance (B,) of features y (B, D) to their K nearest rows of the bank (N, D), one image after the other."""
    return np.array([np.sort(np.abs(bank - one).sum(1))[:K].mean() for one in y])


def sample(unet, z0: Tensor, T_hat: Tensor, abar: Tensor, w: float) -> Tensor:
    """The dynamic sampler: ten steps, each of which goes to the CPU and comes back."""
    device, table = z0.device, torch.cat([abar, abar.new_ones(1)])
    steps = [torch.arange(0, end, max(end // 10, 1)) for end in T_hat.tolist()]
    kept, first = [(table[T_hat].view(-1, 1, 1, 1).sqrt() * z0).to("cpu")], []
    for i in reversed(range(10)):
        t = torch.tensor([one[i] for one in steps]).to(device)
        prev = torch.tensor([one[i - 1] if i else -1 for one in steps]).to(device)
        at, at_prev = table[t].view(-1, 1, 1, 1), table[prev].view(-1, 1, 1, 1)
        z = kept[-1].to(device)
        e = unet(z, t).sample
        target = at.sqrt() * z0 + (1 - at).sqrt() * e
        e_hat = e - (1 - at).sqrt() * w * (target - z)
        z0_hat = (z - (1 - at).sqrt() * e_hat) / at.sqrt()
        first.append(z0_hat.to("cpu"))
        kept.append((at_prev.sqrt() * z0_hat + (1 - at_prev).sqrt() * e_hat).to("cpu"))
    return kept[-1].to(device)


def latent_distance(z0: Tensor, z0_hat: Tensor, size: int) -> Tensor:
    return F.interpolate((z0 - z0_hat).abs().mean(1, keepdim=True), size=size, mode="bilinear", align_corners=True)


def feature_distance(phi, x0: Tensor, x0_hat: Tensor, size: int, stages: tuple[int, ...]) -> Tensor:
    total = 0
    for j, (a, b) in enumerate(zip(phi(x0), phi(x0_hat)), 1):
        if j in stages:
            total = total + F.interpolate(1 - F.cosine_similarity(a, b).unsqueeze(1), size=size, mode="bilinear", align_corners=True)
    return total


@torch.no_grad()
def evaluate(detector: Detector, images: Tensor, batch: int = 16) -> tuple[Tensor, Tensor]:
    """Maps (N, H, W) and scores (N,) of images (N, 3, H, W) in [-1, 1] by the networks, bank and settings of a detector of preset "official"."""
    s, device, size = detector.settings, detector.device, images.shape[-1]
    bank, vae = detector.dynamic_noise.bank.cpu().numpy(), detector.projection.vae
    edges = np.histogram_bin_edges(detector.dynamic_noise.distances.cpu().numpy() * bank.shape[1], s.bins)
    latent, cosine, drawn = [], [], []
    for x0 in images.split(batch):
        stage = detector.phi(x0.to(device))[s.neighbour_stage - 1]
        y = F.adaptive_avg_pool2d(stage, min(s.neighbour_pool, stage.shape[-1])).flatten(1).cpu().numpy()
        b = np.clip(np.digitize(nearest(y, bank, s.neighbours), edges, right=True), s.smallest_bin, s.bins)
        T_hat = torch.from_numpy((np.floor(b * s.T_max / s.bins / 10 + 0.5) * 10).astype(int)).to(device)
        out = vae.encode(x0.to(device))
        z0 = (out.latent_dist.sample() if hasattr(out, "latent_dist") else getattr(out, "latents", out)) * detector.projection.s
        z0_hat = sample(detector.unet, z0, T_hat, detector.abar, s.guidance)
        x0_hat = vae.decode(1 / detector.projection.s * z0_hat)
        x0_hat = getattr(x0_hat, "sample", x0_hat)
        latent.append(latent_distance(z0, z0_hat, size))
        cosine.append(feature_distance(detector.phi, x0.to(device), x0_hat, size, s.map_stages))
        for again in (latent_distance(z0, z0_hat, size), feature_distance(detector.phi, x0.to(device), x0_hat, size, s.map_stages)):
            drawn.append(smooth(again.squeeze(1), 4 * size / 256))
    scaled = lambda parts: (torch.cat(parts) - min(p.min() for p in parts)) / (max(p.max() for p in parts) - min(p.min() for p in parts))
    A = smooth((s.lam * scaled(latent) + (1 - s.lam) * scaled(cosine)).squeeze(1), 4 * size / 256)
    return A.cpu(), torch.tensor([torch.max(one).item() for one in A])


def pro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """PRO of maps and masks (N, H, W), masks in 0 .. 1, by 200 thresholds: at each, every mask is labelled and every region visited."""
    found, false = [], []
    for threshold in np.arange(maps.min(), maps.max(), (maps.max() - maps.min()) / 200):
        passed, shares = maps > threshold, []
        for one, mask in zip(passed, masks):
            regions, count = ndimage.label(mask == 1, structure=np.ones((3, 3)))
            for number, box in enumerate(ndimage.find_objects(regions), 1):
                region = regions[box] == number
                shares.append(one[box][region].sum() / region.sum())
        found.append(np.mean(shares))
        false.append(np.logical_and(1 - masks, passed).sum() / (1 - masks).sum())
    found, false = np.array(found), np.array(false)
    kept = false < limit
    return float(auc(false[kept] / false[kept].max(), found[kept]))
