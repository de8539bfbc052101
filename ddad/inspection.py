"""Detection on loose pictures: an overlay, a map and a JSON line for each; batch by batch, so memory stays flat."""
from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from .data import DataError, read_image
from .detector import Detector
from .manifest import sha256, write_json
from .plots import save_overlay
from .writing import sole_writer, whole, writing_to


def inspect(detector: Detector, paths: list[Path], out: Path, maps: str = "png16", batch: int = 16) -> list[dict]:
    """Write out/overlays, out/maps and out/results.jsonl for the pictures; returns the lines.

    A line has image, its file's sha256, score, threshold, anomalous, T_hat, bin, distance and map; or, of a picture that cannot be
    read, image and error: the others are done all the same. Pictures that results.jsonl has a score of are not done again, unless the
    file has changed. With map_range "test" all pictures form one batch, because their maps are normalised together. maps: "png16",
    65535 being twice the threshold, or "npy", float32. Raises FileExistsError when `out` is a file, or holds results of another detector, and
    WriteError when it cannot be written to or another process is at it: the lines and pictures before that are kept.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder for the results")
    with sole_writer(out / ".lock", out):
        return _inspect(detector, paths, out, maps, batch)


def _inspect(detector: Detector, paths: list[Path], out: Path, maps: str, batch: int) -> list[dict]:
    log, made_by = out / "results.jsonl", out / "detector.json"
    identity = {"settings": detector.settings.as_dict(), "threshold": detector.threshold, "record": detector.record, "maps": maps}
    if made_by.exists() and json.loads(made_by.read_text(encoding="utf-8")) != json.loads(json.dumps(identity)):
        raise FileExistsError(f"{out} holds results of another detector, or maps of another kind; choose another folder")
    write_json(made_by, identity)
    together = detector.settings.map_range == "test"
    old = {} if together else {line["image"]: line for line in _scored(log)}
    left = [path for path in paths if not _is_of(old.get(str(path)), path)]
    again = set(map(str, left))
    lines = [line for image, line in old.items() if image not in again]
    number = count(1 + max((int(line["map"].partition("_")[0]) for line in old.values()), default=-1))
    if not together:
        _write(log, lines)
    batch, faults = len(paths) if together else batch, []
    for start in tqdm(range(0, len(left), batch), "detect", leave=False, delay=2):
        images, part, refused = _readable(left[start : start + batch], detector.settings.image_size)
        found = detector.predict(images) if part else None
        made = []
        for n, (path, digest) in enumerate(part):
            # two folders may hold pictures of one name; a name has 255 bytes
            name = old[str(path)]["map"] if str(path) in old else f"{next(number):05d}_{path.stem[:60]}"
            save_overlay(out / "overlays" / f"{name}.png", images[n], found.reconstruction[n], found.map[n], detector.threshold)
            _save_map(out / "maps" / name, found.map[n].numpy(), maps, detector.threshold)
            score = found.score[n].item()
            made.append({"image": str(path), "sha256": digest, "score": score, "threshold": detector.threshold,
                         "anomalous": None if detector.threshold is None else score > detector.threshold, "T_hat": found.T_hat[n].item(),
                         "bin": found.bin[n].item(), "distance": found.distance[n].item(), "map": name})
        if together:
            _write(log, made + refused)
        else:                                                          # a last line that is cut short is done again, see `_scored`
            with writing_to(out), log.open("a", encoding="utf-8") as file:
                file.writelines(map(_as_line, made + refused))
        lines, faults = lines + made, faults + refused
    return lines + faults


def _is_of(line: dict | None, path: Path) -> bool:
    """Whether the line is of the file as it is now."""
    try:
        return line is not None and line.get("sha256") == sha256(path)
    except OSError:                                                    # reading the picture will say what is wrong
        return False


def _write(log: Path, lines: list[dict]) -> None:
    with whole(log) as aside:
        aside.write_text("".join(map(_as_line, lines)), encoding="utf-8")


def _as_line(line: dict) -> str:
    # a name that is no Unicode holds lone surrogates, which "backslashreplace" writes as JSON's own escapes
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def _scored(log: Path) -> list[dict]:
    """The lines with a score; a last line that was cut short, or one of a picture that could not be read, is done again."""
    whole = log.read_bytes() if log.exists() else b""
    lines = [json.loads(line) for line in whole[: whole.rfind(b"\n") + 1].decode("utf-8").splitlines()]
    return [line for line in lines if "score" in line]


def _readable(paths: list[Path], size: int) -> tuple[Tensor, list[tuple[Path, str]], list[dict]]:
    """The pictures that can be read (N, 3, size, size) in [-1, 1], their paths and hashes, and a line for each that cannot."""
    images, part, refused = [], [], []
    for path in paths:
        try:
            digest = sha256(path)                                      # before it is read: a file that changes in between is done again
            images.append(read_image(path, size))
            part.append((path, digest))
        except (DataError, OSError) as error:
            refused.append({"image": str(path), "error": str(error)})
    return torch.stack(images) if images else torch.empty(0, 3, size, size), part, refused


def _save_map(path: Path, A: np.ndarray, kind: str, threshold: float | None) -> None:
    with whole(path.with_name(path.name + (".npy" if kind == "npy" else ".png"))) as aside, aside.open("wb") as file:
        if kind == "npy":
            np.save(file, A)
        else:
            full = 2 * threshold if threshold else 2.0
            Image.fromarray((np.clip(A / full, 0, 1) * 65535).round().astype(np.uint16)).save(file, "PNG")
