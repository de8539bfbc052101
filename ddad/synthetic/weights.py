"""The shipped weights: how an autoencoder and a detector for each of the drawn products
are trained.
"""
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..calibration import Calibration
from ..data.product import load_test, load_train
from ..detector import Detector
from ..evaluation.scoring import evaluate
from ..runtime.checkpoints import fitted
from ..runtime.files import write_json
from ..runtime.manifest import versions
from ..runtime.model_card import write_card
from ..settings import REGIONAL, Settings, preset
from ..training import adapt, hold_out, split
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
# the extension, on one product: chapter 13 and the live page show it
BEYOND, OF_BEYOND = "board-regional", "board"
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

    One setting serves all three, chosen on the held-out good images of all, with
    synthetic defects. Beside them one detector of the preset `regional`. Interrupted,
    it goes on from the last checkpoint. Returns the results on the test sets.
    """
    make(data)
    work = out / "work"
    images = {p: load_train(data / p, settings) for p in PRODUCTS}
    vae = autoencoder.load_or_train(out / "vae", work, vae_settings)

    def load(folder: Path) -> Detector:
        return Detector.from_pretrained(folder, device=device, vae=vae)

    def keep(folder: Path, product: str) -> dict:
        """The saved detector's results, which its card tells."""
        found, _ = evaluate(load(folder), load_test(data / product, settings))
        write_card(folder, folder.name, licence="mit", figures=found,
                   trained_on=f"Drawn images of {product}, as `ddad data make` makes.")
        return found

    fit, first = partial(Detector.fit, device=device, vae=vae), {}
    for product in PRODUCTS:
        def train(checkpoint: Path, images: Tensor = images[product]) -> Detector:
            return fit(images, settings.change(tune_epochs=0), checkpoint=checkpoint)

        first[product] = fitted(work / product, train, load)
    good = {product: hold_out(images[product], settings)[1] for product in PRODUCTS}
    pairs = [(first[product], split(good[product], settings)[0])
             for product in PRODUCTS]
    chosen, tables = Calibration(pairs).path()
    tuned = {}
    for product in PRODUCTS:
        unet, training = first[product].networks.unet, first[product].record["training"]
        tuned[product] = fit(images[product], settings.change(**chosen), unet=unet)
        tuned[product].record["training"] = training
    chosen, more = Calibration(
        [(tuned[product], good) for product, (_, good) in zip(PRODUCTS, pairs)]).map()
    results = {}
    for product, *both in zip(PRODUCTS, tables, more):
        detector = adapt(tuned[product], images[product],
                         tuned[product].settings.change(**chosen))
        detector.record["calibration"] = [row for table in both for row in table]
        detector.save_pretrained(out / product, torch.float16)
        results[product] = keep(out / product, product)
    good, beyond = images[OF_BEYOND], settings.change(preset="regional", **REGIONAL)
    unet, training = first[OF_BEYOND].networks.unet, first[OF_BEYOND].record["training"]
    detector = fit(good, beyond, unet=unet, calibrate=True)
    detector.record["training"] = training
    detector.save_pretrained(out / BEYOND, torch.float16)
    results[BEYOND] = keep(out / BEYOND, OF_BEYOND)
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
