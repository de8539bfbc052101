"""Makes what the gallery shows: book/static/gallery, from the shipped detectors.

    python book/tools/make_gallery.py

All test images that book/results/PRODUCT.json is of, as `ddad data make` makes them: a
sheet of tiles for each detector and picture, and gallery.json with scores, thresholds,
steps and outcomes. Compared with the records at the end. Minutes of one core.
"""
import json
import shutil
import sys

import numpy as np
from gallery import FOLDER, SETS, TITLES, apart, outcome, read
from made import RUNS
from matplotlib import colormaps
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

from ddad.data.product import TestSet, load_test
from ddad.deploy.overlays import MAGENTA, heat, pixels
from ddad.detector import Detector, Prediction
from ddad.reproduction.runs import fingerprint
from ddad.runtime.manifest import read_manifest
from ddad.synthetic.products import make
from ddad.synthetic.weights import WEIGHTS

PRODUCTS = RUNS.parent / "products"
COLUMNS = 15                            # tiles in a row of a sheet
LOSSY, LOSSLESS = {"quality": 76, "method": 6}, {"lossless": True, "method": 6}
GAP, WIDTH = 2, 1                       # pixels from a defect to its ring; of the ring
LIMIT = 4_000_000                       # bytes


def save(name: str, tiles: list[np.ndarray], how: dict) -> dict:
    """Writes the tiles (h, w, channels) as one WebP; what gallery.json says of it."""
    h, w, channels = tiles[0].shape
    rows = -(-len(tiles) // COLUMNS)
    sheet = np.zeros((rows * h, COLUMNS * w, channels), np.uint8)
    for n, tile in enumerate(tiles):
        y, x = n // COLUMNS * h, n % COLUMNS * w
        sheet[y : y + h, x : x + w] = tile
    Image.fromarray(sheet).save(FOLDER / f"{name}.webp", **how)
    return {"file": f"{name}.webp", "side": h}


def ring(mask: np.ndarray) -> np.ndarray:
    """A line around a mask (H, W), clear of it, on nothing: (H, W, 4) uint8."""
    inner = binary_dilation(mask, iterations=GAP) if mask.any() else mask
    line = binary_dilation(inner, iterations=WIDTH) & ~inner
    return (line[..., None] * np.array([*MAGENTA, 255])).astype(np.uint8)


def white(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) as white on black, (H, W, 3) uint8."""
    return np.repeat(255 * mask[..., None].astype(np.uint8), 3, 2)


def shades(detector: Detector) -> dict[int, np.ndarray]:
    """A colour for each step that the detector may choose."""
    s = detector.settings
    steps = {int(detector.step(Tensor([b]).long())) for b in range(1, s.bins + 1)}
    return {T: (np.array(colormaps["viridis"](T / s.T_max)[:3]) * 255).astype(np.uint8)
            for T in sorted(steps)}


def of_product(product: str, test: TestSet) -> dict:
    """The sheets that do not depend on the detector."""
    masks = test.masks > 0.5
    return {"input": save(f"{product}_input", [*map(pixels, test.images)], LOSSY),
            "mask": save(f"{product}_mask", [*map(white, masks)], LOSSLESS),
            "ring": save(f"{product}_ring", [*map(ring, masks)], LOSSLESS)}


def of_detector(name: str, detector: Detector, found: Prediction) -> dict:
    """Its sheets: repaintings, maps and, where each region has a step, step maps."""
    hot = [heat(A.numpy(), detector.threshold) for A in found.map]
    sheets = {
        "repainting": save(f"{name}_repainting", [*map(pixels, found.reconstruction)],
                           LOSSY),
        "map": save(f"{name}_map", hot, LOSSY | {"quality": 85})}
    if found.step_map is not None:
        colour = shades(detector)
        tiles = [np.array([[colour[T] for T in row] for row in image.tolist()])
                 for image in found.step_map]
        sheets["steps"] = save(f"{name}_steps", tiles, LOSSLESS)
    return sheets


def shown(name: str, detector: Detector, test: TestSet, sheets: dict) -> dict:
    """All that the page shows of one detector."""
    found, bound = detector.predict(test.images), detector.threshold
    root, images = PRODUCTS / SETS[name], []
    for n, (path, kind) in enumerate(zip(test.paths, test.kinds)):
        score = found.score[n].item()
        images.append({"image": path.relative_to(root).as_posix(), "kind": kind,
                       "area": round(float((test.masks[n] > 0.5).mean()), 6),
                       "T_hat": found.T_hat[n].item(), "score": round(score, 5),
                       "outcome": outcome(kind, score, bound)})
    colours = {T: "#" + bytes(rgb).hex() for T, rgb in shades(detector).items()}
    return {"title": TITLES[name], "threshold": round(bound, 5),
            "T_max": detector.settings.T_max, "columns": COLUMNS,
            "sheets": sheets | of_detector(name, detector, found),
            "steps": colours if found.step_map is not None else None,
            "data": fingerprint(root)["sha256"],
            "weights": read_manifest(WEIGHTS / name)["sha256"], "images": images}


def main() -> int:
    make(PRODUCTS)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    tests, sheets, sets = {}, {}, {}
    for name, product in SETS.items():
        detector = Detector.from_pretrained(WEIGHTS / name, device="cpu")
        if product not in tests:
            tests[product] = load_test(PRODUCTS / product, detector.settings)
            sheets[product] = of_product(product, tests[product])
        sets[name] = shown(name, detector, tests[product], sheets[product])
    rows = json.dumps(sets, indent=1)
    (FOLDER / "gallery.json").write_text(rows, encoding="utf-8")
    total = sum(path.stat().st_size for path in FOLDER.iterdir())
    said = apart(read()) + [f"more than {LIMIT / 1e6:.0f} MB"] * (total > LIMIT)
    print("\n".join([f"{total / 1e6:.2f} MB", *said]))
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
