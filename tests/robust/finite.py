"""Point 5: no picture and no precision leads to a score that is no number; held-out images unlike the training ones are told."""
import tempfile
import warnings
from pathlib import Path

import torch
from conftest import good_images, tiny, tiny_vae
from run import Check

from ddad import Detector, embedded, products
from ddad.data import read_images, train_items
from ddad.detector import split
from ddad.dynamic_noise import DynamicNoise
from ddad.features import load_features
from ddad.settings import SettingsError

SLIGHT = "darker by a tenth"                    # too little to be noticed: counted, not asked for


def _odd(count: int, size: int, seed: int) -> torch.Tensor:
    """Pictures (N, 3, H, W) in [-1, 1]: black, white, and `count` of each other kind."""
    draws = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, size, size, generator=draws)
    constant = (torch.rand(count, 3, 1, 1, generator=draws) * 2 - 1).expand_as(noise)
    spot = torch.full_like(noise, -1.0)
    spot[:, :, size // 2, size // 3] = 1
    black_and_white = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, size, size)
    return torch.cat([black_and_white, constant, noise.clamp(-1, 1), noise.sign(), (noise / 3).cumsum(3).clamp(-1, 1), spot])


def finite(count: int, seed: int):
    """Detectors x precisions x weights saved in float32 and float16, on odd pictures together and one by one."""
    failures, scored, cases = [], 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        made = {"board, shipped": Detector.from_pretrained(embedded.WEIGHTS / "board", device="cpu")}
        good = good_images(16)
        for name, images in {"discs": good, "constant pictures": torch.zeros_like(good), "noise": _odd(16, 64, seed)[18:34]}.items():
            for preset in ("clean", "fast", "paper", "official"):
                held_out = {"clean": None, "fast": None}.get(preset, images[:4])
                made[f"{name}, {preset}"] = Detector.fit(images, tiny(preset, train_precision="bfloat16", vae="given"), held_out=held_out,
                                                         vae=tiny_vae(), device="cpu")
        for name, detector in made.items():
            for dtype in (torch.float32, torch.float16):
                folder = Path(scratch) / "model"
                detector.save_pretrained(folder, dtype)
                for precision in ("float32", "bfloat16"):
                    again = Detector.from_pretrained(folder, vae=detector.projection.vae, device="cpu")
                    again = again.under(again.settings.change(precision=precision))
                    again.projection.precision = precision
                    images, cases = _odd(count, again.settings.image_size, seed), cases + 1
                    for part in (images, images[:1], images[2:3]):      # a batch, black alone, constant alone
                        found = again.predict(part)
                        scored += len(part)
                        for what in ("score", "map", "reconstruction", "distance"):
                            if not getattr(found, what).isfinite().all():
                                failures.append(f"{name}, saved in {dtype}, {precision}: {what} is not finite")
    try:
        tiny(precision="float16")
        failures.append("precision float16 is offered, but not checked here")
    except SettingsError:
        pass
    return {"detectors": len(made), "with precisions and saved weights": cases, "predictions": scored}, failures


def held_out(count: int, seed: int):
    """`count` splits of one product's good pictures by chance, and as many where the held-out ones are changed."""
    failures, draws = [], torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        products.make(Path(scratch), train=240, test_good=0, test_defect=0)
        images = {p: read_images([item.path for item in train_items(Path(scratch) / p)], 128) for p in products.PRODUCTS}
        shipped = {}
        for product, all_of in images.items():                          # features fine-tuned on the training images: does that alone give an alarm?
            detector = Detector.from_pretrained(embedded.WEIGHTS / product, device="cpu")
            _, kept_back = split(all_of, detector.settings)
            shipped[product] = detector.dynamic_noise.compare(detector.dynamic_noise.distance(detector.features(kept_back)))
        detector.phi, board = load_features(embedded.SETTINGS).eval(), images["board"]
        shifted = {SLIGHT: board * 0.9 - 0.1, "half as bright": board * 0.5 - 0.5, "less sharp": torch.nn.functional.avg_pool2d(board, 3, 1, 1),
                   "moved by 3 pixels": board.roll(3, 3), "another product": images["blister"]}
        y, changed = detector.features(board), {name: detector.features(part) for name, part in shifted.items()}
        false, noticed = 0, dict.fromkeys(changed, 0)
        for _ in range(count):
            order = torch.randperm(len(y), generator=draws)
            noise = DynamicNoise.fit(y[order[:192]], embedded.SETTINGS)
            false += not noise.compare(noise.distance(y[order[192:]]))["alike"]
            for name, features in changed.items():
                noticed[name] += not noise.compare(noise.distance(features[order[192:]]))["alike"]
    if false > max(1, count // 100):
        failures.append(f"{false} of {count} splits by chance gave an alarm")
    failures += [f"{name} was noticed {n} times of {count}" for name, n in noticed.items() if n < count and name != SLIGHT]
    failures += [f"the shipped detector of {name} would warn of its own held-out images" for name, found in shipped.items() if not found["alike"]]
    return {"splits": count, "false alarms": false} | {f"noticed, {name}": n for name, n in noticed.items()} | {
        f"p, shipped {name}": f"{found['p']:.2f}" for name, found in shipped.items()}, failures


CHECKS = [
    Check("finite", 5, "constant, black, white and noise pictures get finite scores, maps and reconstructions in float32 and bfloat16, from "
          "weights saved in float32 and float16, trained in bfloat16, also on constant pictures; float16 is refused as a precision to "
          "compute in", finite, 4, 10),
    Check("held-out-unlike", 5, "a warning when the held-out good images are unlike the training images: seldom by chance, always when they "
          "are changed", held_out, 500, 11),
]
