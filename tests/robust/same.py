"""Point 4: the same command twice gives the same bytes on a CPU; threads, batches and
order change a score by rounding alone.
"""
import hashlib
import json
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import torch
from conftest import make_product
from killed import SET, digest, finished
from run import ROOT, Check

from ddad.cli import main
from ddad.data.product import load_test
from ddad.detector import Detector
from ddad.reproduction.tables import TABLES
from ddad.synthetic import products
from ddad.synthetic.weights import WEIGHTS

TIMES = ("seconds", "peak_memory", "peak_memory_by_stage")
KINDS = (".png", ".npy", ".jsonl", ".json", ".csv", ".md", ".safetensors")


def _commands(out: Path, data: Path) -> int:
    """Train, detect, evaluate with baselines, and reproduce: all in one process, into
    `out`.
    """
    product, model, cpu = str(data / "disc"), str(out / "model"), ["--device", "cpu"]
    detect = ["detect", model]
    return (
        main(["train", product, model, *SET])
        or main([*detect, f"{product}/test/square", str(out / "found"), *cpu])
        or main([*detect, f"{product}/test/good", str(out / "arrays"), *cpu,
                 "--maps", "npy"])
        or main(["evaluate", model, product, *cpu, "--baselines", "--bootstrap", "50",
                 "--out", str(out / "results.json")])
        or main(["reproduce", "folder", str(data), str(out / "runs"), "--presets",
                 "clean", "official", "--seeds", "0", "1", "--maps", *SET]))


def _timeless(told, within: bool = False):
    """A record with its times and memory set to zero, and without its date, commit and
    the hash over all that.
    """
    if isinstance(told, dict):
        return {key: _timeless(value, within or key in TIMES)
                for key, value in told.items()
                if key not in ("created", "sha256", "commit")}
    if isinstance(told, list):
        return [_timeless(value, within) for value in told]
    return 0.0 if within else told


def _bytes(out: Path) -> dict:
    """File: its hash; of a record and of the tables made of it, what they hold but
    times, memory and date.
    """
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if path.suffix == ".json":
            found[name] = _told(path)
        elif path.name == "tables.md":
            receipt = _told(path.with_name("receipt.json"))
            found[name] = [make(receipt) for make in TABLES.values()]
        else:
            found[name] = digest(path)[0]
    return found


def _told(path: Path):
    return _timeless(json.loads(path.read_text(encoding="utf-8")))


def _differing(first: dict, other: dict) -> list[str]:
    names = sorted(first.keys() | other.keys())
    return [f"{name} differs" for name in names if first.get(name) != other.get(name)]


def twice(count: int, seed: int):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        make_product(scratch / "data" / "disc")
        out, runs = scratch / "out", []
        for n in range(count + 1):
            code, said = finished(partial(_commands, out, scratch / "data"))
            if code:
                return {}, [f"run {n} ended with {code}: {said}"]
            runs.append(_bytes(out))
            out.rename(scratch / f"out{n}")
    failures = [text for run in runs[1:] for text in _differing(runs[0], run)]
    kinds = {f"of these {kind}": sum(name.endswith(kind) for name in runs[0])
             for kind in KINDS}
    return {"runs": count + 1, "files compared": len(runs[0])} | kinds, failures


def scores(count: int, seed: int):
    """The shipped detector of the board on `count` test images: the largest difference
    of a score from that of 1 thread, batch 16.

    Batches of 1 and 3 see the first two batches alone: two threads on cores that are
    busy take minutes.
    """
    worst, failures, variants = {}, [], 0
    with tempfile.TemporaryDirectory() as scratch:
        root, good = Path(scratch), count // 2
        products.make(root, ["board"], train=0, test_good=good,
                      test_defect=count - good, seed=seed)
        detector = Detector.from_pretrained(WEIGHTS / "board", device="cpu")
        images = load_test(root / "board", detector.settings).images
    torch.set_num_threads(1)
    expected, draws = detector.predict(images).score, torch.Generator()
    draws.manual_seed(seed)
    for threads in (1, 2):
        for batch in (1, 3, 16):
            torch.set_num_threads(threads)
            n = min(2 * batch, len(images))
            orders = {"in order": torch.arange(n),
                      "shuffled": torch.randperm(n, generator=draws)}
            for name, order in orders.items():
                found = detector.predict(images[order], batch).score
                off = (found - expected[order]).abs().max().item()
                variants, key = variants + 1, f"{threads} threads"
                worst[key] = max(worst.get(key, 0), off)
                if not off <= 1e-5:
                    failures.append(f"{threads} threads, batches of {batch}, {name}: "
                                    f"scores differ by {off:.1e}")
    torch.set_num_threads(1)
    largest = {f"largest difference, {name}": f"{off:.1e}"
               for name, off in worst.items()}
    return {"predictions of up to 2 batches": variants} | largest, failures


def shown(notebook: Path) -> dict[str, str]:
    """What a page shows as a picture, pixels or moving: cell and place among its
    outputs, and the hash.
    """
    found = {}
    for n, cell in enumerate(nbformat.read(notebook, 4).cells):
        for place, output in enumerate(cell.get("outputs", [])):
            for kind, data in output.get("data", {}).items():
                embedded = kind == "text/html" and "data:image" in data
                if kind.startswith("image/") or embedded:
                    digest = hashlib.sha256(data.encode()).hexdigest()
                    found[f"cell {n}, output {place}, {kind}"] = digest
    return found


def figures(count: int, seed: int):
    """The first `count` notebooks, in full, executed twice as for the site, each time
    from an empty folder and by a kernel of its own.
    """
    sys.path.insert(0, str(ROOT / "book" / "tools"))
    import run_notebooks
    paths, runs = run_notebooks.NOTEBOOKS[:count], []
    for _ in range(2):
        with ProcessPoolExecutor(run_notebooks.WORKERS) as pool:
            done = list(pool.map(run_notebooks.run, paths, [None] * len(paths)))
        if said := [f"{path.stem}: {error[-300:]}"
                    for path, (_, _, error) in zip(paths, done) if error]:
            return {}, said
        runs.append({f"{path.stem}, {where}": data
                     for path, (out, _, _) in zip(paths, done)
                     for where, data in shown(out).items()})
        for out, _, _ in done:
            shutil.rmtree(out.parent)
    failures = _differing(*runs) if runs[0] else ["there was no figure"]
    return {"notebooks": len(paths), "figures compared": len(runs[0])}, failures


CHECKS = [
    Check("same-bytes", 4,
          "the same commands (train, detect, evaluate, reproduce) end with the same "
          "bytes of weights, scores, maps, images, metrics and tables on a CPU; times, "
          "memory, dates and the commit are left out",
          twice, 1, 8),
    Check("same-scores", 4,
          "1 and 2 threads, batches of 1, 3 and 16 and the order of the images change "
          "no score by more than 1e-5",
          scores, 18, 9),
    Check("same-figures", 4,
          "the book's notebooks, executed twice, make the same bytes of every figure",
          figures, 12),
]
