"""Point 6: many images, a bad one among them, and several processes in one folder."""
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from conftest import good_images, make_product
from full import commands
from killed import SET, count_of, finished, forked, often, sound
from PIL import Image
from run import Check

from ddad.cli import main


def _resident(pid: int) -> float:
    """Main memory of a process, MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _make_images(folder: Path, count: int, rng) -> Path:
    """So many images of 32 x 32 pixels, one of them cut short: that one."""
    folder.mkdir()
    base = ((good_images(8, 32).permute(0, 2, 3, 1).numpy() + 1) * 127.5).round()
    for n in range(count):
        noisy = base[n % 8] + rng.normal(0, 4, (32, 32, 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{n:06}.png")
    bad = folder / f"{rng.integers(count):06}.png"
    bad.write_bytes(bad.read_bytes()[:200])
    return bad


def _watched(run, out: Path, log: Path, count: int) -> tuple[int, list[int]]:
    """The exit code of a run, and its MB in memory at each tenth of `count` lines."""
    memory, results = [], out / "results.jsonl"
    pid = forked(run, str(log))
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        done = results.read_bytes().count(b"\n") if results.exists() else 0
        if done >= (len(memory) + 1) * count / 10:
            memory.append(round(_resident(pid)))
        time.sleep(0.1)
    return os.waitstatus_to_exitcode(ended[1]), memory


def many(count: int, seed: int):
    """`count` images, with a detector of two network calls; memory at every tenth."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        data, model = str(make_product(scratch / "data")), str(scratch / "model")
        code, said = finished(partial(main, ["train", data, model, *SET,
                                             "ddim_steps=2"]))
        if code:
            return {}, [said]
        bad = _make_images(scratch / "images", count, np.random.default_rng(seed))
        out, log, started = scratch / "found", scratch / "log", time.monotonic()
        run = ["detect", model, str(bad.parent), str(out), "--device", "cpu"]
        code, memory = _watched(partial(main, [*run, "--skip-bad"]), out, log, count)
        seconds, said = time.monotonic() - started, log.read_text(encoding="utf-8")
        failures = [f"it ended with {code}: {said[-300:]}"] if code else []
        text = (out / "results.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        scored = [line for line in lines if "score" in line]
        faults = [line["image"] for line in lines if "error" in line]
        if (len(scored) != count - 1 or faults != [str(bad)] or bad.name not in said):
            failures.append(f"{len(scored)} images have a score, {len(faults)} a "
                            f"fault; {bad.name} is named: {bad.name in said}")
        made = count_of(out, "overlays/*.png"), count_of(out, "maps/*.png")
        if made != (count - 1, count - 1):
            failures.append(f"{made} overlays and maps")
        if len(memory) > 1 and max(memory) - memory[0] > 50:
            failures.append(f"memory grew: {memory} MB")
        # all is done but the bad one, which is tried again
        strict, _ = finished(partial(main, run))
        if strict != 2:
            failures.append(f"without --skip-bad it ended with {strict}, not 2")
        return {
            "pictures": count,
            "scored": len(scored),
            "reported and skipped": len(faults),
            "MB in memory at each tenth": ", ".join(map(str, memory)),
            "seconds": round(seconds),
        }, failures


def together(count: int, seed: int):
    """Two to four processes at once in one folder, `count` times for each of train and
    detect: one works, the others say so and end.
    """
    often()
    rng, failures = np.random.default_rng(seed), []
    worked = refused = after = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        make_product(scratch / "data" / "disc", train=40)
        known = commands(scratch / "data", scratch / "train" / "model")
        for name in ("train", "detect"):
            run, result_of = known[name]
            finished(partial(run, scratch / name))
            expected = result_of(scratch / name)
            for trial in range(count):
                folder = scratch / f"{name}-{trial}"
                codes, said = _at_once(partial(run, folder), scratch, rng)
                told = sum("another process writes to" in text and code == 2
                           for text, code in zip(said, codes))
                worked, refused = worked + 1, refused + told
                after += codes.count(0) - 1
                wrong = sound(folder)
                if codes.count(0) < 1 or told + codes.count(0) != len(codes):
                    ends = [text[-200:] for text in said]
                    wrong.append(f"exit codes {codes}: {ends}")
                elif result_of(folder) != expected:
                    wrong.append("another result")
                if left := _left(folder):
                    wrong.append(f"{left} is left")
                failures += [f"{name}: {text}" for text in wrong]
    counts = {"one worked": worked, "others refused with a sentence": refused,
              "came when it had ended": after}
    return counts, failures


def _at_once(run, scratch: Path, rng) -> tuple[list[int], list[str]]:
    """Two to four processes that do the same: their exit codes and what they said."""
    logs, pids = [scratch / f"log{n}" for n in range(rng.integers(2, 5))], []
    for log in logs:
        pids.append(forked(run, str(log)))
        time.sleep(rng.uniform(0, 0.5))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return codes, [log.read_text(encoding="utf-8") for log in logs]


def _left(folder: Path) -> list[str]:
    """Locks and half-written files that nobody cleared up."""
    return [path.name for path in folder.rglob("*")
            if path.name.endswith((".lock", ".partial", ".replaced"))]


CHECKS = [
    Check("many-pictures", 6,
          "images through `ddad detect` in flat memory (within 50 MB after the first "
          "tenth); with --skip-bad one that cannot be read is reported and left out, "
          "the rest is kept",
          many, 10_000, 6),
    Check("one-folder", 6,
          "of two to four processes that train or detect into one folder at once, one "
          "works, to the usual result; the others say so and end",
          together, 10, 7),
]
