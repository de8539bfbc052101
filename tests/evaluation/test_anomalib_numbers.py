"""The baselines and PRO beside a well-kept implementation: what anomalib made of the
same features, recorded by record_anomalib.py.

Three definitions differ. Its PatchCore enlarges the map by the nearest cell, ours
bilinearly as the method's maps; its Gaussian is of 4 pixels at every size, ours of 4 in
256. Its PaDiM adds 1e-5 to the covariance a second time. Its random projection before
the core set is sparse, ours dense: here there is none, since D is small.
"""

import json

import pytest
import torch
from record_anomalib import NUMBERS, SEED, SIZE, STRIDE, features, masks
from torch.nn import functional as F

from ddad import anomaly_map as maps
from ddad.evaluation import patches
from ddad.evaluation.metrics import PixelRanking

THEIRS = json.loads(NUMBERS.read_text(encoding="utf-8"))
TRAIN, TEST = features()


def same(found, recorded, tolerance=1e-4):
    """To rounding of float32: their distances, of squares that cancel, lose a digit."""
    recorded = torch.tensor(recorded)
    assert found.shape == recorded.shape
    assert (found - recorded).abs().max() < tolerance


def core():
    return patches.core(TRAIN, SEED)


def test_the_numbers_are_of_these_features():
    assert THEIRS["versions"]["anomalib"] == "2.7.0"
    same(TRAIN[0, 0, 0], THEIRS["train"], 1e-6)


def test_recorded_core_set():
    bank = patches.rows(TRAIN)
    size = len(THEIRS["core"])
    assert patches.core_set(bank, size, SEED).tolist() == THEIRS["core"]
    assert len(core()) == size == 128


def test_recorded_distances_and_scores():
    distance, index = patches.nearest(patches.rows(TEST), core())
    same(distance.view(TEST.shape[:3]), THEIRS["distance"])
    assert index.view(len(TEST), -1).tolist() == THEIRS["index"]
    A, score = patches.patchcore(core(), TEST)
    same(A, THEIRS["distance"])
    same(score, THEIRS["score"])


def their_map():
    A, _ = patches.patchcore(core(), TEST)
    return maps.smooth(F.interpolate(A.unsqueeze(1), size=SIZE).squeeze(1), 4.0)


def test_recorded_map():
    """Ours under their two definitions; and with ours, almost the same ranking."""
    theirs = their_map()
    same(theirs[:, ::STRIDE, ::STRIDE], THEIRS["map"])
    ours = maps.smooth(maps.upsample(patches.patchcore(core(), TEST)[0], SIZE), 4.0)
    both = torch.stack([theirs.flatten(), ours.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.95 and (theirs - ours).abs().max() > 0.1


@pytest.mark.parametrize("limit", [0.3, 0.05])
def test_recorded_pro(limit):
    found = PixelRanking(their_map().numpy(), masks().numpy()).pro(limit)
    assert found == pytest.approx(THEIRS["pro"][str(limit)], abs=1e-5)


def test_recorded_padim(monkeypatch):
    monkeypatch.setattr(patches, "RIDGE", patches.RIDGE + 1e-5)
    A = patches.padim(patches.gaussians(TRAIN, seed=0), TEST)
    same(A, THEIRS["padim"], 1e-3)
