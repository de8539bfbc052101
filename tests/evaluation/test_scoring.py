"""A detector over a test set: metrics by the clean and by the official rules."""
import json

import numpy as np
import pytest

from ddad.evaluation import metrics
from ddad.evaluation.metrics import PixelRanking
from ddad.evaluation.scoring import evaluate, summary, youden


def test_evaluation_by_the_clean_rules(fitted, test_set):
    result, found = evaluate(fitted, test_set, bootstrap_repeats=5)
    assert json.loads(json.dumps(result)) == result
    assert result["threshold"] == fitted.threshold
    assert result["images"] == 8 and result["defective"] == 4
    short = summary(found.score, found.map, test_set)
    figures = {name: short[name] for name in ("i_auroc", "p_auroc", "pro")}
    assert {name: result[name] for name in figures} == pytest.approx(figures)
    # and what they are made of, image by image
    assert short["score"] == pytest.approx(found.score.tolist())
    assert sum(short["overlap"]) / 4 == pytest.approx(short["pro"])
    assert [len(third) for third in short["false"]] == [8] * 3
    flagged = (found.score > fitted.threshold).float()
    assert result["recall"] == flagged[4:].mean().item()
    assert result["false_positive_rate"] == flagged[:4].mean().item()
    shares = ("i_auroc", "p_auroc", "pro", "pro_005", "p_ap")
    assert all(0 <= result[name] <= 1 for name in shares)
    assert len(result["interval"]["pro"]) == 2


def test_evaluation_by_the_official_rules(fitted, test_set):
    official = fitted.under(fitted.settings.change(
        pro="200-thresholds", mask_rule="bilinear", threshold="youden"))
    # a blurred edge: above 0 counts for the pixels, below 1 not for PRO
    test_set.masks[4:, 0, :4] = 0.3
    result, found = evaluate(official, test_set)
    A, masks = found.map.numpy(), test_set.masks
    assert result["pro"] == metrics.pro_200(A, masks) and result["pro_005"] is None
    auroc = lambda above: PixelRanking(A, masks > above).auroc()
    assert result["p_auroc"] == pytest.approx(auroc(0))
    assert result["p_auroc"] != pytest.approx(auroc(0.5), abs=1e-6)
    assert result["threshold"] == youden(found.score.numpy(), test_set.labels)


def test_a_prediction_weighed_anew_is_scored_like_a_new_one(fitted, test_set):
    other = fitted.under(fitted.settings.change(lam=0.0))
    again, _ = evaluate(other, test_set, found=fitted.predict(test_set.images))
    fresh, _ = evaluate(other, test_set)
    for name in ("i_auroc", "p_auroc", "pro", "recall"):
        assert again[name] == pytest.approx(fresh[name], abs=1e-6)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_youden_by_hand(kind):
    scores = np.array([0.1, 0.4, 0.35, 0.8, 0.7], kind)
    labels = np.array([0, 0, 1, 1, 1])
    # 0.7 and 0.8 found, none wrongly: 2/3; all three and one wrongly: 1 - 1/2
    threshold = youden(scores, labels)
    assert 0.4 < threshold < 0.7
    assert np.mean(scores[labels == 1] > threshold) == pytest.approx(2 / 3)
