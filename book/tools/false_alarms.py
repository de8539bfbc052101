"""False alarms on freshly drawn good images, beside the rate that was promised.

    python book/tools/false_alarms.py --out FILE [--seed N] [--images N] [--trials N]

Of each drawn product, by its shipped detector:

own       how many images it flags at the threshold of its own held-out images, which a
          detector that does not keep its word would fail;
trials    the same where M of the fresh images are held out and the others judged, again
          and again: how far a rate lies from its mean with so few. Of one pool any
          order is as likely, so this tests the arithmetic, not the detector;
training  how many it would flag if training images were ranked among, each half of them
          by memory banks of the other half: why they are not.

Intervals are beta-binomial: the threshold is one for all images of a trial, and so its
alarms are binomial with a rate that is itself drawn.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import betabinom
from torch import Tensor

from ddad import conformal
from ddad.detector import Detector
from ddad.reproduction.runs import commit
from ddad.runtime.files import sha256, write_json
from ddad.runtime.manifest import MANIFEST, versions
from ddad.synthetic.products import PRODUCTS, image_seed, render
from ddad.synthetic.weights import WEIGHTS
from ddad.training import hold_out

RATES, HELD_OUT = (0.05, 0.1, 0.2), (20, 40, 100)
LEVEL, Z = 0.95, 1.96


def drawn(product: str, split: str, which: Sequence[int], seed: int, size: int
          ) -> Tensor:
    """Good images (N, 3, size, size) in [-1, 1], those of these numbers in a split."""
    seeds = [image_seed(product, split, i, seed) for i in which]
    levels = np.stack([render(product, size, one)[0] for one in seeds])
    return torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1


def own(fresh: Tensor, held_out: Tensor, rate: float) -> dict:
    """False alarms on fresh scores (N,) at the threshold of held-out ones (M,)."""
    N, M = len(fresh), len(held_out)
    flagged = int((fresh > conformal.threshold(held_out, rate)).sum())
    mean, low, high = conformal.expected(M, rate)
    interval = [float(n / N) for n in alarms(M, N, rate).interval(LEVEL)]
    return {"held_out": M, "rate": rate, "promised": conformal.promised(M, rate),
            "mean": mean, "nine_of_ten": [low, high], "interval": interval,
            "false_alarms": flagged / N,
            "within": interval[0] <= flagged / N <= interval[1]}


def trials(scores: Tensor, M: int, rate: float, repeats: int, seed: int) -> dict:
    """The mean share of false alarms where M of the scores (N,) are held out, drawn
    anew each time, and the others judged.
    """
    draws, N, found = torch.Generator().manual_seed(seed), len(scores) - M, []
    for _ in range(repeats):
        order = scores[torch.randperm(len(scores), generator=draws)]
        threshold = conformal.threshold(order[:M], rate)
        found.append((order[M:] > threshold).double().mean().item())
    mean = conformal.expected(M, rate)[0]
    spread = float(alarms(M, N, rate).std() / N)
    interval = [mean - Z * spread / repeats**0.5, mean + Z * spread / repeats**0.5]
    realised = float(np.mean(found))
    return {"held_out": M, "rate": rate, "promised": conformal.promised(M, rate),
            "mean": mean, "interval": interval, "false_alarms": realised,
            "within": interval[0] <= realised <= interval[1],
            "spread": float(np.std(found)), "expected_spread": spread}


def alarms(M: int, N: int, rate: float):
    """How many of N good images exceed the threshold of M held-out ones: negative
    hypergeometric, which is beta-binomial.
    """
    k = round(conformal.expected(M, rate)[0] * (M + 1))
    return betabinom(N, k, M + 1 - k)


def cross_fitted(detector: Detector, product: str, at_most: int) -> Tensor:
    """Scores of training images, each half with memory banks of the other half."""
    s = detector.settings
    train, good = (part.tolist() for part in hold_out(
        torch.arange(detector.record["images"]), s))
    train, good = (drawn(product, "train", part[:at_most], 0, s.image_size)
                   for part in (train, good))
    scores = []
    for first in (0, 1):
        other = detector.under(s)
        other.set_banks(train[1 - first :: 2], good)
        scores.append(other.predict(train[first::2]).score)
    return torch.cat(scores)


def of_product(product: str, given: argparse.Namespace) -> dict:
    folder = given.weights / product
    detector = Detector.from_pretrained(folder, device="cpu")
    if (held_out := detector.held_out_scores) is None:
        raise SystemExit(f"{folder} has no held-out scores; train it anew")
    images = drawn(product, "test_good", range(given.images), given.seed,
                   detector.settings.image_size)
    fresh, rate = detector.predict(images).score, detector.settings.false_alarms
    learnt = cross_fitted(detector, product, given.training)
    return {
        "own": [own(fresh, held_out, rate) for rate in RATES],
        "trials": [trials(fresh, M, rate, given.trials, given.seed)
                   for M in HELD_OUT],
        "training": [own(fresh, learnt, rate) for rate in RATES],
        "score": {"fresh": fresh.tolist(), "held_out": held_out.tolist(),
                  "training": learnt.tolist()},
        "weights": sha256(folder / MANIFEST)}


def parsed(arguments: list[str]) -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    options.add_argument("--seed", type=int, default=1,
                         help="of fresh images and trials; 0 drew the training images")
    options.add_argument("--images", type=int, default=300, help="fresh ones a product")
    options.add_argument("--trials", type=int, default=200)
    options.add_argument("--training", type=int, default=192,
                         help="training images that are scored, at most")
    options.add_argument("--weights", type=Path, default=WEIGHTS)
    found = options.parse_args(arguments)
    if found.images <= max(HELD_OUT):
        options.error(f"--images: more than {max(HELD_OUT)}, so that some are judged")
    if not found.seed:
        options.error("--seed: not 0, which drew what the detectors have learnt")
    return found


def main(arguments: list[str]) -> dict:
    given = parsed(arguments)
    record = {name: getattr(given, name) for name in ("seed", "images", "trials")}
    record |= {"products": {one: of_product(one, given) for one in PRODUCTS},
               "versions": versions(), "device": "cpu", "commit": commit()}
    write_json(given.out, record)
    for product, found in record["products"].items():
        for question in ("own", "trials", "training"):
            for row in found[question]:
                low, high = row["interval"]
                print(f"{product}, {question}: {row['held_out']} held out, "
                      f"{row['rate']:.0%} asked: {row['false_alarms']:.2%}, expected "
                      f"{row['mean']:.2%} ({low:.2%} to {high:.2%})")
    return record


if __name__ == "__main__":
    main(sys.argv[1:])
