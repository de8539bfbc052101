"""Point 1: killed at a random moment and started again, the end is that of a run that nobody disturbed."""
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

import ddad.reproduce  # noqa: F401  all is imported before the first fork, so that no child pays for it
from ddad import cli, latent_projection, training
from ddad.writing import whole

SMALL = TINY | {"image_size": 32, "train_length": "150 steps"}
SET = ["--device", "cpu", "--vae", "pixels", "--set", *(f"{k}={json.dumps(v)}" for k, v in SMALL.items() if k not in ("held_out", "vae"))]


def forked(run, log: str = os.devnull) -> int:
    """The process id of a child, of its own process group, that calls `run()`, and what it returns is its exit code. Its output goes to `log`."""
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
        code = os.waitstatus_to_exitcode(os.waitpid(forked(run, log.name), 0)[1])
        return code, Path(log.name).read_text(encoding="utf-8", errors="replace").strip()[-600:]


def killed(run, after: float) -> tuple[bool, int]:
    """Start `run`, and kill it after so many seconds: whether it still ran, and its process id, which is that of its group."""
    pid, end = forked(run), time.monotonic() + after
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False, pid
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True, pid


def sound(folder: Path) -> list[str]:
    """The files under their final names that are not whole."""
    wrong = []
    for path in sorted(folder.rglob("*")):
        try:
            if any(part.endswith(".partial") for part in path.parts) or not path.is_file():
                continue
            if path.suffix == ".safetensors":
                with safe_open(path, "np") as file:
                    [file.get_tensor(name) for name in file.keys()]
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".ipynb":
                nbformat.read(path, 4)
        except Exception as error:
            wrong.append(f"{path.relative_to(folder)} is half: {error}")
    return wrong


def differing(found, expected, name: str = "") -> list[str]:
    """Where two results of dicts and lists differ, by their keys."""
    if found == expected:
        return []
    if isinstance(found, dict) and isinstance(expected, dict):
        pairs = [(key, found.get(key), expected.get(key)) for key in sorted({*found, *expected})]
    elif isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)) and len(found) == len(expected):
        pairs = [(key, *pair) for key, pair in enumerate(zip(found, expected))]
    else:
        return [f"{name[1:]}: {str(found)[:60]}, not {str(expected)[:60]}"]
    return [text for key, a, b in pairs for text in differing(a, b, f"{name}/{key}")]


def trials(count: int, seed: int, run_in, result_of, kept) -> tuple[dict, list[str]]:
    """`count` times: `run_in(folder)` killed at a moment drawn evenly from the time it takes, and started again.

    result_of(folder): what must be that of the undisturbed run. kept(folder): how many files there are to go on from.
    """
    rng, failures = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed, times = Path(scratch) / "undisturbed", []
        for _ in range(2):                                              # the first warms the disk's cache, too
            started = time.monotonic()
            code, said = finished(functools.partial(run_in, undisturbed / str(len(times))))
            if code:
                return {}, [f"the undisturbed run ended with {code}: {said}"]
            times.append(time.monotonic() - started)
        expected = result_of(undisturbed / "1")
        if other := differing(result_of(undisturbed / "0"), expected):
            failures.append("two undisturbed runs differ: " + "; ".join(other[:4]))
        hit = missed = resumed = 0
        while hit < count and missed <= count:                          # a moment after the end is drawn anew
            folder = Path(scratch) / f"{hit}-{missed}"
            run, moment = functools.partial(run_in, folder), rng.uniform(0, times[1])
            alive, group = killed(run, moment)
            hit, missed, found = hit + alive, missed + (not alive), sound(folder)
            resumed += bool(alive and kept(folder) > 0)
            code, said = finished(run)
            found += sound(folder) + ([f"the run after it ended with {code}: {said}"] if code else [])
            if not found and (other := differing(result_of(folder), expected)):
                found = ["the result is another: " + "; ".join(other[:4])]
            try:
                os.killpg(group, signal.SIGKILL)                        # what the killed process had started
            except ProcessLookupError:
                pass
            failures += [f"killed after {moment:.2f} s: {text}" for text in found]
    if hit < count:
        failures.append(f"only {hit} of {count} kills met a running process")
    return {"killed while running": hit, "of these with files to go on from": resumed, "wrong": len(failures),
            "seconds undisturbed": round(times[1], 2)}, failures


def digest(*paths: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def often() -> None:
    """Keep things more often than in earnest, so that some kills fall into the writing."""
    latent_projection.KEPT = 16
    training.optimise.__defaults__ = (None, 5)                          # of checkpoint and every


def train(count: int, seed: int):
    often()

    def result_of(folder: Path):
        manifest = json.loads((folder / "model" / "manifest.json").read_text(encoding="utf-8"))
        del manifest["created"], manifest["record"]["seconds"], manifest["record"]["peak_memory"]
        rest = sorted(path.name for path in folder.iterdir() if path.name != "model")
        return manifest, rest, digest(folder / "model/state.safetensors", folder / "model/unet/diffusion_pytorch_model.safetensors")

    with tempfile.TemporaryDirectory() as data:
        make_product(Path(data) / "disc")
        return trials(count, seed, lambda folder: cli.main(["train", f"{data}/disc", f"{folder}/model", *SET]), result_of,
                      lambda folder: len(list(folder.glob("*.safetensors"))))


def encode(count: int, seed: int):
    often()

    def run_in(folder: Path) -> None:
        images = good_images(20).repeat(24, 1, 1, 1) + torch.linspace(0, 1e-3, 480)[:, None, None, None]      # all different
        mean, std = latent_projection.LatentProjection(tiny_vae()).encode_all(images, keep=folder / "latents")
        with whole(folder / "all.safetensors") as aside:
            save_file({"mean": mean.contiguous(), "std": std.contiguous()}, aside)

    return trials(count, seed, run_in, lambda folder: digest(folder / "all.safetensors", *sorted(folder.glob("latents/*.safetensors"))),
                  lambda folder: len(list(folder.glob("latents/*.safetensors"))))


def reproduction(count: int, seed: int):
    often()
    with tempfile.TemporaryDirectory() as data:
        make_product(Path(data) / "disc")

        def result_of(folder: Path):
            record = json.loads((folder / "disc/official-1/run.json").read_text(encoding="utf-8"))
            del record["cost"]
            record["training"].pop("seconds", None)
            return record, (folder / "figures.csv").read_bytes(), digest(folder / "disc/official-1/maps.npy")

        run = ["reproduce", "folder", data]
        return trials(count, seed, lambda folder: cli.main([*run, str(folder), "--presets", "official", "--seeds", "1", "--maps", *SET]), result_of,
                      lambda folder: len(list(folder.rglob("*.safetensors"))))


def notebook(count: int, seed: int):
    """A notebook as `make notebooks` runs it; killed, it starts anew. Without torch, whose import would take most of the time."""
    sys.path.insert(0, str(ROOT / "book"))
    import papermill  # noqa: F401
    import run_notebooks
    from ledger import METRICS
    cells = ["import numpy as np\nfrom IPython.display import display\ncurve = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))",
             "import matplotlib.pyplot as plt\nplt.plot(curve);",
             f"display({{'{METRICS}': {{'last': curve[-1]}}, 'text/plain': 'recorded'}}, raw=True)"]

    def run_in(folder: Path) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "small.ipynb"
        if not path.exists():
            made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, id=f"cell-{n}") for n, cell in enumerate(cells)])
            made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
            with whole(path) as aside:
                nbformat.write(made, aside)
        sys.argv = ["run_notebooks.py", "update", str(path)]
        return run_notebooks.main()

    def result_of(folder: Path):
        done = nbformat.read(folder / "small.ipynb", 4)
        return [cell for cell in done.cells if "foot" not in cell.metadata.get("tags", [])], "ddad" in done.metadata    # the foot has the time

    return trials(count, seed, run_in, result_of, lambda folder: 0)


SAYS = "killed (SIGKILL) at random moments and started again, {} ends as undisturbed, and no file under its final name is half"
CHECKS = [
    Check("killed-train", 1, SAYS.format("`ddad train`") + ": same bytes of the weights", train, 50, 1),
    Check("killed-encode", 1, SAYS.format("encoding") + ": same bytes of the latents", encode, 50, 2),
    Check("killed-reproduce", 1, SAYS.format("`ddad reproduce`") + ": same metrics, maps, tables", reproduction, 50, 3),
    Check("killed-notebook", 1, SAYS.format("the execution of a notebook") + ": same cells and outputs", notebook, 50, 4),
]
