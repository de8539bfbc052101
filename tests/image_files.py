"""Files that the tests of reading write, and a product's folder of them."""

import numpy as np
from PIL import Image


def noise(height=16, width=16, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, levels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(levels, Image.Image):
        levels = Image.fromarray(noise() if levels is None else levels)
    levels.save(path, **options)
    return path


def mask_of(height=16, width=16, rows=slice(4, 8), value=255):
    mask = np.zeros((height, width), np.uint8)
    mask[rows] = value
    return mask


def save_product(root):
    """train/good, test/good, two kinds of defect and their masks."""
    for name in ("b.png", "a.JPG", "c é ü.bmp"):
        save(root / "train" / "good" / name)
    save(root / "test" / "good" / "000.png")
    for kind in ("scratch", "big dent"):
        for name in ("001", "000"):
            save(root / "test" / kind / f"{name}.png")
            save(root / "ground_truth" / kind / f"{name}_mask.png", mask_of())
    return root


def as_levels(image):
    """An image in [-1, 1] as levels from 0 to 255."""
    return (image + 1) * 127.5
