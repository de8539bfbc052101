"""Files that a reader of images may meet: each maker takes a generator and returns a
suffix and the bytes. All of them are in FILES.
"""
import contextlib
import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif",
           "WEBP": ".webp"}


def drawn(rng, mode: str = "RGB", size: tuple[int, int] | None = None) -> Image.Image:
    """An image of noise, of a random size up to 79 x 79 unless one is given."""
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
    number = lambda value: struct.pack(">I", value)
    return number(len(body)) + name + body + number(zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, body: bytes,
        extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
            + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def zeros(count: int) -> bytes:
    """So many zero bytes, deflated, without holding them."""
    squeeze = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [squeeze.compress(block) for _ in range(count >> 20)]
    rest = squeeze.compress(bytes(count & (1 << 20) - 1))
    return b"".join(parts) + rest + squeeze.flush()


# --- makers


def truncated(rng):
    kind = str(rng.choice(list(FORMATS)))
    whole = encoded(drawn(rng), kind)
    return FORMATS[kind], whole[: int(rng.integers(0, len(whole)))]


def damaged(rng):
    kind = str(rng.choice(list(FORMATS)))
    modes = ["RGB", "L", "P" if kind not in ("JPEG", "WEBP") else "L"]
    data = bytearray(encoded(drawn(rng, str(rng.choice(modes))), kind))
    most = min(len(data), int(rng.choice([40, 200, 10**6])))
    for place in rng.integers(0, most, int(rng.integers(1, 12))):
        data[place] = rng.integers(256)
    return FORMATS[kind], bytes(data)


def wrong_type(rng):
    other = str(rng.choice(["GIF", "PPM", "ICO", "TGA", "PDF", "JPEG", "EPS",
                            "JPEG2000"]))
    suffixes = list(FORMATS.values())
    with contextlib.suppress(OSError, KeyError):
        if rng.random() < 0.5:
            return str(rng.choice(suffixes)), encoded(drawn(rng), other)
    bodies = (b"", b"\0" * 100, b"not an image",
              b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"PK\3\4" + bytes(60),
              b"\x80\x04cos\nsystem\n.", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0",
              b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff",
              rng.bytes(int(rng.integers(1, 3000))))
    return str(rng.choice(suffixes)), bodies[rng.integers(len(bodies))]


@cache
def flood(width: int, height: int, bits: int) -> bytes:
    return zeros(height * (1 + (width * bits + 7) // 8))


def bomb(rng):
    """Few bytes, many pixels: some of just below the limit, whose pixels are all there,
    and some that only claim them.
    """
    kinds = ((1, 0, 1), (8, 0, 8), (8, 2, 24), (8, 6, 32), (16, 0, 16), (8, 3, 8),
             (16, 2, 48))
    depth, colour, bits = kinds[rng.integers(7)]
    shapes = ((10000, 10000), (1, 100_000_000), (100_000_000, 1), (20000, 5000),
              (10001, 10000), (1, 65000), (2**31 - 1, 2**31 - 1), (50000, 50000))
    width, height = shapes[rng.integers(8)]
    extra = b""
    if colour == 3:
        extra = chunk(b"PLTE", bytes(range(6))) + chunk(b"tRNS", b"\0\x80")
    kind = rng.integers(4)
    if kind == 0:
        name = (b"zTXt", b"iCCP")[rng.integers(2)]
        extra += chunk(name, b"x\0\0" + flood(1 << 14, 1 << 14, 8))
    claimed = kind > 1 or width * height * bits > 3.3e9
    body = zeros(100) if claimed else flood(width, height, bits)
    return ".png", png(width, height, depth, colour, body, extra)


def wide(rng):
    """Sides of 20000, as a line camera has them."""
    other = int(rng.choice([1, 2, 64, 500]))
    size = (20000, other) if rng.random() < 0.5 else (other, 20000)
    mode = str(rng.choice(["1", "L", "RGB", "RGBA", "P"]))
    image = Image.new(mode, size, 1 if mode in "1LP" else None)
    return ".png", encoded(image, "PNG", compress_level=1)


def not_finite(rng):
    shape = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
    levels = rng.random(shape).astype(np.float32) * rng.choice([0.5, 1, 1.0001, 300])
    if rng.random() < 0.8:
        bad = rng.integers(levels.size)
        levels.flat[bad] = rng.choice([np.nan, np.inf, -np.inf, -1e-9, 1e38])
    return ".tif", encoded(Image.fromarray(levels), "TIFF")


def no_size(rng):
    side = ((0, 5), (5, 0), (0, 0))[rng.integers(3)]
    if rng.random() < 0.5:
        return ".png", png(*side, 8, 2, zeros(30))
    head = struct.pack("<IHHI", 54, 0, 0, 54)
    body = struct.pack("<IiiHHIIiiII", 40, *side, 1, 24, 0, 0, 0, 0, 0, 0)
    return ".bmp", b"BM" + head + body


def one_pixel(rng):
    mode = str(rng.choice(["1", "L", "LA", "RGB", "RGBA", "P", "I;16"]))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (1, 1), np.uint16))
    else:
        image = drawn(rng, mode, (1, 1))
    return ".png", encoded(image, "PNG")


def turned(rng):
    exif = Image.Exif()
    exif[0x0112] = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 255, 65535]))
    raw = exif.tobytes()
    if rng.random() < 0.4:
        kept = raw[: int(rng.integers(6, len(raw) + 1))]
        raw = kept + rng.bytes(int(rng.integers(0, 40)))
    kind = str(rng.choice(["JPEG", "PNG", "WEBP"]))
    return FORMATS[kind], encoded(drawn(rng), kind, exif=raw)


def palette(rng):
    image = drawn(rng, "P")
    each = bytes(rng.integers(0, 256, int(rng.integers(1, 256)), np.uint8))
    transparency = (None, 0, each)[rng.integers(3)]
    options = {} if transparency is None else {"transparency": transparency}
    return ".png", encoded(image, "PNG", **options)


def deep(rng):
    height, width = (int(n) for n in rng.integers(1, 60, 2))
    kind = rng.integers(5)
    if kind in (0, 1):
        image = Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
        return ((".png", encoded(image, "PNG")), (".tif", encoded(image, "TIFF")))[kind]
    if kind == 2:
        levels = rng.integers(-(2**31), 2**31 - 1, (height, width)).astype(np.int32)
        return ".tif", encoded(Image.fromarray(levels), "TIFF")
    colour, channels = ((2, 3), (6, 4), (4, 2))[rng.integers(3)]
    rows = b"".join(b"\0" + rng.bytes(width * channels * 2) for _ in range(height))
    return ".png", png(width, height, 16, colour, zlib.compress(rows))


def colours(rng):
    mode = str(rng.choice(["CMYK", "YCbCr", "LAB", "HSV", "RGBA", "LA", "1"]))
    if mode == "LAB":
        image = Image.frombytes("LAB", (9, 7), rng.bytes(9 * 7 * 3))
    else:
        image = drawn(rng, "RGB").convert(mode)
    if mode == "CMYK" and rng.random() < 0.5:
        return ".jpg", encoded(image, "JPEG")
    if mode == "HSV":
        return ".png", encoded(image.convert("RGB"), "PNG")
    return ".tif", encoded(image, "TIFF")


def animated(rng):
    kind = str(rng.choice(["GIF", "WEBP", "PNG", "TIFF"]))
    frames = [drawn(rng, "RGB", (20, 20)) for _ in range(int(rng.integers(2, 5)))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    return FORMATS.get(kind, ".png"), data


def sound(rng):
    """A file that is all right."""
    kind = str(rng.choice(list(FORMATS)))
    return FORMATS[kind], encoded(drawn(rng), kind)


FILES = (truncated, damaged, wrong_type, bomb, wide, not_finite, no_size, one_pixel,
         turned, palette, deep, colours, animated)
