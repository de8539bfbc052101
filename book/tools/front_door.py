"""The film strip and the diagram that the first page opens with.

    python book/tools/front_door.py [--check]

book/static/film.webp, frames below one another: a good board, its repainting and its
map; the board without a part; that, encoded and decoded only; what each step of the
repainting had in mind; the result. Made by the shipped board detector.
book/data_flow.svg is drawn by data_flow.py. --check makes both anew, and fails where
what is committed shows something else.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from data_flow import page_of_both
from make_live import PRODUCT, as_x0, with_and_without
from PIL import Image
from records import BOOK

from ddad.deploy.overlays import heat, pixels
from ddad.detector import Detector
from ddad.synthetic.products import image_seed
from ddad.synthetic.weights import WEIGHTS

FILM, FLOW = BOOK / "static/film.webp", BOOK / "data_flow.svg"
PART, INDEX = "chip", 0          # of the good test pictures
GAP = 4                          # transparent pixels between the three pictures
NOT_YET = (128, 128, 128, 40)
QUALITY, APART = 82, 4.0         # levels of 255 by which blocks may differ


def film(detector: Detector) -> np.ndarray:
    """The frames, (F, H, 3 H + 2 GAP, 4) uint8."""
    good, bare, owner, parts = with_and_without(image_seed(PRODUCT, "test_good", INDEX))
    part = 1 + [one["name"] for one in parts].index(PART)
    broken = np.where((owner == part)[..., None], bare, good)
    (repainted, hot), (empty, shown) = (look(detector, x0) for x0 in (good, broken))
    return np.stack([frame(good, repainted, hot), frame(broken),
                     *(frame(broken, one) for one in thoughts(detector, broken)),
                     frame(broken, empty, shown)])


def look(detector: Detector, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The repainting of an image, and the map over it; (H, H, 3) uint8 each."""
    found = detector.predict(as_x0(levels))
    hot = heat(found.map[0].numpy(), detector.threshold)
    overlay = (0.45 * levels + 0.55 * hot).astype(np.uint8)
    return pixels(found.reconstruction[0]), overlay


@torch.no_grad()
def thoughts(detector: Detector, levels: np.ndarray) -> list[np.ndarray]:
    """Decoded: the image's own latent, then the clean one guessed at each step."""
    x0 = as_x0(levels)
    z0, T_hat = detector.projection.encode(x0), detector.predict(x0).T_hat
    kept = [z0]
    detector.denoise(z0, T_hat, callback=lambda now: kept.append(now["z0_hat"]))
    return [pixels(detector.projection.decode(one)[0]) for one in kept]


def frame(*images: np.ndarray) -> np.ndarray:
    """Up to three images side by side; the places of those that are not known yet are
    grey.
    """
    side = len(images[0])
    out = np.zeros((side, 3 * side + 2 * GAP, 4), np.uint8)
    for i in range(3):
        left = i * (side + GAP)
        place = out[:, left : left + side]
        place[:] = NOT_YET
        if i < len(images):
            place[..., :3], place[..., 3] = images[i], 255
    return out


def apart(frames: np.ndarray, path: Path) -> float:
    """How much the film strip at `path` differs, in levels of 255: the means of its
    blocks, which compression keeps.
    """
    if not path.exists():
        return 255.0
    strip, wanted = Image.open(path).convert("RGBA"), np.concatenate(frames)
    if strip.size != wanted.shape[1::-1]:
        return 255.0
    there, wanted = (blocks(np.asarray(one)) for one in (strip, wanted))
    return float(np.abs(there - wanted).max())


def blocks(levels: np.ndarray, side: int = 16) -> np.ndarray:
    """Means of blocks of an image (H, W, 4), as it looks on black, and of its alpha."""
    seen = levels.astype(float)
    seen[..., :3] *= seen[..., 3:] / 255
    seen = seen[:, : seen.shape[1] // side * side]
    return seen.reshape(len(seen) // side, side, -1, side, 4).mean((1, 3))


def main(arguments: list[str]) -> int:
    detector = Detector.from_pretrained(WEIGHTS / PRODUCT, device="cpu")
    frames, flow, stale = film(detector), page_of_both(), []
    if apart(frames, FILM) > APART:
        stale.append(FILM.name)
    if not FLOW.exists() or FLOW.read_text(encoding="utf-8") != flow:
        stale.append(FLOW.name)
    if "--check" in arguments:
        print(f"stale: {', '.join(stale)}" if stale else "film and diagram are current")
        return int(bool(stale))
    strip = Image.fromarray(np.concatenate(frames))
    strip.save(FILM, quality=QUALITY, alpha_quality=100, method=6)
    FLOW.write_text(flow, encoding="utf-8")
    print(f"{FILM.name}: {len(frames)} frames, {FILM.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
