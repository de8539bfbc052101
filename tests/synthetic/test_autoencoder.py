"""The embedded autoencoder: trained on scenery of no product, and blind to defects."""
import json
import math

import numpy as np
import pytest
import torch
from conftest import tiny
from sklearn.metrics import roc_auc_score

from ddad.networks.autoencoders import load_vae
from ddad.synthetic import autoencoder
from ddad.synthetic.autoencoder import (
    as_input,
    build_vae,
    load_or_train,
    scaled,
    train_vae,
)
from ddad.synthetic.products import PRODUCTS, image_seed, plan, render
from ddad.synthetic.scenery import sceneries, scenery

SHORT = [tiny(image_size=32, train_length="2 steps", train_batch=2)]


def test_scenery_is_a_function_of_its_seed():
    image = scenery(64, 3)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert np.array_equal(image, scenery(64, 3))
    assert not np.array_equal(image, scenery(64, 4))
    several = sceneries(3, 32, seed=1)
    assert np.array_equal(several[:2], sceneries(2, 32, seed=1))
    assert not np.array_equal(several, sceneries(3, 32, seed=2))


def test_scenery_shows_bright_and_dark_smooth_and_rough():
    images = sceneries(40, 32, seed=0).astype(float)
    level = images.mean((1, 2, 3))
    rough = np.abs(np.diff(images, axis=1)).mean((1, 2, 3))
    assert level.min() < 70 and level.max() > 170
    assert rough.min() < 6 and rough.max() > 20


def test_training_changes_the_network_and_sets_its_scale():
    vae, images = build_vae(), sceneries(5, 32, seed=0)
    before = [w.clone() for w in vae.parameters()]
    record = train_vae(vae, images, SHORT[0]) | scaled(vae, torch.from_numpy(images))
    assert any(not torch.equal(a, b) for a, b in zip(before, vae.parameters()))
    with torch.no_grad():
        z = vae.encode(as_input(torch.from_numpy(images))).latent
    assert vae.config.scaling_factor == pytest.approx(1 / z.std().item(), rel=1e-4)
    assert math.isfinite(record["psnr"]) and record["steps"] == 2


def test_it_is_trained_once_and_keeps_images_back(tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder, "SIZE", 32)
    monkeypatch.setattr(autoencoder, "HELD_OUT", 2)
    seen = []
    monkeypatch.setattr(autoencoder, "train_vae", lambda vae, images, *rest:
                        seen.append(len(images)) or {"steps": 2})
    load_or_train(tmp_path / "vae", tmp_path, SHORT, count=6)
    load_or_train(tmp_path / "vae", tmp_path, SHORT, count=6)
    assert seen == [4]
    record = json.loads((tmp_path / "vae" / "record.json").read_text())["record"]
    assert record["images"] == 4 and record["scaling_factor"] > 0


@pytest.mark.parametrize("product", PRODUCTS)
def test_alone_it_does_not_tell_defective_from_good(product):
    """Its largest error, smoothed or not, ranks images near chance."""
    def drawn(split, i):
        defect = plan(product, i, 0) if split == "test_defect" else ()
        return render(product, 128, image_seed(product, split, i), *defect)[0]

    count, vae = 30, load_vae("embedded")
    images = [drawn(split, i) for split in ("test_good", "test_defect")
              for i in range(count)]
    x0 = as_input(torch.from_numpy(np.stack(images)))
    with torch.no_grad():
        x0_hat = torch.cat([vae.decode(vae.encode(part).latent).sample
                            for part in x0.split(10)])
    error = (x0_hat - x0).abs().mean(1, keepdim=True)
    smooth = torch.nn.functional.avg_pool2d(error, 9, 1, 4)
    for A in (error, smooth):
        score = A.amax((1, 2, 3))
        assert roc_auc_score([0] * count + [1] * count, score) < 0.65
