"""The paper's own run, tried at its true size for two steps of training.

    python tests/reproduction/paper_size.py OUT [VAE]

Makes a look-alike of VisA at 256 x 256 with a handful of images, starts `ddad
reproduce` on it under the preset `paper`, kills it once its training is on disk, starts
it again, and writes OUT/paper_size.json: what deviates from the preset, seconds,
memory, and the checkpoint's size beside the one reckoned. On a CPU it takes ten minutes
or so and 7 GB of memory. VAE: a folder or Hugging Face id, madebyollin/taesd if not
given.
"""
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# what makes it end in minutes on a CPU, and needs no hub
CHANGES = ["train_length=2 steps", "train_batch=2", "tune_epochs=1", "neighbours=3",
           "features=efficientnet-lite0"]
SEEN = "detector.training.safetensors"


def main(out: Path, vae: str) -> dict:
    import lookalikes

    from ddad.reproduction.published import deviations
    from ddad.runtime.files import write_json
    lookalikes.SIZE = 256
    data, runs = out / "visa", out / "runs"
    if not data.exists():
        lookalikes.make_visa(data, ("cashew",), train=4, good=1, bad=1)
    command = ["ddad", "reproduce", "visa", str(data), str(runs), "--presets", "paper",
               "--seeds", "0", "--vae", vae, "--set", *CHANGES]
    plan = told(command, "--plan")
    folder = runs / "cashew" / "paper-0"
    seconds, checkpoint = killed(command, folder / SEEN)
    started = time.monotonic()
    printed = told(command)
    kept = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    planned = json.loads((runs / "plan.json").read_text(encoding="utf-8"))
    record = {
        "command": "python tests/reproduction/paper_size.py OUT VAE",
        "deviations": deviations(kept["settings"]),
        "reckoned": {"checkpoint": planned["disk"]["training"] // 2,
                     "detector": planned["disk"]["runs"],
                     "steps": planned["runs"][0]["steps"],
                     "unet": planned["networks"][0]["parameters"]["unet"]},
        "found": {"checkpoint": checkpoint, "detector": size(folder / "detector"),
                  "steps": kept["training"]["steps"],
                  "unet": kept["cost"]["parameters"]["unet"]},
        "seconds": {"until it was killed": seconds,
                    "the second start": time.monotonic() - started},
        # of the processes started here, the one that held most
        "peak_memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "images": {name: kept["data"][name] for name in ("train", "test")},
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        **{name: kept[name] for name in ("device", "versions", "commit")}}
    write_json(out / "paper_size.json", record)
    print(plan, printed, json.dumps(record, indent=1), sep="\n\n")
    return record


def killed(command: list[str], seen: Path) -> tuple[float, int]:
    """Starts the command and kills it once a file is there: seconds, the file's size.
    """
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", *command]) as run:
        while not seen.exists():
            if run.poll() is not None:
                raise SystemExit(f"{seen.name} was never written")
            time.sleep(0.2)
        run.kill()
    return time.monotonic() - started, seen.stat().st_size


def told(command: list[str], *more: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command, *more], check=True,
                          stdout=subprocess.PIPE, text=True)
    return done.stdout


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "madebyollin/taesd")
