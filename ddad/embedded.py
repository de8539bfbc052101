"""The embedded default: generated products, the weights this project trained for them, and the demo that uses both."""
from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from .calibration import choose
from .detector import Detector, split
from .evaluation import evaluate, load_test, load_train
from .manifest import versions, write_json
from .plots import save_overlay
from .products import PRODUCTS, make
from .settings import Settings, preset
from .training import train_vae

WEIGHTS = Path(__file__).parent / "weights"
# 128 x 128 pixels and 8-channel latents of 16 x 16; half the paper's size, and a grid of pooled features small enough to ship.
SETTINGS = preset("clean", image_size=128, vae="embedded", unet_channels=(32, 64, 96), neighbour_pool=4, train_length="2000 steps",
                  learning_rate=1e-3)
TOLERANCE = 0.03        # between two trainings of the same weights on different machines
VAE_SETTINGS = preset("clean", image_size=128, train_length="1500 steps", train_batch=8, learning_rate=1.5e-3, weight_decay=0.0)


def build_vae() -> AutoencoderKL:
    """An untrained autoencoder of 0.9 M parameters: (B, 3, 128, 128) => (B, 8, 16, 16)."""
    return AutoencoderKL(block_out_channels=(16, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                         latent_channels=8, layers_per_block=1, norm_num_groups=16, sample_size=128, mid_block_add_attention=False)


def train_weights(out: Path, data: Path, settings: Settings = SETTINGS, vae_settings: Settings = VAE_SETTINGS, device: str = "auto") -> dict:
    """Make the products, train the autoencoder on their good images and a detector for each; the better part of an hour on 2 cores.

    One setting serves all three: T_max, smallest bin, guidance, blur and lambda have the best mean over them on held-out good images and
    synthetic defects. Interrupted, it goes on from the last checkpoint. Returns the results on the test sets.
    """
    make(data)
    work, images = out / "work", {p: load_train(data / p, settings) for p in PRODUCTS}
    if not (out / "vae" / "record.json").exists():
        torch.manual_seed(vae_settings.seed)
        vae = build_vae()
        record = train_vae(vae, torch.cat(list(images.values())), vae_settings, work / "vae.safetensors")
        vae.to(torch.float16).save_pretrained(out / "vae")
        write_json(out / "vae" / "record.json", {"settings": vae_settings.as_dict(), "record": record, "versions": versions()})
    vae = AutoencoderKL.from_pretrained(out / "vae", use_safetensors=True).eval()
    fitted, results = {}, {}
    for product in PRODUCTS:
        fitted[product] = Detector.fit(images[product], settings.change(tune_epochs=0), device=device, vae=vae,
                                       checkpoint=work / f"{product}.safetensors")
    chosen, tables = choose([(fitted[product], split(images[product], settings)[1]) for product in PRODUCTS])
    for product, table in zip(PRODUCTS, tables):
        detector = Detector.fit(images[product], settings.change(**chosen), device=device, vae=vae, unet=fitted[product].unet)
        detector.record |= {"training": fitted[product].record["training"], "calibration": table}
        detector.save_pretrained(out / product, torch.float16)
        results[product], _ = evaluate(Detector.from_pretrained(out / product, device=device, vae=vae), load_test(data / product, settings))
    write_json(out / "results.json", results | {"versions": versions(), "device": str(detector.device)})
    return results


def agrees(results: dict, weights: Path = WEIGHTS) -> dict[str, bool]:
    """Whether each product's I-AUROC, P-AUROC and PRO lie within TOLERANCE of those of the shipped weights."""
    shipped = json.loads((weights / "results.json").read_text(encoding="utf-8"))
    return {p: all(abs(results[p][m] - shipped[p][m]) <= TOLERANCE for m in ("i_auroc", "p_auroc", "pro")) for p in PRODUCTS}


def demo(out: Path, weights: Path = WEIGHTS, device: str = "auto") -> dict:
    """Inspect the test images of the products with the shipped weights: pictures and results.json in `out`; the results.

    One picture a defect kind of each product; results.json has a figure for each product and their mean.
    """
    started = time.perf_counter()
    make(out / "data", train=0)
    results = {}
    for product in PRODUCTS:
        detector = Detector.from_pretrained(weights / product, device=device)
        test = load_test(out / "data" / product, detector.settings)
        results[product], found = evaluate(detector, test)
        for kind in sorted(set(test.kinds)):
            n = test.kinds.index(kind)
            save_overlay(out / f"{product}_{kind}.png", test.images[n], found.reconstruction[n], found.map[n], detector.threshold,
                         test.masks[n] > 0.5)
    mean = {name: sum(r[name] for r in results.values()) / len(results) for name in ("i_auroc", "p_auroc", "pro")}
    seconds = round(time.perf_counter() - started, 1)
    made_with = {"settings": detector.settings.as_dict(), "versions": versions(), "device": str(detector.device)}
    results = {"mean": mean, **results, "seconds": seconds, **made_with}
    write_json(out / "results.json", results)
    return results
