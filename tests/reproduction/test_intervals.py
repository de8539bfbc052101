"""The resampled I-AUROC of a receipt is scikit-learn's."""
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ddad.reproduction import intervals


@pytest.mark.parametrize("levels", [3, 1000])
def test_auroc_is_that_of_scikit_learn_with_ties_and_without(monkeypatch, levels):
    rng = np.random.default_rng(levels)
    truth, scores = np.repeat([0, 1], 30), rng.integers(levels, size=60).astype(float)
    index = [rng.integers(60, size=60) for _ in range(20)]
    monkeypatch.setattr(intervals, "draws", lambda receipt, category: index)
    monkeypatch.setattr(intervals, "labels", lambda receipt, run: truth)
    found = intervals.auroc_resampled({}, {"category": "any"}, scores.tolist())
    expected = [roc_auc_score(truth[i], scores[i]) for i in index]
    assert found == pytest.approx(expected, abs=1e-12)
