"""Point 1: a full disk, and a folder that may not be written to, end in one sentence;
what was made is kept, and used afterwards.
"""
import contextlib
import json
import os
import resource
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from conftest import make_product
from killed import SET, digest, finished, often, sound
from run import Check

from ddad.cli import main


def commands(data: Path, model: Path) -> dict:
    """Name: what to run in a folder, and what must be the same in the end."""
    def train(folder: Path) -> int:
        return main(["train", str(data / "disc"), str(folder / "model"), *SET])

    def trained(folder: Path):
        return digest(folder / "model/state.safetensors",
                      folder / "model/unet/diffusion_pytorch_model.safetensors")

    def detect(folder: Path) -> int:
        return main(["detect", str(model), str(data / "disc/train/good"),
                     str(folder / "found"), "--device", "cpu"])

    def detected(folder: Path):
        text = (folder / "found/results.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        return lines, digest(*sorted(folder.glob("found/*/*.png")))

    def reproduce(folder: Path) -> int:
        return main(["reproduce", "folder", str(data), str(folder),
                     "--presets", "official", "--seeds", "1", *SET])

    def reproduced(folder: Path):
        path = folder / "disc/official-1/run.json"
        run = json.loads(path.read_text(encoding="utf-8"))
        return run["result"], run["images"], run["weights"]

    return {"train": (train, trained), "detect": (detect, detected),
            "reproduce": (reproduce, reproduced)}


@contextlib.contextmanager
def prepared():
    """A scratch folder, the commands, and of each what an undisturbed run ends with and
    how many bytes it writes.
    """
    often()
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        scratch = Path(scratch)
        make_product(scratch / "data" / "disc", train=40)
        known = commands(scratch / "data", scratch / "train" / "model")
        expected, size = {}, {}
        for name, (run, result_of) in known.items():
            folder = scratch / name
            code, said = finished(partial(run, folder))
            if code:
                raise RuntimeError(f"{name} ended with {code}: {said}")
            expected[name] = result_of(folder)
            for path in folder.rglob("*.safetensors"):
                path.chmod(0o644)  # safetensors makes them for their owner alone
            files = [path for path in folder.rglob("*") if path.is_file()]
            size[name] = sum(path.stat().st_size for path in files)
        yield scratch, known, expected, size


def mount(folder: Path, *options: str) -> bool:
    """Whether a small disk in memory could be laid over the folder."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def refusal(code: int, said: str, folder: Path) -> list[str]:
    """What is wrong with the way a run ended that could not write to `folder`."""
    last = said.splitlines()[-1] if said else ""
    told = all(part in last for part in ("cannot be written to", str(folder),
                                         "make room"))
    right = code == 2 and "Traceback" not in said and told
    return [] if right else [f"ended with {code}: {said[-300:]}"]


class SmallDisk:
    """A folder with so many bytes; without the right to mount, files of that size."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        folder.mkdir(exist_ok=True)
        self.mounted = mount(folder, f"size={max(limit, 4096)}")

    def limited(self, run) -> int:
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
        return run(self.folder)

    def grow(self, size: int) -> None:
        if self.mounted:
            options = f"remount,size={size}"
            subprocess.run(["mount", "-o", options, str(self.folder)], check=True)

    def remove(self) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)
        else:
            shutil.rmtree(self.folder)


def full_disk(count: int, seed: int):
    """Each command on a disk of a size drawn between nothing and what it needs; then
    with room.
    """
    rng, failures, counts, kept = np.random.default_rng(seed), [], {}, 0
    with prepared() as (scratch, known, expected, size):
        for name, (run, result_of) in known.items():
            refused = 0
            for _ in range(count):
                disk = SmallDisk(scratch / "disk", int(rng.uniform(0, size[name])))
                code, said = finished(partial(disk.limited, run))
                wrong = refusal(code, said, disk.folder) if code else []
                wrong += sound(disk.folder)
                refused += code == 2
                left = {path: path.read_bytes() for path in disk.folder.rglob("*.png")
                        if ".partial" not in str(path)}
                kept += len(left) + len(list(disk.folder.rglob("*.safetensors")))
                disk.grow(4 * size[name])
                code, said = finished(partial(run, disk.folder))
                if code:
                    wrong.append(f"with room it ended with {code}: {said}")
                elif result_of(disk.folder) != expected[name]:
                    wrong.append("another result")
                wrong += [f"{path.name} was made anew" for path, content in left.items()
                          if path.read_bytes() != content]
                what = f"{name}, {disk.limit} of {size[name]} bytes"
                failures += [f"{what}: {text}" for text in wrong]
                disk.remove()
            counts[f"{name} refused"] = f"{refused} of {count}"
    kind = "a small tmpfs" if disk.mounted else "a limit on the size of files"
    return counts | {"files kept and used": kept, "disk": kind}, failures


def read_only(count: int, seed: int):
    """Each command into a folder that this user may not write to, and into a file
    system that is mounted read-only where that can be done.
    """
    failures, refused, mounts = [], 0, 0
    with prepared() as (scratch, known, _, _):
        for name, (run, _) in known.items():
            for kind in ("no right", "mounted"):
                folder = scratch / f"{name} {kind}"
                folder.mkdir(mode=0o555)
                mounted = kind == "mounted" and mount(folder, "ro")
                if kind == "mounted" and not mounted:
                    continue
                code, said = finished(partial(_as_nobody, run, folder, mounted))
                wrong = refusal(code, said, folder)
                wrong += [f"{path.name} was left" for path in folder.iterdir()]
                refused, mounts = refused + (not wrong), mounts + mounted
                failures += [f"{name}, {kind}: {text}" for text in wrong]
                if mounted:
                    subprocess.run(["umount", str(folder)], check=True)
    counts = {"commands refused": refused, "of these on a read-only mount": mounts}
    return counts, failures


def _as_nobody(run, folder: Path, mounted: bool) -> int:
    if os.getuid() == 0 and not mounted:  # root may write anywhere
        os.setgid(65534), os.setuid(65534)
    return run(folder)


CHECKS = [
    Check("full-disk", 1,
          "on a full disk `ddad train`, `detect` and `reproduce` end in one sentence "
          "that names the folder; with room the same command goes on from what was "
          "kept, to the same result",
          full_disk, 8, 5),
    Check("read-only", 1,
          "a folder that may not be written to ends them in one sentence, and nothing "
          "is left in it",
          read_only),
]
