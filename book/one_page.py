"""The method's whole inference, from the networks' outputs to the map."""
import torch
from torch.nn import functional as F


def smooth(A, sigma):
    x = torch.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1.0)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel, A = kernel / kernel.sum(), F.pad(A, [len(x) // 2] * 4, mode="reflect")
    return F.conv2d(F.conv2d(A, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


@torch.no_grad()
def anomaly_map(detector, x0):
    """A (B, 1, H, H), score, T_hat (B,) and x0_hat of images x0 (B, 3, H, H)."""
    S, net, s = detector.settings, detector.networks, detector.projection.s
    bank, own = detector.memory_bank.y, detector.memory_bank.distances
    z0, phi = s * net.E(x0)[0], net.features(x0)            # latent projection
    y = F.adaptive_avg_pool2d(phi[S.neighbour_stage - 1], S.neighbour_pool).flatten(1)
    far = torch.cdist(y, bank, p=1) / bank.shape[1]         # dynamic noise, Algorithm 2
    d = far.sort().values[:, : S.neighbours].mean(1)
    edges = torch.linspace(own.min(), own.max(), S.bins + 1)[1:-1].contiguous()
    b = (1 + torch.bucketize(d, edges, right=True)).clamp(S.smallest_bin)
    T_hat = 10 * ((b * S.T_max / S.bins).floor() / 10).round().long().clamp(1)
    abar = torch.cat([detector.abar, torch.ones(1)]).view(-1, 1, 1, 1)  # abar_-1: 1
    z = abar[T_hat].sqrt() * z0                             # scaled, Algorithm 1
    for i in range(S.ddim_steps, 0, -1):
        t, prev = (T_hat * k // S.ddim_steps for k in (i, i - 1))
        a, a_prev = abar[t], abar[prev if i > 1 else [-1]]
        e = net.eps_theta(z, t)
        target = a.sqrt() * z0 + (1 - a).sqrt() * e
        e_hat = e - S.guidance * (1 - a).sqrt() * (target - z)
        z0_hat = (z - (1 - a).sqrt() * e_hat) / a.sqrt()
        z = a_prev.sqrt() * z0_hat + (1 - a_prev).sqrt() * e_hat
    x0_hat = net.D(z / s).clamp(-1, 1)
    phi_hat, ranges = net.features(x0_hat), detector.ranges
    up = lambda A: F.interpolate(A[:, None], size=x0.shape[-2:], mode="bilinear")
    A_l = up((z0 - z).abs().mean(1))                        # anomaly map and score
    A_f = sum(up(1 - F.cosine_similarity(phi[j - 1], phi_hat[j - 1]))
              for j in S.map_stages)
    A_l, A_f = ((A - low) / (high - low) for A, (low, high) in
                ((A_l, ranges.latent), (A_f, ranges.feature)))
    A = smooth(S.lam * A_l + (1 - S.lam) * A_f, S.sigma * x0.shape[-1] / 256)
    return A, A.amax((1, 2, 3)), T_hat, x0_hat
