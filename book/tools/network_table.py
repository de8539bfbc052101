"""The table "The network" of paper_against_code.md: what tests/evaluation/
official_network.json counts of the official U-Net, and the same of the package's.
"""
from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from ddad.noise_predictor import build_unet
from ddad.settings import PRESETS, Settings

OFFICIAL = Path(__file__).parents[2] / "tests/evaluation/official_network.json"
OURS, CLEAN = PRESETS["official"], PRESETS["clean"]
# what no count tells: official code; presets paper and official; clean; remark
IN_WORDS = (
    ("embedding of the step", "sines, then cosines", "sines, then cosines",
     "cosines, then sines", "equal"),
    ("first weights", "PyTorch's, zero as above", "PyTorch's, zero as above",
     "PyTorch's", "equal bounds, other draws"),
    ("order of the images", "shuffled epochs, incomplete batches dropped",
     f"`train_order`: `{OURS.train_order}`", f"`{CLEAN.train_order}`",
     "other draws; of fewer images than a batch it makes no step, this package full "
     "ones"),
    ("$z_0$ in training", "encoded anew for each step",
     "mean and deviation are encoded once", "encoded once",
     "equal in distribution; `posterior` (10) says what is taken"),
    ("averaged weights", "none: its `ema: true` is never read",
     f"`ema`: {OURS.ema:g}", f"{CLEAN.ema:g}", "equal"),
    ("precision", "float32", f"`train_precision`: `{OURS.train_precision}`",
     f"`{CLEAN.train_precision}`", "equal"),
    ("images", "256 x 256 by Pillow's bilinear resize, not augmented",
     "the same", "the same", "equal"),
    ("weights kept", "of every 25th epoch and the last, 299; its configuration has "
     "300 tested, which is not written", "the last", "the last", "equal, once it is "
     "told 299"),
    ("weights of $\\phi$", "torchvision's, `resnet34-b627a593.pth`",
     f"`{OURS.features}`, converted from timm's", f"`{CLEAN.features}`",
     "the network is equal, its training on ImageNet another"),
)


def by_side(found: Counter, kind: type) -> dict[str, int]:
    return {str(side): n for (one, side), n in found.items() if one is kind}


def numbers(unet: nn.Module, kind: type, name: str) -> list:
    return sorted({getattr(x, name) for x in unet.modules() if isinstance(x, kind)})


def counted(settings: Settings) -> dict:
    """Of a preset's U-Net, built without weights, what the file counts of theirs."""
    def note(layer, given, out):
        side = out.shape[-1]
        kind = type(layer) if side == given[0].shape[-1] else "between levels"
        found[kind, side] += 1

    found, side = Counter(), settings.image_size // 8
    with torch.device("meta"):
        unet = build_unet(settings, 4, side)
        for layer in unet.modules():
            if isinstance(layer, (ResnetBlock2D, Attention)):
                layer.register_forward_hook(note)
        unet(torch.zeros(1, 4, side, side), torch.zeros(1))
    parts = {"time embedding": [unet.time_embedding],
             "down": [unet.conv_in, unet.down_blocks], "middle": [unet.mid_block],
             "up": [unet.up_blocks], "output": [unet.conv_norm_out, unet.conv_out]}
    return {
        "parameters": {
            name: sum(p.numel() for part in modules for p in part.parameters())
            for name, modules in parts.items()},
        "residual blocks": by_side(found, ResnetBlock2D),
        "between levels": sum(by_side(found, "between levels").values()),
        "attentions": by_side(found, Attention),
        "heads": numbers(unet, Attention, "heads"),
        "groups": numbers(unet, nn.GroupNorm, "num_groups"),
        "epsilon": numbers(unet, nn.GroupNorm, "eps"),
        "dropout": numbers(unet, nn.Dropout, "p")}


def beginning(settings: Settings) -> dict:
    """Of its untrained layers: how many are zero, and the largest weight of the others
    in units of 1 / sqrt(inputs); of a U-Net as deep, and 32 channels wide.
    """
    narrow = settings.change(unet_channels=(32,) * len(settings.unet_channels))
    torch.manual_seed(0)
    unet = build_unet(narrow, 4, settings.image_size // 8)
    weights = [w for w in unet.parameters() if w.ndim > 1]
    others = [w for w in weights if w.any()]
    largest = max(w.abs().max().item() * math.sqrt(w[0].numel()) for w in others)
    return {"zero": len(weights) - len(others), "largest": round(largest, 3)}


def shown(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{n} at {side}" for side, n in value.items())
    if isinstance(value, list):
        return ", ".join(f"{one:g}" for one in value)
    return f"{value:,}"


def rows() -> list[list[str]]:
    """Counts of the official code, of the presets paper and official, and of clean."""
    theirs = json.loads(OFFICIAL.read_text(encoding="utf-8"))
    three = [theirs["network"] | {"zero": theirs["untrained"]["zero"]}]
    three += [counted(PRESETS[name]) | {"zero": beginning(PRESETS[name])["zero"]}
              for name in ("official", "clean")]
    sizes = [one.pop("parameters") for one in three]
    named = {"parameters": [sum(one.values()) for one in sizes]}
    named |= {f"of these: {part}": [one[part] for one in sizes] for part in sizes[0]}
    for name, title in (
            ("residual blocks", "residual blocks, by side"),
            ("between levels", "residual blocks between levels"),
            ("attentions", "attentions, by side"), ("heads", "heads of an attention"),
            ("groups", "groups of a normalisation"), ("epsilon", "its epsilon"),
            ("zero", "layers that begin at zero"), ("dropout", "dropout")):
        named[title] = [one[name] for one in three]
    return [[name, *map(shown, values), "equal" if values[0] == values[1] else ""]
            for name, values in named.items()] + [list(row) for row in IN_WORDS]
