"""Maps, ranges, smoothing and score, each by hand or by SciPy."""
import math

import numpy as np
import pytest
import torch
from formulas import seeded
from scipy.ndimage import gaussian_filter

from ddad import anomaly_map as maps


@pytest.mark.parametrize("align", [False, True])
def test_latent_map_is_the_mean_over_channels_upsampled(align):
    z0 = torch.randn(2, 3, 4, 4, generator=seeded())
    z0_hat = torch.randn(2, 3, 4, 4, generator=seeded(1))
    difference = (z0 - z0_hat).abs().mean(1)
    A = maps.latent_map(z0, z0_hat, 32, align_corners=align)
    assert A.shape == (2, 32, 32)
    assert A.min() >= 0 and A.max() <= difference.max() + 1e-6
    torch.testing.assert_close(A[:, 0, 0], difference[:, 0, 0])
    # by hand, between the first two positions: half a cell in from the border, or from
    # the corner itself
    at = (10 * 3 / 31) if align else (10.5 / 8 - 0.5)
    row = difference[:, 0, 0] * (1 - at) + difference[:, 0, 1] * at
    torch.testing.assert_close(A[:, 0, 10], row, rtol=1e-5, atol=1e-5)
    assert maps.latent_map(z0, z0, 32).abs().max() == 0
    assert torch.equal(maps.upsample(difference, 4), difference)


def test_blurred_latent_map_is_that_of_scipy():
    z0 = torch.randn(2, 3, 8, 8, generator=seeded())
    z0_hat = torch.randn(2, 3, 8, 8, generator=seeded(1))
    by_hand = np.stack([gaussian_filter(x, 1.0, mode="mirror", truncate=4.0)
                        for x in (z0 - z0_hat).flatten(0, 1).numpy()])
    expected = torch.from_numpy(np.abs(by_hand)).unflatten(0, (2, 3)).mean(1)
    found = maps.latent_map(z0, z0_hat, 8, blur=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_blurred_latent_map_lets_signs_cancel():
    # +1 and -1 in turn: a texture
    checks = (torch.arange(8).view(8, 1) + torch.arange(8)) % 2 * 2.0 - 1
    for difference, blurred in ((checks, 0.02), (torch.ones(8, 8), 1.0)):
        z0 = difference.expand(1, 3, 8, 8)
        mean = lambda blur, z0=z0: maps.latent_map(z0, 0 * z0, 8, blur).mean()
        assert mean(0.0) == pytest.approx(1.0)
        assert mean(1.0) == pytest.approx(blurred, abs=0.02)


def test_feature_map_sums_the_chosen_blocks():
    sizes = ((3, 8), (4, 4), (5, 2))
    a = [torch.randn(2, c, s, s, generator=seeded(c)) for c, s in sizes]
    b = [torch.randn(2, c, s, s, generator=seeded(c + 9)) for c, s in sizes]

    def expected(j):
        cosine = (a[j] * b[j]).sum(1) / a[j].norm(dim=1) / b[j].norm(dim=1)
        return maps.upsample(1 - cosine, 16)

    near = dict(rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(maps.feature_map(a, b, 16, (2, 3)),
                               expected(1) + expected(2), **near)
    torch.testing.assert_close(maps.feature_map(a, b, 16, (1,)), expected(0), **near)
    assert maps.feature_map(a, a, 16, (2, 3)).abs().max() < 1e-6


A_L = torch.rand(3, 32, 32, generator=seeded()) * 5 + 2
A_F = torch.rand(3, 32, 32, generator=seeded(1)) * 0.1
RANGES = maps.Ranges.of(A_L, A_F)


def test_normalise():
    assert RANGES == maps.Ranges((A_L.min().item(), A_L.max().item()),
                                 (A_F.min().item(), A_F.max().item()))
    for A, low_high in ((A_L, RANGES.latent), (A_F, RANGES.feature)):
        scaled = maps.normalise(A, low_high)
        assert scaled.min() == 0
        assert scaled.max().item() == pytest.approx(1, abs=1e-6)
        assert maps.normalise(A + 10, low_high).max() > 1           # no clamp
    assert torch.isfinite(maps.normalise(torch.ones(1, 4, 4), (1.0, 1.0))).all()


def test_lambda_weighs_the_maps():
    latent, features = (maps.normalise(A, low_high) for A, low_high in
                        ((A_L, RANGES.latent), (A_F, RANGES.feature)))
    for lam in (0.0, 1.0, 0.85):
        mixed = lam * latent + (1 - lam) * features
        torch.testing.assert_close(maps.combine(A_L, A_F, RANGES, lam, 4.0),
                                   maps.smooth(mixed, 4 * 32 / 256))
    both = lambda latent, features, lam: maps.combine(latent, features, RANGES, lam, 4.)
    assert torch.equal(both(A_L, A_F, 1.0), both(A_L, A_F * 7, 1.0))
    assert torch.equal(both(A_L, A_F, 0.0), both(A_L * 7, A_F, 0.0))


@pytest.mark.parametrize("sigma, size", [(4.0, 64), (1.3, 32), (0.5, 32), (2.0, 48)])
def test_gaussian_is_that_of_scipy(sigma, size):
    A = torch.rand(2, size, size, generator=seeded(), dtype=torch.float64)
    expected = np.stack([gaussian_filter(a, sigma, mode="mirror", truncate=4)
                         for a in A.numpy()])
    np.testing.assert_allclose(maps.smooth(A, sigma).numpy(), expected, atol=1e-10)


def test_gaussian_keeps_a_constant_and_the_sum_inside():
    constant = torch.full((1, 64, 64), 0.7)
    torch.testing.assert_close(maps.smooth(constant, 4.0), constant)
    point = torch.zeros(1, 64, 64)
    point[0, 30, 33] = 5.0
    smoothed = maps.smooth(point, 4.0)
    assert smoothed.sum().item() == pytest.approx(5, abs=1e-4)
    assert smoothed.argmax() == point.argmax()
    assert smoothed.max().item() == pytest.approx(5 / (2 * math.pi * 16), rel=0.02)
    # the kernel is wider than the map
    assert torch.isfinite(maps.smooth(torch.rand(1, 8, 8), 4.0)).all()


def test_score():
    A = torch.rand(5, 8, 8, generator=seeded())
    assert maps.score(A).tolist() == [a.max().item() for a in A]


def test_a_third_map_takes_its_share():
    A_p = torch.rand(3, 32, 32, generator=seeded(2)) + 7
    ranges = maps.Ranges.of(A_L, A_F, A_p)
    assert ranges.patch == (A_p.min().item(), A_p.max().item())
    normal = [maps.normalise(A, low_high) for A, low_high in
              ((A_L, ranges.latent), (A_F, ranges.feature), (A_p, ranges.patch))]
    mixed = 0.7 * (0.4 * normal[0] + 0.6 * normal[1]) + 0.3 * normal[2]
    found = maps.combine(A_L, A_F, ranges, 0.4, 4.0, A_p, 0.3)
    torch.testing.assert_close(found, maps.smooth(mixed, 4 * 32 / 256))
    both = maps.combine(A_L, A_F, RANGES, 0.4, 4.0)
    assert torch.equal(maps.combine(A_L, A_F, ranges, 0.4, 4.0, A_p, 0.0), both)
    assert torch.equal(maps.combine(A_L, A_F, ranges, 0.4, 4.0, A_p, 1.0),
                       maps.smooth(normal[2] + 0 * both, 4 * 32 / 256))


def test_a_map_that_is_not_made_has_no_range_and_no_part():
    ranges = maps.Ranges.of(A_L, None)
    assert ranges == maps.Ranges(RANGES.latent, None, None)
    assert torch.equal(maps.combine(A_L, None, ranges, 1.0, 4.0),
                       maps.smooth(maps.normalise(A_L, RANGES.latent), 4 * 32 / 256))
