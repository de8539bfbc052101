"""A detector for other runtimes, such as a web page: its networks as ONNX, everything
else as JSON and one binary file.

    encoder.onnx    x0 (1, 3, H, H) in [-1, 1]    -> z0 (1, C, h, h), the posterior's
                                                     mean times s; with posterior
                                                     "sample" also std
    decoder.onnx    z0 (1, C, h, h)               -> x0 (1, 3, H, H), D(z0 / s)
    unet.onnx       z_t (1, C, h, h), t (1,)      -> e (1, C, h, h), the predicted noise
    features.onnx   x0 (1, 3, H, H) in [-1, 1]    -> phi_j (1, C_j, h_j, h_j) for each
                                                     block j that the settings use
    detector.json   settings, threshold and the scores it comes from, ranges, shapes,
                    where each array lies in detector.bin, and what the check measured
    detector.bin    bank (N, F), distances (N,), edges (bins + 1,), alpha_bar
                    (timesteps,); with a bank of patches also patch_bank (n, F'),
                    patch_low_high (2,) and patch_edges (bins + 1,); one after the
                    other, little-endian

Every input and output is float32, t too; a graph takes one image. Large weights and the
banks are stored as float16 and computed with in float32, unless the check wants them
whole.
"""
from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..anomaly_map import Ranges
from ..detector import Detector, Prediction
from ..dynamic_noise import MemoryBank, bin_edges
from ..runtime.errors import ExportError, SettingsError
from ..runtime.files import replaceable, sha256, whole, write_json
from ..runtime.manifest import versions
from ..settings import preset
from ..step_map import PatchBank
from ..synthetic.products import KINDS, render
from .onnx_graphs import NETWORKS, OnnxNetworks, halved, stages_used, trace

MANIFEST, ARRAYS, FORMAT = "detector.json", "detector.bin", 2
# what the check allows: of a map in its own units, of a score as a share of it; and the
# share of images whose steps are the same: at the edge of a bin, rounding decides
MAP, SCORE, SAME = 1e-2, 0.01, 0.8


def export(
    detector: Detector, out: str | Path, images: Tensor | None = None
) -> dict:
    """Write `detector`, which lies on the CPU, to the folder `out` as described above,
    and compare it with PyTorch on `images`.

    images: (N, 3, H, H) float32 in [-1, 1]; else nine images of the embedded products.
    What was written is read again and run by ONNX Runtime: maps must differ by less
    than 0.01, scores by less than 1%, and every image must fall in the same bin. With a
    step for each region, maps and scores are compared where an image has the same steps
    everywhere, and at least 80% of the images must. Weights are float16 where that
    holds, else float32. Returns the measured differences: weights, pictures, map,
    score, same_bin, same_steps, bytes, files (name -> bytes).

    Raises ExportError, also when ONNX is not installed, and FileExistsError when `out`
    holds something else. `out` is changed only by an export that passes.
    """
    _needed()
    if not detector.settings.decode:
        raise SettingsError(
            "setting decode: false has no export, which is of all four networks"
        )
    out = Path(out)
    if detector.device.type != "cpu":
        raise ExportError(
            "export works on the CPU; load the detector with device='cpu'"
        )
    own = {ARRAYS, *(f"{name}.onnx" for name in NETWORKS)}
    replaceable(out, MANIFEST, own, "export of ddad")
    images = probes(detector.settings.image_size) if images is None else images
    expected = detector.predict(images)
    with whole(out) as aside:
        aside.mkdir()
        graphs = trace(detector)
        for weights in ("float16", "float32"):
            manifest = write(detector, graphs, aside, weights)
            measured = {"weights": weights, "pictures": len(images)}
            measured |= differences(read(aside).predict(images), expected)
            if holds(measured):
                break
        else:
            raise ExportError(
                f"on {len(images)} images ONNX Runtime differs from PyTorch by "
                f"{measured['map']:.2g} in a map (allowed {MAP}) and by "
                f"{measured['score']:.2%} in a score (allowed {SCORE:.0%}); "
                f"{measured['same_bin']} have the same bin, "
                f"{measured['same_steps']} the same steps. Nothing written"
            )
        write_json(aside / MANIFEST, manifest | {"check": measured})
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return measured | {"bytes": sum(files.values()), "files": files}


def _needed() -> None:
    """ExportError that says what to install."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed; export needs the extra: "
            'pip install "ddad[export]", or pip install -e ".[export]" in a clone'
        ) from error


def probes(size: int) -> Tensor:
    """Nine images to compare on, (9, 3, size, size) in [-1, 1].

    Each embedded product good and with two defects.
    """
    images = [
        render(product, size, seed, defect)[0]
        for product in KINDS
        for seed, defect in enumerate((None, *list(KINDS[product])[:2]))
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def differences(found: Prediction, expected: Prediction) -> dict:
    """How many have the same bin, and the same steps everywhere; of the latter, the
    largest difference of a map and a score.
    """
    same = found.T_hat == expected.T_hat
    if expected.step_map is not None:
        same &= (found.step_map == expected.step_map).flatten(1).all(1)
    apart = [
        (getattr(found, name) - getattr(expected, name)).abs().flatten(1).amax(1)
        for name in ("map", "latent_map", "feature_map")
    ]
    scores = expected.score.abs().clamp(min=1e-6)
    relative = (found.score - expected.score).abs() / scores
    return {
        "same_bin": int((found.bin == expected.bin).sum()),
        "same_steps": int(same.sum()),
        "map": (torch.stack(apart).amax(0) * same).max().item(),
        "score": (relative * same).max().item(),
    }


def holds(measured: dict) -> bool:
    """Whether the differences are allowed."""
    same = (
        measured["same_bin"] == measured["pictures"]
        and measured["same_steps"] >= SAME * measured["pictures"]
    )
    return measured["map"] < MAP and measured["score"] < SCORE and same


def write(detector: Detector, graphs: dict, folder: Path, weights: str) -> dict:
    """All files, weights and bank as "float16" or "float32"; what detector.json holds.
    """
    import onnx
    for name, graph in graphs.items():
        half = weights == "float16"
        onnx.save(halved(graph) if half else graph, folder / f"{name}.onnx")
    arrays = _write_arrays(arrays_of(detector, weights), folder / ARRAYS)
    scores = detector.held_out_scores
    shape = graphs["unet"].graph.output[0].type.tensor_type.shape
    channels, side = (d.dim_value for d in shape.dim[1:3])
    files = [folder / f"{name}.onnx" for name in graphs] + [folder / ARRAYS]
    manifest = {
        "format": FORMAT,
        "settings": detector.settings.as_dict(),
        "threshold": detector.threshold,
        "held_out_scores": None if scores is None else scores.tolist(),
        "ranges": asdict(detector.ranges) if detector.ranges else None,
        "latent": [channels, side, side],
        "stages": stages_used(detector.settings),
        "arrays": arrays,
        "versions": versions(),
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in files
        },
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def arrays_of(detector: Detector, weights: str) -> dict[str, np.ndarray]:
    """What detector.bin holds: name -> float32, or, of banks, "float16"."""
    bank, patches, bins = (
        detector.memory_bank, detector.patch_bank, detector.settings.bins
    )
    values = {
        "bank": bank.y,
        "distances": bank.distances,
        "edges": bin_edges(bank.distances, bins),
        "alpha_bar": detector.abar,
    }
    if patches:
        values |= {
            "patch_bank": patches.f,
            "patch_low_high": patches.low_high,
            "patch_edges": bin_edges(patches.low_high, bins),
        }
    return {
        name: value.numpy().astype(weights if name.endswith("bank") else "float32")
        for name, value in values.items()
    }


def _write_arrays(values: dict[str, np.ndarray], path: Path) -> dict:
    """detector.bin; dtype, shape and offset in bytes of each array in it."""
    arrays, offset = {}, 0
    with path.open("wb") as file:
        for name, array in values.items():
            array = array.astype(array.dtype.newbyteorder("<"))
            array = np.ascontiguousarray(array)
            arrays[name] = {
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "offset": offset,
            }
            # each begins at a multiple of 4 bytes
            offset += file.write(array.tobytes() + b"\0" * (-array.nbytes % 4))
    return arrays


def read(folder: str | Path) -> Detector:
    """An exported detector whose networks ONNX Runtime runs.

    Its `predict` is that of any detector. ExportError for another folder.
    """
    _needed()
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise ExportError(
            f"{folder} holds no {MANIFEST}; give a folder that `ddad export` wrote"
        )
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT:
        raise ExportError(
            f"{folder / MANIFEST} is not of format {FORMAT}: another version of ddad "
            "wrote it; export the detector again"
        )
    settings = preset(manifest["settings"]["preset"], **manifest["settings"])
    arrays = _read_arrays(manifest["arrays"], (folder / ARRAYS).read_bytes())
    networks = OnnxNetworks(folder, manifest["latent"], manifest["stages"])
    detector = Detector(settings, networks, scale=1.0)  # the graphs scale latents
    detector.abar = arrays["alpha_bar"]
    detector.memory_bank = MemoryBank(arrays["bank"], arrays["distances"])
    if "patch_bank" in arrays:
        detector.patch_bank = PatchBank(arrays["patch_bank"], arrays["patch_low_high"])
    if manifest["held_out_scores"]:
        detector.held_out_scores = torch.tensor(manifest["held_out_scores"])
    if manifest["ranges"]:
        detector.ranges = Ranges(
            **{name: pair and tuple(pair) for name, pair in manifest["ranges"].items()}
        )
    return detector


def _read_arrays(places: dict, content: bytes) -> dict[str, Tensor]:
    arrays = {}
    for name, at in places.items():
        dtype = np.dtype(at["dtype"]).newbyteorder("<")
        n = int(np.prod(at["shape"]))
        values = np.frombuffer(content, dtype, n, at["offset"]).reshape(at["shape"])
        arrays[name] = torch.from_numpy(values.astype(np.float32))
    return arrays
