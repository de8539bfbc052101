"""Detection on loose pictures: an overlay, a map and a JSON line for each; batch by batch, so memory stays flat."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from .data import read_images
from .detector import Detector
from .plots import save_overlay


def inspect(detector: Detector, paths: list[Path], out: Path, maps: str = "png16", batch: int = 16) -> list[dict]:
    """Write out/overlays, out/maps and out/results.jsonl for the pictures; returns the lines.

    Pictures that results.jsonl lists already are not done again. With map_range "test" all pictures form one batch, because
    their maps are normalised together. maps: "png16", 65535 being twice the threshold, or "npy", float32.
    """
    (out / "maps").mkdir(parents=True, exist_ok=True)
    log = out / "results.jsonl"
    if log.exists():                                                   # a last line that was cut short is done again
        whole = log.read_bytes()
        log.write_bytes(whole[: whole.rfind(b"\n") + 1])
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    done = {line["image"] for line in lines}
    left = [p for p in paths if str(p) not in done]
    if detector.settings.map_range == "test":
        left, lines, batch = paths, [], len(paths)
    settings, threshold = detector.settings, detector.threshold
    full = 2 * threshold if threshold else 2.0
    for start in tqdm(range(0, len(left), batch), "detect", disable=len(left) <= batch):
        part = left[start : start + batch]
        images = read_images(part, settings.image_size)
        found = detector.predict(images)
        if settings.map_range == "test":
            log.unlink(missing_ok=True)
        for n, path in enumerate(part):
            name = f"{len(lines):05d}_{path.stem}"                      # two folders may hold pictures of one name
            save_overlay(out / "overlays" / f"{name}.png", images[n], found.reconstruction[n], found.map[n], threshold)
            A = found.map[n].numpy()
            if maps == "npy":
                np.save(out / "maps" / f"{name}.npy", A)
            else:
                Image.fromarray((np.clip(A / full, 0, 1) * 65535).round().astype(np.uint16)).save(out / "maps" / f"{name}.png")
            score = found.score[n].item()
            lines.append({"image": str(path), "score": score, "threshold": threshold, "anomalous": None if threshold is None else score > threshold,
                          "T_hat": found.T_hat[n].item(), "bin": found.bin[n].item(), "distance": found.distance[n].item(), "map": name})
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1], ensure_ascii=False) + "\n")
    return lines
