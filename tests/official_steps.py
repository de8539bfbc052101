"""The official code's evaluation, step by step and one image at a time: an oracle for the preset "official".

Written from the description of that code in book/paper_against_code.md, not from ddad: it shares with the package only the trained
networks and the numbers in the settings. Slow on purpose, in the way it is described: every sampling step is kept on the CPU, neighbours are
searched by brute force.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, label
from sklearn.metrics import roc_auc_score, roc_curve


def pooled(stage, side):
    """Average over a side x side grid, by hand; the stage's own side where that is smaller."""
    h, side = stage.shape[-1], min(side, stage.shape[-1])
    edges = [(i * h // side, -(-(i + 1) * h // side)) for i in range(side)]
    return torch.stack([torch.stack([stage[:, a:b, c:d].mean((1, 2)) for c, d in edges], -1) for a, b in edges], -2).flatten().numpy()


def nearest_mean(y, bank, K):
    """Mean L1 distance to the K nearest rows; a row of the bank is its own nearest."""
    return np.sort(np.abs(bank - y).sum(1))[:K].mean()


def bins_of(training, tested, count):
    """numpy.histogram's edges over the training distances, numpy.digitize with right=True, clamped."""
    _, edges = np.histogram(training, bins=count)
    return np.clip(np.digitize(tested, edges, right=True), 1, count)


def level(b, s):
    """No floor, and a tie goes up: with T_max 80, the bins 2 to 10 give 20 20 30 40 50 60 60 70 80."""
    return max(10, 10 * int(np.floor(max(b, s.smallest_bin) / s.bins * s.T_max / 10 + 0.5)))


def abar_at(t, s):
    """Product of 1 - beta up to step t; 1 at step -1."""
    return np.cumprod(1 - np.linspace(s.beta_start, s.beta_end, s.timesteps))[t] if t >= 0 else 1.0


def sample(unet, z0, T, s, static):
    """Scaled at T, first called one stride below; the static sampler drops both of DDIM's coefficients in its first step."""
    stride = max(T // s.ddim_steps, 1)
    visited = list(range(0, T, stride))[::-1]
    kept = [(np.sqrt(abar_at(T, s)) * z0).cpu()]
    for i, t in enumerate(visited):
        z, a, a_prev = kept[-1], abar_at(t, s), abar_at(visited[i + 1] if i + 1 < len(visited) else -1, s)
        e = unet(z, torch.tensor([t])).sample
        target = np.sqrt(a) * z0 + np.sqrt(1 - a) * e
        e_hat = e - s.guidance * np.sqrt(1 - a) * (target - z)
        z0_hat = (z - np.sqrt(1 - a) * e_hat) / np.sqrt(a)
        direction = 0.0 if static and i == 0 else np.sqrt(1 - a_prev)
        kept.append((np.sqrt(a_prev) * z0_hat + direction * e_hat).cpu())
    return kept[-1]


def enlarged(values, size):
    """Bilinear with aligned corners, by hand: (h, w) -> (size, size)."""
    h = values.shape[0]
    at = np.arange(size) * (h - 1) / (size - 1)
    low = np.minimum(at.astype(int), max(h - 2, 0))
    part = at - low
    high = np.minimum(low + 1, h - 1)
    rows = values[low] * (1 - part)[:, None] + values[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def cosine_distance(a, b):
    """1 - cosine at each position of two feature maps (C, h, w)."""
    a, b = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    norms = np.maximum(np.linalg.norm(a, axis=0), 1e-8) * np.maximum(np.linalg.norm(b, axis=0), 1e-8)
    return 1 - (a * b).sum(0) / norms


def pro_by_200_thresholds(maps, masks, limit=0.3):
    """Regions are where the blurred mask is exactly 1; rates below the limit are stretched to reach 1."""
    regions = []
    for n, mask in enumerate(masks):
        numbered, count = label(mask == 1, structure=np.ones((3, 3)))
        regions += [(n, numbered == k) for k in range(1, count + 1)]
    low, high, points = maps.min(), maps.max(), []
    for threshold in [low + (high - low) / 200 * k for k in range(200)]:
        found = maps > threshold
        rate = (found & (masks < 1)).sum() / (1 - masks).sum()
        if rate < limit:
            points.append((rate, np.mean([found[n][region].mean() for n, region in regions])))
    rate, overlap = map(np.array, zip(*sorted(points)))
    return np.trapezoid(overlap, rate / rate.max())


@torch.no_grad()
def official_evaluation(unet, vae, phi, train_images, test_images, masks, labels, draws, s):
    """Maps, scores, bins, steps and figures of the test images (N, 3, H, W), given masks (N, H, W) resized bilinearly and never made binary.

    draws: the noise (C, h, w) for each image's sample of the VAE's posterior. s: the settings, of which only numbers are read.
    """
    scale, size = float(vae.config.scaling_factor), test_images.shape[-1]
    stage = s.neighbour_stage - 1
    bank = np.stack([pooled(phi(x0[None])[stage][0], s.neighbour_pool) for x0 in train_images])
    training = np.array([nearest_mean(y, bank, s.neighbours) for y in bank])
    A_l, A_f, steps, chosen = [], [], [], []
    for x0, eps in zip(test_images, draws):
        d = nearest_mean(pooled(phi(x0[None])[stage][0], s.neighbour_pool), bank, s.neighbours)
        b = int(bins_of(training, np.array([d]), s.bins)[0])
        T = level(b, s) if s.dynamic else s.T_max
        posterior = vae.encode(x0[None]).latent_dist
        z0 = (posterior.mean + posterior.std * eps) * scale
        z0_hat = sample(unet, z0, T, s, static=not s.dynamic)
        x0_hat = vae.decode(z0_hat / scale).sample
        A_l.append(enlarged((z0 - z0_hat)[0].abs().mean(0).numpy().astype(np.float64), size))
        target, repainted = phi(x0[None]), phi(x0_hat)
        A_f.append(sum(enlarged(cosine_distance(target[j - 1][0], repainted[j - 1][0]), size) for j in s.map_stages))
        steps.append(T)
        chosen.append(b)
    A_l, A_f = np.stack(A_l), np.stack(A_f)
    A_l, A_f = ((A - A.min()) / (A.max() - A.min()) for A in (A_l, A_f))      # over all test images together
    sigma = s.sigma * size / 256
    A = np.stack([gaussian_filter(s.lam * one + (1 - s.lam) * other, sigma, mode="mirror", truncate=4.0) for one, other in zip(A_l, A_f)])
    scores = A.max((1, 2))
    false, true, thresholds = roc_curve(labels, scores)
    return {"map": A, "score": scores, "bin": chosen, "T_hat": steps, "i_auroc": roc_auc_score(labels, scores),
            "p_auroc": roc_auc_score((masks > 0).ravel(), A.ravel()), "pro": pro_by_200_thresholds(A, masks),
            "threshold": thresholds[np.argmax(true - false)]}
