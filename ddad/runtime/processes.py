"""Several processes, started by `torchrun` or `accelerate launch`, that train and
predict as one.

The rows of a training batch and the images of a prediction are shared out. Everything
else each process does for itself, from the same seeds; where two devices may round
differently and it matters, the main process's result counts. Only the main process
writes files. Without a launcher each function here returns at once, and accelerate is
not imported.
"""
from __future__ import annotations

import os
from collections.abc import Callable

from .errors import SettingsError


def count() -> int:
    """How many processes the launcher started, on all machines together; 1 without
    one.
    """
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """This process's number among them, 0 .. count() - 1."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def launched() -> bool:
    """Whether a launcher started this process, be it alone: `accelerate launch` may
    still ask for mixed precision.
    """
    return "WORLD_SIZE" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def own_device(device):
    """This process's own torch.device of the kind given; on the way it joins the other
    processes (NCCL on GPUs, gloo on CPUs).

    Raises ValueError for a numbered device, which all processes would use, and where
    the launcher's variables do not hold.
    """
    if not launched() or device.index is not None and count() == 1:
        return device
    if device.index is not None:
        raise ValueError(f"device {str(device)!r} would be used by all {count()} "
                         "processes; choose auto, cuda or cpu")
    from accelerate import PartialState
    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes != count():
        raise ValueError(
            f"WORLD_SIZE is {count()}, but this process is one of "
            f"{state.num_processes}; start with torchrun or accelerate launch")
    # there is one CPU, whatever number accelerate gives it
    return device if device.type == "cpu" else state.device


def share(n: int) -> tuple[int, int]:
    """First row and end of this process's share of n rows: contiguous, in the order of
    ranks, sizes differing by at most one.
    """
    return n * rank() // count(), n * (rank() + 1) // count()


def shared(batch_at: Callable, loss_of: Callable, batch: int) -> tuple:
    """Both, for a batch whose rows the processes share out: each makes the whole batch,
    takes its own rows, and weighs their loss so that the mean over the processes is the
    whole batch's. Raises SettingsError for fewer rows than processes.
    """
    if batch < count():
        raise SettingsError(f"setting train_batch: {batch} is less than the {count()} "
                            "processes; raise it or start fewer processes")
    first, end = share(batch)
    weight = (end - first) * count() / batch

    def own_rows(draws) -> tuple:
        return tuple(part[first:end] for part in batch_at(draws))

    def weighed(*rows):
        return weight * loss_of(*rows)
    return own_rows, weighed


def prepare(model):
    """`model` as training calls it, and what to record of that: {"processes",
    "mixed_precision"}, nothing without a launcher.

    Gradients are averaged over the processes (DistributedDataParallel), which start
    from the main one's weights; forward passes are in bfloat16 where the launcher says
    `--mixed_precision bf16`. The model itself stays as it is. Call `own_device` before.
    Raises ValueError for another mixed precision.
    """
    if not launched():
        return model, {}
    from accelerate import Accelerator
    from torch.nn.parallel import DistributedDataParallel
    accelerator = Accelerator()
    precision = accelerator.mixed_precision
    if precision not in ("no", "bf16"):
        raise ValueError(f"mixed precision {precision!r} is not supported; launch with "
                         "--mixed_precision bf16 or no")
    parallel = DistributedDataParallel(model) if count() > 1 else model

    def network(*inputs):
        with accelerator.autocast():
            return parallel(*inputs)
    return network, {"processes": count(), "mixed_precision": precision}


def mean(x):
    """The mean over the processes of a tensor x of any shape, of the same shape."""
    if count() == 1:
        return x
    from accelerate.utils import reduce
    return reduce(x, "mean")


def gathered(parts: list) -> list:
    """The lists of all processes joined in the order of ranks; what they hold is
    pickled, tensors on the CPU.
    """
    if count() == 1:
        return parts
    from accelerate.utils import gather_object
    return gather_object(parts)


def from_main(value):
    """The main process's `value`, anything that can be pickled; tensors on the CPU."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list
    return broadcast_object_list([value])[0]


def copy_weights(model) -> None:
    """Give all processes the main one's parameters and buffers, in place."""
    if count() > 1:
        from accelerate.utils import broadcast
        broadcast(dict(model.state_dict()))


def wait() -> None:
    """Until all processes have come here."""
    if count() > 1:
        from accelerate import PartialState
        PartialState().wait_for_everyone()
