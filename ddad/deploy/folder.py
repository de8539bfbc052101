"""Detection on a folder of images: an overlay, a map and a JSON line for each.

It goes batch by batch, so memory stays flat.
"""
from __future__ import annotations

import json
import os
from dataclasses import asdict
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from .. import conformal
from ..data.images import mean_level, read_image
from ..detector import Detector, Prediction
from ..runtime.errors import DataError
from ..runtime.files import (
    replaceable_file,
    sha256,
    sole_writer,
    table_in,
    whole,
    write_json,
    write_text,
    writing_to,
)
from ..runtime.latent_cache import tensors_hash, weights_hash
from ..runtime.manifest import versions
from .overlays import save_overlay

# of a line: what it holds at least
REFUSED = {"image", "file", "error"}
SCORED = {"image", "file", "sha256", "score", "threshold", "anomalous", "p", "rate",
          "T_hat", "bin", "distance", "level", "map"}


def inspect(
    detector: Detector,
    paths: list[Path],
    out: Path,
    maps: str = "png16",
    batch: int = 16,
) -> list[dict]:
    """Write out/overlays, out/maps and out/results.jsonl; returns the lines.

    A line has image, as it was given, file, its absolute path, sha256, score,
    threshold, anomalous, p, rate, T_hat, bin, distance, level and map; or, of an image
    that cannot be read, image, file and error: the others are done all the same. p is
    the conformal p-value of the score, rate what the threshold promises: an image is
    anomalous where p <= rate. What the detector does not have is None. Files that
    results.jsonl has a score of are not done again, unless they have changed, or their
    overlay or map is gone. Lines of other files than those asked for stay, those of
    what could not be read, too. With map_range "test" all images form one batch,
    because their maps are normalised together; no p-value is made then, and `out` can
    hold no other images' scores.

    maps: "png16", 65535 being twice the threshold, or "npy", float32. Raises
    FileExistsError when `out` is a file, or holds results of another detector or what
    is no result, DataError for a line there that is none, and WriteError when it cannot
    be written to or another process is at it: the lines and images before that are
    kept.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder for the results")
    with sole_writer(out / ".lock", out):
        _mark(detector, out, maps)
        return _inspect(detector, paths, out, maps, batch)


def _mark(detector: Detector, out: Path, maps: str) -> None:
    """detector.json, which says what made the results; FileExistsError for another, or
    where it is not known.
    """
    made_by, log = out / "detector.json", out / "results.jsonl"
    replaceable_file(made_by, lambda path: "maps" in table_in(path), "ddad detect")
    replaceable_file(out / "report.html", lambda _: made_by.exists(), "ddad detect")
    if log.exists() and not made_by.exists():
        raise FileExistsError(f"{log} has no {made_by.name} beside it, which says what "
                              "detector made it; choose another folder")
    identity = json.loads(json.dumps(_identity(detector, maps)))
    if found := table_in(made_by):
        if unknown := [name for name in identity if name not in found]:
            raise FileExistsError(
                f"{made_by} is of an older version of ddad, and does not say which "
                f"{', '.join(unknown)} the results are of; choose another folder")
        if other := [name for name, here in identity.items() if found[name] != here]:
            raise FileExistsError(
                f"{out} holds results of another detector, or maps of another kind "
                f"(other {', '.join(other)}); choose another folder"
            )
    write_json(made_by, identity)


def _identity(detector: Detector, maps: str) -> dict:
    """All that a score and a map follow from, beside the image."""
    networks, ranges = detector.networks, detector.ranges
    hashed = lambda bank: None if bank is None else tensors_hash(vars(bank))
    return {
        "settings": detector.settings.as_dict(),
        "threshold": detector.threshold,
        "held_out_scores": _known(detector).tolist(),
        "record": detector.record,
        "maps": maps,
        "scale": detector.projection.s,
        "ranges": None if ranges is None else asdict(ranges),
        "memory bank": hashed(detector.memory_bank),
        "patch bank": hashed(detector.patch_bank),
        "autoencoder": weights_hash(networks.vae),
        "U-Net": weights_hash(networks.unet),
        "features": weights_hash(networks.phi),
        "versions": {name: one for name, one in versions().items() if name != "python"},
    }


def _inspect(
    detector: Detector, paths: list[Path], out: Path, maps: str, batch: int
) -> list[dict]:
    log, together = out / "results.jsonl", detector.settings.map_range == "test"
    before, asked = _lines(log), set(map(file_of, paths))
    old = {line["file"]: line for line in before if "score" in line}
    if together and old.keys() - asked:
        raise FileExistsError(
            f'{out} holds results of other images, and with map_range "test" scores of '
            "two runs cannot be compared; choose another folder, or give all at once")
    left = [path for path in paths
            if together or not _is_done(old.get(file_of(path)), path, out, maps)]
    again, names = set(map(file_of, left)), _Names(old)
    lines = [line for file, line in old.items() if file not in again]
    faults = [line for line in before if "error" in line and line["file"] not in asked]
    if not together:
        _write(log, lines + faults)
    batch = max(1, len(paths)) if together else batch
    for start in tqdm(range(0, len(left), batch), "detect", leave=False, delay=2):
        images, part, refused = _readable(
            left[start : start + batch], detector.settings.image_size
        )
        found, made = detector.predict(images) if part else None, []
        for n, (path, digest) in enumerate(part):
            name = names.of(path)
            _save(out, name, images[n], found, n, maps, detector.threshold)
            line = _named(path) | {"sha256": digest} | _said(detector, found, n)
            level = mean_level(images[n : n + 1]).item()
            made.append(line | {"level": level, "map": name})
        if together:
            _write(log, made + faults + refused)
        else:  # a last line that is cut short is done again, see `_lines`
            with writing_to(out), log.open("a", encoding="utf-8") as file:
                file.writelines(map(_as_line, made + refused))
        lines, faults = lines + made, faults + refused
    return lines + faults


class _Names:
    """Names of maps: numbered, as two folders may hold images of one name."""

    def __init__(self, old: dict[str, dict]):
        self.old = {file: line["map"] for file, line in old.items()}
        numbers = map(_number, old.values())
        self.next = count(1 + max(numbers, default=-1))

    def of(self, path: Path) -> str:
        """The name that the image had before, or a new one."""
        if (file := file_of(path)) in self.old:
            return self.old[file]
        # a name has 255 bytes, and a letter up to four
        stem = os.fsencode(path.stem)[:120].decode("utf-8", "ignore")
        return f"{next(self.next):05d}_{stem}"


def _number(line: dict) -> int:
    return int(line["map"].partition("_")[0])


def file_of(path: Path) -> str:
    """What tells one file from another, however its path was typed."""
    return os.path.abspath(path)


def _named(path: Path) -> dict:
    return {"image": str(path), "file": file_of(path)}


def _said(detector: Detector, found: Prediction, n: int) -> dict:
    """What the detector says of image n of the batch."""
    score, threshold = found.score[n].item(), detector.threshold
    M, p, rate = len(known := _known(detector)), None, None
    if M:
        p = conformal.p_value(found.score[n : n + 1], known).item()
        rate = conformal.promised(M, detector.settings.false_alarms)
    return {
        "score": score,
        "threshold": threshold,
        "anomalous": None if threshold is None else score > threshold,
        "p": p,
        "rate": rate,
        "T_hat": found.T_hat[n].item(),
        "bin": None if found.bin is None else found.bin[n].item(),
        "distance": None if found.distance is None else found.distance[n].item(),
    }


def _known(detector: Detector) -> Tensor:
    """Scores of held-out images that others can be ranked among, (M,)."""
    scores = detector.held_out_scores
    if scores is None or detector.settings.map_range == "test":
        return torch.empty(0)
    return scores


def _is_done(line: dict | None, path: Path, out: Path, maps: str) -> bool:
    """Whether the line is of the file as it is now, and its overlay and map are there.
    """
    if line is None or not all(map(os.path.isfile, _files(out, line["map"], maps))):
        return False
    return line["sha256"] == _digest(path)


def _files(out: Path, name: str, maps: str) -> tuple[Path, Path]:
    """The overlay and the map of that name."""
    suffix = ".npy" if maps == "npy" else ".png"
    return out / "overlays" / f"{name}.png", out / "maps" / f"{name}{suffix}"


def _digest(path: Path) -> str | None:
    """The file's hash, or None: reading the image will say what is wrong."""
    try:
        # a pipe would be waited for
        return sha256(path) if os.path.isfile(path) else None
    except OSError:
        return None


def _write(log: Path, lines: list[dict]) -> None:
    write_text(log, "".join(map(_as_line, lines)))


def _as_line(line: dict) -> str:
    # a name that is no Unicode holds lone surrogates, which "backslashreplace" writes
    # as JSON's own escapes
    text = json.dumps(line, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def _lines(log: Path) -> list[dict]:
    """What is there; not a last line that was cut short. DataError: see `_line`."""
    content = log.read_bytes() if log.exists() else b""
    ended = content[: content.rfind(b"\n") + 1].decode("utf-8", "surrogateescape")
    # at line feeds alone: a name may hold what Unicode also calls the end of a line
    return [_line(text, f"{log}, line {n},")
            for n, text in enumerate(ended.split("\n"), 1) if text]


def _line(text: str, where: str) -> dict:
    """A line as `inspect` wrote it; DataError for another."""
    try:
        line = json.loads(text.encode())        # what was no UTF-8 fails
        scored = "error" not in line
        fits = (line.keys() >= (SCORED if scored else REFUSED)
                and isinstance(line["file"], str)
                and (not scored or _number(line) >= 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise DataError(f"{where} is none of `ddad detect`: delete that line, and its "
                        "image is done again, or choose another folder")
    return line


def _readable(
    paths: list[Path], size: int
) -> tuple[Tensor, list[tuple[Path, str]], list[dict]]:
    """The images that can be read (N, 3, size, size) in [-1, 1], their paths and
    hashes, and a line for each that cannot.
    """
    images, part, refused = [], [], []
    for path in paths:
        try:
            # before it is read: a file that changes in between is done again
            digest = _digest(path)
            images.append(read_image(path, size))
            part.append((path, digest))
        except DataError as error:
            refused.append(_named(path) | {"error": str(error)})
    stacked = torch.stack(images) if images else torch.empty(0, 3, size, size)
    return stacked, part, refused


def _save(
    out: Path,
    name: str,
    x0: Tensor,
    found: Prediction,
    n: int,
    maps: str,
    threshold: float | None,
) -> None:
    """The overlay and the map of image n of the batch."""
    (overlay, map_file), A = _files(out, name, maps), found.map[n]
    x0_hat = None if found.reconstruction is None else found.reconstruction[n]
    save_overlay(overlay, x0, x0_hat, A, threshold)
    _save_map(map_file, A.numpy(), maps, threshold)


def _save_map(path: Path, A: np.ndarray, kind: str, threshold: float | None) -> None:
    with whole(path) as aside, aside.open("wb") as file:
        if kind == "npy":
            np.save(file, A)
        else:
            full = 2 * threshold if threshold else 2.0
            levels = (np.clip(A / full, 0, 1) * 65535).round().astype(np.uint16)
            Image.fromarray(levels).save(file, "PNG")
