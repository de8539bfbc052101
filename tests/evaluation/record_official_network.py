"""The official code's networks, counted and run: official_network.json.

    python tests/evaluation/record_official_network.py CLONE

CLONE is a clone of JustinTebbe/Dynamic-noise-AD. Its U-Net and its ResNet-34 are built
and run; none of its code is here.

Run: unet.UNetModel as config.yaml has it, untrained; a small one, with attention at two
of its three levels, on made-up weights and latents; resnet.resnet34, only counted; a
shallow resnet.ResNet of its blocks, on made-up weights and an image.
"""

import importlib
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch
import yaml
from record_official import drawn, numbers

NETWORK = Path(__file__).with_name("official_network.json")
CHANNELS, SIDE, HEADS, ATTEND = (32, 64, 64), 16, 4, (16, 8)    # of the small one
STEPS = [20, 999]


def weight(n, shape):
    """The n-th tensor of a small network's weights."""
    return drawn(n, *shape) / math.sqrt(math.prod(shape[1:]))


def latents():
    """z_t (2, 4, SIDE, SIDE) of the small U-Net."""
    return drawn(1000, 2, 4, SIDE, SIDE)


def image():
    """What the shallow ResNet is given, (1, 3, 64, 64)."""
    return drawn(1001, 1, 3, 64, 64)


def sampled(stages):
    """Some channels and cells of the maps of its three blocks."""
    return [numbers(one[:, ::16, ::3, ::3]) for one in stages]


def parameters(parts):
    return {name: sum(one.numel() for one in part.parameters())
            for name, part in parts.items()}


def each(layers, name):
    return sorted({getattr(layer, name) for layer in layers})


def counted(theirs, unet, side):
    """Its blocks and attentions by the side that they give, and what they are made of.
    """
    def note(layer, given, out):
        side, changed = out.shape[-1], out.shape[-1] != given[0].shape[-1]
        kind = type(layer).__name__
        found["between levels" if changed else f"{kind} {side}"] += 1

    found, layers = Counter(), list(unet.modules())
    for layer in layers:
        if isinstance(layer, (theirs.ResBlock, theirs.AttentionBlock)):
            layer.register_forward_hook(note)
    with torch.no_grad():
        unet(torch.zeros(1, 4, side, side), torch.zeros(1))
    of = lambda kind: [layer for layer in layers if isinstance(layer, kind)]
    by_side = lambda kind: {name.split()[1]: count for name, count in found.items()
                            if name.startswith(kind)}
    return {
        "parameters": parameters({
            "time embedding": unet.time_embedding, "down": unet.down,
            "middle": unet.middle, "up": unet.up, "output": unet.out}),
        "residual blocks": by_side("ResBlock"), "between levels":
        found["between levels"], "attentions": by_side("AttentionBlock"),
        "heads": each(of(theirs.AttentionBlock), "num_heads"),
        "groups": each(of(torch.nn.GroupNorm), "num_groups"),
        "epsilon": each(of(torch.nn.GroupNorm), "eps"),
        "dropout": each(of(torch.nn.Dropout), "p")}


def beginning(unet):
    """Of the untrained layers: how many are zero, and the largest weight of the others
    in units of 1 / sqrt(inputs), which is 1 where PyTorch's own bound was kept.
    """
    weights = [one for one in unet.parameters() if one.ndim > 1]
    others = [one for one in weights if one.any()]
    largest = max(one.abs().max() * math.sqrt(one[0].numel()) for one in others)
    return {"zero": len(weights) - len(others), "largest": round(largest.item(), 3)}


def filled(network):
    """In evaluation mode, with made-up weights."""
    with torch.no_grad():
        for n, one in enumerate(network.parameters()):
            one.copy_(weight(n, one.shape))
    return network.eval()


@torch.no_grad()
def computed(theirs):
    """What the small U-Net gives for weights, latents and steps that are made up."""
    unet = theirs.UNetModel(SIDE, CHANNELS[0], n_heads=HEADS, in_channels=4,
                            attention_resolutions=ATTEND,
                            channel_mults=[c // CHANNELS[0] for c in CHANNELS])
    return numbers(filled(unet)(latents(), torch.tensor(STEPS))[..., ::3, ::3])


@torch.no_grad()
def features(resnet):
    """What the shallow ResNet gives for weights and an image that are made up."""
    phi = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    return sampled(filled(phi)(image()))


def record(clone):
    """What official_network.json holds."""
    head = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(clone))
    theirs, resnet = (importlib.import_module(name) for name in ("unet", "resnet"))
    config = yaml.safe_load((clone / "config.yaml").read_text(encoding="utf-8"))
    model, side = config["model"], config["model"]["latent_size"]
    torch.manual_seed(0)
    unet = theirs.UNetModel(
        side, model["unet_channel"], n_heads=model["n_head"],
        n_head_channels=model["head_channel"], channel_mults=model["channel_mults"],
        attention_resolutions=model["attn_reso"],
        in_channels=config["data"]["imput_channel"])
    phi = resnet.resnet34(pretrained=False)[0]
    stages = {name: getattr(phi, name) for name in ("layer1", "layer2", "layer3")}
    stem = torch.nn.ModuleList([phi.conv1, phi.bn1])
    return {
        "repository": "JustinTebbe/Dynamic-noise-AD", "commit": commit.strip(),
        "versions": {"torch": torch.__version__}, "side": side,
        "network": counted(theirs, unet, side), "untrained": beginning(unet),
        "computed": computed(theirs),
        "resnet-34": parameters({"stem": stem, **stages}),
        "features": features(resnet)}


if __name__ == "__main__":
    found = json.dumps(record(Path(sys.argv[1]).resolve()))
    NETWORK.write_text(found + "\n", encoding="utf-8")
