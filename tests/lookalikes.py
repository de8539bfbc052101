"""Small data sets in the layouts of the true ones, whose archives they can be packed
into.
"""

import csv
import io
import tarfile
import zipfile

import numpy as np
from conftest import bad_images, good_images, save_image
from PIL import Image

from ddad.data.magnetic_tiles import COUNTS

SIZE = 32


def _save(folder, images, suffix="png"):
    for i, image in enumerate(images):
        save_image(folder / f"{i:04}.{suffix}", image)


def _encoded(levels, form):
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, form)
    return buffer.getvalue()


def make_mvtec(root, categories=("bottle",), train=4, good=2, bad=2, validation=0,
               mask="{:04}_mask.png"):
    """MVTec AD's layout; with validation images and folders of masks, LOCO's."""
    for category in categories:
        home, (images, masks) = root / category, bad_images(bad, SIZE)
        _save(home / "train" / "good", good_images(train, SIZE))
        if validation:
            _save(home / "validation" / "good", good_images(validation, SIZE, 20))
        _save(home / "test" / "good", good_images(good, SIZE, 50))
        _save(home / "test" / "cut", images)
        for i, levels in enumerate(masks):
            save_image(home / "ground_truth" / "cut" / mask.format(i), levels)
    (root / "readme.txt").write_text("look-alike")
    return root


def make_loco(root, categories=("juice_bottle",), train=4, validation=2, good=2, bad=2):
    mask = "{:04}/000.png"
    return make_mvtec(root, categories, train, good, bad, validation, mask)


def make_btad(root, train=4, good=2, bad=2):
    """Three products: 01 has .bmp images and .png masks, 02 .png for both, 03 .bmp."""
    for category, suffix, mask_suffix in (
            ("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        home = root / "BTech_Dataset_transformed" / category
        images, masks = bad_images(bad, SIZE)
        _save(home / "train" / "ok", good_images(train, SIZE), suffix)
        _save(home / "test" / "ok", good_images(good, SIZE, 50), suffix)
        _save(home / "test" / "ko", images, suffix)
        _save(home / "ground_truth" / "ko", masks, mask_suffix)
    return root


def make_visa(root, categories=("candle",), train=4, good=2, bad=2):
    """Images, masks whose defect is level 1 or 2, and the table of the split, in no
    particular order.
    """
    rows = []
    for category in categories:
        home, (images, masks) = root / category / "Data", bad_images(bad, SIZE)
        _save(home / "Images" / "Normal", good_images(train + good, SIZE), "JPG")
        _save(home / "Images" / "Anomaly", images, "JPG")
        (home / "Masks" / "Anomaly").mkdir(parents=True)
        for i, mask in enumerate(masks):
            levels = mask.astype(np.uint8) * (1 + i % 2)
            Image.fromarray(levels).save(home / "Masks" / "Anomaly" / f"{i:04}.png")
            image = f"{category}/Data/Images/Anomaly/{i:04}.JPG"
            mask = f"{category}/Data/Masks/Anomaly/{i:04}.png"
            rows.append((category, "test", "anomaly", image, mask))
        for i in reversed(range(train + good)):
            part = "test" if i < good else "train"
            image = f"{category}/Data/Images/Normal/{i:04}.JPG"
            rows.append((category, part, "normal", image, ""))
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "w", newline="") as file:
        head = ("object", "split", "label", "image", "mask")
        csv.writer(file).writerows([head, *rows])
    return root


def make_tiles(root, counts=COUNTS):
    """The magnetic tiles' repository: tiles of six exposures, 1000 numbers apart; the
    first defect is on the first good tile.

    The images are 8 pixels a side, and all of a kind are the same file.
    """
    home = root / "Magnetic-tile-defect-datasets.-master"
    image = _encoded(np.full((8, 8), 99, np.uint8), "JPEG")
    start = 1000
    for kind, n in counts.items():
        folder = home / f"MT_{kind}" / "Imgs"
        folder.mkdir(parents=True)
        levels = np.zeros((8, 8), np.uint8)
        if kind != "Free":
            levels[2:4, 2:4], levels[1, 2:4] = 255, 40  # a grey edge that is no defect
        mask = _encoded(levels, "PNG")
        for i in range(n):
            numbered = start + i // 6 * 1000 + i % 6 * 15
            if kind != "Free" and i == 0:
                numbered = 1200
            stem = folder / f"exp{i % 6 + 1}_num_{numbered}"
            stem.with_suffix(".jpg").write_bytes(image)
            stem.with_suffix(".png").write_bytes(mask)
        start += (n // 6 + 2) * 1000
    return root


def pack(folder, archive):
    """All that lies in a folder as .zip, .tar or .tar.xz, without the folder itself."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:xz" if archive.suffix == ".xz" else "w") as file:
            for path in sorted(folder.iterdir()):
                file.add(path, path.name)
    return archive
