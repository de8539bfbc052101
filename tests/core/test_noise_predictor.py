"""Schedule, forward process, objective and network of eps_theta."""
import json
import math

import pytest
import torch
from conftest import tiny
from diffusers.models.resnet import ResnetBlock2D
from formulas import abar_by_hand, seeded
from torch.nn import functional as F

from ddad.noise_predictor import (
    alpha_bar,
    build_unet,
    epsilon_loss,
    patch_mask,
    q_sample,
)
from ddad.settings import preset
from ddad.synthetic.products import PRODUCTS
from ddad.synthetic.weights import WEIGHTS


@pytest.mark.parametrize("schedule, at_80", [("linear", 0.835),
                                             ("scaled_linear", 0.862)])
def test_schedule(schedule, at_80):
    abar = alpha_bar(preset(beta_schedule=schedule))
    assert abar.shape == (1000,) and abar.dtype == torch.float32
    by_hand = torch.tensor(abar_by_hand(schedule), dtype=torch.float64)
    torch.testing.assert_close(abar.double(), by_hand, rtol=1e-4, atol=1e-7)
    assert abs(abar[80].item() - at_80) < 1e-3
    assert (abar.diff() < 0).all() and 0.998 < abar[0] < 1 and 0 < abar[-1] < 1e-3


def test_q_sample_keeps_mean_and_variance():
    abar, z0 = alpha_bar(preset()), torch.full((50_000, 1, 1, 1), 3.0)
    for t in (0, 80, 500, 999):
        eps = torch.randn(z0.shape, generator=seeded(t))
        z_t = q_sample(z0, abar[t].view(1, 1, 1, 1), eps)
        assert abs(z_t.mean().item() - 3 * abar[t].sqrt().item()) < 0.02
        assert abs(z_t.var().item() - (1 - abar[t].item())) < 0.02


def test_epsilon_loss_is_the_mean_square_at_each_images_own_step():
    calls = []

    def eps_theta(z_t, t):
        calls.append(t)
        return 0.5 * z_t

    z0, eps = (torch.randn(3, 2, 4, 4, generator=seeded(seed)) for seed in (0, 1))
    t = torch.tensor([0, 80, 999])
    loss = epsilon_loss(eps_theta, z0, t, eps, alpha_bar(preset()))
    by_hand, expected = abar_by_hand(), 0.0
    for n, step in enumerate([0, 80, 999]):
        a = by_hand[step]
        z_t = math.sqrt(a) * z0[n] + math.sqrt(1 - a) * eps[n]
        expected += (0.5 * z_t - eps[n]).square().mean().item() / 3
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(calls[0], t)


@pytest.mark.parametrize("blocks", ["diffusers", "guided-diffusion"])
def test_unet_keeps_shape_and_needs_a_fitting_side(blocks):
    settings = tiny(unet_channels=(32, 64), unet_heads=4, unet_blocks=blocks)
    unet = build_unet(settings, 5, 8).eval()
    z_t, t = torch.zeros(2, 5, 8, 8), torch.tensor([0, 999])
    assert unet(z_t, t).sample.shape == z_t.shape
    heads = {layer.heads for layer in unet.modules() if hasattr(layer, "heads")}
    assert heads == {4}
    with pytest.raises(ValueError, match="unet_channels"):
        build_unet(settings.change(unet_channels=(32, 64, 64)), 4, 6)


@pytest.mark.parametrize("blocks, between", [("diffusers", 0), ("guided-diffusion", 4)])
def test_unet_attends_at_the_levels_chosen(blocks, between):
    unet = build_unet(tiny(unet_channels=(32, 32, 64), unet_attention_from=1,
                           unet_attention_to=1, unet_blocks=blocks), 4, 8)
    levels = [*unet.down_blocks, unet.mid_block, *reversed(unet.up_blocks)]
    assert [len(getattr(level, "attentions", ())) for level in levels] == [
        0, 1, 0, 1, 0, 2, 0]
    # the middle has two, and each level one more on its way up
    resnets = [layer for layer in unet.modules() if isinstance(layer, ResnetBlock2D)]
    assert len(resnets) == 3 * (1 + 2) + 2 + between


def test_guided_blocks_begin_as_the_identity():
    """All but the convolution at the end and the shortcuts where widths change."""
    unet = build_unet(tiny(unet_channels=(32, 32), unet_blocks="guided-diffusion"), 4,
                      8)
    x, emb = torch.randn(2, 32, 8, 8, generator=seeded()), torch.randn(2, 128)
    out, _ = unet.down_blocks[0](x, emb)
    assert torch.equal(out, F.avg_pool2d(x, 2))
    assert torch.equal(unet.mid_block(x, emb), x)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_shipped_unet_is_built_as_it_was(product):
    read = lambda name: json.loads((WEIGHTS / product / name).read_text("utf-8"))
    manifest, written = read("manifest.json"), read("unet/config.json")
    settings = preset(manifest["settings"]["preset"], **manifest["settings"])
    unet = build_unet(settings, *manifest["latent"])
    now = json.loads(unet.to_json_string())
    assert {name: now[name] for name in written if name[0] != "_"} == {
        name: value for name, value in written.items() if name[0] != "_"}


# --- noise on patches: an extension ---------------------------------------------------

def test_without_masked_images_noise_is_everywhere():
    m = patch_mask(9, 6, 0.0, seeded())
    assert m.shape == (9, 1, 6, 6) and m.dtype == torch.float32
    assert torch.equal(m, torch.ones_like(m))


def sides(m):
    """Of each mask (B, 1, 16, 16) the largest side of patches that it is made of."""
    side = torch.zeros(len(m), dtype=torch.long)
    for k in (1, 2, 4, 8):
        blocks = m[:, 0].unfold(1, k, k).unfold(2, k, k).flatten(3)
        whole = (blocks.amax(3) == blocks.amin(3)).flatten(1).all(1)
        side = torch.where(whole, k, side)
    return side


def test_masks_are_of_patches_of_all_sizes_and_of_all_shares():
    m = patch_mask(4000, 16, 1.0, seeded())
    assert set(m.unique().tolist()) == {0.0, 1.0}
    found = sides(m).bincount(minlength=9) / 4000
    # a quarter each; some of coarse patches are all or none, and look coarser
    for k in (1, 2, 4, 8):
        assert 0.18 < found[k] < 0.34, k
    share = m.mean((1, 2, 3))
    assert share.mean().item() == pytest.approx(0.5, abs=0.02)
    fine = share[sides(m) == 1].sort().values
    for quarter in (0.25, 0.5, 0.75):
        assert fine[int(quarter * len(fine))].item() == pytest.approx(quarter, abs=0.05)
    # no place has less noise than another
    assert (m.mean((0, 1)) - 0.5).abs().max() < 0.04


@pytest.mark.parametrize("masked", [0.25, 0.75])
def test_a_share_of_the_images_is_masked(masked):
    m = patch_mask(4000, 16, masked, seeded())
    everywhere = (m == 1).flatten(1).all(1).float().mean().item()
    # some masks are whole by chance
    assert 1 - masked - 0.02 < everywhere < 1 - 0.85 * masked
    assert m.mean().item() == pytest.approx(1 - masked / 2, abs=0.02)


def test_masks_come_from_the_generator_alone():
    one, again, other = (patch_mask(5, 8, 0.5, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert patch_mask(3, 5, 1.0, seeded()).shape == (3, 1, 5, 5)    # not a power of two
