"""Autoencoders by name, and E and D of each kind."""
import pytest
import torch
from conftest import good_images, tiny, tiny_vae
from torch import nn

from ddad.latent_projection import LatentProjection
from ddad.networks.autoencoders import PixelSpace, load_vae, scaling_factor
from ddad.noise_predictor import build_unet
from ddad.runtime.adapter import Networks
from ddad.runtime.errors import BackboneError


def projection_by(vae):
    networks = Networks(vae, None, nn.Identity())
    return LatentProjection(networks.E, networks.D, scaling_factor(vae))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_pixel_space_loses_nothing():
    x0, space = good_images(2, 32), projection_by(load_vae("pixels"))
    z0 = space.encode(x0)
    assert z0.shape == (2, 192, 4, 4) and space.s == 1
    assert torch.equal(space.decode(z0), x0)
    # it has no variance to draw from
    assert torch.equal(space.encode(x0, "sample", seeded()), z0)
    assert type(load_vae("pixels")) is PixelSpace


def test_autoencoder_kl_from_a_folder(tmp_path):
    vae, x0 = tiny_vae(), good_images(3, 32)
    vae.save_pretrained(tmp_path / "kl")
    loaded = load_vae(str(tmp_path / "kl"))
    projection = projection_by(loaded)
    assert projection.s == 0.5 and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    with torch.no_grad():
        posterior = vae.encode(x0).latent_dist
        x0_hat = vae.decode(posterior.mean).sample.clamp(-1, 1)
    mode = projection.encode(x0)
    torch.testing.assert_close(mode, posterior.mean * 0.5)
    torch.testing.assert_close(projection.decode(mode), x0_hat)
    sample = lambda seed: projection.encode(x0, "sample", seeded(seed))
    noise = posterior.std * torch.randn(mode.shape, generator=seeded(7))
    torch.testing.assert_close(sample(7), (posterior.mean + noise) * 0.5)
    assert torch.equal(sample(7), sample(7)) and not torch.equal(sample(7), sample(8))


def test_autoencoder_tiny_from_a_folder(tmp_path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    ).save_pretrained(tmp_path / "taesd")
    vae, x0 = load_vae(str(tmp_path / "taesd")), good_images(2, 32)
    projection = projection_by(vae)
    z0 = projection.encode(x0, "sample", seeded())
    assert type(vae) is AutoencoderTiny and z0.shape == (2, 4, 4, 4)
    assert torch.equal(z0, projection.encode(x0))
    assert projection.decode(z0).shape == x0.shape
    assert projection.posterior(x0)[1] is None


INSTEAD = "pass --vae embedded, .*; or a folder that holds one, or FILE.py:CALLABLE"


@pytest.mark.parametrize("name", [
    "nobody/nothing", "nobody/nothing/vae", "/no/such/folder", "nothing"])
def test_an_autoencoder_that_cannot_be_had(name):
    with pytest.raises(BackboneError, match=f"{name}.*{INSTEAD}") as error:
        load_vae(name)
    assert "\n" not in str(error.value)


def test_of_a_long_error_the_beginning_is_told(monkeypatch):
    import diffusers

    def fails(*a, **k):
        raise OSError("We cannot connect " + "to the hub " * 99 + "\nand more")

    monkeypatch.setattr(diffusers.AutoencoderKL, "load_config", fails)
    with pytest.raises(BackboneError) as error:
        load_vae("nobody/nothing")
    assert "(We cannot connect to the hub" in str(error.value)
    assert "and more" not in str(error.value) and len(str(error.value)) < 500


def test_folders_that_hold_no_autoencoder(tmp_path):
    unet, empty, kl = (tmp_path / name for name in ("unet", "empty", "kl"))
    build_unet(tiny(), 4, 8).save_pretrained(unet)
    with pytest.raises(BackboneError, match="holds a UNet2DModel; give one of Autoenc"):
        load_vae(str(unet))
    empty.mkdir()
    with pytest.raises(BackboneError, match="empty"):
        load_vae(str(empty))
    tiny_vae().save_pretrained(kl)
    weights = kl / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BackboneError, match="kl"):
        load_vae(str(kl))


MINE = """class Mine:
    def encode(self, x0): return x0[..., ::8, ::8]
    def decode(self, z): return z
class group:
    make = staticmethod(lambda: Mine())
"""


def test_autoencoder_of_ones_own_file(tmp_path):
    file, x0 = tmp_path / "mine.py", good_images(1, 32)
    file.write_text(MINE)
    for name in ("Mine", "group.make"):
        z0 = projection_by(load_vae(f"{file}:{name}")).encode(x0)
        assert torch.equal(z0, x0[..., ::8, ::8])
    must = ("FILE.py:CALLABLE, and the call must return an object with encode and "
            "decode")
    for name in (f"{file}:Other", f"{tmp_path}/none.py:Mine"):
        with pytest.raises(BackboneError, match=must):
            load_vae(name)
