"""The extension's two halves apart: image, region or static steps, with the network
that was trained on noise everywhere and with the one trained on noised patches too.

    python book/tools/step_rules.py RUNS DATA OUT [--vae VAE]

RUNS: folder of a finished `ddad reproduce` with the presets clean and regional. Nothing
is trained. Every rule is tried at each T_max of STEPS, with all other constants the
same and typed in below: none is chosen, and none has a favour. Features are each
detector's own, fine-tuned; map ranges come from the held-out images of each path.
Leaves OUT/receipt.json, a run for each detector and path; a finished one is kept.
"""
from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

from ddad.data.product import load_held_out, load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.scoring import evaluate
from ddad.networks.autoencoders import load_vae
from ddad.reproduction.receipts import make_receipt
from ddad.reproduction.runs import DETECTOR, RUN, by_area, made_with, measured
from ddad.runtime.files import write_json
from ddad.training import hold_out, split

TRAINED = {"clean": "plain", "regional": "masked"}
RULES, STEPS = ("image", "region", "static"), (80, 320)
SAME = dict(guidance=0.0, smallest_bin=2, latent_blur=0.0, lam=0.85, patch_share=0.0,
            threshold_share=0.0)


def name(trained: str, rule: str, T_max: int) -> str:
    """Of a path, where a receipt has its preset."""
    return f"{trained}, {rule}, {T_max}"


def paths_of(run: dict, saved: Path, data: Path, out: Path, vae) -> None:
    """Each rule at each step with one detector; out/CATEGORY/PATH-SEED/run.json."""
    trained, category, seed = TRAINED[run["preset"]], run["category"], run["seed"]
    asked = {(rule, T): out / category / f"{name(trained, rule, T)}-{seed}" / RUN
             for rule, T in product(RULES, STEPS)}
    if all(path.exists() for path in asked.values()):
        return
    detector = Detector.from_pretrained(saved, vae=vae)
    s = detector.settings.change(**SAME)
    train, good = hold_out(load_train(data, s), s, load_held_out(data, s))
    test = load_test(data, s)
    # banks of images and of patches, for all paths
    banks = detector.under(s.change(step_rule="region"))
    banks.set_banks(train, good)
    by = by_area(test, data, s)
    for (rule, T), path in asked.items():
        if not path.exists():
            one = banks.under(s.change(step_rule=rule, T_max=T))
            one.set_ranges(split(good, s)[0])
            record = measured(one, data, by, *evaluate(one, test))
            write_json(path, {"dataset": run["dataset"], "category": category,
                              "preset": name(trained, rule, T), "seed": seed}
                       | record | made_with(one, data, saved))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for folder in ("runs", "data", "out"):
        options.add_argument(folder, type=Path, metavar=folder.upper())
    options.add_argument("--vae", help="as `ddad reproduce --vae`")
    asked = options.parse_args()
    vae = load_vae(asked.vae) if asked.vae else None
    for path in sorted(asked.runs.glob(f"*/*/{RUN}")):
        run = json.loads(path.read_text(encoding="utf-8"))
        print(run["category"], run["preset"], run["seed"], flush=True)
        paths_of(run, path.parent / DETECTOR, asked.data / run["category"], asked.out,
                 vae)
    make_receipt(asked.out)


if __name__ == "__main__":
    main()
