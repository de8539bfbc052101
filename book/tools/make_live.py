"""Puts the live page's files beside it in the built site: modules, the runtime from npm, the exported board detector, pictures to break.

    python book/make_live.py

Runs after the book is built. Needs npm for its first run; what was fetched stays in build/npm.
"""
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from ddad.detector import Detector
from ddad.embedded import WEIGHTS
from ddad.export import export
from ddad.plots import heat, picture
from ddad.products import PRODUCTS, Pose, Scene, layout, photograph, render

ROOT = Path(__file__).resolve().parent.parent
HERE, SITE, CACHE = ROOT / "book/live", ROOT / "_build/html/book/live", ROOT / "build"
PRODUCT, PICTURES, SIZE = "board", 4, 128
NPM = "onnxruntime-web-1.30.0"
SHA512 = "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca" \
         "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
RUNTIME = {"wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
           "webgpu": ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm")}
LIMIT = 25_000_000        # bytes that a reader downloads, whichever runtime


def seed_of(index: int, split: int = 1) -> int:
    """The seed that products.make gives a picture of test/good (split 1) or of the defective ones (2)."""
    return int(np.random.SeedSequence([0, PRODUCTS.index(PRODUCT), split, index]).generate_state(1, np.uint64)[0])


def with_and_without(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
    """A good picture; the same with no part at all; which part each pixel shows, 0 for none, (SIZE, SIZE) uint8; and the parts' names and boxes.

    The same scene, light and noise as products.render draws from this seed.
    """
    place, camera, _ = np.random.SeedSequence(seed).spawn(3)
    rng = np.random.default_rng(place)
    x, y, turn, scale = rng.uniform(-1, 1, 4)
    scene = Scene(PRODUCT, layout(PRODUCT, rng), SIZE, Pose(.02 * x, .02 * y, np.deg2rad(1.5) * turn, 1 + .015 * scale))
    everything = list(range(len(scene.parts)))
    good, bare = (photograph(image, np.random.default_rng(camera)) for image in (scene.image, scene.edited((everything, []))[0]))
    assert (good == render(PRODUCT, SIZE, seed)[0]).all()
    owner, parts = np.zeros((SIZE, SIZE), np.uint8), []
    for i, part in enumerate(scene.parts, 1):
        changed = np.abs(scene.edited(([i - 1], []))[0] - scene.image).max(-1) > .004
        changed = binary_dilation(changed) & (owner == 0)              # a pixel wider: the lens blurs
        owner[changed] = i
        rows, columns = np.nonzero(changed)
        parts.append({"name": part.kind, "box": [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]})
    return good, bare, owner, parts


def make_gallery(detector: Detector) -> list[dict]:
    """Writes the first good test pictures that the detector passes; what files.json says of them."""
    gallery, folder = [], SITE / "gallery"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index in range(60):
        good, bare, owner, parts = with_and_without(seed_of(index))
        if len(gallery) == PICTURES:
            break
        if detector.predict(as_x0(good)).score.item() < detector.threshold:
            files = {}
            for name, pixels in (("good", good), ("bare", bare), ("parts", owner)):
                files[name] = f"gallery/{index:02}_{name}.png"
                Image.fromarray(pixels).save(SITE / files[name])
            gallery.append({**files, "list": parts})
    return gallery


def as_x0(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 as (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def draw_still(detector: Detector, shown: dict) -> None:
    """The picture that the page shows before the start: a chip is missing; the board as given, repainted, and the map over it."""
    good, bare, owner = (np.asarray(Image.open(SITE / shown[name])) for name in ("good", "bare", "parts"))
    chip = 1 + [part["name"] for part in shown["list"]].index("chip")
    broken = np.where((owner == chip)[..., None], bare, good)
    found = detector.predict(as_x0(broken))
    overlay = (0.45 * broken + 0.55 * heat(found.map[0].numpy(), detector.threshold)).astype(np.uint8)
    row = np.concatenate([broken, picture(found.reconstruction[0]), overlay], 1)
    Image.fromarray(row).resize((6 * SIZE, 2 * SIZE), Image.Resampling.BICUBIC).save(SITE / "still.png")


def fetch_runtime() -> None:
    """ONNX Runtime Web by npm, checked, its pinned files copied into the site. RuntimeError that says what is missing or differs."""
    archive = CACHE / "npm" / f"{NPM}.tgz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(f"the live page needs npm (Node.js) once, to fetch {NPM}; or put {archive} there yourself")
        wanted = "@".join(NPM.rsplit("-", 1))
        done = subprocess.run([npm, "pack", wanted, "--silent"], cwd=archive.parent, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"npm pack {wanted} failed: {done.stderr.strip()[:300]}")
    if hashlib.sha512(archive.read_bytes()).hexdigest() != SHA512:
        archive.unlink()
        raise RuntimeError(f"{archive.name} is not the file that this page was tested with (sha512 differs); it was deleted")
    shutil.rmtree(SITE / "ort", ignore_errors=True)
    (SITE / "ort").mkdir(parents=True)
    with tarfile.open(archive) as packed:
        for script, binary in RUNTIME.values():
            (SITE / "ort" / script).write_bytes(packed.extractfile(f"package/dist/{script}").read())
            (SITE / "ort" / f"{binary}.gz").write_bytes(gzip.compress(packed.extractfile(f"package/dist/{binary}").read(), mtime=0))


def export_model(detector: Detector) -> dict:
    """The detector by `ddad export`, and what its check measured."""
    made = export(detector, CACHE / "export" / PRODUCT)
    shutil.rmtree(SITE / "model", ignore_errors=True)
    shutil.copytree(CACHE / "export" / PRODUCT, SITE / "model")
    return made


def main() -> int:
    SITE.mkdir(parents=True, exist_ok=True)
    for path in HERE.iterdir():
        shutil.copy(path, SITE / path.name)
    detector = Detector.from_pretrained(WEIGHTS / PRODUCT, device="cpu")
    try:
        fetch_runtime()
    except RuntimeError as error:
        print(error)
        return 1
    made, gallery = export_model(detector), make_gallery(detector)
    draw_still(detector, gallery[0])
    runtime = {device: {"script": f"ort/{script}", "binary": f"ort/{binary}.gz"} for device, (script, binary) in RUNTIME.items()}
    files = [path for path in sorted(SITE.rglob("*")) if path.is_file() and path.name != "files.json"]
    sizes = {path.relative_to(SITE).as_posix(): path.stat().st_size for path in files}
    model = [f"model/{name}" for name in made["files"]]
    (SITE / "files.json").write_text(json.dumps({"runtime": runtime, "model": model, "bytes": sizes, "gallery": gallery}), encoding="utf-8")
    unused = {device: sum(sizes[name] for name in of.values()) for device, of in runtime.items()}
    for device, own in unused.items():
        total = sum(sizes.values()) - sum(unused.values()) + own
        print(f"live page with {device}: {total / 1e6:.1f} MB")
        if total > LIMIT:
            print(f"more than {LIMIT / 1e6:.0f} MB")
            return 1
    print(f"against PyTorch: same bin on {made['same_bin']} of {made['pictures']}, maps {made['map']:.1e}, scores {made['score']:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
