"""A detector for other runtimes, such as a web page: its networks as ONNX, everything else as JSON and one binary file.

    encoder.onnx    x0 (1, 3, H, H) in [-1, 1]          -> z0 (1, C, h, h), the posterior's mean times s; with posterior "sample" also std
    decoder.onnx    z0 (1, C, h, h)                     -> x0 (1, 3, H, H), D(z0 / s) in [-1, 1]
    unet.onnx       z_t (1, C, h, h), t (1,)            -> e (1, C, h, h), the predicted noise
    features.onnx   x0 (1, 3, H, H) in [-1, 1]          -> phi_j (1, C_j, h_j, h_j) for each block j that the settings use
    detector.json   settings, threshold, ranges, shapes, where each array lies in detector.bin, and what the check measured
    detector.bin    bank (N, D), distances (N,), edges (|B| + 1,), alpha_bar (T,), one after the other, little-endian

Every input and output is float32, t too; a graph takes one image. Large weights and the bank are stored as float16 and computed with in
float32, unless the check wants them whole.
"""
from __future__ import annotations

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from .anomaly_map import Ranges
from .detector import Detector
from .dynamic_noise import DynamicNoise
from .latent_projection import LatentProjection
from .manifest import sha256, versions, write_json
from .noise_predictor import epsilon
from .products import KINDS, render
from .settings import preset
from .writing import whole

MANIFEST, ARRAYS = "detector.json", "detector.bin"
MAP, SCORE = 1e-2, 0.01                      # what the check allows: of a map in its own units, of a score as a share of it


class ExportError(ValueError):
    """A detector that cannot be exported, or whose export does not do what the detector does; the sentence says why."""


class Encoder(nn.Module):
    """x0 -> z0's mean, and its deviation where latents are drawn."""

    def __init__(self, projection: LatentProjection, sample: bool):
        super().__init__()
        self.projection, self.sample = projection, sample
        self.vae = projection.vae                                      # an nn.Module is registered here, so that its weights are exported

    def forward(self, x0: Tensor) -> tuple[Tensor, ...]:
        mean, std = self.projection.posterior(x0)
        return (mean, std) if self.sample and std is not None else (mean,)


class Decoder(nn.Module):
    """z0 -> x0."""

    def __init__(self, projection: LatentProjection, clamp: bool):
        super().__init__()
        self.projection, self.vae, self.clamp = projection, projection.vae, clamp

    def forward(self, z0: Tensor) -> Tensor:
        return self.projection.decode(z0, self.clamp)


class NoisePredictor(nn.Module):
    """(z_t, t) -> e."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return epsilon(self.unet)(z_t, t)


class Stages(nn.Module):
    """x0 -> the blocks of phi that dynamic noise and the feature map use."""

    def __init__(self, phi: nn.Module, stages: list[int]):
        super().__init__()
        self.phi, self.stages = phi, stages

    def forward(self, x0: Tensor) -> tuple[Tensor, ...]:
        out = self.phi(x0)
        return tuple(out[j - 1] for j in self.stages)


class Onnx(nn.Module):
    """A written network as a function of tensors (B, ..), run image by image; returns a list of (B, ..)."""

    def __init__(self, path: Path):
        super().__init__()
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in self.session.get_inputs()]

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        rows = zip(*(part.float().split(1) for part in inputs))
        out = [self.session.run(None, {name: part.numpy() for name, part in zip(self.names, row)}) for row in rows]
        return [torch.from_numpy(np.concatenate(parts)) for parts in zip(*out)]


def export(detector: Detector, out: str | Path, images: Tensor | None = None) -> dict:
    """Write `detector`, which lies on the CPU, to the folder `out` as described above, and compare it with PyTorch on `images`.

    images: (N, 3, H, H) float32 in [-1, 1]; else nine pictures of the embedded products. What was written is read again and run by ONNX Runtime:
    maps must differ by less than 0.01, scores by less than 1%, and every image must fall in the same bin. Weights are float16 where that
    holds, else float32. Returns the measured differences: weights, pictures, map, score, same_bin, bytes, files (name -> bytes).
    Raises ExportError, also when ONNX is not installed, and FileExistsError when `out` holds something else. `out` is changed only by an
    export that passes.
    """
    needed()
    out = Path(out)
    if detector.device.type != "cpu":
        raise ExportError("export works on the CPU; load the detector with device='cpu'")
    if out.exists() and (not out.is_dir() or any(out.iterdir()) and not (out / MANIFEST).exists()):
        raise FileExistsError(f"{out} holds something that is no export of ddad; choose another folder")
    images = probes(detector.settings.image_size) if images is None else images
    expected = detector.predict(images)
    with whole(out) as aside:
        aside.mkdir()
        graphs = trace(detector)
        for weights in ("float16", "float32"):
            manifest = write(detector, graphs, aside, weights)
            found = read(aside).predict(images)
            measured = {
                "weights": weights, "pictures": len(images), "same_bin": int((found.bin == expected.bin).sum()),
                "map": max((getattr(found, name) - getattr(expected, name)).abs().max().item() for name in ("map", "latent_map", "feature_map")),
                "score": ((found.score - expected.score).abs() / expected.score.abs().clamp(min=1e-6)).max().item()}
            if measured["map"] < MAP and measured["score"] < SCORE and measured["same_bin"] == len(images):
                break
        else:
            raise ExportError(f"on {len(images)} pictures ONNX Runtime differs from PyTorch by {measured['map']:.2g} in a map (allowed {MAP}) and by "
                              f"{measured['score']:.2%} in a score (allowed {SCORE:.0%}); {measured['same_bin']} have the same bin. Nothing written")
        write_json(aside / MANIFEST, manifest | {"check": measured})
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return measured | {"bytes": sum(files.values()), "files": files}


def needed() -> None:
    """ExportError that says what to install."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(f"{error.name} is not installed; export needs the extra: pip install \"ddad[export]\", "
                          'or pip install -e ".[export]" in a clone') from error


def probes(size: int) -> Tensor:
    """Nine pictures to compare on: each embedded product good and with two defects, (9, 3, size, size) in [-1, 1]."""
    pictures = [render(product, size, seed, defect)[0] for product in KINDS for seed, defect in enumerate((None, *list(KINDS[product])[:2]))]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def stages_used(settings) -> list[int]:
    """The blocks j of phi that dynamic noise or the feature map use."""
    return sorted({settings.neighbour_stage, *settings.map_stages})


@torch.no_grad()
def trace(detector: Detector) -> dict:
    """The four networks as ONNX models with float32 weights: name -> onnx.ModelProto."""
    settings, stages = detector.settings, stages_used(detector.settings)
    projection = LatentProjection(detector.projection.vae, detector.projection.s)      # float32 whatever the setting precision
    x0 = torch.zeros(1, 3, settings.image_size, settings.image_size)
    z0, std = projection.posterior(x0)
    means = ["z0", "std"] if settings.posterior == "sample" and std is not None else ["z0"]
    parts = {
        "encoder": (Encoder(projection, len(means) > 1), (x0,), ["x0"], means),
        "decoder": (Decoder(projection, settings.clamp), (z0,), ["z0"], ["x0"]),
        "unet": (NoisePredictor(detector.unet), (z0, torch.ones(1)), ["z_t", "t"], ["e"]),
        "features": (Stages(detector.phi, stages), (x0,), ["x0"], [f"phi_{j}" for j in stages])}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)            # it warns of torchvision, which is not used
    graphs = {}
    for name, (network, inputs, takes, gives) in parts.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # not optimised: that folds batch norms into weights, which float16 then no longer holds exactly; the runtime folds them itself
                graphs[name] = torch.onnx.export(network.eval(), inputs, input_names=takes, output_names=gives, dynamo=True,
                                                 optimize=False, verbose=False).model_proto
            strip(graphs[name])
        except (torch.onnx.OnnxExporterError, RuntimeError, TypeError) as error:
            raise ExportError(f"the {name} of this detector has no ONNX form ({str(error).strip().splitlines()[0]})") from error
    return graphs


def strip(model) -> None:
    """Drop what only tells where in PyTorch a node came from: a fifth of the file."""
    del model.graph.value_info[:], model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""


def halved(graph):
    """A copy of an ONNX model whose large weights are float16, cast back to float32 where they are used."""
    from onnx import ModelProto, TensorProto, helper, numpy_helper
    model = ModelProto()
    model.CopyFrom(graph)
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type == TensorProto.FLOAT and values.size >= 256 and np.abs(values).max() < np.finfo(np.float16).max:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + ".float16"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def write(detector: Detector, graphs: dict, folder: Path, weights: str) -> dict:
    """All files, with weights and bank as "float16" or "float32"; returns the content of detector.json."""
    import onnx
    for name, graph in graphs.items():
        onnx.save(halved(graph) if weights == "float16" else graph, folder / f"{name}.onnx")
    noise, arrays, offset = detector.dynamic_noise, {}, 0
    whole = {"bank": noise.bank.numpy().astype(weights), "distances": noise.distances.numpy(), "edges": noise.edges.numpy(),
             "alpha_bar": detector.abar.numpy()}
    with (folder / ARRAYS).open("wb") as file:
        for name, values in whole.items():
            values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<")))
            arrays[name] = {"dtype": values.dtype.name, "shape": list(values.shape), "offset": offset}
            offset += file.write(values.tobytes() + b"\0" * (-values.nbytes % 4))          # each begins at a multiple of 4 bytes
    channels, side = graphs["unet"].graph.output[0].type.tensor_type.shape.dim[1:3]
    files = [*(f"{name}.onnx" for name in graphs), ARRAYS]
    manifest = {
        "format": 1, "settings": detector.settings.as_dict(), "threshold": detector.threshold,
        "ranges": asdict(detector.ranges) if detector.ranges else None, "latent": [channels.dim_value, side.dim_value, side.dim_value],
        "stages": stages_used(detector.settings), "arrays": arrays, "versions": versions(),
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in files}}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read(folder: str | Path) -> Detector:
    """An exported detector whose networks ONNX Runtime runs; its `predict` is that of any detector. ExportError for another folder."""
    needed()
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise ExportError(f"{folder} holds no {MANIFEST}; give a folder that `ddad export` wrote")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    settings, content = preset(manifest["settings"]["preset"], **manifest["settings"]), (folder / ARRAYS).read_bytes()
    of = {name: np.frombuffer(content, np.dtype(at["dtype"]).newbyteorder("<"), int(np.prod(at["shape"])), at["offset"]).reshape(at["shape"])
          for name, at in manifest["arrays"].items()}
    of = {name: torch.from_numpy(values.astype(np.float32)) for name, values in of.items()}
    encoder, decoder, unet, features = (Onnx(folder / f"{name}.onnx") for name in ("encoder", "decoder", "unet", "features"))

    def posterior(x0: Tensor) -> tuple[Tensor, Tensor | None]:
        return (*encoder(x0), None)[:2]

    class Unet(nn.Module):
        config = SimpleNamespace(in_channels=manifest["latent"][0], sample_size=manifest["latent"][1])

        def forward(self, z_t: Tensor, t: Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=unet(z_t, t)[0])

    class Phi(nn.Module):
        def forward(self, x0: Tensor) -> list[Tensor]:
            found = dict(zip(manifest["stages"], features(x0)))
            return [found.get(j, x0.new_empty(0)) for j in range(1, max(found) + 1)]

    projection = SimpleNamespace(posterior=posterior, decode=lambda z0, clamp: decoder(z0)[0])       # the graph clamps
    detector = Detector(settings, projection, Unet(), Phi(), torch.device("cpu"))
    detector.abar, detector.dynamic_noise = of["alpha_bar"], DynamicNoise(of["bank"], of["distances"], settings)
    detector.dynamic_noise.edges, detector.threshold = of["edges"], manifest["threshold"]
    detector.ranges = manifest["ranges"] and Ranges(**{name: tuple(pair) for name, pair in manifest["ranges"].items()})
    return detector
