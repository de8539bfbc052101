"""A detector's networks as ONNX graphs, and such graphs as functions of tensors."""
from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from ..detector import Detector
from ..latent_projection import LatentProjection
from ..runtime.errors import ExportError
from ..settings import Settings

NETWORKS = ("encoder", "decoder", "unet", "features")


def stages_used(settings: Settings) -> list[int]:
    """The blocks j of phi that dynamic noise or the feature map use."""
    return sorted({settings.neighbour_stage, *settings.map_stages})


class Encoder(nn.Module):
    """x0 -> z0's mean, and its deviation where latents are drawn."""

    def __init__(self, projection: LatentProjection, vae, sample: bool):
        super().__init__()
        self.projection, self.sample = projection, sample
        self.vae = vae  # a module registered here has its weights exported

    def forward(self, x0: Tensor) -> tuple[Tensor, ...]:
        mean, std = self.projection.posterior(x0)
        return (mean, std) if self.sample and std is not None else (mean,)


class Decoder(nn.Module):
    """z0 -> x0."""

    def __init__(self, projection: LatentProjection, vae, clamp: bool):
        super().__init__()
        self.projection, self.vae, self.clamp = projection, vae, clamp

    def forward(self, z0: Tensor) -> Tensor:
        return self.projection.decode(z0, self.clamp)


class NoisePredictor(nn.Module):
    """(z_t, t) -> e."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.unet(z_t, t).sample


class Stages(nn.Module):
    """x0 -> the blocks of phi that dynamic noise and the feature map use."""

    def __init__(self, phi: nn.Module, stages: list[int]):
        super().__init__()
        self.phi, self.stages = phi, stages

    def forward(self, x0: Tensor) -> tuple[Tensor, ...]:
        out = self.phi(x0)
        return tuple(out[j - 1] for j in self.stages)


# --- writing --------------------------------------------------------------------------

@torch.no_grad()
def trace(detector: Detector) -> dict:
    """The four networks as ONNX models with float32 weights: name -> onnx.ModelProto.

    ExportError for one that has no ONNX form.
    """
    settings, stages = detector.settings, stages_used(detector.settings)
    # float32 whatever the setting precision
    networks = detector.networks.at("float32")
    projection = LatentProjection(networks.E, networks.D, detector.projection.s)
    size = settings.image_size
    x0 = torch.zeros(1, 3, size, size)
    z0, std = projection.posterior(x0)
    sample = settings.posterior == "sample" and std is not None
    vae, blocks = networks.vae, [f"phi_{j}" for j in stages]
    parts = {
        "encoder": (
            Encoder(projection, vae, sample),
            {"x0": x0},
            ["z0", "std"] if sample else ["z0"],
        ),
        "decoder": (Decoder(projection, vae, settings.clamp), {"z0": z0}, ["x0"]),
        "unet": (
            NoisePredictor(networks.unet),
            {"z_t": z0, "t": torch.ones(1)},
            ["e"],
        ),
        "features": (Stages(networks.phi, stages), {"x0": x0}, blocks),
    }
    # it warns of torchvision, which is not used
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    graphs = {}
    for name, part in parts.items():
        try:
            graphs[name] = _graph(*part)
        except (torch.onnx.OnnxExporterError, RuntimeError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(
                f"the {name} of this detector has no ONNX form ({reason})"
            ) from error
    return graphs


def _graph(network: nn.Module, inputs: dict[str, Tensor], outputs: list[str]):
    """The network as an onnx.ModelProto."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Not optimised: that folds batch norms into weights, which float16 then no
        # longer holds exactly; the runtime folds them itself.
        graph = torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamo=True,
            optimize=False,
            verbose=False,
        ).model_proto
    # what only tells where in PyTorch a node came from: a fifth of the file
    del graph.graph.value_info[:], graph.graph.metadata_props[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return graph


def halved(graph):
    """A copy of an ONNX model whose large weights are float16.

    They are cast back to float32 where they are used.
    """
    from onnx import ModelProto, TensorProto, helper, numpy_helper
    model = ModelProto()
    model.CopyFrom(graph)
    casts, limit = [], np.finfo(np.float16).max
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < 256:
            continue
        if np.abs(values).max() < limit:
            name, half = weight.name, values.astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(half, name + ".float16"))
            cast = helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT)
            casts.append(cast)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


# --- running --------------------------------------------------------------------------

def run_by_onnx(path: Path) -> Callable[..., list[Tensor]]:
    """A written network as a function of tensors (B, ..) that returns some (B, ..).

    It runs image by image, on the CPU.
    """
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        rows = zip(*(part.float().split(1) for part in inputs))
        out = [
            session.run(None, {name: part.numpy() for name, part in zip(names, row)})
            for row in rows
        ]
        return [torch.from_numpy(np.concatenate(parts)) for parts in zip(*out)]

    return run


class OnnxNetworks:
    """Written networks in place of runtime.adapter.Networks.

    latent: channels and side of the latents. stages: which blocks of phi are there.
    """

    def __init__(self, folder: Path, latent: list[int], stages: list[int]):
        self.device, self.precision = torch.device("cpu"), "float32"
        shape = SimpleNamespace(in_channels=latent[0], sample_size=latent[1])
        self.unet = SimpleNamespace(config=shape)
        self.stages = stages
        self._encoder, self._decoder, self._unet, self._features = (
            run_by_onnx(folder / f"{name}.onnx") for name in NETWORKS
        )

    def at(self, precision: str) -> OnnxNetworks:
        return self

    def E(self, x0: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation of the latent, already scaled by s."""
        return (*self._encoder(x0), None)[:2]

    def D(self, z0: Tensor) -> Tensor:
        return self._decoder(z0)[0]

    def eps_theta(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self._unet(z_t, t)[0]

    def features(self, x0: Tensor, precision: str = "float32") -> list[Tensor]:
        """[phi_1(x0), ..], empty where a block is not there."""
        found = dict(zip(self.stages, self._features(x0)))
        none = x0.new_empty(0)
        return [found.get(j, none) for j in range(1, max(found) + 1)]
