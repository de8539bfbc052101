"""phi: its stages, its weights, and backbones that cannot be had."""
import pytest
import torch
from conftest import good_images, tiny, tiny_resnet
from torch import nn

from ddad.networks.features import (
    EfficientNetLite0,
    ResNetFeatures,
    empty_features,
    load_features,
)
from ddad.noise_predictor import build_unet
from ddad.runtime.errors import BackboneError
from ddad.settings import preset

X0 = good_images(2)


@pytest.fixture(scope="module")
def lite0():
    return load_features(preset())


def shapes(stages):
    return [tuple(stage.shape[1:]) for stage in stages]


def frozen(phi):
    return not phi.training and not any(p.requires_grad for p in phi.parameters())


def test_efficientnet_has_the_stages_it_says(lite0):
    assert type(lite0) is EfficientNetLite0 and frozen(lite0)
    assert shapes(lite0(X0)) == [(24, 16, 16), (40, 8, 8), (112, 4, 4)]
    assert len(load_features(preset(map_stages=(2, 4)))(X0)) == 4
    norms = [one for one in lite0.modules() if isinstance(one, nn.BatchNorm2d)]
    # as its weights were trained
    assert norms and all(norm.eps == 1e-3 for norm in norms)


def test_an_empty_one_takes_its_weights(lite0):
    empty = empty_features(preset(), None)
    empty.load_state_dict(lite0.state_dict())
    assert frozen(empty)
    assert all(torch.equal(a, b) for a, b in zip(lite0(X0), empty(X0), strict=True))


def test_efficientnet_knows_images(lite0):
    """Its weights are in the right places: two images of one thing look more alike than
    a third of another.
    """
    draws = torch.Generator().manual_seed(0)
    strange = torch.rand(1, 3, 64, 64, generator=draws) * 2 - 1
    for a in lite0(torch.cat([X0, strange])):
        assert 0.05 < a.std() < 20
        assert (a[0] - a[1]).abs().mean() < 0.9 * (a[0] - a[2]).abs().mean()


def test_resnet_from_a_folder(tmp_path):
    folder = tmp_path / "resnet"
    model = tiny_resnet(folder)
    phi = load_features(preset(features=str(folder)))
    assert type(phi) is ResNetFeatures and frozen(phi)
    stages = phi(X0)
    assert shapes(stages) == [(8, 16, 16), (12, 8, 8), (16, 4, 4)]
    mean, std = (torch.tensor(three).view(3, 1, 1)
                 for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = model(((X0 + 1) / 2 - mean) / std, output_hidden_states=True)
    for a, b in zip(stages, expected.hidden_states[1:]):
        assert torch.allclose(a, b, atol=1e-5)
    empty = empty_features(preset(), phi.config.to_dict())
    empty.load_state_dict(phi.state_dict())
    assert torch.equal(empty(X0)[2], stages[2])


def test_features_that_cannot_be_had(tmp_path):
    empty, unet = tmp_path / "empty", tmp_path / "unet"
    empty.mkdir()
    build_unet(tiny(), 4, 8).save_pretrained(unet)
    for name in ("nobody/nothing", str(empty), str(unet)):
        with pytest.raises(BackboneError, match=f"{name}.*efficientnet-lite0"):
            load_features(preset(features=name))


def test_features_of_another_class_are_refused(tmp_path):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                       intermediate_size=8, image_size=32)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    with pytest.raises(BackboneError, match="model of type vit"):
        load_features(preset(features=str(tmp_path / "vit")))
