"""The extension's step rule beside the others, and beside another training: image,
region or static steps, with the network that was trained on noise everywhere, as the
paper's is, and with one that was trained on noised patches too.

    python book/tools/step_rules.py OUT --of RUNS DATA VAE [--of RUNS DATA VAE ..]

RUNS: folder of a finished `ddad reproduce` with the preset clean; DATA: the folder of
its categories; VAE: as `ddad reproduce --vae`. The clean detectors are the plain ones.
The masked ones are trained here, with the same seeds, steps and settings but for
MASKED. Every rule is tried at each T_max of STEPS, all other constants being those of
SAME: none is chosen here. They are the extension's, without guidance, and one of the
steps is its preset's: steps by image are at home with guidance and the earlier step.
Features are each detector's own, fine-tuned on its calibrated path; map ranges come
from the held-out images of each path. Leaves OUT/receipt.json, with a run for each
network and path; what is finished is kept.
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from ddad.data.product import load_held_out, load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.scoring import evaluate
from ddad.networks.autoencoders import load_vae
from ddad.reproduction.receipts import make_receipt
from ddad.reproduction.runs import (
    DETECTOR,
    RUN,
    by_area,
    fingerprint,
    made_with,
    measured,
)
from ddad.runtime.checkpoints import fitted
from ddad.runtime.files import write_json
from ddad.training import hold_out

TRAININGS, RULES, STEPS = ("plain", "masked"), ("image", "region", "static"), (80, 320)
MASKED = dict(masked_share=0.5, train_timesteps=500)
SAME = dict(guidance=0.0, smallest_bin=2, latent_blur=0.0, lam=0.85, patch_share=0.0,
            threshold_share=0.0)


def name(trained: str, rule: str, T_max: int) -> str:
    """Of a path, where a receipt has its preset."""
    return f"{trained}, {rule}, {T_max}"


def finished(of: list, preset: str = "*") -> Iterator[tuple[dict, Path, Path, object]]:
    """Of the runs below each RUNS: run.json, where the detector lies, its data, and the
    autoencoder. of: RUNS, DATA, VAE each.
    """
    for runs, data, vae in of:
        loaded = load_vae(vae)
        for file in sorted(Path(runs).glob(f"*/{preset}-*/{RUN}")):
            run = json.loads(file.read_text(encoding="utf-8"))
            yield run, file.parent / DETECTOR, Path(data, run["category"]), loaded


def detectors(run: dict, saved: Path, data: Path, out: Path, vae
              ) -> Iterator[tuple[str, Path, Detector]]:
    """plain, masked: where each detector lies, and itself."""
    plain = Detector.from_pretrained(saved, vae=vae)
    yield "plain", saved, plain
    s = plain.settings.change(**MASKED)
    folder = out / run["category"] / f"masked-{run['seed']}" / DETECTOR
    yield "masked", folder, fitted(
        folder, lambda checkpoint: Detector.fit(
            load_train(data, s), s, held_out=load_held_out(data, s), vae=vae,
            checkpoint=checkpoint),
        lambda there: Detector.from_pretrained(there, vae=vae))


def paths_of(run: dict, saved: Path, data: Path, out: Path, vae) -> None:
    """Each rule at each step with either network: out/CATEGORY/PATH-SEED/run.json."""
    category, seed = run["category"], run["seed"]
    asked = {one: out / category / f"{name(*one)}-{seed}" / RUN
             for one in product(TRAININGS, RULES, STEPS)}
    if all(path.exists() for path in asked.values()):
        return
    for trained, lies, detector in detectors(run, saved, data, out, vae):
        s = detector.settings.change(**SAME)
        train, good = hold_out(load_train(data, s), s, load_held_out(data, s))
        test = load_test(data, s)
        by = by_area(test, data, s)
        banks = detector.under(s.change(step_rule="region"))
        banks.set_banks(train, good)            # of images and of patches
        for (which, rule, T), path in asked.items():
            if which == trained and not path.exists():
                one = banks.under(s.change(step_rule=rule, T_max=T))
                one.set_ranges(good)
                record = measured(one, data, by, *evaluate(one, test))
                write_json(path, {"dataset": run["dataset"], "category": category,
                                  "preset": name(trained, rule, T), "seed": seed}
                           | record | made_with(one, fingerprint(data), lies))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, metavar="OUT")
    options.add_argument("--of", nargs=3, action="append", required=True,
                         metavar=("RUNS", "DATA", "VAE"))
    asked = options.parse_args()
    for run, saved, data, vae in finished(asked.of, "clean"):
        print(run["category"], run["seed"], flush=True)
        paths_of(run, saved, data, asked.out, vae)
    make_receipt(asked.out)


if __name__ == "__main__":
    main()
