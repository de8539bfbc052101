"""Latents are encoded once, and again for other images or weights."""

import pytest
import torch
from conftest import good_images, tiny_vae

from ddad.latent_projection import LatentProjection
from ddad.networks.autoencoders import PixelSpace, scaling_factor
from ddad.runtime import latent_cache
from ddad.runtime.adapter import Networks
from ddad.runtime.latent_cache import encode_all


@pytest.fixture
def encoded(monkeypatch, tmp_path):
    """Encodes images, kept 16 to a file: mean and deviation, how many were encoded."""
    monkeypatch.setattr(latent_cache, "KEPT", 16)
    calls, real = [], LatentProjection.posterior

    def counting(self, x0):
        calls.append(len(x0))
        return real(self, x0)

    monkeypatch.setattr(LatentProjection, "posterior", counting)

    def encoded(images, vae, keep=tmp_path, s=None, **changed):
        calls.clear()
        networks = Networks(vae, None, torch.nn.Identity(), **changed)
        scale = scaling_factor(vae) if s is None else s
        projection = LatentProjection(networks.E, networks.D, scale)
        return encode_all(projection, networks, images, keep), sum(calls)

    return encoded


def test_once_and_again_for_other_images_or_weights(encoded, tmp_path):
    images = good_images(40)
    first, n = encoded(images, tiny_vae())
    assert n == 40 and len(list(tmp_path.iterdir())) == 3
    again, n = encoded(images, tiny_vae())
    assert n == 0 and all(torch.equal(a, b) for a, b in zip(first, again))
    unkept, n = encoded(images, tiny_vae(), keep=None)
    assert n == 40 and all(torch.equal(a, b) for a, b in zip(first, unkept))
    other = images.clone()
    other[20] += 0.1
    assert encoded(other, tiny_vae())[1] == 16
    for vae, changed in ((tiny_vae(seed=1), {}), (tiny_vae(), {"s": 2.0}),
                         (tiny_vae(), {"precision": "bfloat16"})):
        assert encoded(images, vae, **changed)[1] == 40


def test_an_autoencoder_without_weights_is_not_kept(encoded, tmp_path):
    (_, std), n = encoded(good_images(40), PixelSpace())
    assert n == 40 and std is None and not list(tmp_path.iterdir())


def test_batches_make_the_whole():
    """An autoencoder with variance has a deviation as well."""
    vae, x0 = tiny_vae(), good_images(3, 32)
    networks = Networks(vae, None, torch.nn.Identity())
    projection = LatentProjection(networks.E, networks.D, 0.5)
    mean, std = encode_all(projection, networks, x0, batch=2)
    with torch.no_grad():
        posterior = vae.encode(x0).latent_dist
    torch.testing.assert_close(mean, posterior.mean * 0.5, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, posterior.std * 0.5, rtol=1e-4, atol=1e-5)


def test_a_kept_file_that_was_cut_is_made_again(encoded, tmp_path):
    first, _ = encoded(good_images(40), tiny_vae())
    left = sorted(tmp_path.iterdir())[0]
    left.write_bytes(left.read_bytes()[:20])
    again, n = encoded(good_images(40), tiny_vae())
    assert n in (16, 8) and all(torch.equal(a, b) for a, b in zip(first, again))
    assert encoded(good_images(40), tiny_vae())[1] == 0
