"""Detection on a folder of images: an overlay, a map and a JSON line for each.

It goes batch by batch, so memory stays flat.
"""
from __future__ import annotations

import json
import os
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
    sha256,
    sole_writer,
    whole,
    write_json,
    write_text,
    writing_to,
)
from ..runtime.latent_cache import weights_hash
from .overlays import save_overlay


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
    results.jsonl has a score of are not done again, unless they have changed. Lines of
    other files than those asked for stay, those of what could not be read, too. With
    map_range "test" all images form one batch, because their maps are normalised
    together; no p-value is made then.

    maps: "png16", 65535 being twice the threshold, or "npy", float32. Raises
    FileExistsError when `out` is a file, or holds results of another detector, and
    WriteError when it cannot be written to or another process is at it: the lines and
    images before that are kept.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder for the results")
    with sole_writer(out / ".lock", out):
        _mark(detector, out, maps)
        return _inspect(detector, paths, out, maps, batch)


def _mark(detector: Detector, out: Path, maps: str) -> None:
    """detector.json, which says what made the results; FileExistsError for another."""
    made_by = out / "detector.json"
    if not made_by.exists() and (report := out / "report.html").exists():
        raise FileExistsError(f"{report} is none of `ddad detect`, and would be "
                              "replaced; choose another folder")
    networks = detector.networks
    identity = {
        "settings": detector.settings.as_dict(),
        "threshold": detector.threshold,
        "held_out_scores": _known(detector).tolist(),
        "record": detector.record,
        "maps": maps,
        "autoencoder": weights_hash(networks.vae),
        "U-Net": weights_hash(networks.unet),
        "features": weights_hash(networks.phi),
    }
    if made_by.exists():
        found = json.loads(made_by.read_text(encoding="utf-8"))
        other = [name for name, here in json.loads(json.dumps(identity)).items()
                 if found.get(name) != here]
        if other:
            raise FileExistsError(
                f"{out} holds results of another detector, or maps of another kind "
                f"(other {', '.join(other)}); choose another folder"
            )
    write_json(made_by, identity)


def _inspect(
    detector: Detector, paths: list[Path], out: Path, maps: str, batch: int
) -> list[dict]:
    log, together = out / "results.jsonl", detector.settings.map_range == "test"
    before = [] if together else _lines(log)
    old = {line["file"]: line for line in before if "score" in line}
    left = [path for path in paths if not _is_of(old.get(file_of(path)), path)]
    again = set(map(file_of, left))
    lines = [line for file, line in old.items() if file not in again]
    asked, names = set(map(file_of, paths)), _Names(old)
    faults = [line for line in before if "error" in line and line["file"] not in asked]
    if not together:
        _write(log, lines + faults)
    batch = len(paths) if together else batch
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
            _write(log, made + refused)
        else:  # a last line that is cut short is done again, see `_lines`
            with writing_to(out), log.open("a", encoding="utf-8") as file:
                file.writelines(map(_as_line, made + refused))
        lines, faults = lines + made, faults + refused
    return lines + faults


class _Names:
    """Names of maps: numbered, as two folders may hold images of one name."""

    def __init__(self, old: dict[str, dict]):
        self.old = {file: line["map"] for file, line in old.items()}
        numbers = (int(name.partition("_")[0]) for name in self.old.values())
        self.next = count(1 + max(numbers, default=-1))

    def of(self, path: Path) -> str:
        """The name that the image had before, or a new one."""
        if (file := file_of(path)) in self.old:
            return self.old[file]
        # a name has 255 bytes, and a letter up to four
        stem = os.fsencode(path.stem)[:120].decode("utf-8", "ignore")
        return f"{next(self.next):05d}_{stem}"


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


def _is_of(line: dict | None, path: Path) -> bool:
    """Whether the line is of the file as it is now."""
    return line is not None and line["sha256"] == _digest(path)


def _digest(path: Path) -> str | None:
    """The file's hash, or None: reading the image will say what is wrong."""
    try:
        return sha256(path)
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
    """What is there; not a last line that was cut short."""
    content = log.read_bytes() if log.exists() else b""
    ended = content[: content.rfind(b"\n") + 1].decode("utf-8")
    # at line feeds alone: a name may hold what Unicode also calls the end of a line
    return [json.loads(line) for line in ended.split("\n") if line]


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
    overlay, A = out / "overlays" / f"{name}.png", found.map[n]
    x0_hat = None if found.reconstruction is None else found.reconstruction[n]
    save_overlay(overlay, x0, x0_hat, A, threshold)
    _save_map(out / "maps" / name, A.numpy(), maps, threshold)


def _save_map(path: Path, A: np.ndarray, kind: str, threshold: float | None) -> None:
    suffix = ".npy" if kind == "npy" else ".png"
    with whole(path.with_name(path.name + suffix)) as aside, aside.open("wb") as file:
        if kind == "npy":
            np.save(file, A)
        else:
            full = 2 * threshold if threshold else 2.0
            levels = (np.clip(A / full, 0, 1) * 65535).round().astype(np.uint16)
            Image.fromarray(levels).save(file, "PNG")
