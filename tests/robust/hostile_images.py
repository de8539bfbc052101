"""Point 2, first half: images, masks and folders of every kind that a reader may meet,
through the readers, the check, detect and evaluate.
"""
import contextlib
import io
import os
import socket
import sys
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

if __name__ == "__main__":
    import run  # noqa: F401  the paths
from hostile_files import FILES, drawn, sound
from run import Check
from sandbox import one_alone, trials

from ddad.cli import main
from ddad.data.check import check
from ddad.data.images import read_image, read_mask
from ddad.data.product import load_held_out, load_test, load_train
from ddad.detector import Detector
from ddad.runtime.errors import DataError

SIZE = 64
NAMES = (
    "a b.png", " a.png", "ä ö ü.png", "缺陷.png", "e\u0301.PNG", "\u202egnp.png",
    "-o.png", "%s{0}.png", "a'\"`$(x).png", "<script>x<script>.png", "a\nb.png",
    "a\\b.png", "\udcff\udcfe.png", "n" * 251 + ".png", ".hidden.png", "a.png.png",
    "a.png ", "$\\frac{.png", "CON.png", "😀.JPG")


# --- what is no plain file


def loop(path: Path, rng) -> None:
    path.symlink_to(path.name)


def loop_of_folders(path: Path, rng) -> None:
    path.symlink_to(path.parent, target_is_directory=True)


def dangling(path: Path, rng) -> None:
    path.symlink_to("nowhere")


def pipe(path: Path, rng) -> None:
    os.mkfifo(path)


def device(path: Path, rng) -> None:
    devices = ["/dev/zero", "/dev/random", "/dev/null", "/dev/full"]
    path.symlink_to(str(rng.choice(devices)))


def door(path: Path, rng) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have 108 bytes
    socket.socket(socket.AF_UNIX).bind(path.name[-90:])
    os.chdir(here)


def folder(path: Path, rng) -> None:
    path.mkdir()


def closed(path: Path, rng) -> None:
    path.write_bytes(sound(rng)[1])
    path.chmod(0)  # root may read it all the same


ODDITIES = (loop, loop_of_folders, dangling, pipe, device, door, folder, closed)


# --- a data set with one of these at one place

PLACES = ("train/good", "validation/good", "test/good", "test/square",
          "ground_truth/square")
OTHERS = ("name", "duplicate", "gone", "table")
KINDS = len(FILES) + len(ODDITIES) + len(OTHERS)


def data_set(root: Path, rng) -> None:
    for place, count in (("train/good", 3), ("test/good", 2), ("test/square", 2)):
        (root / place).mkdir(parents=True)
        for i in range(count):
            drawn(rng, "RGB", (40, 40)).save(root / place / f"{i}.png")
    truth = root / "ground_truth/square"
    truth.mkdir(parents=True)
    for i in range(2):
        mask = np.zeros((40, 40), np.uint8)
        mask[5 : 15 + i, 5:20] = 255
        Image.fromarray(mask).save(truth / f"{i}_mask.png")


def table(root: Path, rng) -> None:
    """VisA's layout, whose table is hostile."""
    (root / "Data/Images/Normal").mkdir(parents=True)
    (root / "Data/Masks/Anomaly").mkdir(parents=True)
    (root.parent / "split_csv").mkdir()
    drawn(rng).save(root / "Data/Images/Normal/0.png")
    name = root.name
    row = f"{name},train,normal,{name}/Data/Images/Normal/0.png,"
    bad = [
        "", "\0", '"', "x" * 200_000,
        f"{name},test,anomaly,{name}/../../../etc/passwd,",
        f"{name},test,anomaly,/etc/passwd,",
        f"{name},train,anomaly,{name}/a.png,{name}/b.png",
        f"{name},test,odd", ",,,,,,,",
        f"{name},test,normal,{name}/a\0.png,",
        f"{name},test,normal,{name}/{'n' * 300}.png,",
        f"{name},test,normal,{name},",
    ]
    rows = [row if rng.random() < 0.4 else bad[rng.integers(len(bad))]
            for _ in range(6)]
    rows = ["object,split,label,image,mask", *rows]
    text = "\n".join(rows[int(rng.random() < 0.1):]).encode()
    path = root.parent / "split_csv/1cls.csv"
    path.write_bytes(text if rng.random() < 0.8 else text + rng.bytes(20))


def spoil(root: Path, rng, kind: int) -> Path:
    """One thing off in the data set at `root`: where."""
    place = root / str(rng.choice(PLACES))
    place.mkdir(parents=True, exist_ok=True)
    in_truth = place.parent.name == "ground_truth"
    stem = "0_mask" if in_truth else str(rng.choice(["0", "9", "new"]))
    suffix, data = sound(rng)
    if kind < len(FILES):
        suffix, data = FILES[kind](rng)
        name = stem + suffix
        if rng.random() < 0.2:
            name = NAMES[rng.integers(len(NAMES))]
        return written(place / name, data, suffix)
    kind -= len(FILES)
    if kind < len(ODDITIES):
        path = place / f"{stem}.png"
        path.unlink(missing_ok=True)
        ODDITIES[kind](path, rng)
        return path
    other = OTHERS[kind - len(ODDITIES)]
    if other == "name":
        name = NAMES[rng.integers(len(NAMES))]
        if place.name == "square" and rng.random() < 0.5:
            return place.rename(place.with_name(NAMES[rng.integers(len(NAMES))]))
        return written(place / name, data, suffix)
    if other == "duplicate":  # two images of one stem share a mask
        return written(place / f"0{suffix.upper()}", data, suffix)
    for path in sorted(place.iterdir()):
        path.unlink()
    if rng.random() < 0.5:
        place.rmdir()
    return place


def written(path: Path, data: bytes, suffix: str) -> Path:
    """The file, under another name where the file system has no such names."""
    try:
        path.write_bytes(data)
    except OSError:
        path = path.with_name(f"plain{suffix}")
        path.write_bytes(data)
    return path


# --- what reads it


@cache
def detector() -> Detector:
    from conftest import good_images, tiny
    return Detector.fit(good_images(16), tiny(), device="cpu")


def command(*arguments: str) -> None:
    """A command line: exit code 0, 1 or 2 and no traceback; 2 comes with a sentence."""
    with contextlib.redirect_stderr(io.StringIO()) as captured:
        code = main(list(arguments))
    said = captured.getvalue()
    told = code < 2 or said.strip()
    assert code in (0, 1, 2) and told and "Traceback" not in said, (code, said)
    if code == 2:
        raise DataError(said.strip())


def through(root: Path, path: Path, rng, large: bool) -> None:
    """The hostile file and the data set through everything that reads them; one error
    does not keep the others from being tried.
    """
    outs = [root.parent / "out", root.parent / "out ü", path / "out",
            Path("/proc/self/ddad"), Path("/dev/null/out")]
    out = str(outs[rng.integers(len(outs)) if rng.random() < 0.2 else 0])
    rule = str(rng.choice(["area", "bilinear"]))
    settings = detector().settings.change(mask_rule=rule)

    def image() -> None:
        found = read_image(path, SIZE)
        within = found.shape == (3, SIZE, SIZE) and found.abs().max() <= 1
        assert within, "the image read is not within -1 to 1"

    def mask() -> None:
        found = read_mask(path, SIZE, rule)
        within = found.shape == (SIZE, SIZE) and 0 <= found.min() and found.max() <= 1
        assert within, "the mask read is not within 0 to 1"

    def product() -> None:
        for load in (load_train, load_held_out, load_test):
            load(root, settings)

    def detect() -> None:
        images = str(path if rng.random() < 0.5 else path.parent)
        maps = str(rng.choice(["png16", "npy"]))
        command("detect", "model", images, out, "--maps", maps)

    steps = [
        lambda: check(root, SIZE), product,
        lambda: command("data", "check", str(root), "--size", str(SIZE)), detect,
        lambda: command("evaluate", "model", str(root), "--out", f"{out}/results.json"),
    ]
    several = [image, mask, steps[rng.integers(5)]]
    if large:  # the limit of time is for one of them
        several = [several[rng.integers(3)]]
    refused = None
    for step in several:
        try:
            step()
        except DataError as error:
            if isinstance(error.__cause__, MemoryError):
                raise
            refused = error
    if refused:
        raise refused


def make(seed: int, number: int):
    detector()
    kind = number % KINDS
    what = [*(f.__name__ for f in (*FILES, *ODDITIES)), *OTHERS][kind]

    def trial(folder: Path) -> None:
        rng = np.random.default_rng([seed, number])
        # its loading is the other check's
        Detector.from_pretrained = lambda *_, **__: detector()
        root = folder / str(rng.choice(["bottle", "my bottle ü"]))
        if what == "table":
            table(root, rng)
            path = root / "Data/Images/Normal/0.png"
        else:
            data_set(root, rng)
            path = spoil(root, rng, kind)
        through(root, path, rng, what in ("bomb", "wide"))
    return what, trial


def images(count: int, seed: int):
    return trials(make, count, seed)


CHECKS = [
    Check("pictures", 2,
          "hostile images, masks and folders end in a result or a documented error, "
          "within 5 s and 2 GiB",
          images, 2000),
]

if __name__ == "__main__":
    one_alone(make, sys.argv[1:])
