"""A file as it lies on the disk: whether it is there, and all of it."""

import os  # os.path answers False where a Path raises: long names, loops of links
from pathlib import Path

from PIL import Image

from ..runtime.errors import DataError

# whose last bytes are never all zero; a WebP's are, where it ends in one colour
ENDED = ("PNG", "JPEG", "MPO", "WEBP")
LAST, ONE_COLOUR = 64, 8        # bytes, and levels of 255


def lost_link(path: Path) -> str:
    """A sentence where `path` is a link to what is not there, else ""."""
    if not os.path.islink(path) or os.path.exists(path):
        return ""
    return (f"{path} is a link to {os.readlink(path)}, which is not there: fetch it, "
            "or delete the link.")


def refuse_unfit(path: Path) -> None:
    """DataError for an empty file and for a link to nothing, OSError for what is no
    file; nothing for what is not there.
    """
    # a pipe would be waited for, a device may have no end
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"it is {'a folder' * path.is_dir() or 'no plain file'}")
    if said := lost_link(path):
        raise DataError(said)
    if os.path.isfile(path) and not os.path.getsize(path):
        raise DataError(f"{path} cannot be read: it is empty (0 bytes); copy it again "
                        "or delete it.")


def refuse_cut_off(file: Image.Image, path: Path) -> None:
    """DataError where an opened image ends in zero bytes: room was made for it, and the
    copy broke off. Pillow may read it all the same.
    """
    if file.format not in ENDED:
        return
    with open(path, "rb") as whole:
        whole.seek(-min(LAST, os.path.getsize(path)), os.SEEK_END)
        if any(whole.read()):
            return
    if file.format == "WEBP":
        width, height = file.size
        last_row = file.crop((0, height - 1, width, height)).convert("RGB")
        if all(high - low <= ONE_COLOUR for low, high in last_row.getextrema()):
            return
    raise DataError(f"{path} ends in zero bytes, as if its copy broke off: copy it "
                    "again; if it is whole, save it anew.")
