"""The shipped weights: how an autoencoder and a detector for each of the drawn products
are trained.
"""
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..calibration import choose
from ..data.product import load_test, load_train
from ..detector import Detector
from ..evaluation.scoring import evaluate
from ..runtime.checkpoints import fitted
from ..runtime.files import write_json
from ..runtime.manifest import versions
from ..runtime.model_card import write_card
from ..settings import Settings, preset
from ..training import hold_out
from . import autoencoder
from .products import PRODUCTS, make

WEIGHTS = Path(__file__).parent.parent / "weights"
# 128 x 128 pixels and 8-channel latents of 16 x 16; half the paper's size, and a grid
# of pooled features small enough to ship.
SETTINGS = preset(
    "clean",
    image_size=128,
    vae="embedded",
    unet_channels=(32, 64, 96),
    neighbour_pool=4,
    train_length="2000 steps",
    learning_rate=1e-3,
)
TOLERANCE = 0.03  # between two trainings of the same weights on different machines
METRICS = ("i_auroc", "p_auroc", "pro")


def train_weights(
    out: Path,
    data: Path,
    settings: Settings = SETTINGS,
    vae_settings: list[Settings] = autoencoder.SETTINGS,
    device: str = "auto",
) -> dict:
    """Make the products, train the autoencoder on drawn scenery, and a detector for
    each product; about two hours on 2 cores.

    One setting serves all three: T_max, smallest bin, guidance, blur and lambda have
    the best mean over them on held-out good images and synthetic defects. Interrupted,
    it goes on from the last checkpoint. Returns the results on the test sets.
    """
    make(data)
    work = out / "work"
    images = {p: load_train(data / p, settings) for p in PRODUCTS}
    vae = autoencoder.load_or_train(out / "vae", work, vae_settings)

    def load(folder: Path) -> Detector:
        return Detector.from_pretrained(folder, device=device, vae=vae)

    fit, first = partial(Detector.fit, device=device, vae=vae), {}
    for product in PRODUCTS:
        def train(checkpoint: Path, images: Tensor = images[product]) -> Detector:
            return fit(images, settings.change(tune_epochs=0), checkpoint=checkpoint)

        first[product] = fitted(work / product, train, load)
    good = {product: hold_out(images[product], settings)[1] for product in PRODUCTS}
    chosen, tables = choose([(first[product], good[product]) for product in PRODUCTS])
    results = {}
    for product, table in zip(PRODUCTS, tables):
        unet, training = first[product].networks.unet, first[product].record["training"]
        detector = fit(images[product], settings.change(**chosen), unet=unet)
        detector.record |= {"training": training, "calibration": table}
        detector.save_pretrained(out / product, torch.float16)
        test = load_test(data / product, settings)
        results[product], _ = evaluate(load(out / product), test)
        write_card(out / product, product, licence="mit", figures=results[product],
                   trained_on=f"Drawn images of {product}, as `ddad data make` makes.")
    made_with = {"versions": versions(), "device": str(detector.device)}
    write_json(out / "results.json", results | made_with)
    return results


def agrees(results: dict, weights: Path = WEIGHTS) -> dict[str, bool]:
    """Whether each product's I-AUROC, P-AUROC and PRO lie within TOLERANCE of those of
    the shipped weights.
    """
    shipped = json.loads((weights / "results.json").read_text(encoding="utf-8"))

    def apart(product: str) -> float:
        return max(abs(results[product][m] - shipped[product][m]) for m in METRICS)

    return {product: apart(product) <= TOLERANCE for product in PRODUCTS}
