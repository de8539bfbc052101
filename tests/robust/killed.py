"""Point 1: killed at a random moment and started again, the end is that of a run that
nobody disturbed.
"""
import functools
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import nbformat
import numpy as np
import torch
from conftest import TINY, good_images, make_product, tiny_vae
from run import ROOT, Check
from safetensors import safe_open
from safetensors.torch import save_file

import ddad.reproduction.runs  # noqa: F401  all is imported before the first fork
from ddad.cli import main
from ddad.latent_projection import LatentProjection
from ddad.networks.autoencoders import scaling_factor
from ddad.runtime import checkpoints, latent_cache
from ddad.runtime.adapter import Networks
from ddad.runtime.files import whole

SMALL = TINY | {"image_size": 32, "train_length": "150 steps"}
CHANGED = [f"{name}={json.dumps(value)}" for name, value in SMALL.items()
           if name not in ("held_out", "vae")]
SET = ["--device", "cpu", "--vae", "pixels", "--set", *CHANGED]


# --- processes


def forked(run, log: str = os.devnull) -> int:
    """The process id of a child, of its own process group, that calls `run()`.

    What that returns is its exit code; its output goes to `log`.
    """
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 99
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        code = run() or 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def finished(run) -> tuple[int, str]:
    """Its exit code and the end of its output."""
    with tempfile.NamedTemporaryFile() as log:
        _, status = os.waitpid(forked(run, log.name), 0)
        said = Path(log.name).read_text(encoding="utf-8", errors="replace")
        return os.waitstatus_to_exitcode(status), said.strip()[-600:]


def killed(run, after: float) -> tuple[bool, int]:
    """Start `run`, and kill it after so many seconds: whether it still ran, and its
    process id, which is that of its group.
    """
    pid, end = forked(run), time.monotonic() + after
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False, pid
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True, pid


# --- what is compared


def sound(folder: Path) -> list[str]:
    """The files under their final names that are not whole."""
    wrong = []
    for path in sorted(folder.rglob("*")):
        try:
            aside = any(part.endswith(".partial") for part in path.parts)
            if not aside and path.is_file():
                _read(path)
        except Exception as error:
            wrong.append(f"{path.relative_to(folder)} is half: {error}")
    return wrong


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            [file.get_tensor(name) for name in file.keys()]
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".ipynb":
        nbformat.read(path, 4)


def differing(found, expected, name: str = "") -> list[str]:
    """Where two results of dicts and lists differ, by their keys."""
    if found == expected:
        return []
    lists = isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple))
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted({*found, *expected})
        pairs = [(key, found.get(key), expected.get(key)) for key in keys]
    elif lists and len(found) == len(expected):
        pairs = [(key, *pair) for key, pair in enumerate(zip(found, expected))]
    else:
        return [f"{name[1:]}: {str(found)[:60]}, not {str(expected)[:60]}"]
    return [text for key, a, b in pairs for text in differing(a, b, f"{name}/{key}")]


def digest(*paths: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def count_of(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))


# --- trials


def trials(count: int, seed: int, run_in, result_of, kept) -> tuple[dict, list[str]]:
    """`count` times: `run_in(folder)` killed at a moment drawn evenly from the time it
    takes, and started again.

    result_of(folder): what must be that of the undisturbed run. kept(folder): how many
    files there are to go on from.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as scratch:
        expected, seconds, failures = _undisturbed(Path(scratch), run_in, result_of)
        if not expected:
            return {}, failures
        hit = missed = resumed = 0
        while hit < count and missed <= count:  # a moment after the end is drawn anew
            folder = Path(scratch) / f"{hit}-{missed}"
            run, moment = functools.partial(run_in, folder), rng.uniform(0, seconds)
            alive, group = killed(run, moment)
            hit, missed = hit + alive, missed + (not alive)
            found = sound(folder)
            resumed += bool(alive and kept(folder) > 0)
            found += _again(run, folder, result_of, expected)
            try:
                os.killpg(group, signal.SIGKILL)  # what the killed process had started
            except ProcessLookupError:
                pass
            failures += [f"killed after {moment:.2f} s: {text}" for text in found]
    if hit < count:
        failures.append(f"only {hit} of {count} kills met a running process")
    return {
        "killed while running": hit,
        "of these with files to go on from": resumed,
        "wrong": len(failures),
        "seconds undisturbed": round(seconds, 2),
    }, failures


def _undisturbed(scratch: Path, run_in, result_of) -> tuple[object, float, list[str]]:
    """The result of a run, its seconds, and where that of another one differs."""
    for n in range(2):  # the first warms the disk's cache, too
        started = time.monotonic()
        code, said = finished(functools.partial(run_in, scratch / f"undisturbed{n}"))
        if code:
            return None, 0.0, [f"the undisturbed run ended with {code}: {said}"]
        seconds = time.monotonic() - started
    first, second = (result_of(scratch / f"undisturbed{n}") for n in range(2))
    other = differing(first, second)
    failures = ["two undisturbed runs differ: " + "; ".join(other[:4])] if other else []
    return second, seconds, failures


def _again(run, folder: Path, result_of, expected) -> list[str]:
    """What is wrong with the run after the kill, and with its result."""
    code, said = finished(run)
    wrong = sound(folder)
    if code:
        wrong.append(f"the run after it ended with {code}: {said}")
    if not wrong and (other := differing(result_of(folder), expected)):
        wrong.append("the result is another: " + "; ".join(other[:4]))
    return wrong


def often() -> None:
    """Keep things more often than in earnest: some kills then fall into the writing."""
    latent_cache.KEPT = 16
    checkpoints.EVERY = 5


# --- what is killed


def train(count: int, seed: int):
    often()

    def result_of(folder: Path):
        model = folder / "model"
        manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
        record = manifest["record"]
        del manifest["created"], record["seconds"], record["peak_memory"]
        rest = sorted(path.name for path in folder.iterdir() if path.name != "model")
        weights = digest(model / "state.safetensors",
                         model / "unet/diffusion_pytorch_model.safetensors")
        return manifest, rest, weights

    with tempfile.TemporaryDirectory() as data:
        make_product(Path(data) / "disc")
        run_in = lambda folder: main(["train", f"{data}/disc", f"{folder}/model", *SET])
        kept = lambda folder: count_of(folder, "*.safetensors")
        return trials(count, seed, run_in, result_of, kept)


def encode(count: int, seed: int):
    often()

    def run_in(folder: Path) -> None:
        slight = torch.linspace(0, 1e-3, 480)[:, None, None, None]
        images = good_images(20).repeat(24, 1, 1, 1) + slight  # all different
        networks = Networks(tiny_vae(), None, torch.nn.Identity())
        s = scaling_factor(networks.vae)
        projection = LatentProjection(networks.E, networks.D, s)
        mean, std = latent_cache.encode_all(projection, networks, images,
                                            folder / "latents")
        with whole(folder / "all.safetensors") as aside:
            save_file({"mean": mean.contiguous(), "std": std.contiguous()}, aside)

    def result_of(folder: Path):
        latents = sorted(folder.glob("latents/*.safetensors"))
        return digest(folder / "all.safetensors", *latents)

    kept = lambda folder: count_of(folder, "latents/*.safetensors")
    return trials(count, seed, run_in, result_of, kept)


def reproduction(count: int, seed: int):
    often()

    def result_of(folder: Path):
        made = folder / "disc/official-1"
        record = json.loads((made / "run.json").read_text(encoding="utf-8"))
        del record["cost"]
        record["training"].pop("seconds", None)
        figures = (folder / "figures.csv").read_bytes()
        return record, figures, digest(made / "maps.npy")

    with tempfile.TemporaryDirectory() as data:
        make_product(Path(data) / "disc")
        options = ["--presets", "official", "--seeds", "1", "--maps", *SET]
        run_in = lambda folder: main(
            ["reproduce", "folder", data, str(folder), *options])
        kept = lambda folder: count_of(folder, "**/*.safetensors")
        return trials(count, seed, run_in, result_of, kept)


def notebook(count: int, seed: int):
    """A notebook as `make notebooks` runs it; killed, it starts anew.

    It does without torch, whose import would take most of the time.
    """
    sys.path.insert(0, str(ROOT / "book" / "tools"))
    import papermill  # noqa: F401
    import run_notebooks

    from ddad.notebook import METRICS
    cells = [
        "import numpy as np\nfrom IPython.display import display\n"
        "curve = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))",
        "import matplotlib.pyplot as plt\nplt.plot(curve);",
        f"display({{'{METRICS}': {{'last': curve[-1]}}, 'text/plain': 'recorded'}},"
        " raw=True)",
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}

    def run_in(folder: Path) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "small.ipynb"
        if not path.exists():
            made = nbformat.v4.new_notebook(cells=[
                nbformat.v4.new_code_cell(cell, id=f"cell-{n}")
                for n, cell in enumerate(cells)])
            made.metadata["kernelspec"] = kernel
            with whole(path) as aside:
                nbformat.write(made, aside)
        sys.argv = ["run_notebooks.py", "update", str(path)]
        return run_notebooks.main()

    def result_of(folder: Path):
        done = nbformat.read(folder / "small.ipynb", 4)
        return done.cells, "ddad" in done.metadata

    return trials(count, seed, run_in, result_of, lambda folder: 0)


SAYS = ("killed (SIGKILL) at random moments and started again, {} ends as undisturbed, "
        "and no file under its final name is half")
CHECKS = [
    Check("killed-train", 1,
          SAYS.format("`ddad train`") + ": same bytes of the weights",
          train, 50, 1),
    Check("killed-encode", 1,
          SAYS.format("encoding") + ": same bytes of the latents",
          encode, 50, 2),
    Check("killed-reproduce", 1,
          SAYS.format("`ddad reproduce`") + ": same metrics, maps, tables",
          reproduction, 50, 3),
    Check("killed-notebook", 1,
          SAYS.format("the execution of a notebook") + ": same cells and outputs",
          notebook, 50, 4),
]
