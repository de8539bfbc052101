"""z0 and back: the scale, the posterior's mode and sample, the clamp."""
import pytest
import torch
from formulas import seeded
from torch.nn import functional as F

from ddad.latent_projection import LatentProjection, draw

X0 = torch.rand(2, 3, 32, 32, generator=seeded()) - 0.5
decoded = []


def E(x0):
    """Mean and deviation of a made-up posterior."""
    mean = F.avg_pool2d(x0, 8)
    return mean, 0.1 + mean.square()


def D(z):
    decoded.append(z)
    return F.interpolate(z, scale_factor=8)


def test_the_scale_is_applied_once_each_way():
    projection, z = LatentProjection(E, D, 0.25), E(X0)[0]
    z0 = projection.encode(X0)
    torch.testing.assert_close(z0, z * 0.25)
    assert projection.decode(z0).shape == X0.shape
    torch.testing.assert_close(decoded[-1], z)


def test_the_reconstruction_is_clamped_unless_told_otherwise():
    projection, nines = LatentProjection(E, D, 0.25), torch.full((1, 3, 4, 4), 9.0)
    for sign in (1, -1):
        assert projection.decode(sign * nines).unique() == sign
        assert projection.decode(sign * nines, clamp=False).unique() == sign * 36


def test_mode_and_sample_of_the_posterior():
    projection, (mean, std) = LatentProjection(E, D, 0.5), E(X0)
    torch.testing.assert_close(projection.posterior(X0), (mean * 0.5, std * 0.5))
    torch.testing.assert_close(projection.encode(X0), mean * 0.5)
    sample = lambda seed: projection.encode(X0, "sample", seeded(seed))
    by_hand = mean + std * torch.randn(mean.shape, generator=seeded(7))
    torch.testing.assert_close(sample(7), by_hand * 0.5)
    assert torch.equal(sample(7), sample(7)) and not torch.equal(sample(7), sample(8))


def test_without_variance_there_is_nothing_to_draw():
    projection = LatentProjection(lambda x0: (E(x0)[0], None), D, 0.5)
    mean, std = projection.posterior(X0)
    assert std is None
    assert torch.equal(projection.encode(X0, "sample", seeded()), mean)


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_draw(posterior):
    mean, std = torch.ones(3), torch.full((3,), 2.0)
    expected = mean
    if posterior == "sample":
        expected = mean + 2 * torch.randn(3, generator=seeded())
    torch.testing.assert_close(draw(mean, std, posterior, seeded()), expected)
    assert torch.equal(draw(mean, None, posterior, seeded()), mean)


def test_no_gradient_is_kept():
    projection = LatentProjection(E, D, 1.0)
    z0 = projection.encode(X0.clone().requires_grad_())
    assert not z0.requires_grad
    assert not projection.decode(z0.requires_grad_()).requires_grad
