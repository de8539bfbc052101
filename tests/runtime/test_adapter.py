"""Networks as plain functions: any autoencoder, any precision, batches filled up."""
import pytest
import torch
from conftest import good_images, tiny, tiny_vae
from torch import nn
from torch.nn import functional as F

from ddad.noise_predictor import build_unet
from ddad.runtime import adapter
from ddad.runtime.adapter import AT_ONCE, Networks, expect, mixed
from ddad.runtime.errors import ModelError

X0 = good_images(5, 32)


class Plain:
    """Any object with encode and decode on tensors; notes how many it was given."""

    def __init__(self):
        self.given = []

    def encode(self, x0):
        self.given.append(len(x0))
        return F.avg_pool2d(x0, 8)

    def decode(self, z):
        self.given.append(len(z))
        return F.interpolate(z, scale_factor=8)


class Phi(nn.Module):
    """Two blocks; keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.block = nn.Conv2d(3, 4, 3, 2, 1).requires_grad_(False)

    def forward(self, x0):
        self.given = x0
        x = self.block(x0)
        return [x, F.avg_pool2d(x, 2)]


def networks(vae=None, **given):
    torch.manual_seed(0)
    unet = build_unet(tiny(), 4, 4)
    return Networks(Plain() if vae is None else vae, unet, Phi(), **given)


def test_they_are_frozen_and_in_evaluation_mode():
    own = networks(tiny_vae().train().requires_grad_(True))
    assert not own.vae.training and not own.unet.training
    assert not any(p.requires_grad for p in own.vae.parameters())


def test_any_object_with_encode_and_decode():
    own, vae = networks(), Plain()
    mean, std = own.E(X0)
    assert std is None and torch.equal(mean, vae.encode(X0))
    assert torch.equal(own.D(mean), vae.decode(mean))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_float32_comes_out_and_no_gradient(precision):
    own = networks(tiny_vae(), precision=precision)
    z, t = torch.zeros(1, 4, 4, 4), torch.tensor([3])
    e, x0_hat = own.eps_theta(z, t), own.D(z)
    outs = [e, x0_hat, *own.E(X0), *own.features(X0, precision)]
    assert {out.dtype for out in outs} == {torch.float32}
    assert not any(out.requires_grad for out in outs)
    assert e.shape == z.shape and x0_hat.shape == (1, 3, 32, 32)


def test_bfloat16_is_for_all_but_the_features_of_x0():
    own = networks(tiny_vae())
    low = own.at("bfloat16")
    assert (own.precision, low.precision) == ("float32", "bfloat16")
    assert low.vae is own.vae and low.unet is own.unet
    z, t = torch.randn(2, 4, 4, 4), torch.tensor([3, 500])
    for exact, short in ((own.eps_theta(z, t), low.eps_theta(z, t)),
                         (own.D(z), low.D(z)), (own.E(X0)[0], low.E(X0)[0])):
        difference = (exact - short).abs().max()
        assert 0 < difference < 0.1 * exact.abs().max()
    exact = own.features(X0)
    assert all(torch.equal(*pair) for pair in zip(exact, low.features(X0)))
    short = own.features(X0, "bfloat16")
    assert not any(torch.equal(*pair) for pair in zip(exact, short))


def test_mixed_changes_nothing_in_float32():
    a = torch.randn(4, 4)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with mixed(torch.device("cpu"), precision):
            assert (a @ a).dtype == dtype


# --- pieces and whole batches ---------------------------------------------------------

def test_pieces_equal_the_whole(monkeypatch):
    """On a CPU the autoencoder takes few images at a time."""
    own, vae = networks(), tiny_vae()
    z = torch.randn(5, 4, 4, 4)
    own.D(z), own.E(X0)
    assert AT_ONCE == 2 and own.vae.given == [2, 2, 1] * 2
    own.vae = vae
    found = [*own.E(X0), own.D(z)]
    monkeypatch.setattr(adapter, "AT_ONCE", 5)
    for piece, whole in zip(found, [*own.E(X0), own.D(z)], strict=True):
        torch.testing.assert_close(piece, whole, rtol=0, atol=1e-5)
    alone = [torch.cat(one) for one in zip(*(own.E(x0) for x0 in X0.split(2)))]
    assert all(torch.equal(*pair) for pair in zip(found, alone))


def test_short_batches_are_filled_up_for_compiled_networks():
    """With copies of the last image, whose results are left out again."""
    own, z, t = networks(tiny_vae()), torch.randn(5, 4, 4, 4), torch.arange(5)
    calls = lambda B: [*own.E(X0[:B]), own.D(z[:B]), own.eps_theta(z[:B], t[:B]),
                       *own.features(X0[:B])]
    plain, sizes = {B: calls(B) for B in (3, 4, 5)}, []
    own.unet.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    own.compiled = 4
    for B, expected in plain.items():
        for a, b in zip(calls(B), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
        whole = max(B, 4)
        assert sizes.pop() == len(own.phi.given) == whole
        last = X0[B - 1 : B].expand(whole - B, 3, 32, 32)
        assert torch.equal(own.phi.given[B:], last)
    own.vae = Plain()
    own.E(X0[:3])
    assert own.vae.given == [2, 2]


# --- group norm -----------------------------------------------------------------------

def test_hooks_are_set_once():
    vae = tiny_vae()
    for _ in range(2):
        networks(vae)
    norms = [one for one in vae.modules() if isinstance(one, nn.GroupNorm)]
    hooks = [list(norm._forward_pre_hooks.values()) for norm in norms]
    assert norms and all(one == [adapter._contiguous] for one in hooks)


def test_group_norm_is_given_contiguous_tensors():
    own, layouts = networks(tiny_vae()), {nn.Conv2d: [], nn.GroupNorm: []}
    for module in own.vae.modules():
        if type(module) in layouts:
            module.register_forward_pre_hook(
                lambda one, given: layouts[type(one)].append(given[0].is_contiguous()))
    own.E(X0)
    assert all(layouts[nn.GroupNorm]) and not all(layouts[nn.Conv2d])


@pytest.mark.parametrize("precision, side, expected", [
    ("bfloat16", 16, True), ("bfloat16", 32, False), ("float32", 16, False)])
def test_the_unet_norms_small_maps_in_the_fast_layout(monkeypatch, precision, side,
                                                      expected):
    unet = build_unet(tiny(unet_channels=(32, 64)), 4, side).requires_grad_(False)
    own = Networks(None, unet, nn.Identity(), "cpu", precision)
    own.place_unet(own.unet)
    norms = [one for one in own.unet.modules() if isinstance(one, nn.GroupNorm)]
    hooks = [list(norm._forward_pre_hooks.values()) for norm in norms]
    assert all(one == [adapter._contiguous_if_small] for one in hooks)
    layouts = []
    own.unet.down_blocks[0].resnets[0].norm2.register_forward_pre_hook(
        lambda _, given: layouts.append(given[0].is_contiguous()))
    z, t = torch.randn(2, 4, side, side), torch.tensor([10, 400])
    e = own.eps_theta(z, t)
    assert layouts == [expected]
    monkeypatch.setattr(adapter, "SMALL", 0)
    plain = own.eps_theta(z, t)
    assert layouts == [expected, False]
    if precision == "float32":
        assert torch.equal(e, plain)
    torch.testing.assert_close(e, plain, rtol=0, atol=0.05)


def test_what_does_not_fit_is_told_of():
    expect("features", torch.Size([3, 4]), (3, 4))
    told = r"the features are \(3, 4\), the saved detector is for \(3, 5\)"
    with pytest.raises(ModelError, match=told):
        expect("features", torch.Size([3, 4]), (3, 5))
