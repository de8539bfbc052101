"""Point 5: no image and no precision leads to a score that is no number; held-out
images unlike the training ones are told.
"""
import tempfile
import warnings
from pathlib import Path

import torch
from conftest import good_images, tiny, tiny_vae
from odd_images import odd_images
from run import Check
from torch import Tensor
from torch.nn import functional as F

from ddad import Detector
from ddad.data.product import load_good, load_train
from ddad.dynamic_noise import MemoryBank
from ddad.evaluation.likeness import compare_distances
from ddad.networks.features import load_features
from ddad.runtime.errors import SettingsError
from ddad.synthetic import products
from ddad.synthetic.weights import SETTINGS, WEIGHTS

SLIGHT = "darker by a tenth"  # too little to be noticed: counted, not asked for
FIELDS = ("score", "map", "reconstruction", "distance")


def _fitted(seed: int) -> dict[str, Detector]:
    """The shipped detector of the board, and some trained on constants and noise."""
    made = {"board, shipped": Detector.from_pretrained(WEIGHTS / "board", device="cpu")}
    good = good_images(16)
    trained_on = {"discs": good, "constant images": torch.zeros_like(good),
                  "noise": odd_images(16, 64, seed)[18:34]}
    for name, images in trained_on.items():
        for preset in ("clean", "fast", "paper", "official"):
            settings = tiny(preset, train_precision="bfloat16", vae="given")
            held_out = images[:4] if preset in ("paper", "official") else None
            made[f"{name}, {preset}"] = Detector.fit(
                images, settings, held_out=held_out, vae=tiny_vae(), device="cpu")
    return made


def finite(count: int, seed: int):
    """Detectors x precisions x weights saved in float32 and float16, on odd images
    together and one by one.
    """
    made, failures, scored, cases = _fitted(seed), [], 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        for name, detector in made.items():
            for dtype in (torch.float32, torch.float16):
                detector.save_pretrained(folder, dtype)
                saved = Detector.from_pretrained(folder, vae=detector.networks.vae,
                                                 device="cpu")
                for precision in ("float32", "bfloat16"):
                    again = saved.under(saved.settings.change(precision=precision))
                    images = odd_images(count, again.settings.image_size, seed)
                    cases += 1
                    # a batch, black alone, constant alone
                    for part in (images, images[:1], images[2:3]):
                        found = again.predict(part)
                        scored += len(part)
                        failures += [
                            f"{name}, saved in {dtype}, {precision}: {what} is not "
                            "finite" for what in FIELDS
                            if not getattr(found, what).isfinite().all()]
    try:
        tiny(precision="float16")
        failures.append("precision float16 is offered, but not checked here")
    except SettingsError:
        pass
    counts = {"detectors": len(made), "with precisions and saved weights": cases,
              "predictions": scored}
    return counts, failures


def _compared(bank: MemoryBank, y: Tensor, K: int) -> dict:
    return compare_distances(bank.distance(y, K), bank.distances)


def _shipped(product: str, root: Path) -> dict:
    """Features fine-tuned on the training images: does that alone give an alarm?"""
    detector = Detector.from_pretrained(WEIGHTS / product, device="cpu")
    kept_back = load_good(root, detector.settings)[1]
    K = detector.settings.neighbours
    return _compared(detector.memory_bank, detector.features(kept_back), K)


def _features_of_boards(root: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """Features, not fine-tuned, of the boards, and of the boards changed."""
    detector = Detector.from_pretrained(WEIGHTS / "board", device="cpu")
    detector.networks.phi = load_features(SETTINGS).eval()
    board = load_train(root / "board", SETTINGS)
    changed = {
        SLIGHT: board * 0.9 - 0.1,
        "half as bright": board * 0.5 - 0.5,
        "less sharp": F.avg_pool2d(board, 3, 1, 1),
        "moved by 3 pixels": board.roll(3, 3),
        "another product": load_train(root / "blister", SETTINGS),
    }
    of = {name: detector.features(images) for name, images in changed.items()}
    return detector.features(board), of


def held_out(count: int, seed: int):
    """`count` splits of one product's good images by chance, and as many where the
    held-out ones are changed.
    """
    draws, K = torch.Generator().manual_seed(seed), SETTINGS.neighbours
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(scratch)
        products.make(root, train=240, test_good=0, test_defect=0)
        shipped = {name: _shipped(name, root / name) for name in products.PRODUCTS}
        y, changed = _features_of_boards(root)
        false, noticed = 0, dict.fromkeys(changed, 0)
        for _ in range(count):
            order = torch.randperm(len(y), generator=draws)
            bank, rest = MemoryBank.fit(y[order[:192]], K), order[192:]
            false += not _compared(bank, y[rest], K)["alike"]
            for name, features in changed.items():
                noticed[name] += not _compared(bank, features[rest], K)["alike"]
    failures = []
    if false > max(1, count // 100):
        failures.append(f"{false} of {count} splits by chance gave an alarm")
    failures += [f"{name} was noticed {n} times of {count}"
                 for name, n in noticed.items() if n < count and name != SLIGHT]
    failures += [f"the shipped detector of {name} would warn of its own held-out images"
                 for name, found in shipped.items() if not found["alike"]]
    counts = {"splits": count, "false alarms": false}
    counts |= {f"noticed, {name}": n for name, n in noticed.items()}
    counts |= {f"p, shipped {name}": f"{of['p']:.2f}" for name, of in shipped.items()}
    return counts, failures


CHECKS = [
    Check("finite", 5,
          "constant, black, white and noise images get finite scores, maps and "
          "reconstructions in float32 and bfloat16, from weights saved in float32 and "
          "float16, trained in bfloat16, also on constant images; float16 is refused "
          "as a precision to compute in",
          finite, 4, 10),
    Check("held-out-unlike", 5,
          "a warning when the held-out good images are unlike the training images: "
          "seldom by chance, always when they are changed",
          held_out, 500, 11),
]
