"""Numbers of AUPIMO's reference implementation on made-up maps: aupimo_numbers.json.

    python tests/evaluation/record_aupimo.py

It needs anomalib (2.7.0 was used), where the authors of the paper maintain their code;
the test that reads the numbers does not. None of that code is here.

Theirs takes thresholds equally spaced over the scores of the good images, and the
trapezoid between them; the ends of its range are those thresholds whose rates are
nearest to 1e-5 and 1e-4. With many thresholds and few equal scores that is the step
that ddad takes, but for the ends.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

NUMBERS = Path(__file__).with_name("aupimo_numbers.json")
THRESHOLDS = 200_000
# good images, side: of a million good pixels the ends are whole numbers of pixels, of
# the others 3.9 and 39.3
CASES = {"a million pixels": (25, 200), "between pixels": (24, 128)}
# of the defects: how far they stand out, and the side of their square
STRENGTHS, SIDES = (0.0, 2.0, 3.5, 4.0, 4.5, 6.0), (30, 12, 40, 25, 6, 20)


def drawn(case):
    """Maps (N, H, W) float32, masks and labels: good images, then defective ones.

    One good image is noisier than the others; defective ones have scores outside their
    masks that no good image has. numpy has frozen the stream of RandomState.
    """
    good, side = CASES[case]
    n = good + len(STRENGTHS)
    maps = np.random.RandomState(good).normal(size=(n, side, side))
    masks, labels = np.zeros(maps.shape, bool), np.arange(n) >= good
    maps[0] *= 1.1
    for i, (strength, width) in enumerate(zip(STRENGTHS, SIDES), good):
        masks[i, 10 : 10 + width, 20 : 20 + width] = True
        maps[i] += strength * masks[i]
        maps[i, -5:] += 9
    return maps.astype(np.float32), masks, labels.astype(int)


def record():
    """What aupimo_numbers.json holds."""
    import torch
    from anomalib.metrics.pimo.functional import aupimo_scores

    found = {}
    for case in CASES:
        maps, masks, labels = drawn(case)
        *_, scores, points = aupimo_scores(
            torch.from_numpy(maps), torch.from_numpy(masks), THRESHOLDS)
        found[case] = {"points": points, "aupimo": scores[labels == 1].tolist()}
    return {"package": "anomalib", "version": version("anomalib"),
            "thresholds": THRESHOLDS, "cases": found}


if __name__ == "__main__":
    NUMBERS.write_text(json.dumps(record()) + "\n", encoding="utf-8")
