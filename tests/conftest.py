"""Tiny products, networks and settings, so that all tests together run in a few minutes
and need no network.
"""
import os

# read when huggingface_hub is imported: an unknown name then fails at once
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from ddad.settings import preset

torch.set_num_threads(1)
SIZE = 64
TINY = dict(
    image_size=SIZE, vae="pixels", unet_channels=(32,), unet_layers=1,
    train_length="3 steps", train_batch=4, learning_rate=1e-3, neighbours=3,
    neighbour_pool=4, held_out=0.25, tune_epochs=1, tune_batch=8,
    features="efficientnet-lite0", train_vae="")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever reaches for the network fails, here as on a machine without one."""
    connect, own = socket.socket.connect, ("127.0.0.1", "localhost", "::1")

    def local_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in own:
            raise OSError(f"a test reached for {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


def tiny(name="clean", **changes):
    """A preset with networks and numbers small enough for a test."""
    return preset(name, **(TINY | changes))


# --- images ---------------------------------------------------------------------------

def good_images(n, size=SIZE, seed=0):
    """(n, 3, size, size) in [-1, 1]: a disc, a little elsewhere and of a little other
    colour each time, on grainy ground.
    """
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size] / size
    images = []
    for _ in range(n):
        cy = 0.5 + rng.uniform(-0.08, 0.08, 2).mean()
        cx, radius = 0.5 + rng.uniform(-0.08, 0.08), rng.uniform(0.22, 0.3)
        disc = (np.hypot(yy - cy, xx - cx) < radius)[..., None]
        colour = (0.8, 0.5, 0.2) + rng.uniform(-0.05, 0.05, 3)
        levels = np.where(disc, colour, 0.3) + rng.normal(0, 0.02, (size, size, 3))
        images.append(levels.clip(0, 1))
    return torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2) * 2 - 1


def bad_images(n, size=SIZE, seed=100):
    """The same with a blue square of growing side each, and their masks (n, size, size)
    bool.
    """
    images, masks = good_images(n, size, seed), np.zeros((n, size, size), bool)
    for i in range(n):
        side, top, left = size // 4 + i * size // 16, size // 4, size // 3
        masks[i, top : top + side, left : left + side] = True
        images[i, :, torch.from_numpy(masks[i])] = torch.tensor([[-0.8], [-0.8], [0.9]])
    return images, masks


def save_image(path, levels):
    """An image (3, H, W) in [-1, 1] or a mask (H, W) bool as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(levels, np.ndarray):
        array = levels * 255
    else:
        array = ((levels.permute(1, 2, 0).numpy() + 1) * 127.5).round()
    Image.fromarray(array.astype(np.uint8)).save(path)
    return path


def make_product(root, train=16, good=4, bad=4):
    """A product's folder: train/good, test/good, test/square and its masks."""
    for i, image in enumerate(good_images(train)):
        save_image(root / "train" / "good" / f"{i:03}.png", image)
    for i, image in enumerate(good_images(good, seed=50)):
        save_image(root / "test" / "good" / f"{i:03}.png", image)
    for i, (image, mask) in enumerate(zip(*bad_images(bad), strict=True)):
        save_image(root / "test" / "square" / f"{i:03}.png", image)
        save_image(root / "ground_truth" / "square" / f"{i:03}_mask.png", mask)
    return root


@pytest.fixture(scope="session")
def product(tmp_path_factory):
    """A product's folder that no test may change."""
    return make_product(tmp_path_factory.mktemp("data") / "disc")


@pytest.fixture(scope="session")
def images():
    """Four good images and three defective ones, that no test may change."""
    return torch.cat([good_images(4, seed=50), bad_images(3)[0]])


@pytest.fixture
def test_set():
    """Four good images and four defective ones to test on, made for each test."""
    from ddad.data.product import TestSet

    defective, masks = bad_images(4)
    images = torch.cat([good_images(4, seed=50), defective])
    masks = np.concatenate([np.zeros_like(masks), masks]).astype(np.float32)
    kinds = ["good"] * 4 + ["square"] * 4
    return TestSet(images, masks, np.repeat([0, 1], 4), kinds, [])


# --- networks and detectors -----------------------------------------------------------

def tiny_vae(seed=0):
    """An untrained AutoencoderKL, 8x down, 4 channels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=1,
        norm_num_groups=4, sample_size=SIZE, mid_block_add_attention=False,
        scaling_factor=0.5).eval()


def tiny_resnet(folder):
    """An untrained transformers ResNet, saved in `folder`."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    model = ResNetModel(ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1],
        layer_type="basic")).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="session")
def fitted():
    """A detector that no test may change: `under` gives one that may be."""
    from ddad.detector import Detector
    return Detector.fit(good_images(16), tiny(), device="cpu")


@pytest.fixture(scope="session")
def regional(fitted):
    """The same networks with a step for each region, and all else of the extension; no
    test may change it.
    """
    from ddad.training import adapt
    settings = fitted.settings.change(step_rule="region", T_max=160, patch_share=0.25,
                                      patch_bank=100)
    return adapt(fitted, good_images(16), settings)


@pytest.fixture(scope="session")
def one_call(fitted):
    """The same U-Net, called once, and nothing else; no test may change it."""
    from ddad.detector import Detector
    settings = tiny("one-call", tune_epochs=0, latent_blur=1.0)
    return Detector.fit(good_images(16), settings, device="cpu",
                        unet=fitted.networks.unet)


@pytest.fixture(scope="session")
def fitted_folder(fitted, tmp_path_factory):
    """Where `fitted` lies on disk; no test may change it."""
    folder = tmp_path_factory.mktemp("fitted") / "model"
    fitted.save_pretrained(folder)
    return folder


@pytest.fixture
def saved(fitted_folder, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(fitted_folder, tmp_path / "model")


def close(a, b, atol=1e-5):
    """Asserts that two predictions are the same, to `atol`, whole numbers exactly."""
    for name, one in vars(a).items():
        other = getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(
                one, other, rtol=0, atol=atol if one.is_floating_point() else 0,
                msg=lambda text, name=name: f"{name}: {text}")


def same_weights(a, b):
    """Whether two networks, or two dicts of their tensors, hold the same weights."""
    a, b = (one if isinstance(one, dict) else one.state_dict() for one in (a, b))
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())
