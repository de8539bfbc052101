"""All commands together, and what their errors become."""
from __future__ import annotations

import argparse
import os
import sys

try:
    from ..runtime import processes
    from ..runtime.errors import DdadError
    from . import data, detector, experiments, inspection, shipped
except KeyboardInterrupt:           # before there is anything to tell of
    sys.exit(130)

# In the order of --help.
COMMANDS = (
    data.add_data, inspection.add_inspect, detector.add_train, detector.add_detect,
    detector.add_evaluate, detector.add_export, experiments.add_ablate,
    experiments.add_reproduce, experiments.add_compare, detector.add_show,
    detector.add_settings, shipped.add_demo, experiments.add_bench, shipped.add_weights)
SHARED = ("train", "evaluate")      # by several processes
FULL = ("the GPU's memory is full; stop what else uses it, lower train_batch or "
        "image_size, or pass --device cpu")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("ddad", description="Anomaly detection with dynamic "
                                  "noise in a latent diffusion model.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command: 0; 1 when `data check` finds problems or `compare` a difference;
    2 with a sentence for each input that cannot be used; 130 when interrupted; 141 when
    nobody reads what it prints any more, as behind `| head`.
    """
    try:
        done = _run(parser().parse_args(arguments))
        print(end="", flush=True)   # what is flushed at the end cannot be caught
        return done
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # what is left is flushed again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(options: argparse.Namespace) -> int:
    for stream in (sys.stdout, sys.stderr):
        # a name that a terminal cannot show stops nothing
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if processes.count() > 1 and options.command not in SHARED:
            raise ValueError("runs as one process; start it without the launcher "
                             f"({' and '.join(SHARED)} can share)")
        return options.run(options) or 0
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from what was kept"
              f"{_kept(options.command)}", file=sys.stderr)
        return 130
    except (DdadError, ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            print(flush=True)       # fails again, where it was this pipe
        return _refuse(options.command, error)
    except RuntimeError as error:
        # by its name: torch need not have been imported
        if type(error).__name__ != "OutOfMemoryError":
            raise
        return _refuse(options.command, FULL)


def _kept(command: str) -> str:
    if command not in ("train", "inspect"):
        return ""
    return " (encoded images, and the training's last checkpoint)"


def _refuse(command: str, why: object) -> int:
    print(f"ddad {command}: {why}", file=sys.stderr)
    return 2
