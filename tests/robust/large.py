"""Point 6: many pictures, a bad one among them, and several processes in one folder."""
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from conftest import good_images, make_product
from full import commands
from killed import SET, finished, forked, often, sound
from PIL import Image
from run import Check

from ddad import cli


def _resident(pid: int) -> float:
    """Main memory of a process, MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def many(count: int, seed: int):
    """`count` pictures of 32 x 32 pixels, one of them cut short, with a detector of two network calls; memory at every tenth."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        make_product(scratch / "data")
        code, said = finished(partial(cli.main, ["train", str(scratch / "data"), str(scratch / "model"), *SET, "ddim_steps=2"]))
        if code:
            return {}, [said]
        rng, images = np.random.default_rng(seed), scratch / "images"
        base = ((good_images(8, 32).permute(0, 2, 3, 1).numpy() + 1) * 127.5).round()
        images.mkdir()
        for n in range(count):
            noisy = base[n % 8] + rng.normal(0, 4, (32, 32, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(images / f"{n:06}.png")
        bad = images / f"{rng.integers(count):06}.png"
        bad.write_bytes(bad.read_bytes()[:200])
        out, log, memory, started = scratch / "found", scratch / "log", [], time.monotonic()
        run = ["detect", str(scratch / "model"), str(images), str(out), "--device", "cpu"]
        pid = forked(partial(cli.main, [*run, "--skip-bad"]), str(log))
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            done = (out / "results.jsonl").read_bytes().count(b"\n") if (out / "results.jsonl").exists() else 0
            if done >= (len(memory) + 1) * count / 10:
                memory.append(round(_resident(pid)))
            time.sleep(0.1)
        seconds, code, said = time.monotonic() - started, os.waitstatus_to_exitcode(ended[1]), log.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
        scored, faults = [line for line in lines if "score" in line], [line for line in lines if "error" in line]
        failures = [f"it ended with {code}: {said[-300:]}"] if code else []
        if len(scored) != count - 1 or len(faults) != 1 or faults[0]["image"] != str(bad) or bad.name not in said:
            failures.append(f"{len(scored)} pictures have a score, {len(faults)} a fault; {bad.name} is named: {bad.name in said}")
        pictures = len(list(out.glob("overlays/*.png"))), len(list(out.glob("maps/*.png")))
        if pictures != (count - 1, count - 1):
            failures.append(f"{pictures} overlays and maps")
        if len(memory) > 1 and max(memory) - memory[0] > 50:
            failures.append(f"memory grew: {memory} MB")
        strict, _ = finished(partial(cli.main, run))                    # all is done but the bad one, which is tried again
        if strict != 2:
            failures.append(f"without --skip-bad it ended with {strict}, not 2")
        return {"pictures": count, "scored": len(scored), "reported and skipped": len(faults),
                "MB in memory at each tenth": ", ".join(map(str, memory)), "seconds": round(seconds)}, failures


def together(count: int, seed: int):
    """Two to four processes at once in one folder, `count` times for each of train and detect: one works, the others say so and end."""
    often()
    rng, failures, worked, refused, after = np.random.default_rng(seed), [], 0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        make_product(scratch / "data" / "disc", train=40)
        known = commands(scratch / "data", scratch / "train" / "model")
        for name in ("train", "detect"):
            run, result_of = known[name]
            finished(partial(run, scratch / name))
            expected = result_of(scratch / name)
            for trial in range(count):
                folder, logs = scratch / f"{name}-{trial}", [scratch / f"log{n}" for n in range(rng.integers(2, 5))]
                pids = []
                for log in logs:
                    pids.append(forked(partial(run, folder), str(log)))
                    time.sleep(rng.uniform(0, 0.5))
                codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
                said = [log.read_text(encoding="utf-8") for log in logs]
                told = sum("another process writes to" in text and code == 2 for text, code in zip(said, codes))
                worked, refused, after = worked + 1, refused + told, after + codes.count(0) - 1
                wrong = sound(folder)
                if codes.count(0) < 1 or told + codes.count(0) != len(codes):
                    wrong.append(f"exit codes {codes}: {[text[-200:] for text in said]}")
                elif result_of(folder) != expected:
                    wrong.append("another result")
                if left := [path.name for path in folder.rglob("*") if path.name.endswith((".lock", ".partial", ".old"))]:
                    wrong.append(f"{left} is left")
                failures += [f"{name}: {text}" for text in wrong]
    return {"one worked": worked, "others refused with a sentence": refused, "came when it had ended": after}, failures


CHECKS = [
    Check("many-pictures", 6, "pictures through `ddad detect` in flat memory (within 50 MB after the first tenth); with --skip-bad one that "
          "cannot be read is reported and left out, the rest is kept", many, 10_000, 6),
    Check("one-folder", 6, "of two to four processes that train or detect into one folder at once, one works, to the usual result; the others say "
          "so and end", together, 10, 7),
]
