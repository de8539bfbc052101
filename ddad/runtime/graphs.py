"""CUDA graphs: a computation recorded once, then launched as one."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import processes


def cuda_graph(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`run` recorded as one CUDA graph on the current device: each call does its work
    again, from and into the same memory, in one launch.

    `run` must not wait for the device. Returns what `run` returned, overwritten by the
    next call; keeps all that `run` computes with.
    """
    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    # before the recording, libraries choose their kernels and workspaces
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph, stream=side):
        out = run()

    # with `run` live the networks whose weights the graph reads
    def replay(run=run) -> Tensor:
        graph.replay()
        return out
    return replay


def captured(run: Callable[..., Tensor], *inputs: Tensor) -> Callable[..., Tensor]:
    """`run`, for tensors of these shapes on a CUDA device, recorded once: one launch in
    place of hundreds.

    inputs give shapes, types and device, not values. Not for several threads at once:
    all calls share the graph's memory.
    """
    own = [one.clone() for one in inputs]
    with torch.cuda.device(own[0].device):          # of several GPUs, the network's one
        replay = cuda_graph(lambda: run(*own))

    def run_again(*inputs: Tensor) -> Tensor:
        for place, given in zip(own, inputs, strict=True):
            place.copy_(given)
        return replay().clone()
    return run_again


def gradients(optimiser: torch.optim.Optimizer,
              loss_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """batch -> its loss, with the weights' gradients left where the optimiser looks.

    On one CUDA device the first call records a graph: batches then have the same shapes
    at each step, and `loss_of` does not wait for the device.
    """
    weight, recorded = optimiser.param_groups[0]["params"][0], []

    def run(*batch: Tensor) -> Tensor:
        # a graph adds gradients up where they lie
        optimiser.zero_grad(set_to_none=False)
        loss = loss_of(*batch)
        loss.backward()
        return loss.detach()

    def replayed(*batch: Tensor) -> Tensor:
        if not recorded:
            recorded.append(captured(run, *batch))
        return recorded[0](*batch)

    one_gpu = weight.device.type == "cuda" and processes.count() == 1
    return replayed if one_gpu else run
