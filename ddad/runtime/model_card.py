"""The model card, README.md of a saved detector: what the hub's page shows of it, and
whoever opens the folder reads first. Written from the manifest alone.
"""
from __future__ import annotations

import json
from pathlib import Path

from .files import write_text
from .manifest import CARD, MANIFEST, read_manifest

METRICS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO"}
MATTER = ("preset", "step_rule", "T_max", "smallest_bin", "bins", "guidance",
          "latent_blur", "lam", "patch_share", "sigma", "features", "tune_epochs",
          "decode", "false_alarms")
RECONSTRUCTS = """\
It reconstructs an image as a good product; where the two differ, there is a defect. It
gives a score, an anomaly map, the reconstruction and the noise level chosen."""
ONE_CALL = """\
What one call of its U-Net takes for noise in an image's latent is a defect. It gives a
score and an anomaly map."""
PLACEHOLDER = "user/name"                           # until there is a repository
TAGS = ["anomaly-detection", "anomaly-localization", "industrial-inspection",
        "latent-diffusion"]
TEXT = """\
---
{metadata}
---

# {title}

A detector of defects on images of one product, of which it knows the good images alone.
{does}

Method: [Dynamic Addition of Noise in a Diffusion Model for Anomaly
Detection](https://arxiv.org/abs/2401.04463), Tebbe and Tayyub, CVPR 2024 workshops.

## What it was trained on

{trained_on}

- images: {images} at {size} x {size} pixels
- autoencoder, not in this folder: {vae}, {autoencoder}
- U-Net: {unet}
- made with {versions}

## Settings that matter

{settings}

The threshold is {threshold}. All settings, and the record of training and calibration,
are in `{manifest}`.

## Figures

{figures}

## How to load it

```python
from ddad import Detector
detector = Detector.from_pretrained("{placeholder}")  # or this folder
found = detector.predict(images)  # (N, 3, {size}, {size}) in [-1, 1]
```

`ddad detect FOLDER IMAGES OUT` inspects files. The weights are safetensors, the rest is
JSON; nothing in the folder is executed, and the SHA-256 of the weights is checked.

## Limits

- It knows one product, under the camera position and the light of its training images.
- Its threshold promises {promise}:
  on average over such sets, on images like those, and nothing where the light changes.
- A defect thinner than a pixel or two of {size} is lost, and so is one that the
  autoencoder does not draw.
- Its memory bank holds features of the training images. They are no images, but be
  careful with a detector of a product that nobody may see.

Saving the detector again writes this card anew.
"""


def write_card(folder: Path, title: str = "", *, trained_on: str = "",
               licence: str = "unknown", figures: dict | None = None) -> None:
    """README.md of the detector saved in `folder`, anew. ModelError where there is
    none.

    title: the folder's name, unless given. trained_on: a sentence, whose images of
    what. licence: of the weights, as the hub calls it. figures: what `evaluate` found.
    """
    text = card(read_manifest(folder), title or folder.name, trained_on, licence,
                figures)
    write_text(folder / CARD, text)


def card(manifest: dict, title: str, trained_on: str, licence: str,
         figures: dict | None) -> str:
    """The same as text."""
    from huggingface_hub import ModelCardData
    settings, record = manifest["settings"], manifest["record"]
    metadata = ModelCardData(license=licence, library_name="ddad",
                             pipeline_tag="image-segmentation", tags=TAGS)
    made_by = manifest["versions"]
    chosen = [[_code(name), _code(settings[name])] for name in MATTER
              if name in settings]
    return TEXT.format(
        metadata=metadata.to_yaml(), title=" ".join(title.split()), manifest=MANIFEST,
        placeholder=PLACEHOLDER,
        trained_on=trained_on or "Good images of one product.",
        images=_images(record), size=settings["image_size"], unet=_unet(record),
        vae=_code(settings["vae"]),
        versions=", ".join(f"{name} {made_by[name]}" for name in ("ddad", "torch")),
        settings=_table(["setting", "value"], chosen),
        threshold=_threshold(manifest), figures=_figures(figures),
        does=RECONSTRUCTS if settings.get("decode", True) else ONE_CALL,
        promise=_promise(manifest), autoencoder=_autoencoder(settings["vae"]))


def _images(record: dict) -> str:
    if "images" not in record:
        return "not recorded,"
    held_out = record.get("held_out")
    of_them = "" if held_out is None else f", {held_out} of them held out,"
    return f"{record['images']} good ones{of_them}"


def _unet(record: dict) -> str:
    if not (training := record.get("training")):
        return "given, not trained with this detector"
    return (f"{training['parameters'] / 1e6:.1f} million parameters, "
            f"{training['steps']} steps, loss {training['loss']:.3f}")


def _autoencoder(name: str) -> str:
    if name == "given" or ".py:" in name:
        return "which has to be passed as `vae`"
    if name in ("embedded", "pixels"):
        return "which comes with the package"
    return "which is loaded by that name, from a folder or the hub"


def _threshold(manifest: dict) -> str:
    if manifest["threshold"] is not None:
        return f"{manifest['threshold']:.4f}"
    return ("not set, since no image was held out"
            if manifest["held_out_scores"] is None else
            "not set, since new images' scores are on another scale")


def _promise(manifest: dict) -> str:
    rate, scores = manifest["settings"]["false_alarms"], manifest["held_out_scores"]
    if not scores or manifest["threshold"] is None:
        return "nothing"
    # of so few images no smaller rate can be promised
    rate = max(rate, 1 / (len(scores) + 1))
    return f"at most {rate:.1%} false alarms, from {len(scores)} good images"


def _figures(results: dict | None) -> str:
    if not results:
        return ("None were recorded. `ddad evaluate` measures them on test images of "
                "yours.")
    rows = [[label, f"{results[name]:.3f}"] for name, label in METRICS.items()]
    of = "{defective} defective and {good} good test images.".format(
        **results, good=results["images"] - results["defective"])
    return f"On {of}\n\n" + _table(["metric", "value"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(value) -> str:
    """A value as code that cannot end its cell, its line or itself."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"
