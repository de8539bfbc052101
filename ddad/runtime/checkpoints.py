"""A training that may be killed: its state on disk, and the detector that it ends
with.
"""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import processes
from .errors import ModelError, SettingsError
from .files import sole_writer, whole

Detector = TypeVar("Detector")
EVERY, LOOK = 250, 10           # steps between two writings, and two looks at the loss


@dataclass
class Checkpoint:
    """Weights, averaged weights and AdamW's moments of a training, and its losses so
    far.

    path: a .safetensors file, or None to keep nothing. made_with: all that the training
    depends on, by name; a checkpoint is resumed with the same only. Of several
    processes the main one writes; all must see the same file.
    """

    path: Path | None
    made_with: dict
    names: tuple[str, ...]
    weights: tuple[Tensor, ...]
    averaged: list[Tensor]
    optimiser: torch.optim.Optimizer
    losses: list = field(default_factory=list)

    def resume(self) -> int:
        """Takes up what the file holds; how many steps are done. SettingsError where it
        was made with something else, or is not the same file for all processes.
        """
        done = self._read() if self.path is not None and self.path.exists() else 0
        if self.path is not None and len(set(processes.gathered([done]))) > 1:
            raise SettingsError(
                f"{self.path} is not the same file for all processes; keep it in a "
                "folder that all machines share, or delete it")
        return done

    def _read(self) -> int:
        try:
            with safe_open(self.path, "pt") as file:
                meta = file.metadata()
            tensors = load_file(self.path)
        except (OSError, SafetensorError) as error:
            raise SettingsError(f"{self.path} cannot be read ({error}); delete it to "
                                "start anew") from error
        if not meta or not {"made_with", "done"} <= meta.keys():
            raise SettingsError(f"{self.path} is no checkpoint of a training; delete "
                                "it to start anew, or choose another folder")
        there, here = json.loads(meta["made_with"]), json.loads(
            json.dumps(self.made_with))
        differs = [name for name in {**there, **here}
                   if there.get(name) != here.get(name)]
        if differs:
            raise SettingsError(
                f"{self.path} was made with other {', '.join(differs)}; delete it to "
                "start anew, or restore them to go on")
        done = int(meta["done"])
        with torch.no_grad():
            for name, w, a in zip(self.names, self.weights, self.averaged):
                w.copy_(tensors[f"weight/{name}"])
                a.copy_(tensors[f"average/{name}"])
                # where AdamW keeps it
                at = w.device if w.device.type == "cuda" else "cpu"
                self.optimiser.state[w] = {
                    "step": torch.tensor(float(done), device=at),
                    "exp_avg": tensors[f"first/{name}"].to(w.device),
                    "exp_avg_sq": tensors[f"second/{name}"].to(w.device)}
        self.losses = list(tensors["losses"])
        return done

    def after(self, done: int, steps: int, loss: Tensor) -> None:
        """Notes the loss, and writes the file where it is time to. ModelError, and
        nothing is written, where the loss is no number any more.
        """
        self.losses.append(loss)
        due = done % EVERY == 0 or done == steps
        # seldom, as a GPU is waited for
        if (due or done % LOOK == 0) and not torch.as_tensor(loss).isfinite():
            kept = self.path is not None and self.path.exists()
            told = f"; {self.path} is of an earlier step" if kept else ""
            raise ModelError(
                f"the training diverged: its loss is {float(loss)} at step {done}; "
                f"lower learning_rate, or set gradient_clip{told}")
        if self.path is None or not processes.is_main() or not due:
            return
        losses = [torch.as_tensor(x).cpu() for x in self.losses]
        tensors = {"losses": torch.stack(losses)}
        for name, w, a in zip(self.names, self.weights, self.averaged):
            state = self.optimiser.state[w]
            tensors |= {f"weight/{name}": w.detach(), f"average/{name}": a,
                        f"first/{name}": state["exp_avg"],
                        f"second/{name}": state["exp_avg_sq"]}
        tensors = {name: x.contiguous().cpu() for name, x in tensors.items()}
        meta = {"done": str(done), "made_with": json.dumps(self.made_with)}
        with whole(self.path) as aside:
            save_file(tensors, aside, meta)


    def recent_loss(self) -> float:
        """The mean of the last hundred losses."""
        tail = [float(x) for x in self.losses[-100:]]
        return sum(tail) / max(1, len(tail))


def kept_latents(checkpoint: Path) -> Path:
    """The folder beside a checkpoint that keeps the training images' latents."""
    return checkpoint.with_suffix(".latents")


def forget(checkpoint: Path) -> None:
    """Remove a checkpoint and the latents beside it, once the detector is saved."""
    checkpoint.unlink(missing_ok=True)
    shutil.rmtree(kept_latents(checkpoint), ignore_errors=True)


def fitted(folder: Path, train: Callable[[Path], Detector],
           load: Callable[[Path], Detector] | None = None) -> Detector:
    """load(folder), where `load` is given and a detector lies there; else what
    train(checkpoint) returns, once it is saved in `folder`.

    One process at a time trains. Killed, the next call goes on from the checkpoint
    beside the folder, which is removed at the end. WriteError while another process is
    at it.
    """
    beside = folder.with_name
    checkpoint = beside(folder.name + ".training.safetensors")
    lock = beside(folder.name + ".lock")
    with (sole_writer(lock, folder, checkpoint) if processes.is_main()
          else nullcontext()):
        if load is not None and folder.exists():
            detector = load(folder)
        else:
            detector = train(checkpoint)
            detector.save_pretrained(folder)
        forget(checkpoint)
    return detector
