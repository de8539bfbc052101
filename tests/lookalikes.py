"""Small look-alikes of the published data sets, in their true layouts: conftest's disc as the product, its blue square as the defect."""

import csv
import tarfile
import zipfile

import numpy as np
from conftest import bad_images, good_images
from PIL import Image


def save(path, x):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = ((x.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8) if hasattr(x, "permute") else x
    Image.fromarray(levels).save(path)


def mask(value, m):
    return m.astype(np.uint8) * value


def make_mvtec_ad(root, category="bottle", train=14, good=3, bad=4):
    for i, x in enumerate(good_images(train + good)):
        save(root / category / ("train/good" if i < train else "test/good") / f"{i:03}.png", x)
    for i, (x, m) in enumerate(zip(*bad_images(bad))):
        save(root / category / "test/broken_large" / f"{i:03}.png", x)
        save(root / category / "ground_truth/broken_large" / f"{i:03}_mask.png", mask(255, m))
    return root


def make_mvtec_loco(root, category="juice_bottle", train=12, validation=4, good=3, bad=4):
    for i, x in enumerate(good_images(train + validation + good)):
        save(root / category / ("train/good" if i < train else "validation/good" if i < train + validation else "test/good") / f"{i:03}.png", x)
    for i, (x, m) in enumerate(zip(*bad_images(bad))):
        save(root / category / "test/logical_anomalies" / f"{i:03}.png", x)
        upper, lower = m.copy(), m.copy()                               # two masks a picture, whose union counts
        upper[32:], lower[:32] = False, False
        for k, part in enumerate((upper, lower)):
            save(root / category / "ground_truth/logical_anomalies" / f"{i:03}" / f"{k:03}.png", mask(200 + k, part))
    return root


def make_btad(root, category="01", suffix=".bmp", train=14, good=3, bad=4):
    """Product 01 has pictures in BMP and masks in PNG, 03 has both in BMP, 02 both in PNG."""
    for i, x in enumerate(good_images(train + good)):
        save(root / category / ("train/ok" if i < train else "test/ok") / f"{i:04}{suffix}", x)
    for i, (x, m) in enumerate(zip(*bad_images(bad))):
        save(root / category / "test/ko" / f"{i:04}{suffix}", x)
        save(root / category / "ground_truth/ko" / f"{i:04}{'.bmp' if category == '03' else '.png'}", mask(255, m))
    return root


def make_visa(root, category="candle", train=14, good=3, bad=4):
    """Masks hold small levels, one a kind of defect; the split file lists pictures in no order."""
    rows = []
    for i, x in enumerate(good_images(train + good)):
        name = f"{category}/Data/Images/Normal/{i:04}.JPG"
        save(root / name, x)
        rows.append({"object": category, "split": "train" if i < train else "test", "label": "normal", "image": name, "mask": ""})
    for i, (x, m) in enumerate(zip(*bad_images(bad))):
        name, truth = f"{category}/Data/Images/Anomaly/{i:03}.JPG", f"{category}/Data/Masks/Anomaly/{i:03}.png"
        save(root / name, x)
        save(root / truth, mask(1 + i % 3, m))
        rows.append({"object": category, "split": "test", "label": "anomaly", "image": name, "mask": truth})
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    there = list(csv.DictReader(table.open(encoding="utf-8"))) if table.exists() else []
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["object", "split", "label", "image", "mask"])
        writer.writeheader()
        writer.writerows(there + rows[::-1])
    return root


def make_mtd(root, tiles=9, exposures=3):
    """The archive of GitHub: one folder a kind, pictures in JPG beside masks in PNG; each tile several times, its numbers close together."""
    base, numbers = root / "Magnetic-tile-defect-datasets.-master", []
    for tile in range(tiles):
        numbers += [(e + 1, 5000 * tile + 40 * e) for e in range(exposures)]
    for (e, n), x in zip(numbers, good_images(len(numbers))):
        save(base / "MT_Free/Imgs" / f"exp{e}_num_{n}.jpg", x)
        save(base / "MT_Free/Imgs" / f"exp{e}_num_{n}.png", mask(255, np.zeros((64, 64), bool)))
    for k, kind in enumerate(("Blowhole", "Break", "Crack", "Fray", "Uneven")):
        x, m = bad_images(1, seed=200 + k)
        number = 130 if k == 0 else 1_000_000 + 5000 * k                # the first is a good tile's next exposure
        save(base / f"MT_{kind}/Imgs" / f"exp1_num_{number}.jpg", x[0])
        save(base / f"MT_{kind}/Imgs" / f"exp1_num_{number}.png", mask(255, m[0]))
    return root


def pack(folder, archive):
    """All files of `folder`, relative to it, as .zip or .tar(.xz)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in files:
                file.write(path, path.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, "w:xz" if archive.suffix == ".xz" else "w") as file:
            for path in files:
                file.add(path, path.relative_to(folder).as_posix())
    return archive
