"""Reading a product's images and masks from a folder in MVTec AD's layout, or in one of
those in `layouts`.

    root/train/good/*        defect-free images, the only ones that training sees
    root/validation/good/*   where given: the held-out good images; else a share of
                             train/good is held out
    root/test/good/*, root/test/<kind>/*
                             test images; ``good`` ones, and a folder a kind of defect
    root/ground_truth/<kind>/<stem>_mask.png
                             their masks; also <stem>.png, or a folder <stem>/ of
                             several masks (their union counts, as MVTec LOCO has it)

Images are squashed to a square by antialiased bilinear resampling, as the official code
does it. A file that is not sound, as far as that can be told, is refused with a
`DataError`; none is clipped, cropped or skipped in silence.
"""

import hashlib
import os
import warnings
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import copy
from functools import reduce
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from ..runtime.errors import DataError, WriteError
from .layouts import Item, list_images, scan
from .masks import resize_mask
from .on_disk import refuse_cut_off, refuse_unfit

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# besides 16-bit and float grey
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# of a longer side, resizing alone would fill the memory
MAX_PIXELS, MAX_SIDE = 100_000_000, 65_536
# pixels; images beyond are decoded one at a time, whatever the number of threads
LARGE, ONE_LARGE, READING = 8_000_000, Lock(), Lock()
ROUNDING = 1e-3                 # that resampling may pass -1 and 1 by
HELD, TOGETHER = 2**29, 64      # bytes of good images held; files read at once


def train_items(root: str | Path) -> list[Item]:
    """The good images to train on, sorted. DataError where none are or one is missing.
    """
    return _sound(root, "train")


def held_out_items(root: str | Path) -> list[Item]:
    """The images of validation/good, sorted; none where that folder does not exist.

    Raises DataError where it is empty.
    """
    return _sound(root, "validation")


def test_items(root: str | Path) -> list[Item]:
    """The test images, sorted by kind and name, each defective one with its mask.

    Raises DataError where there are none, where a folder of test/ is empty, or where an
    image or a mask is missing.
    """
    return _sound(root, "test")


def _sound(root: str | Path, part: str) -> list[Item]:
    items, problems = scan(root, part)
    if problems:
        raise DataError(problems[0])
    return items


def read_image(path: str | Path, size: int) -> Tensor:
    """One image as (3, size, size), float32 in [-1, 1]; grey is repeated three times.

    The EXIF orientation is applied. Transparent images are composited over black,
    colour profiles are ignored. 16-bit grey is divided by 257 (so 65535 is white: a
    12-bit camera's raw values come out dark), 32-bit float grey must lie in [0, 1]. An
    image that is `size` x `size` already is not resampled. Raises DataError.
    """
    return _to_tensor(decoded(path)[0], size)


def read_mask(path: str | Path | None, size: int, rule: str = "area") -> Tensor:
    """A mask (file, folder of files, or None) as (size, size), float32 in [0, 1].

    None stands for no defect. In a file, every level above 0 is defect. The rule says
    how that is brought to `size`:
    "area": 1 where more than half of the target pixel's area is defect, else 0,
    computed exactly. Defects thinner than half a target pixel vanish;
    "bilinear": antialiased bilinear, left grey, as the official code has it: a thin
    defect stays above 0 but may nowhere reach 1. Raises DataError, and ValueError for
    another rule.
    """
    defect = None if path is None else defect_of(Path(path))
    return resize_mask(defect, size, rule)


def read_item(item: Item, size: int, rule: str = "area") -> tuple[Tensor, Tensor]:
    """The item's image and mask as `read_image` and `read_mask` give them.

    Raises what they raise, and DataError where the mask's size is not the image's.
    """
    upright = decoded(item.path)[0]
    image, extent = _to_tensor(upright, size), upright.size
    del upright  # a large one and its mask are not held at once
    defect = None if item.mask is None else defect_of(item.mask)
    if problem := size_problem(item, extent, defect):
        raise DataError(problem)
    return image, resize_mask(defect, size, rule)


def read_images(paths: Sequence[str | Path], size: int) -> Tensor:
    """Images as (N, 3, size, size), float32 in [-1, 1], in the order given.

    Raises DataError for the first that cannot be read.
    """
    images = torch.empty(len(paths), 3, size, size)
    for i, levels in enumerate(_levels_of(paths, size)):
        images[i] = _as_tensor(levels)
    return images


def _levels_of(paths: Sequence[str | Path], size: int) -> Iterator[np.ndarray]:
    """`_resized` of each file, in the order given, of TOGETHER of them at most ahead of
    its reader; DataError for the first that cannot be read.
    """
    read = lambda path: _resized(decoded(path)[0], size)
    parts = (paths[n : n + TOGETHER] for n in range(0, len(paths), TOGETHER))
    # Pillow decodes and resizes outside the GIL
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        each = chain.from_iterable(pool.map(read, part) for part in parts)
        yield from tqdm(each, "reading", len(paths), leave=False, delay=2)


class ImageFiles:
    """Images kept in a temporary file, in place of a tensor (N, 3, size, size) that
    holds all of them: what is learned from these stays small.

    Each picture is decoded once, at first: what becomes of it later means nothing. Rows
    are chosen as a tensor's, by a slice, a mask or indices, and stay in the file;
    `.to(device)` reads them. The file has no name, or is deleted with its last reader;
    it takes a byte a level, at most 3 N size^2, and of 16-bit and float grey
    4 N size^2. IndexError for a row that is not there, TypeError for a single number;
    DataError for a picture that cannot be read, WriteError without room.
    """

    def __init__(self, paths: Sequence[str | Path], size: int):
        self.size, self.at = size, []       # where each image begins
        try:
            self.file = TemporaryFile()
            weakref.finalize(self, self.file.close)
            for levels in _levels_of(paths, size):
                self.at.append(self.file.tell())
                # not scaled: levels as resizing gives them, and of their own type, are
                # exact, and the smallest
                np.save(self.file, levels)
            self.file.flush()
        except OSError as error:
            raise WriteError(
                f"{len(paths)} pictures cannot be kept, resized, in a temporary file "
                f"({error.strerror or error}): name in TMPDIR a folder that has "
                f"{4 * len(paths) * size**2 // 10**6 + 1} MB") from error

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.at), 3, self.size, self.size)

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, rows: slice | Tensor) -> "ImageFiles":
        if isinstance(rows, int):
            raise TypeError(f"rows of images are chosen by a slice, a mask or indices, "
                            f"not by a number: [{rows}] could be [[{rows}]]")
        chosen = copy(self)
        chosen.whole = self                 # whose end closes the file
        chosen.at = [self.at[n] for n in torch.arange(len(self))[rows].tolist()]
        return chosen

    def split(self, n: int) -> list["ImageFiles"]:
        return [self[first : first + n] for first in range(0, len(self), n)]

    def to(self, device: str | torch.device) -> Tensor:
        images = torch.empty(self.shape)
        for i, at in enumerate(self.at):
            with READING:                   # one place of the file at a time
                self.file.seek(at)
                images[i] = _as_tensor(np.load(self.file))
        return images.to(device)


Images = Tensor | ImageFiles


def parted(images: Images, n: int, seed: int) -> tuple[Images, Images]:
    """n images or all, drawn with a seed, and the others, each in the order given."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    chosen = torch.isin(torch.arange(len(images)), order[:n])
    return images[chosen], images[~chosen]


def good_images(paths: Sequence[str | Path], size: int) -> Images:
    """Images to learn from, (N, 3, size, size): read and held, or, where that would
    take more than HELD bytes, as `ImageFiles`. Raises DataError and WriteError.
    """
    many = 12 * len(paths) * size**2 > HELD
    return ImageFiles(paths, size) if many else read_images(paths, size)


def fingerprint(images: Images) -> str:
    """SHA-256 of the levels of images (N, 3, H, W)."""
    whole = hashlib.sha256()
    for part in images.split(TOGETHER):
        whole.update(part.to("cpu").contiguous().numpy())
    return whole.hexdigest()


def as_images(images, size: int) -> Images:
    """Images as the method takes them: (N, 3, size, size) float32 in [-1, 1].

    images: such a tensor or array, also in another float type; or, one or a sequence
    of, paths, PIL images and arrays (H, W, 3) or (H, W) uint8, which are resized as
    `read_image` does it; of many paths as `good_images` has them. Raises ValueError for
    what is none of these, DataError for a file. Warns where no level is below 0, as is
    so of images in [0, 1].
    """
    if isinstance(images, (list, tuple)) and all(isinstance(x, (str, Path))
                                                 for x in images):
        images = good_images(images, size)
    if isinstance(images, np.ndarray) and images.dtype != np.uint8:
        images = torch.from_numpy(images)
    if not isinstance(images, Images):
        single = isinstance(images, (str, Path, Image.Image)) or (
            isinstance(images, np.ndarray) and images.ndim < 4)
        images = [_one(x, size) for x in ([images] if single else images)]
        images = torch.stack(images) if images else torch.empty(0, 3, size, size)
    wanted, given = f"(N, 3, {size}, {size})", tuple(images.shape)
    if given[1:] != (3, size, size) or not given[0]:
        raise ValueError(f"images must be a tensor {wanted} in [-1, 1], not {given}: "
                         "resize them, or give paths or PIL images")
    if isinstance(images, ImageFiles):
        return images
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}, not float in [-1, 1]: bring "
                         "levels of 0 to 255 to it by x / 127.5 - 1")
    low, high = (float(x) for x in images.aminmax())
    if not (low >= -1 - ROUNDING and high <= 1 + ROUNDING):      # NaN fails, too
        raise ValueError(f"images hold {low:.4g} to {high:.4g}, not levels in [-1, 1]: "
                         "bring them to it, by x / 127.5 - 1 from 0 to 255; the mean "
                         "and deviation of a network are not wanted")
    if low >= 0:
        warnings.warn(f"no level of the images is below 0 ({low:.2g} to {high:.2g}): "
                      "bring images in [0, 1] to [-1, 1] by 2 * x - 1", stacklevel=3)
    return images.float()


def _one(image, size: int) -> Tensor:
    """A path, PIL image, array or tensor as (3, size, size)."""
    if isinstance(image, Tensor):
        return image
    if isinstance(image, (str, Path)):
        return read_image(image, size)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and (
            image.ndim == 2 or image.shape[2:] in ((3,), (4,))):
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"{type(image).__name__} is no image: give a tensor (N, 3, "
                         f"{size}, {size}) in [-1, 1], paths, PIL images, or arrays "
                         "(H, W, 3) of uint8")
    return _to_tensor(_converted(image.copy(), Path("the image given"))[0], size)


def decoded(path: str | Path) -> tuple[Image.Image, str]:
    """The decoded image, upright, and the file's own mode.

    The image is in mode "L" or "RGB", or for 16-bit and float grey in mode "F" with
    levels from 0 to 255. Every way in which that fails is a DataError.
    """
    path = Path(path)
    try:
        refuse_unfit(path)
        with Image.open(path, formats=FORMATS) as file:
            width, height = file.size  # from the header: nothing is decoded yet
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise DataError(
                    f"{path} has {width} x {height} pixels, more than 100 million or "
                    f"{MAX_SIDE} a side: scale it down first.")
            # a phone's JPEG (MPO) may bring a second image, for depth or a preview: the
            # first is the photograph
            if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
                raise DataError(f"{path} holds {file.n_frames} images: save each as a "
                                "file of its own.")
            with ONE_LARGE if width * height > LARGE else nullcontext():
                refuse_cut_off(file, path)
                return _converted(file, path)
    except DataError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
    except Exception as error:
        reason = error or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}): copy it again, convert it "
                        "to PNG or delete it.") from error


def _converted(file: Image.Image, path: Path) -> tuple[Image.Image, str]:
    """As `decoded` returns it; of a large image, no more copies than a step needs."""
    mode = file.mode
    ImageOps.exif_transpose(file, in_place=True)
    if mode[0] in "IF":  # I;16, I;16B, I, F: Pillow would clip these at 255
        levels, top = np.array(file, dtype=np.float32), 1 if mode == "F" else 65535
        # so written that NaN fails, too
        if not (levels.min() >= 0 and levels.max() <= top):
            raise DataError(f"{path} has levels outside 0 to {top}: rescale it or save "
                            "it as an 8-bit image.")
        levels *= np.float32(255 / top)
        return Image.fromarray(levels), mode
    if mode not in MODES:  # LAB, for one, would be converted to nonsense
        raise DataError(
            f"{path} has colours of mode {mode}, not supported: save it as RGB.")
    if file.has_transparency_data:
        image = file.convert("RGBA")
        file.close()
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return image.convert("RGB"), mode
    return file.convert("L" if mode in ("1", "L") else "RGB"), mode


def _to_tensor(image: Image.Image, size: int) -> Tensor:
    return _as_tensor(_resized(image, size))


def _resized(image: Image.Image, size: int) -> np.ndarray:
    """Levels of 0 to 255, (size, size) or (size, size, 3): uint8, or, of an image in
    mode "F", float32.
    """
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(image)


def _as_tensor(levels: np.ndarray) -> Tensor:
    """`_resized` levels as `read_image` returns them."""
    size = len(levels)
    levels = torch.from_numpy(levels.astype(np.float32)).reshape(size, size, -1)
    levels = levels.permute(2, 0, 1) / 127.5 - 1
    # mode "F" may pass 0 and 255 by a rounding error
    return levels.clamp(-1, 1).expand(3, size, size).contiguous()


def mean_level(images: Images) -> Tensor:
    """The mean level (N,), 0 to 255, of images (N, ...) in [-1, 1]."""
    means = [part.to("cpu").flatten(1).mean(1) for part in images.split(TOGETHER)]
    return (torch.cat(means) + 1) * 127.5


def defect_of(path: Path) -> np.ndarray:
    """The union of a mask file, or of all in a folder, as bool (height, width).

    Raises DataError.
    """
    union = None
    for file in list_images(path) if path.is_dir() else [path]:
        levels = np.asarray(decoded(file)[0])
        marked = levels.reshape(*levels.shape[:2], -1) > 0
        defect = reduce(np.logical_or, np.moveaxis(marked, 2, 0))
        if union is not None and defect.shape != union.shape:
            (height, width), (high, wide) = defect.shape, union.shape
            raise DataError(
                f"{file} has {width} x {height} pixels, others in its folder {wide} x "
                f"{high}: give all masks of one image its size.")
        union = defect if union is None else union | defect
    return union


def size_problem(item: Item, extent: tuple[int, int], defect: np.ndarray | None) -> str:
    """A sentence if the mask is not of the image's size, `extent`, else ""."""
    if defect is None or extent == defect.shape[::-1]:
        return ""
    (height, width), (wide, high) = defect.shape, extent
    return (f"The mask {item.mask} has {width} x {height} pixels, its image "
            f"{item.path} {wide} x {high}: redraw or resize the mask to the image's "
            "size.")
