"""Point 2: folders that are right in form and wrong in substance. The generator knows
the truth: either every file that is wrong is named, or what is read is the truth.
"""
import io
import json
import os
import shutil
import sys
import unicodedata
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from conftest import bad_images, good_images
from PIL import Image

if __name__ == "__main__":
    import run  # noqa: F401  the paths
from hostile_images import command, detector
from run import Check
from sandbox import one_alone, trials

from ddad.data.check import check
from ddad.data.images import read_image
from ddad.data.layouts import SUFFIXES
from ddad.data.product import load_test, load_train
from ddad.runtime.errors import DataError

SIZE, GOOD, BAD = 64, 10, 4
TRAIN, TEST, TRUTH = "train/good", "test/square", "ground_truth/square"


@dataclass
class Truth:
    """What is to be learned from and measured: hashes of the images that were drawn,
    and, of each defective one, its mask.
    """

    train: list[bytes] = field(default_factory=list)
    good: list[bytes] = field(default_factory=list)
    bad: dict[bytes, np.ndarray] = field(default_factory=dict)


def drawn(root: Path, seed: int) -> Truth:
    """A sound product."""
    truth = Truth()
    for part, images in ((TRAIN, good_images(GOOD, SIZE, seed)),
                         ("test/good", good_images(3, SIZE, seed + 1))):
        kept = truth.train if part == TRAIN else truth.good
        for n, image in enumerate(images):
            kept.append(of(save(root / part / f"{n}.png", levels(image))))
    for n, (image, mask) in enumerate(zip(*bad_images(BAD, SIZE, seed + 2))):
        truth.bad[of(save(root / TEST / f"{n}.png", levels(image)))] = mask
        save(root / TRUTH / f"{n}_mask.png", mask.astype(np.uint8) * 255)
    return truth


def levels(image) -> np.ndarray:
    return ((image.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def of(path: Path) -> bytes:
    """What tells the image in a file."""
    return read_image(path, SIZE).numpy().tobytes()


# --- what may be wrong: (root, rng) to the files that have to be named, or read right


def _mask_of(change):
    """A kind whose masks are changed: (mask, rng) to levels. The image is named."""
    def spoil(root: Path, rng) -> list[Path]:
        spoiled = []
        for n in rng.permutation(BAD)[: rng.integers(1, BAD + 1)]:
            path = root / TRUTH / f"{n}_mask.png"
            mask = np.array(Image.open(path))
            save(path, change(mask, rng).astype(np.uint8))
            spoiled.append(root / TEST / f"{n}.png")
        return spoiled
    return spoil


def background(mask, rng):
    return np.maximum(mask, rng.integers(1, 9))


def classes(mask, rng):
    mask[:6, : rng.integers(3, 30)] = rng.choice([1, 2, 100, 128, 200])
    return mask


def as_jpeg(mask, rng):
    with io.BytesIO() as file:
        Image.fromarray(mask).save(file, "JPEG", quality=int(rng.integers(20, 80)))
        return np.array(Image.open(file))


def smooth(mask, rng):
    small = Image.fromarray(mask).resize((int(rng.integers(7, 20)),) * 2,
                                         Image.Resampling.BILINEAR)
    return np.array(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


MASKS = {
    "inverted mask": lambda mask, rng: 255 - mask,
    "white mask": lambda mask, rng: mask * 0 + 255,
    "black mask": lambda mask, rng: mask * 0,
    "mask of labels": lambda mask, rng: mask // 255 * rng.integers(1, 256),
    "background not black": background, "classes in a mask": classes,
    "mask once a JPEG": as_jpeg, "mask scaled smoothly": smooth,
}


def dangling(root: Path, rng) -> list[Path]:
    part = str(rng.choice([TRAIN, "test/good", TEST, TRUTH]))
    path = sorted((root / part).iterdir())[0]
    path.unlink()
    path.symlink_to(str(rng.choice(["../../.git/annex/objects/x", "/mnt/gone/0.png"])))
    return [path]


def linked(root: Path, rng) -> list[Path]:
    """A link to a file that is there is that file."""
    path = sorted((root / str(rng.choice([TRAIN, TEST, TRUTH]))).iterdir())[0]
    path.rename(root / "kept.png")
    path.symlink_to(root / "kept.png")
    return [path]


def copies(root: Path, rng) -> list[Path]:
    made = [root / TRAIN / f"copy {n}.png" for n in range(rng.integers(1, 9))]
    for path in made:
        shutil.copy(root / TRAIN / "0.png", path)
    return made


def trained_on(root: Path, rng) -> list[Path]:
    """A test image that is trained on, as it is or compressed."""
    path = root / "test/good" / "again.png"
    image = Image.open(root / TRAIN / f"{rng.integers(GOOD)}.png")
    if rng.random() < 0.5:
        path = path.with_suffix(".jpg")
    image.save(path, quality=90)
    return [path]


def one_stem(root: Path, rng) -> list[Path]:
    """Two images of one name share a mask, which is the first one's."""
    path = root / TEST / f"0.{rng.choice(['bmp', 'tif', 'PNG'])}"
    save(path, levels(bad_images(1, SIZE, 77)[0][0]).transpose(1, 0, 2))
    return [path, root / TEST / "0.png"]


def masks_among_images(root: Path, rng) -> list[Path]:
    path = root / TRAIN / "m.png"
    shutil.copy(root / TRUTH / "0_mask.png", path)
    return [path]


def twelve_bits(root: Path, rng) -> list[Path]:
    path = root / str(rng.choice([TRAIN, TEST])) / "0.png"
    grey = np.array(Image.open(path)).mean(2)
    save(path, (grey * 16).astype(np.uint16))
    return [path]


def not_read(root: Path, rng) -> list[Path]:
    """What lies in a folder of images and is none of the types that are read."""
    path = root / str(rng.choice([TRAIN, "test/good", TEST]))
    if rng.random() < 0.4:
        (path / "monday").mkdir()
        shutil.copy(path / "0.png", path / "monday")
        return [path / "monday"]
    path = path / f"9.{rng.choice(['heic', 'gif', 'raw', 'PNG~'])}"
    path.write_bytes(rng.bytes(100))
    return [path]


def unused_mask(root: Path, rng) -> list[Path]:
    path = root / TRUTH / str(rng.choice(["9_mask.png", "0_mask (1).png", "0.json"]))
    shutil.copy(root / TRUTH / "0_mask.png", path)
    return [path]


NAMES = ("a\u2028b", "a\u0085b", "缺" * 60, "\u1100\u1161" * 30, "e\u0301", "é",
         "\u202egnp", "a\tb", "a\vb\fc", " ")


def odd_name(root: Path, rng) -> list[Path]:
    """An image of an odd name, its mask by the same or by a name that looks alike."""
    name, n = str(rng.choice(NAMES)), rng.integers(BAD)
    path = root / TEST / f"{name}.{rng.choice(['png', 'PNG'])}"
    (root / TEST / f"{n}.png").rename(path)
    form = str(rng.choice(["NFC", "NFD"]))
    twin = f"{unicodedata.normalize(form, name)}{rng.choice(['_mask', '_MASK'])}.png"
    (root / TRUTH / f"{n}_mask.png").rename(root / TRUTH / twin)
    return [path]


def sound(root: Path, rng) -> list[Path]:
    """Nothing is wrong, and nothing may be warned of."""
    return []


KINDS = {name: _mask_of(change) for name, change in MASKS.items()} | {
    name.__name__: name for name in (
        dangling, linked, copies, trained_on, one_stem, masks_among_images, twelve_bits,
        not_read, unused_mask, odd_name, sound)}
# what has to be said of a file: one of these. Of other kinds what is read is right.
LEVELS = ("exchanged", "soft edges", "several levels")
REASONS = dict.fromkeys(MASKS, LEVELS) | {
    "black mask": ("empty mask",), "dangling": ("is a link to",),
    "copies": ("same as another",), "trained_on": ("trained on",),
    "one_stem": ("share a mask",), "masks_among_images": ("masks among the images",),
    "twelve_bits": ("16 bits",), "not_read": ("a folder,", "no image of the types"),
    "unused_mask": ("no image's mask", "no image of the types"),
    "odd_name": ("has no mask",)}


# --- the comparison


def compared(root: Path, truth: Truth, spoiled: list[Path], reasons: tuple) -> str:
    """"named" where the check names every file that is wrong with one of the reasons,
    "refused" where the reader does; "right" where what is read is the truth.
    AssertionError where none is so.
    """
    report, names = check(root, SIZE), [path.relative_to(root).as_posix()
                                        for path in spoiled]
    told = [*zip(report["warned_of"], report["warnings"]),
            *(([one], one) for one in report["problems"] + report["ignored"])]
    said = [one for files, why in told if any(reason in why for reason in reasons)
            for one in files]
    if names and all(any(name in one for one in said) for name in names):
        return "named"
    assert names or not any(files for files, _ in told), f"false alarm: {told}"
    try:
        train, test = (load(root, detector().settings) for load in (load_train,
                                                                    load_test))
    except DataError as error:
        assert any(name in str(error) for name in names), f"another error: {error}"
        return "refused"
    hashed = lambda images: [x.numpy().tobytes() for x in images]
    assert sorted(hashed(train)) == sorted(truth.train), (
        f"silently wrong: {len(train)} images to train on, not {len(truth.train)}, or "
        "others")
    known = {content: np.zeros((SIZE, SIZE), bool) for content in truth.good}
    known |= truth.bad
    found = dict(zip(hashed(test.images), test.masks > 0.5))
    assert len(found) == len(test.images) and found.keys() == known.keys(), (
        "silently wrong: other test images")
    areas = [int(found[one].sum() - mask.sum()) for one, mask in known.items()]
    assert all((found[one] == known[one]).all() for one in known), (
        f"silently wrong: masks that cover {areas} pixels more than the defects")
    return "right"


def detected(folder: Path, images: Path) -> None:
    """Every image in the folder has its score, or its fault, in the results; so too
    when another folder of the same names follows.
    """
    other = shutil.copytree(images, folder / "tuesday", symlinks=True)
    for path in other.iterdir():
        if path.suffix.lower() in SUFFIXES and path.is_file():
            Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path, "PNG")
    for day in (images, other):
        try:
            command("detect", "model", str(day), str(folder / "out"))
        except DataError:           # names the images that cannot be read
            pass
    text = (folder / "out" / "results.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.split("\n") if line]
    of_file = {line["file"]: line for line in lines}
    assert len(of_file) == len(lines), "silently wrong: two lines of one image"
    # a line of what cannot be read is of the last run alone
    for path in chain(images.iterdir(), other.iterdir()):
        line = of_file.pop(os.path.abspath(path), None)
        if path.suffix.lower() not in SUFFIXES or path.is_dir() or (
                path.parent == images and not path.exists()):
            continue
        assert line, f"silently wrong: no line of {path}"
        if not path.exists():
            assert "error" in line
            continue
        expected = detector().predict([path]).score.item()
        assert abs(line["score"] - expected) < 1e-5, "silently wrong: another score"
        made = [folder / "out" / kind / f"{line['map']}.png"
                for kind in ("overlays", "maps")]
        assert all(map(Path.exists, made)), f"silently wrong: {made} are not there"
    assert not of_file, f"silently wrong: lines of {of_file.keys()}"


def make(seed: int, number: int):
    detector()
    what = list(KINDS)[number % len(KINDS)]

    def trial(folder: Path) -> str:
        from ddad.detector import Detector
        torch.set_num_threads(1)
        Detector.from_pretrained = lambda *_, **__: detector()
        rng, root = np.random.default_rng([seed, number]), folder / "disc"
        truth = drawn(root, seed + number)
        spoiled = KINDS[what](root, rng)
        ended = compared(root, truth, spoiled, REASONS.get(what, ()))
        if what in ("dangling", "not_read", "odd_name"):
            images = spoiled[0].parent
            detected(folder, root / TEST if images == root / TRUTH else images)
        return ended
    return what, trial


def folders(count: int, seed: int):
    return trials(make, count, seed)


CHECKS = [
    Check("folders", 2,
          "folders that are right in form and wrong in substance (masks, links, "
          "duplicates, names) are never silently wrong: each file that is wrong is "
          "named with its reason, or what is read is what was drawn; of a sound folder "
          "nothing is warned; `ddad detect` has a line for each image",
          folders, 360),
]

if __name__ == "__main__":
    one_alone(make, sys.argv[1:])
