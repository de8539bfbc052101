"""What a shorter training gives, and other trainings of the same length: quality on
held-out images with synthetic defects, beside that on test images, against time.

    python book/tools/training_time.py OUT --of DATA VAE [--of ..] [--seeds 0 1]
        [--combined] [--set NAME=VALUE ..]

With --combined the whole training and the combination of others are all that is run.
DATA: a product's folder; VAE: as `ddad train --vae`. The training of the settings is
the first; its detector is calibrated and its features are fine-tuned, and every other
U-Net is judged with these constants and these features. So the others differ from it by
their U-Net alone, and it has what was chosen for it. Nothing is chosen here by what the
test images say. Leaves OUT/training_time.json, with a row for each training; rows that
are there are kept.
"""
from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from itertools import chain, product
from operator import getitem
from pathlib import Path
from statistics import mean
from unittest.mock import patch

import torch
from records import compact, load, name_of, recorded, table
from torch import Tensor, nn
from torch.nn import functional as F

from ddad import training
from ddad.calibration import CHOSEN, DEFECTS, drawn, sweep
from ddad.data.images import Images
from ddad.data.product import TestSet, load_held_out, load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.scoring import evaluate
from ddad.networks.autoencoders import load_vae
from ddad.noise_predictor import alpha_bar, build_unet, epsilon_loss, q_sample
from ddad.reproduction.runs import fingerprint, made_with, portable
from ddad.runtime.adapter import Networks
from ddad.runtime.checkpoints import fitted
from ddad.runtime.files import write_json
from ddad.runtime.latent_cache import encode_all
from ddad.settings import Settings, preset
from ddad.synthetic.defects import Trial

NAME = "training_time"                  # of the record
WHOLE, MIN_SNR = "as it is", "min-SNR weights"
COMBINED = "lower half, half batch, twice rate"
GAMMA = 5.0                             # Hang et al., ICCV 2023
LENGTHS = (1, 2 / 3, 1 / 3, 1 / 6)      # of the settings' own
THIRD = 1 / 3
# another way, with a third of the images that the whole training sees; COMBINED also
# with two thirds
OTHERS = {
    "the lower half of t": {"train_timesteps": 0.5},
    "noised patches": {"train_timesteps": 0.5, "masked_share": 0.5},
    MIN_SNR: {},
    "half the batch": {"train_batch": 0.5},
    "twice the rate": {"learning_rate": 2},
    # the three that are better than the plain one on both sets, on held-out images
    COMBINED: {"train_timesteps": 0.5, "train_batch": 0.5, "learning_rate": 2},
}
METRICS = ("i_auroc", "pro")
# times the settings' own
TIMES = ("train_timesteps", "train_batch", "learning_rate")


def min_snr_loss(eps_theta, z0: Tensor, t: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """The objective weighed by min(SNR, GAMMA) / SNR, SNR = abar / (1 - abar)."""
    at = abar[t].view(-1, 1, 1, 1)
    snr = at / (1 - at)
    error = F.mse_loss(eps_theta(q_sample(z0, at, eps), t), eps, reduction="none")
    return (snr.clamp(max=GAMMA) / snr * error).mean()


def trainings(settings: Settings, steps: int) -> dict[tuple[str, float], Settings]:
    """(name, share of the images that `steps`, the whole training, sees) -> settings.
    """
    found = {(WHOLE, share): settings.change(train_length=f"{round(steps * share)} "
                                             "steps") for share in LENGTHS}
    for name, change in OTHERS.items():
        change = {key: type(getattr(settings, key))(getattr(settings, key) * value)
                  if key in TIMES else value for key, value in change.items()}
        batch = change.get("train_batch", settings.train_batch)
        for share in LENGTHS[1:3] if name == COMBINED else (THIRD,):
            length = round(steps * share * settings.train_batch / batch)
            found[name, share] = settings.change(train_length=f"{length} steps",
                                                 **change)
    return found


def trained(name: str, z0: tuple, settings: Settings) -> tuple[nn.Module, dict]:
    """A U-Net and what its training records, seconds of the processor among it."""
    torch.manual_seed(settings.seed)
    unet = build_unet(settings, z0[0].shape[1], z0[0].shape[-1])
    other = (patch.object(training, "epsilon_loss", min_snr_loss) if name == MIN_SNR
             else nullcontext())
    started = time.process_time()
    with other:
        record = training.train_noise_predictor(unet, *z0, settings,
                                                torch.device("cpu"))
    return unet, record | {"cpu_seconds": round(time.process_time() - started, 1)}


@torch.no_grad()
def held_out_loss(detector: Detector, z0: Tensor, draws: int = 8) -> float:
    """The plain objective on latents (M, C, h, w) that no training saw, t drawn below
    T_max, where sampling goes.
    """
    s, losses = detector.settings, []
    generator = torch.Generator().manual_seed(s.seed)
    for _ in range(draws):
        t = torch.randint(s.T_max, (len(z0),), generator=generator)
        eps = torch.randn(z0.shape, generator=generator)
        losses.append(epsilon_loss(detector.networks.eps_theta, z0, t, eps,
                                   alpha_bar(s)).item())
    return sum(losses) / draws


@dataclass
class Today:
    """One data set and seed: its images, their latents, and the detector that the
    settings' own training gives, calibrated.
    """

    images: Images
    held_out: Images | None
    z0: tuple                       # of the training images, see `encode_all`
    z0_good: Tensor
    trial: Trial
    test: TestSet
    detector: Detector
    lies: Path

    @classmethod
    def of(cls, data: Path, settings: Settings, vae, out: Path) -> Today:
        images, held_out = load_train(data, settings), load_held_out(data, settings)
        train, good = training.hold_out(images, settings, held_out)
        bare = Detector(settings, Networks(vae, None, nn.Identity(), "cpu",
                                           settings.precision))
        z0 = encode_all(bare.projection, bare.networks, train)
        lies = out / f"{data.name}-{settings.seed}" / "detector"

        def first(_: Path) -> Detector:
            unet, record = trained(WHOLE, z0, settings)
            found = Detector.fit(images, settings, held_out=held_out, vae=vae,
                                 unet=unet, calibrate=True)
            found.record["training"] = record
            return found

        detector = fitted(
            lies, first, lambda folder: Detector.from_pretrained(folder, vae=vae))
        chosen = drawn(training.split(good, settings)[0], settings)
        trial = Trial.of(chosen, settings.seed, -(-DEFECTS // len(chosen)))
        z0_good = encode_all(bare.projection, bare.networks, good)[0]
        return cls(images, held_out, z0, z0_good, trial, load_test(data, settings),
                   detector, lies)

    def other(self, name: str, settings: Settings) -> Detector:
        """With another U-Net, and the constants and features of the first."""
        kept = {name: getattr(self.detector.settings, name) for name in CHOSEN}
        unet, record = trained(name, self.z0, settings)
        found = Detector.fit(
            self.images, settings.change(**kept, tune_epochs=0), unet=unet,
            held_out=self.held_out, vae=self.detector.networks.vae,
            phi=self.detector.networks.phi)
        found.record["training"] = record
        return found

    def judged(self, detector: Detector) -> dict:
        [found] = sweep(detector, self.trial.images, self.trial.masks, [{}], [{}]).table
        result, _ = evaluate(detector, self.test)
        return {"loss": held_out_loss(detector, self.z0_good),
                "on_held_out": {metric: found[metric] for metric in METRICS},
                "on_test": {metric: result[metric] for metric in METRICS}}


def rows_of(data: Path, settings: Settings, vae, out: Path, done: list[dict],
            combined: bool = False) -> Iterator[dict]:
    """A row for each training of one data set and seed that is not yet `done`.

    combined: of the whole one and those of COMBINED alone.
    """
    identity = {"category": data.name, "seed": settings.seed}
    steps = settings.steps_for(len(load_train(data, settings)))
    asked = {key: s for key, s in trainings(settings, steps).items()
             if (not combined or key == (WHOLE, 1) or key[0] == COMBINED)
             and not any(row["way"] == key[0] and row["share"] == key[1]
                        and identity.items() <= row.items() for row in done)}
    if not asked:
        return
    today = Today.of(data, settings, vae, out)
    for (name, share), s in asked.items():
        whole = (name, share) == (WHOLE, 1)
        one = today.detector if whole else today.other(name, s)
        yield (identity | {"way": name, "share": share, "batch": s.train_batch}
               | today.judged(one) | {"settings": portable(one.settings)}
               | made_with(one, fingerprint(data), today.lies))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, metavar="OUT")
    options.add_argument("--of", nargs=2, action="append", required=True,
                         metavar=("DATA", "VAE"))
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--combined", action="store_true")
    options.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    asked = options.parse_args()
    path = asked.out / f"{NAME}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for data, name in asked.of:
        vae = load_vae(name)
        for seed in asked.seeds:
            settings = preset("clean").parse(
                [*asked.set, f"vae={name}", f"seed={seed}"])
            for row in rows_of(Path(data), settings, vae, asked.out, rows[:],
                               asked.combined):
                rows.append(row)
                print(row["category"], seed, row["way"], f"{row['share']:.2f}",
                      flush=True)
                write_json(path, rows)


# --- the tables

def mean_of(rows: list[dict], way: str, share: float, data: str, *place: str) -> float:
    """Over the seeds, of the number that stands under the names of `place`."""
    return mean(reduce(getitem, place, row) for row in rows if row["category"] == data
                and row["way"] == way and row["share"] == share)


def ways(rows: list[dict]) -> dict[tuple[str, float], float]:
    """(way, share) -> its time over that of the whole training, mean of the sets."""
    sets, found = {row["category"] for row in rows}, {}
    for row in rows:
        key = row["way"], row["share"]
        found[key] = mean(mean_of(rows, *key, data, "training", "cpu_seconds")
                          / mean_of(rows, WHOLE, 1, data, "training", "cpu_seconds")
                          for data in sets)
    return found


def complete(rows: list[dict]) -> list[dict]:
    """Those of the seeds with which every training was run."""
    keys = {(row["way"], row["share"]) for row in rows}
    has = {}
    for row in rows:
        has.setdefault((row["category"], row["seed"]), set()).add(
            (row["way"], row["share"]))
    return [row for row in rows if has[row["category"], row["seed"]] == keys]


def by_way(rows: list[dict]) -> str:
    """A row a training: what it saw, its time, and both metrics on each data set."""
    rows = complete(rows)
    sets, lines = [*dict.fromkeys(row["category"] for row in rows)], []
    for (way, share), seconds in ways(rows).items():
        line = [way, f"{share:.0%}", f"{seconds:.2f}"]
        for data, on in product(sets, ("on_held_out", "on_test")):
            line.append(" / ".join(f"{mean_of(rows, way, share, data, on, m):.3f}"
                                   for m in METRICS))
        lines.append(line)
    head = [f"{name_of(data)}, {on}" for data in sets for on in ("held out", "test")]
    return compact(table(["training", "of the images", "time", *head], lines))


def answer(rows: list[dict]) -> str:
    """What a third of the training loses, and what the best other one of its length
    does, by the held-out images.
    """
    rows = complete(rows)
    sets = [*dict.fromkeys(row["category"] for row in rows)]

    def lost(way: str, on: str) -> dict[str, list[float]]:
        return {data: [mean_of(rows, way, THIRD, data, on, m)
                       - mean_of(rows, WHOLE, 1, data, on, m) for m in METRICS]
                for data in sets}

    def told(found: dict[str, list[float]]) -> str:
        return "; ".join(f"{name_of(data)} {' / '.join(map('{:+.3f}'.format, both))}"
                         for data, both in found.items())

    others = [way for way, share in ways(rows) if share == THIRD]
    best = max(others, key=lambda way: mean(chain(*lost(way, "on_held_out").values())))
    return (f"- **A third of the training**, in {ways(rows)[WHOLE, THIRD]:.2f} of the "
            f"time, gives these differences to the whole one in I-AUROC / PRO on "
            f"held-out images: {told(lost(WHOLE, 'on_held_out'))}. On the test images: "
            f"{told(lost(WHOLE, 'on_test'))}.\n"
            f"- **Of {len(others)} trainings that see as many images** the best on the "
            f"held-out ones is *{best}*, in {ways(rows)[best, THIRD]:.2f} of the whole "
            f"training's time: {told(lost(best, 'on_held_out'))}. On the test images: "
            f"{told(lost(best, 'on_test'))}.")


def beside_whole(rows: list[dict]) -> list[tuple[dict, float, list[float]]]:
    """Each training of COMBINED, shorter ones first: its row, its time over that of the
    whole training of its data set and seed, and by how much it is above that one: both
    metrics on held-out images, then on test images.
    """
    wholes = {(row["category"], row["seed"]): row for row in rows
              if (row["way"], row["share"]) == (WHOLE, 1)}
    found = []
    for row in sorted((row for row in rows if row["way"] == COMBINED),
                      key=lambda row: (row["share"], row["category"], row["seed"])):
        whole = wholes[row["category"], row["seed"]]
        took = [one["training"]["cpu_seconds"] for one in (row, whole)]
        found.append((row, took[0] / took[1], [
            row[on][metric] - whole[on][metric]
            for on in ("on_held_out", "on_test") for metric in METRICS]))
    return found


def in_the_same_time(rows: list[dict]) -> str:
    """How COMBINED with two thirds of the images does against the whole training: means
    over data sets, from the lowest to the highest of all runs.
    """
    found = [one for one in beside_whole(rows) if one[0]["share"] == 2 / 3]
    sets = {row["category"] for row, _, _ in found}

    def over(values: Callable[[tuple], float]) -> float:
        return mean(mean(values(one) for one in found if one[0]["category"] == data)
                    for data in sets)

    told = [f"{over(lambda one, n=n: one[2][n]):+.3f} ({min(runs):+.3f} to "
            f"{max(runs):+.3f})" for n, runs in enumerate(zip(*(
                above for *_, above in found)))]
    return (f"In {over(lambda one: one[1]):.2f} of the whole training's time, "
            f"*{COMBINED}* with two thirds of the images differs from it, on "
            f"{len(sets)} data sets and {len(found)} pairs of trainings, by I-AUROC "
            f"{told[0]} and PRO {told[1]} on held-out images, {told[2]} and {told[3]} "
            "on the test images. In brackets: the lowest and the highest.")


def combined(rows: list[dict]) -> str:
    """A row a data set, seed and length of COMBINED beside the whole training."""
    lines = [[f"{row['share']:.0%}", name_of(row["category"]), row["seed"],
              f"{took:.2f}", *map("{:+.3f}".format, above)]
             for row, took, above in beside_whole(rows)]
    head = [f"{on}: {title}" for on in ("held out", "test")
            for title in ("I-AUROC", "PRO")]
    return table(["of the images", "data set", "seed", "time", *head], lines)


def _of(make):
    return lambda: make(load(NAME)) if recorded(NAME) else "Not run yet."


TABLES = {NAME: _of(by_way), f"{NAME}_answer": _of(answer),
          f"{NAME}_combined": _of(combined), f"{NAME}_same": _of(in_the_same_time)}


if __name__ == "__main__":
    main()
