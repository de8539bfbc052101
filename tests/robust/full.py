"""Point 1: a full disk, and a folder that may not be written to, end in one sentence; what was made is kept, and used afterwards."""
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

from ddad import cli


def commands(data: Path, model: Path) -> dict:
    """Name: what to run in a folder, and what must be the same in the end."""
    def trained(folder: Path):
        return digest(folder / "model/state.safetensors", folder / "model/unet/diffusion_pytorch_model.safetensors")

    def detected(folder: Path):
        lines = [json.loads(line) for line in (folder / "found/results.jsonl").read_text(encoding="utf-8").splitlines()]
        return lines, digest(*sorted(folder.glob("found/*/*.png")))

    def reproduced(folder: Path):
        run = json.loads((folder / "disc/official-1/run.json").read_text(encoding="utf-8"))
        return run["result"], run["images"], run["weights"]

    train = ["train", str(data / "disc")]
    detect = ["detect", str(model), str(data / "disc/train/good")]
    reproduce = ["reproduce", "folder", str(data)]
    return {
        "train": (lambda folder: cli.main([*train, str(folder / "model"), *SET]), trained),
        "detect": (lambda folder: cli.main([*detect, str(folder / "found"), "--device", "cpu"]), detected),
        "reproduce": (lambda folder: cli.main([*reproduce, str(folder), "--presets", "official", "--seeds", "1", *SET]), reproduced),
    }


@contextlib.contextmanager
def prepared():
    """A scratch folder, the commands, and of each what an undisturbed run ends with and how many bytes it writes."""
    often()
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        scratch = Path(scratch)
        make_product(scratch / "data" / "disc", train=40)
        known, expected, size = commands(scratch / "data", scratch / "train" / "model"), {}, {}
        for name, (run, result_of) in known.items():
            code, said = finished(partial(run, scratch / name))
            if code:
                raise RuntimeError(f"{name} ended with {code}: {said}")
            expected[name] = result_of(scratch / name)
            for path in (scratch / name).rglob("*.safetensors"):
                path.chmod(0o644)                                      # safetensors makes them for their owner alone
            size[name] = sum(path.stat().st_size for path in (scratch / name).rglob("*") if path.is_file())
        yield scratch, known, expected, size


def mount(folder: Path, *options: str) -> bool:
    return subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], capture_output=True).returncode == 0


def refusal(code: int, said: str, folder: Path) -> list[str]:
    """What is wrong with the way in which a run ended that could not write to `folder`."""
    last = said.splitlines()[-1] if said else ""
    right = code == 2 and "Traceback" not in said and "cannot be written to" in last and str(folder) in last and "make room" in last
    return [] if right else [f"ended with {code}: {said[-300:]}"]


def full_disk(count: int, seed: int):
    """Each command on a disk of a size drawn between nothing and what it needs; then with room. Without the right to mount: files of that size."""
    rng, failures, counts, kept = np.random.default_rng(seed), [], {}, 0
    with prepared() as (scratch, known, expected, size):
        disk = scratch / "disk"
        disk.mkdir()
        for name, (run, result_of) in known.items():
            refused = 0
            for _ in range(count):
                limit = int(rng.uniform(0, size[name]))
                mounted = mount(disk, f"size={max(limit, 4096)}")
                def limited(run=run, limit=limit, mounted=mounted):
                    if not mounted:
                        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                    return run(disk)
                code, said = finished(limited)
                wrong = (refusal(code, said, disk) if code else []) + sound(disk)
                refused += code == 2
                left = {path: path.read_bytes() for path in disk.rglob("*.png") if ".partial" not in str(path)}
                kept += len(left) + len(list(disk.rglob("*.safetensors")))
                if mounted:
                    subprocess.run(["mount", "-o", f"remount,size={4 * size[name]}", str(disk)], check=True)
                code, said = finished(partial(run, disk))
                wrong += [f"with room it ended with {code}: {said}"] if code else [] if result_of(disk) == expected[name] else ["another result"]
                wrong += [f"{path.name} was made anew" for path, content in left.items() if path.read_bytes() != content]
                failures += [f"{name}, {limit} of {size[name]} bytes: {text}" for text in wrong]
                subprocess.run(["umount", str(disk)], check=True) if mounted else shutil.rmtree(disk)
                disk.mkdir(exist_ok=True)
            counts[f"{name} refused"] = f"{refused} of {count}"
    return counts | {"files kept and used": kept, "disk": "a small tmpfs" if mounted else "a limit on the size of files"}, failures


def read_only(count: int, seed: int):
    """Each command into a folder that this user may not write to, and into a file system that is mounted read-only where that can be done."""
    failures, refused, mounts = [], 0, 0
    with prepared() as (scratch, known, _, _):
        for name, (run, _) in known.items():
            for kind in ("no right", "mounted"):
                folder = scratch / f"{name} {kind}"
                folder.mkdir(mode=0o555)
                mounted = kind == "mounted" and mount(folder, "ro")
                if kind == "mounted" and not mounted:
                    continue
                def as_nobody(run=run, folder=folder, mounted=mounted):
                    if os.getuid() == 0 and not mounted:               # root may write anywhere
                        os.setgid(65534), os.setuid(65534)
                    return run(folder)
                code, said = finished(as_nobody)
                wrong = refusal(code, said, folder) + [f"{path.name} was left" for path in folder.iterdir()]
                refused, mounts = refused + (not wrong), mounts + mounted
                failures += [f"{name}, {kind}: {text}" for text in wrong]
                if mounted:
                    subprocess.run(["umount", str(folder)], check=True)
    return {"commands refused": refused, "of these on a read-only mount": mounts}, failures


CHECKS = [
    Check("full-disk", 1, "on a full disk `ddad train`, `detect` and `reproduce` end in one sentence that names the folder; with room the same "
          "command goes on from what was kept, to the same result", full_disk, 8, 5),
    Check("read-only", 1, "a folder that may not be written to ends them in one sentence, and nothing is left in it", read_only),
]
