"""Tiny products, networks and settings, so that all tests together run in a minute or two on one core and need no network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: an unknown name then fails at once

import socket

import numpy as np
import pytest
import torch
from PIL import Image

from ddad.settings import preset

torch.set_num_threads(1)
SIZE = 64
TINY = dict(
    image_size=SIZE, vae="pixels", unet_channels=(32,), unet_layers=1, train_length="3 steps", train_batch=4, learning_rate=1e-3,
    neighbours=3, neighbour_pool=4, held_out=0.25, tune_epochs=1, tune_batch=8, features="efficientnet-lite0", train_vae="",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever reaches for the network fails, here as on a machine without one."""
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"a test reached for {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


def tiny(name="clean", **changes):
    """A preset with networks and numbers small enough for a test."""
    return preset(name, **(TINY | changes))


def good_images(n, size=SIZE, seed=0):
    """(n, 3, size, size) in [-1, 1]: a disc, a little elsewhere and of a little other colour each time, on grainy ground."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size] / size
    images = []
    for _ in range(n):
        cy, cx, radius = 0.5 + rng.uniform(-0.08, 0.08, 2).mean(), 0.5 + rng.uniform(-0.08, 0.08), rng.uniform(0.22, 0.3)
        disc = (np.hypot(yy - cy, xx - cx) < radius)[..., None]
        levels = np.where(disc, (0.8, 0.5, 0.2) + rng.uniform(-0.05, 0.05, 3), 0.3) + rng.normal(0, 0.02, (size, size, 3))
        images.append(levels.clip(0, 1))
    return torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2) * 2 - 1


def bad_images(n, size=SIZE, seed=100):
    """The same with a blue square of growing side each, and their masks (n, size, size) bool."""
    images, masks = good_images(n, size, seed), np.zeros((n, size, size), bool)
    for i in range(n):
        side = size // 4 + i * size // 16
        masks[i, size // 4 : size // 4 + side, size // 3 : size // 3 + side] = True
        images[i, :, torch.from_numpy(masks[i])] = torch.tensor([[-0.8], [-0.8], [0.9]])
    return images, masks


def save_picture(path, levels):
    """An image (3, H, W) in [-1, 1] or a mask (H, W) bool as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = levels * 255 if isinstance(levels, np.ndarray) else ((levels.permute(1, 2, 0).numpy() + 1) * 127.5).round()
    Image.fromarray(array.astype(np.uint8)).save(path)
    return path


def make_product(root, train=16, good=4, bad=4):
    """A product's folder: train/good, test/good, test/square and its masks."""
    for i, image in enumerate(good_images(train)):
        save_picture(root / "train" / "good" / f"{i:03}.png", image)
    for i, image in enumerate(good_images(good, seed=50)):
        save_picture(root / "test" / "good" / f"{i:03}.png", image)
    for i, (image, mask) in enumerate(zip(*bad_images(bad), strict=True)):
        save_picture(root / "test" / "square" / f"{i:03}.png", image)
        save_picture(root / "ground_truth" / "square" / f"{i:03}_mask.png", mask)
    return root


def tiny_vae(seed=0):
    """An untrained AutoencoderKL, 8x down, 4 channels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4, layers_per_block=1, norm_num_groups=4, sample_size=SIZE, mid_block_add_attention=False,
        scaling_factor=0.5).eval()  # fmt: skip


@pytest.fixture(scope="session")
def product(tmp_path_factory):
    """A product's folder that no test may change."""
    return make_product(tmp_path_factory.mktemp("data") / "disc")
