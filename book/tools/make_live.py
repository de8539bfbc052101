"""Puts the live page's files beside it in the built site.

    python book/tools/make_live.py

Its modules, the runtime from npm, the exported detector of the board that has a step
for each region, the other step rules' ranges and thresholds, images to break. Runs
after the book is built. Needs npm for its first run; what was fetched stays in
build/npm.
"""
import gzip
import json
import shutil
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from npm import fetch
from PIL import Image
from scipy.ndimage import binary_dilation

from ddad.calibration import CHOSEN
from ddad.deploy.export import export
from ddad.deploy.overlays import heat, pixels
from ddad.detector import Detector
from ddad.reproduction.questions import varied
from ddad.runtime.manifest import read_manifest
from ddad.synthetic.products import image_seed, photograph, render, set_up
from ddad.synthetic.weights import BEYOND, WEIGHTS
from ddad.training import hold_out

ROOT = Path(__file__).resolve().parents[2]
HERE, SITE = ROOT / "book/live", ROOT / "_build/html/book/live"
PRODUCT, IMAGES, SIZE = "board", 4, 128
NPM = "onnxruntime-web-1.30.0"
SHA512 = ("ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
          "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61")
RUNTIME = {"wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
           "webgpu": ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm")}
LIMIT = 25_000_000        # bytes that a reader downloads, whichever runtime
T_SHOWN = 480             # the largest step that the page's settings reach
Rules = dict[str, Detector]


def with_and_without(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    """A good image; the same with no part at all; which part each pixel shows, 0 for
    none, (SIZE, SIZE) uint8; and a dict a part, its name and box.

    The same scene, light and noise as products.render draws from this seed.
    """
    scene, camera, _ = set_up(PRODUCT, SIZE, seed)
    bare, _ = scene.edited((list(range(len(scene.parts))), []))
    good, bare = (photograph(image, np.random.default_rng(camera))
                  for image in (scene.image, bare))
    assert (good == render(PRODUCT, SIZE, seed)[0]).all()
    owner, parts = np.zeros((SIZE, SIZE), np.uint8), []
    for i, part in enumerate(scene.parts, 1):
        without, _ = scene.edited(([i - 1], []))
        changed = np.abs(without - scene.image).max(-1) > .004
        # a pixel wider: the lens blurs
        changed = binary_dilation(changed) & (owner == 0)
        owner[changed] = i
        rows, columns = np.nonzero(changed)
        box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        parts.append({"name": part.kind, "box": [int(v) for v in box]})
    return good, bare, owner, parts


def by_rule(detector: Detector) -> Rules:
    """The detector by its own step rule, a region; by the paper's, with the constants
    of the board's shipped detector; and static: the same networks, with ranges and
    threshold made anew from the same held-out images.
    """
    paper = read_manifest(WEIGHTS / PRODUCT)["settings"]
    images = torch.cat([as_x0(render(PRODUCT, SIZE, image_seed(PRODUCT, "train", n))[0])
                        for n in range(detector.record["images"])])
    _, good = hold_out(images, detector.settings)
    return {"region": detector,
            "image": varied(detector, {name: paper[name] for name in CHOSEN}, good),
            "static": varied(detector, {"step_rule": "static"}, good)}


def told(rules: Rules) -> list[dict]:
    """What files.json says of each rule: the settings that are not the detector's own,
    ranges, threshold.
    """
    own = rules["region"]
    before = own.settings.as_dict()
    return [{"changes": {name: value for name, value in one.settings.as_dict().items()
                         if value != before[name]},
             "ranges": asdict(one.ranges) | {"patch": own.ranges.patch},
             "threshold": one.threshold} for one in rules.values()]


def make_gallery(rules: Rules, site: Path) -> list[dict]:
    """Writes the first good test images that pass by every rule; what files.json says
    of them.
    """
    gallery, folder = [], site / "gallery"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index in range(60):
        if len(gallery) == IMAGES:
            break
        seed = image_seed(PRODUCT, "test_good", index)
        good, bare, owner, parts = with_and_without(seed)
        if all(one.predict(as_x0(good)).score.item() < one.threshold
               for one in rules.values()):
            files = {}
            for name, levels in (("good", good), ("bare", bare), ("parts", owner)):
                files[name] = f"gallery/{index:02}_{name}.png"
                Image.fromarray(levels).save(site / files[name])
            gallery.append({**files, "list": parts})
    return gallery


def as_x0(levels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 as (1, 3, H, W) in [-1, 1]."""
    x0 = torch.from_numpy(levels.copy()).permute(2, 0, 1)[None]
    return x0.float() / 127.5 - 1


def draw_still(detector: Detector, site: Path, shown: dict) -> None:
    """The image that the page shows before the start: a board without a chip, as given,
    with the steps of its regions, reconstructed, and with the map.
    """
    good, bare, owner = (np.asarray(Image.open(site / shown[name]))
                         for name in ("good", "bare", "parts"))
    chip = 1 + [part["name"] for part in shown["list"]].index("chip")
    broken = np.where((owner == chip)[..., None], bare, good)
    found = detector.predict(as_x0(broken))
    over = lambda under, share, hot: (
        share * under + (1 - share) * hot).astype(np.uint8)
    T = found.step_map[0].numpy()
    steps = np.log(T / 10) / np.log(T_SHOWN / 10)           # as view.js has it
    steps = steps.repeat(SIZE // len(T), 0).repeat(SIZE // len(T), 1)
    row = [broken, over(broken.mean(-1, keepdims=True), 0.3, heat(steps, 0.5)),
           pixels(found.reconstruction[0]),
           over(broken, 0.45, heat(found.map[0].numpy(), detector.threshold))]
    still = Image.fromarray(np.concatenate(row, 1))
    still = still.resize((8 * SIZE, 2 * SIZE), Image.Resampling.BICUBIC)
    still.save(site / "still.png")


def fetch_runtime(site: Path) -> None:
    """The archive's pinned files, copied into the site."""
    archive, folder = fetch(NPM, SHA512), site / "ort"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(archive) as packed:
        content = lambda name: packed.extractfile(f"package/dist/{name}").read()
        for script, binary in RUNTIME.values():
            (folder / script).write_bytes(content(script))
            packed_again = gzip.compress(content(binary), mtime=0)
            (folder / f"{binary}.gz").write_bytes(packed_again)


def write_list(site: Path, model: list[str], **more) -> dict[str, int]:
    """files.json: what the page loads. Returns the bytes that either runtime needs."""
    runtime = {device: {"script": f"ort/{script}", "binary": f"ort/{binary}.gz"}
               for device, (script, binary) in RUNTIME.items()}
    files = [path for path in sorted(site.rglob("*"))
             if path.is_file() and path.name != "files.json"]
    sizes = {path.relative_to(site).as_posix(): path.stat().st_size for path in files}
    content = {"runtime": runtime, "model": [f"model/{name}" for name in model],
               "bytes": sizes, **more}
    (site / "files.json").write_text(json.dumps(content), encoding="utf-8")
    own = {device: sum(sizes[name] for name in of.values())
           for device, of in runtime.items()}
    rest = sum(sizes.values()) - sum(own.values())
    return {device: rest + size for device, size in own.items()}


def furnish(site: Path, rules: Rules) -> tuple[dict, dict[str, int]]:
    """All that the page needs beside it. What the export's check measured, and the
    bytes that either runtime's reader downloads; RuntimeError without npm.
    """
    detector = rules["region"]
    site.mkdir(parents=True, exist_ok=True)
    for path in HERE.iterdir():
        shutil.copy(path, site / path.name)
    fetch_runtime(site)
    made, gallery = export(detector, site / "model"), make_gallery(rules, site)
    draw_still(detector, site, gallery[0])
    return made, write_list(site, list(made["files"]), gallery=gallery,
                            rules=told(rules))


def shipped() -> Detector:
    """The detector that the page opens with."""
    return Detector.from_pretrained(WEIGHTS / BEYOND, device="cpu")


def main() -> int:
    try:
        made, totals = furnish(SITE, by_rule(shipped()))
    except RuntimeError as error:
        print(error)
        return 1
    for device, total in totals.items():
        print(f"live page with {device}: {total / 1e6:.1f} MB")
        if total > LIMIT:
            print(f"more than {LIMIT / 1e6:.0f} MB")
            return 1
    print(f"against PyTorch: same bin on {made['same_bin']} of {made['pictures']}, "
          f"maps {made['map']:.1e}, scores {made['score']:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
