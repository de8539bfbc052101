"""Numbers of anomalib's PatchCore, PaDiM and AUPRO, on small made-up inputs:
anomalib_numbers.json.

    python tests/evaluation/record_anomalib.py

It needs anomalib and nothing of ddad; the test that reads the numbers needs no
anomalib. Run, on features in place of their backbone's: PatchcoreModel's
nearest_neighbors and compute_anomaly_score, its map's generator with the smoothing,
KCenterGreedy; PaDiM's MultiVariateGaussian and its distance; AUPRO. Stand-ins:
KCenterGreedy's random projection, left out, and its first draw, given.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace as Names
from unittest import mock

import numpy as np
import torch

NUMBERS = Path(__file__).with_name("anomalib_numbers.json")
SIDE, SIZE, D, SHARE, SEED = 8, 64, 12, 0.1, 3
STRIDE = 7                              # maps are recorded at every 7th pixel


def drawn(seed, *shape):
    """Standard normal, float32; numpy has frozen the stream of RandomState."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def features():
    """Of 20 training and 5 test images, (N, SIDE, SIDE, D): of like scale as a
    network's, not centred, each place with its own mean; two of the tests with a
    region that is unlike.
    """
    scale = torch.linspace(2, 0.3, D)
    place = drawn(0, 1, SIDE, SIDE, D)
    train, test = (3 + scale * (place + drawn(n, count, SIDE, SIDE, D))
                   for n, count in ((1, 20), (2, 5)))
    test[3, 2:4, 5:7] += 2.5
    test[4, 6, :4] -= 2
    return train, test


def masks():
    """(5, SIZE, SIZE) bool: of the last two tests, with a region that touches another
    at a corner.
    """
    masks = torch.zeros(5, SIZE, SIZE, dtype=torch.bool)
    masks[3, 16:32, 40:56] = masks[4, 48:56, :32] = masks[4, 40:48, 32:36] = True
    return masks


def numbers(values):
    """Nested lists, of eight digits; of maps every STRIDE-th pixel."""
    if values.shape[-1] == SIZE:
        values = values[..., ::STRIDE, ::STRIDE]
    return json.loads(json.dumps(values.tolist()),
                      parse_float=lambda digits: float(f"{float(digits):.8g}"))


def record():
    """What anomalib_numbers.json holds."""
    import anomalib
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.models.components import KCenterGreedy, MultiVariateGaussian
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    train, test = features()
    greedy = KCenterGreedy(train.flatten(0, 2), SHARE)
    greedy.model = Names(fit=lambda x: None, transform=lambda x: x)
    draws = torch.Generator().manual_seed(SEED)             # ours, of a seed
    first = torch.randint(greedy.n_observations, (1,), generator=draws)
    with mock.patch("torch.randint", lambda **how: first):
        core = torch.tensor(greedy.select_coreset_idxs())
    model = PatchcoreModel(["layer2"], "resnet18", pre_trained=False)
    model.memory_bank = train.flatten(0, 2)[core]
    y = test.flatten(0, 2)
    distance, index = (one.view(len(test), -1)
                       for one in model.nearest_neighbors(y, 1))
    score = model.compute_anomaly_score(distance, index, y)
    grid = distance.view(-1, 1, SIDE, SIDE)
    A = model.anomaly_map_generator(grid, (SIZE, SIZE))[:, 0]
    pro = {}
    for limit in (0.3, 0.05):
        metric = _AUPRO(fpr_limit=limit)
        metric.update(A, masks())
        pro[str(limit)] = float(metric.compute())
    gaussian = MultiVariateGaussian()
    learned = gaussian.fit(train.permute(0, 3, 1, 2))
    padim = AnomalyMapGenerator.compute_distance(test.permute(0, 3, 1, 2), learned)
    return {
        "versions": {one.__name__: one.__version__ for one in (anomalib, torch, np)},
        "train": numbers(train[0, 0, 0]), "core": core.tolist(),
        "distance": numbers(grid[:, 0]), "index": index.tolist(),
        "score": numbers(score), "map": numbers(A), "pro": pro,
        "padim": numbers(padim[:, 0])}


if __name__ == "__main__":
    made = record()
    NUMBERS.write_text(json.dumps(made) + "\n", encoding="utf-8")
    print(json.dumps(made["versions"]), file=sys.stderr)
