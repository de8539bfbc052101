"""Point 4: the same command twice gives the same bytes on a CPU; threads, batches and order change a score by rounding alone."""
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

from ddad import cli, embedded, products, report
from ddad.detector import Detector
from ddad.evaluation import load_test

TIMES = ("seconds", "peak_memory", "peak_memory_by_stage")


def _commands(out: Path, data: Path) -> int:
    """Train, detect, evaluate with floors, and reproduce: all in one process, into `out`."""
    product, model = str(data / "disc"), str(out / "model")
    return (cli.main(["train", product, model, *SET])
            or cli.main(["detect", model, f"{product}/test/square", str(out / "found"), "--device", "cpu"])
            or cli.main(["detect", model, f"{product}/test/good", str(out / "arrays"), "--device", "cpu", "--maps", "npy"])
            or cli.main(["evaluate", model, product, "--device", "cpu", "--floors", "--bootstrap", "50", "--out", str(out / "results.json")])
            or cli.main(["reproduce", "folder", str(data), str(out / "runs"), "--presets", "clean", "official", "--seeds", "0", "1", "--maps", *SET]))


def _timeless(told, within: bool = False):
    """A record with its times and memory set to zero, and without its date, commit and the hash over all that."""
    if isinstance(told, dict):
        return {key: _timeless(value, within or key in TIMES) for key, value in told.items() if key not in ("created", "sha256", "commit")}
    if isinstance(told, list):
        return [_timeless(value, within) for value in told]
    return 0.0 if within else told


def _bytes(out: Path) -> dict:
    """File: its hash; of a record and of the tables made of it, what they hold but times, memory and date."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text(encoding="utf-8")))
        elif path.name == "tables.md":
            receipt = _timeless(json.loads((path.parent / "receipt.json").read_text(encoding="utf-8")))
            found[name] = [make(receipt) for make in report.TABLES.values()]
        else:
            found[name] = digest(path)[0]
    return found


def twice(count: int, seed: int):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        make_product(scratch / "data" / "disc")
        runs = []
        for n in range(count + 1):
            code, said = finished(partial(_commands, scratch / "out", scratch / "data"))
            if code:
                return {}, [f"run {n} ended with {code}: {said}"]
            runs.append(_bytes(scratch / "out"))
            (scratch / "out").rename(scratch / f"out{n}")
    failures = [f"{name} differs" for run in runs[1:] for name in sorted(runs[0].keys() | run.keys()) if runs[0].get(name) != run.get(name)]
    kinds = {kind: sum(name.endswith(kind) for name in runs[0]) for kind in (".png", ".npy", ".jsonl", ".json", ".csv", ".md", ".safetensors")}
    return {"runs": count + 1, "files compared": len(runs[0])} | {f"of these {kind}": n for kind, n in kinds.items()}, failures


def scores(count: int, seed: int):
    """The shipped detector of the board on `count` test pictures: the largest difference of a score from that of 1 thread, batch 16.

    Batches of 1 and 3 see the first two batches alone: two threads on cores that are busy take minutes.
    """
    worst, failures, variants = {}, [], 0
    with tempfile.TemporaryDirectory() as scratch:
        products.make(Path(scratch), ["board"], train=0, test_good=count // 2, test_defect=count - count // 2, seed=seed)
        detector = Detector.from_pretrained(embedded.WEIGHTS / "board", device="cpu")
        images = load_test(Path(scratch) / "board", detector.settings).images
        torch.set_num_threads(1)
        expected, draws = detector.predict(images).score, torch.Generator().manual_seed(seed)
        for threads in (1, 2):
            for batch in (1, 3, 16):
                torch.set_num_threads(threads)
                n = min(2 * batch, len(images))
                for name, order in {"in order": torch.arange(n), "shuffled": torch.randperm(n, generator=draws)}.items():
                    off, variants = (detector.predict(images[order], batch).score - expected[order]).abs().max().item(), variants + 1
                    worst[f"{threads} threads"] = max(worst.get(f"{threads} threads", 0), off)
                    if not off <= 1e-5:
                        failures.append(f"{threads} threads, batches of {batch}, {name}: scores differ by {off:.1e}")
    torch.set_num_threads(1)
    return {"predictions of up to 2 batches": variants} | {f"largest difference, {name}": f"{off:.1e}" for name, off in worst.items()}, failures


def shown(notebook: Path) -> dict[str, str]:
    """What a page shows as a picture, pixels or moving: cell and place among its outputs, and the hash."""
    found = {}
    for n, cell in enumerate(nbformat.read(notebook, 4).cells):
        for place, output in enumerate(cell.get("outputs", [])):
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/") or kind == "text/html" and "data:image" in data:
                    found[f"cell {n}, output {place}, {kind}"] = hashlib.sha256(data.encode()).hexdigest()
    return found


def figures(count: int, seed: int):
    """The first `count` notebooks, in full, executed twice as for the site, each time from an empty folder and by a kernel of its own."""
    sys.path.insert(0, str(ROOT / "book"))
    import run_notebooks
    names, runs = run_notebooks.NOTEBOOKS[:count], []
    for _ in range(2):
        with ProcessPoolExecutor(run_notebooks.WORKERS) as pool:
            done = list(pool.map(run_notebooks.run, names, [None] * len(names)))
        if said := [f"{path.stem}: {error[-300:]}" for path, (_, _, error) in zip(names, done) if error]:
            return {}, said
        runs.append({f"{path.stem}, {where}": data for path, (out, _, _) in zip(names, done) for where, data in shown(out).items()})
        for out, _, _ in done:
            shutil.rmtree(out.parent)
    failures = [f"{name} differs" for name in sorted(runs[0].keys() | runs[1].keys()) if runs[0].get(name) != runs[1].get(name)]
    return {"notebooks": len(names), "figures compared": len(runs[0])}, failures or ([] if runs[0] else ["there was no figure"])


CHECKS = [
    Check("same-bytes", 4, "the same commands (train, detect, evaluate, reproduce) end with the same bytes of weights, scores, maps, pictures, "
          "metrics and tables on a CPU; times, memory, dates and the commit are left out", twice, 1, 8),
    Check("same-scores", 4, "1 and 2 threads, batches of 1, 3 and 16 and the order of the pictures change no score by more than 1e-5", scores, 18, 9),
    Check("same-figures", 4, "the book's notebooks, executed twice, make the same bytes of every figure", figures, 12),
]
