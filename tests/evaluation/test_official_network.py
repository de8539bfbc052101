"""The official code's networks, recorded by record_official_network.py: those of the
presets "paper" and "official" are counted alike, begin alike, and compute the same.
"""

import json
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from record_official_network import (
    ATTEND,
    CHANNELS,
    HEADS,
    NETWORK,
    SIDE,
    STEPS,
    image,
    latents,
    numbers,
    sampled,
    weight,
)

sys.path.append(str(Path(__file__).parents[2] / "book/tools"))
import network_table  # noqa: E402

from ddad.networks.features import (  # noqa: E402
    IMAGENET_MEAN,
    IMAGENET_STD,
    empty_features,
)
from ddad.noise_predictor import build_unet  # noqa: E402
from ddad.reproduction.timing import RESNET_34  # noqa: E402
from ddad.settings import preset  # noqa: E402

THEIRS = json.loads(NETWORK.read_text(encoding="utf-8"))
BOTH = pytest.mark.parametrize("name", ["paper", "official"])


def test_the_counts_are_of_one_commit():
    assert THEIRS["repository"] == "JustinTebbe/Dynamic-noise-AD"
    assert THEIRS["commit"] == "08b12718e9d8647c1e9425886a5f31bc6aaad509"
    assert THEIRS["side"] == preset("official").image_size // 8


@BOTH
def test_the_unet_has_the_same_parts(name):
    assert network_table.counted(preset(name)) == THEIRS["network"]
    assert network_table.beginning(preset(name)) == THEIRS["untrained"]


def test_281_million_parameters_35_blocks_21_attentions():
    found = THEIRS["network"]
    blocks = sum(found["residual blocks"].values()) + found["between levels"]
    assert sum(found["parameters"].values()) == 281_088_004
    assert (blocks, sum(found["attentions"].values())) == (35, 21)


def test_untrained_it_predicts_no_noise():
    unet = build_unet(preset("official", unet_channels=(32, 64)), 4, 8)
    assert not unet(latents()[..., :8, :8], torch.tensor(STEPS)).sample.any()


def in_their_order(unet):
    """The layers in the order in which the official code has them."""
    yield unet.time_embedding.linear_1
    yield unet.time_embedding.linear_2
    yield unet.conv_in
    for block in [*unet.down_blocks, unet.mid_block, *unet.up_blocks]:
        # the middle has one attention, behind the first of its two residual blocks
        attentions = iter(getattr(block, "attentions", ()))
        changes = getattr(block, "downsamplers", getattr(block, "upsamplers", None))
        for layer in [*block.resnets, *(changes or ())]:
            yield from (layer.norm1, layer.conv1, layer.time_emb_proj, layer.norm2,
                        layer.conv2)
            if layer.conv_shortcut is not None:
                yield layer.conv_shortcut
            if (attention := next(attentions, None)) is not None:
                yield attention.group_norm, attention, attention.to_out[0]
    yield unet.conv_norm_out
    yield unet.conv_out


def fill(layers):
    """Gives the layers the recorded network's weights, tensor after tensor."""
    n = count()
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, tuple):                        # an attention
                norm, attention, last = layer
                fill_one(norm, n)
                heads, width = attention.heads, last.weight.shape[0]
                # theirs holds, for one head after the other, query, key and value
                qkv = [weight(next(n), (3 * width, *rest)).view(
                    heads, 3, width // heads, *rest) for rest in ((width, 1), ())]
                for i, one in enumerate((attention.to_q, attention.to_k,
                                         attention.to_v)):
                    for own, parts in zip((one.weight, one.bias), qkv):
                        own.copy_(parts[:, i].reshape(own.shape))
                fill_one(last, n)
            else:
                fill_one(layer, n)


def fill_one(layer, n):
    for own in (layer.weight, layer.bias):
        if own is not None:
            own.copy_(weight(next(n), own.shape))


def test_the_unet_computes_the_same():
    levels = [SIDE // 2**n in ATTEND for n in range(len(CHANNELS))]
    settings = preset("official", unet_channels=CHANNELS, unet_heads=HEADS,
                      unet_attention_from=levels.index(True),
                      unet_attention_to=len(levels) - 1 - levels[::-1].index(True))
    unet = build_unet(settings, 4, SIDE).eval()
    fill(in_their_order(unet))
    with torch.no_grad():
        found = unet(latents(), torch.tensor(STEPS)).sample[..., ::3, ::3]
    torch.testing.assert_close(torch.tensor(numbers(found)),
                               torch.tensor(THEIRS["computed"]), rtol=0, atol=1e-5)
    assert {one.heads for one in unet.modules() if isinstance(one, Attention)} == {4}


def test_the_resnet_has_the_same_parts_and_computes_the_same():
    with torch.device("meta"):
        phi = empty_features(preset("official"), RESNET_34)
    parts = zip(("stem", "layer1", "layer2", "layer3"), (phi.embedder, *phi.stages))
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in parts
            } == THEIRS["resnet-34"]
    phi = empty_features(preset("official"), RESNET_34 | {"depths": [1, 1, 1, 1]})
    layers = [phi.embedder.embedder]
    for stage in phi.stages:
        block, = stage.layers
        layers += block.layer
        layers += [] if isinstance(block.shortcut, torch.nn.Identity) else [
            block.shortcut]
    fill(one for layer in layers for one in (layer.convolution, layer.normalization))
    mean, std = (torch.tensor(one).view(3, 1, 1)
                 for one in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        found = sampled(phi(2 * (image() * std + mean) - 1))
    for ours, theirs in zip(found, THEIRS["features"], strict=True):
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4,
                                   atol=1e-5)
