"""Point 2, first half: pictures, masks and folders of every kind that a reader may meet, through the readers, the check, detect and evaluate."""
import contextlib
import io
import os
import socket
import struct
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

if __name__ == "__main__":
    import run  # noqa: F401  the paths
from run import Check
from sandbox import one_alone, trials

from ddad import cli
from ddad.data import check, read_image, read_mask
from ddad.detector import Detector
from ddad.evaluation import load_held_out, load_test, load_train
from ddad.layouts import DataError

SIZE = 64
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
NAMES = ("a b.png", " a.png", "ä ö ü.png", "缺陷.png", "e\u0301.PNG", "\u202egnp.png", "-o.png", "%s{0}.png", "a'\"`$(x).png",
         "<script>x<script>.png",
         "a\nb.png", "a\\b.png", "\udcff\udcfe.png", "n" * 251 + ".png", ".hidden.png", "a.png.png", "a.png ", "$\\frac{.png", "CON.png", "😀.JPG")


def picture(rng, mode: str = "RGB", size: tuple[int, int] | None = None) -> Image.Image:
    width, height = size or (int(n) for n in rng.integers(1, 80, 2))
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    if mode == "P":
        return noise.convert("P", palette=Image.Palette.ADAPTIVE)
    return (noise.convert("L") if mode in ("LA", "1") else noise).convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, body: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """So many zero bytes, deflated, without holding them."""
    squeeze = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [squeeze.compress(block) for _ in range(count >> 20)]
    return b"".join(parts) + squeeze.compress(bytes(count & (1 << 20) - 1)) + squeeze.flush()


# --- one file; each maker takes a generator and returns a suffix and the bytes

def truncated(rng):
    kind = str(rng.choice(list(FORMATS)))
    whole = encoded(picture(rng), kind)
    return FORMATS[kind], whole[: int(rng.integers(0, len(whole)))]


def damaged(rng):
    kind = str(rng.choice(list(FORMATS)))
    data = bytearray(encoded(picture(rng, str(rng.choice(["RGB", "L", "P" if kind not in ("JPEG", "WEBP") else "L"]))), kind))
    for place in rng.integers(0, min(len(data), int(rng.choice([40, 200, 10**6]))), int(rng.integers(1, 12))):
        data[place] = rng.integers(256)
    return FORMATS[kind], bytes(data)


def wrong_type(rng):
    other = str(rng.choice(["GIF", "PPM", "ICO", "TGA", "PDF", "JPEG", "EPS", "JPEG2000"]))
    with contextlib.suppress(OSError, KeyError):
        if rng.random() < 0.5:
            return str(rng.choice(list(FORMATS.values()))), encoded(picture(rng), other)
    bodies = (b"", b"\0" * 100, b"not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"PK\3\4" + bytes(60), b"\x80\x04cos\nsystem\n.",
              b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff", rng.bytes(int(rng.integers(1, 3000))))
    return str(rng.choice(list(FORMATS.values()))), bodies[rng.integers(len(bodies))]


@cache
def flood(width: int, height: int, bits: int) -> bytes:
    return zeros(height * (1 + (width * bits + 7) // 8))


def bomb(rng):
    """Few bytes, many pixels: some of just below the limit, whose pixels are all there, and some that only claim them."""
    depth, colour, bits = ((1, 0, 1), (8, 0, 8), (8, 2, 24), (8, 6, 32), (16, 0, 16), (8, 3, 8), (16, 2, 48))[rng.integers(7)]
    shapes = ((10000, 10000), (1, 100_000_000), (100_000_000, 1), (20000, 5000), (10001, 10000), (1, 65000), (2**31 - 1, 2**31 - 1), (50000, 50000))
    width, height = shapes[rng.integers(8)]
    extra = chunk(b"PLTE", bytes(range(6))) + chunk(b"tRNS", b"\0\x80") if colour == 3 else b""
    kind = rng.integers(4)
    if kind == 0:
        extra += chunk((b"zTXt", b"iCCP")[rng.integers(2)], b"x\0\0" + flood(1 << 14, 1 << 14, 8))
    claimed = kind > 1 or width * height * bits > 3.3e9
    return ".png", png(width, height, depth, colour, zeros(100) if claimed else flood(width, height, bits), extra)


def wide(rng):
    """Sides of 20000, as a line camera has them."""
    other = int(rng.choice([1, 2, 64, 500]))
    size = (20000, other) if rng.random() < 0.5 else (other, 20000)
    mode = str(rng.choice(["1", "L", "RGB", "RGBA", "P"]))
    return ".png", encoded(Image.new(mode, size, 1 if mode in "1LP" else None), "PNG", compress_level=1)


def not_finite(rng):
    levels = rng.random((int(rng.integers(1, 40)), int(rng.integers(1, 40)))).astype(np.float32) * rng.choice([0.5, 1, 1.0001, 300])
    if rng.random() < 0.8:
        levels.flat[rng.integers(levels.size)] = rng.choice([np.nan, np.inf, -np.inf, -1e-9, 1e38])
    return ".tif", encoded(Image.fromarray(levels), "TIFF")


def no_size(rng):
    side = ((0, 5), (5, 0), (0, 0))[rng.integers(3)]
    if rng.random() < 0.5:
        return ".png", png(*side, 8, 2, zeros(30))
    return ".bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, *side, 1, 24, 0, 0, 0, 0, 0, 0)


def one_pixel(rng):
    mode = str(rng.choice(["1", "L", "LA", "RGB", "RGBA", "P", "I;16"]))
    image = Image.fromarray(rng.integers(0, 65536, (1, 1), np.uint16)) if mode == "I;16" else picture(rng, mode, (1, 1))
    return ".png", encoded(image, "PNG")


def turned(rng):
    exif = Image.Exif()
    exif[0x0112] = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 255, 65535]))
    raw = exif.tobytes()
    if rng.random() < 0.4:
        raw = raw[: int(rng.integers(6, len(raw) + 1))] + rng.bytes(int(rng.integers(0, 40)))
    kind = str(rng.choice(["JPEG", "PNG", "WEBP"]))
    return FORMATS[kind], encoded(picture(rng), kind, exif=raw)


def palette(rng):
    image = picture(rng, "P")
    transparency = (None, 0, bytes(rng.integers(0, 256, int(rng.integers(1, 256)), np.uint8)))[rng.integers(3)]
    return ".png", encoded(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


def deep(rng):
    shape = tuple(rng.integers(1, 60, 2))
    kind = rng.integers(5)
    if kind == 0:
        return ".png", encoded(Image.fromarray(rng.integers(0, 65536, shape, np.uint16)), "PNG")
    if kind == 1:
        return ".tif", encoded(Image.fromarray(rng.integers(0, 65536, shape, np.uint16)), "TIFF")
    if kind == 2:
        return ".tif", encoded(Image.fromarray(rng.integers(-(2**31), 2**31 - 1, shape).astype(np.int32)), "TIFF")
    colour, channels = ((2, 3), (6, 4), (4, 2))[rng.integers(3)]
    rows = b"".join(b"\0" + rng.bytes(int(shape[1]) * channels * 2) for _ in range(shape[0]))
    return ".png", png(int(shape[1]), int(shape[0]), 16, colour, zlib.compress(rows))


def colours(rng):
    mode = str(rng.choice(["CMYK", "YCbCr", "LAB", "HSV", "RGBA", "LA", "1"]))
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB", "RGBA", "LA", "1") else "PNG"
    image = picture(rng, "RGB").convert(mode) if mode != "LAB" else Image.frombytes("LAB", (9, 7), rng.bytes(9 * 7 * 3))
    if mode == "CMYK" and rng.random() < 0.5:
        return ".jpg", encoded(image, "JPEG")
    return FORMATS[kind], encoded(image if kind == "TIFF" else image.convert("RGB"), kind)


def animated(rng):
    kind = str(rng.choice(["GIF", "WEBP", "PNG", "TIFF"]))
    frames = [picture(rng, "RGB", (20, 20)) for _ in range(int(rng.integers(2, 5)))]
    return FORMATS.get(kind, ".png"), encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def sound(rng):
    kind = str(rng.choice(list(FORMATS)))
    return FORMATS[kind], encoded(picture(rng), kind)


FILES = (truncated, damaged, wrong_type, bomb, wide, not_finite, no_size, one_pixel, turned, palette, deep, colours, animated)


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
    path.symlink_to(str(rng.choice(["/dev/zero", "/dev/random", "/dev/null", "/dev/full"])))


def door(path: Path, rng) -> None:
    here = os.getcwd()
    os.chdir(path.parent)                                              # a socket's path may have 108 bytes
    socket.socket(socket.AF_UNIX).bind(path.name[-90:])
    os.chdir(here)


def folder(path: Path, rng) -> None:
    path.mkdir()


def closed(path: Path, rng) -> None:
    path.write_bytes(sound(rng)[1])
    path.chmod(0)                                                      # root may read it all the same


ODDITIES = (loop, loop_of_folders, dangling, pipe, device, door, folder, closed)


# --- a data set with one of these at one place

PLACES = ("train/good", "validation/good", "test/good", "test/square", "ground_truth/square")


def data_set(root: Path, rng) -> None:
    for place, count in (("train/good", 3), ("test/good", 2), ("test/square", 2)):
        (root / place).mkdir(parents=True)
        for i in range(count):
            picture(rng, "RGB", (40, 40)).save(root / place / f"{i}.png")
    (root / "ground_truth/square").mkdir(parents=True)
    for i in range(2):
        mask = np.zeros((40, 40), np.uint8)
        mask[5 : 15 + i, 5:20] = 255
        Image.fromarray(mask).save(root / "ground_truth/square" / f"{i}_mask.png")


def table(root: Path, rng) -> None:
    """VisA's layout, whose table is hostile."""
    (root / "Data/Images/Normal").mkdir(parents=True)
    (root / "Data/Masks/Anomaly").mkdir(parents=True)
    (root.parent / "split_csv").mkdir()
    picture(rng).save(root / "Data/Images/Normal/0.png")
    row = f"{root.name},train,normal,{root.name}/Data/Images/Normal/0.png,"
    bad = ["", "\0", '"', "x" * 200_000, f"{root.name},test,anomaly,{root.name}/../../../etc/passwd,",
           f"{root.name},test,anomaly,/etc/passwd,",
           f"{root.name},train,anomaly,{root.name}/a.png,{root.name}/b.png",
           f"{root.name},test,odd", ",,,,,,,",
           f"{root.name},test,normal,{root.name}/a\0.png,",
           f"{root.name},test,normal,{root.name}/{'n' * 300}.png,", f"{root.name},test,normal,{root.name},"]
    rows = ["object,split,label,image,mask", *[row if rng.random() < 0.4 else bad[rng.integers(len(bad))] for _ in range(6)]]
    text = "\n".join(rows[int(rng.random() < 0.1):]).encode()
    (root.parent / "split_csv/1cls.csv").write_bytes(text if rng.random() < 0.8 else text + rng.bytes(20))


def spoil(root: Path, rng, kind: int) -> tuple[str, Path]:
    """One thing off in the data set at `root`: what, and where."""
    place = root / str(rng.choice(PLACES))
    place.mkdir(parents=True, exist_ok=True)
    stem = "0_mask" if place.parent.name == "ground_truth" else str(rng.choice(["0", "9", "new"]))
    suffix, data = sound(rng)
    if kind < len(FILES):
        suffix, data = FILES[kind](rng)
        what, name = FILES[kind].__name__, stem + suffix
        if rng.random() < 0.2:
            name = NAMES[rng.integers(len(NAMES))]
    elif kind < len(FILES) + len(ODDITIES):
        what, name = ODDITIES[kind - len(FILES)].__name__, stem + ".png"
        (place / name).unlink(missing_ok=True)
        ODDITIES[kind - len(FILES)](place / name, rng)
        return f"{what} in {place.relative_to(root)}", place / name
    elif kind == len(FILES) + len(ODDITIES):
        what, name = "name", NAMES[rng.integers(len(NAMES))]
        if place.name == "square" and rng.random() < 0.5:
            place.rename(place.with_name(what := NAMES[rng.integers(len(NAMES))]))
            return f"folder {what!r}", place.with_name(what)
    elif kind == len(FILES) + len(ODDITIES) + 1:                           # two pictures of one stem share a mask
        what, name = "duplicate", f"0{suffix.upper()}"
    else:
        what, name = "gone", "0.png"
        for path in sorted(place.iterdir()):
            path.unlink()
        if rng.random() < 0.5:
            place.rmdir()
        return f"nothing in {place.relative_to(root)}", place
    path = place / name
    try:
        path.write_bytes(data)
    except OSError:                                                    # a file system that has no such names
        path = place / f"plain{suffix}"
        path.write_bytes(data)
    return f"{what} in {place.relative_to(root)}", path


KINDS = len(FILES) + len(ODDITIES) + 4                                     # one file, oddities, names, duplicates, nothing, a hostile table


@cache
def detector() -> Detector:
    from conftest import good_images, tiny
    return Detector.fit(good_images(16), tiny(), device="cpu")


def command(*arguments: str) -> None:
    """A command line: exit code 0, 1 or 2 and no traceback; 2 comes with a sentence."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = cli.main(list(arguments))
    assert code in (0, 1, 2) and (code < 2 or said.getvalue().strip()) and "Traceback" not in said.getvalue(), (code, said.getvalue())
    if code == 2:
        raise DataError(said.getvalue().strip())


def through(root: Path, path: Path, rng, large: bool) -> None:
    """The hostile file and the data set through everything that reads them; one error does not keep the others from being tried."""
    refused = None
    outs = [root.parent / "out", root.parent / "out ü", path / "out", Path("/proc/self/ddad"), Path("/dev/null/out")]
    out = str(outs[rng.integers(len(outs)) if rng.random() < 0.2 else 0])
    settings = detector().settings.change(mask_rule=str(rng.choice(["area", "bilinear"])))
    steps = [lambda: read_image(path, SIZE), lambda: read_mask(path, SIZE, settings.mask_rule), lambda: check(root, SIZE),
             lambda: (load_train(root, settings), load_held_out(root, settings), load_test(root, settings)),
             lambda: command("data", "check", str(root), "--size", str(SIZE)),
             lambda: command("detect", "model", str(path if rng.random() < 0.5 else path.parent), out, "--maps", str(rng.choice(["png16", "npy"]))),
             lambda: command("evaluate", "model", str(root), "--out", f"{out}/results.json")]
    several = [steps[0], steps[1], steps[2 + rng.integers(5)]]
    for step in [several[rng.integers(3)]] if large else several:        # the limit of time is for one of them
        try:
            found = step()
        except DataError as error:
            if isinstance(error.__cause__, MemoryError):
                raise
            refused = error
            continue
        if step is steps[0]:
            assert found.shape == (3, SIZE, SIZE) and found.abs().max() <= 1, "the picture read is not within -1 to 1"
        if step is steps[1]:
            assert found.shape == (SIZE, SIZE) and 0 <= found.min() and found.max() <= 1, "the mask read is not within 0 to 1"
    if refused:
        raise refused


def make(seed: int, number: int):
    detector()
    kind = number % KINDS
    what = [*(f.__name__ for f in (*FILES, *ODDITIES)), "name", "duplicate", "gone", "table"][kind]

    def trial(folder: Path) -> None:
        rng = np.random.default_rng([seed, number])
        Detector.from_pretrained = lambda *_, **__: detector()          # its loading is the other check's
        root = folder / str(rng.choice(["bottle", "my bottle ü"]))
        if kind == KINDS - 1:
            table(root, rng)
            path = root / "Data/Images/Normal/0.png"
        else:
            data_set(root, rng)
            _, path = spoil(root, rng, kind)
        through(root, path, rng, what in ("bomb", "wide"))
    return what, trial


def pictures(count: int, seed: int):
    return trials(make, count, seed)


CHECKS = [Check("pictures", 2, "hostile pictures, masks and folders end in a result or a documented error, within 5 s and 2 GiB", pictures, 2000)]

if __name__ == "__main__":
    one_alone(make, sys.argv[1:])
