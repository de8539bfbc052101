"""The conformal p-value and threshold, against their definitions and in numbers."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from ddad import conformal

# few values, so that many are equal; and floats that differ in their last bit
levels = st.integers(-3, 3).map(lambda i: np.float32(0.1) * np.float32(1 + i * 2**-23))
score_lists = st.lists(levels, min_size=1, max_size=60).map(torch.tensor)
few = settings(max_examples=200, deadline=None, derandomize=True, database=None)
rates = st.floats(0.001, 0.999) | st.integers(2, 60).map(lambda n: 1 / n)


def counted(scores, held_out):
    """p as its definition says, one score at a time."""
    M = len(held_out)
    return [(1 + sum(one >= score for one in held_out.tolist())) / (M + 1)
            for score in scores.tolist()]


@few
@given(score_lists, score_lists)
def test_p_counts_the_scores_that_are_as_large(scores, held_out):
    p = conformal.p_value(scores, held_out)
    assert p.dtype == torch.float64 and p.shape == scores.shape
    assert p.tolist() == counted(scores, held_out)


@few
@given(score_lists, score_lists, rates)
def test_flagged_exactly_where_p_is_at_most_the_rate(scores, held_out, rate):
    promised = conformal.promised(len(held_out), rate)
    threshold = conformal.threshold(held_out, rate)
    flagged = [score > threshold for score in scores.tolist()]
    assert flagged == (conformal.p_value(scores, held_out) <= promised).tolist()
    assert threshold in held_out.tolist()
    assert promised == rate or not any(p <= rate for p in counted(scores, held_out))


@pytest.mark.parametrize("M", [19, 20, 39, 48, 99, 100, 199, 999])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.07, 0.1, 0.29, 0.5])
def test_the_same_for_many_scores_of_float32(M, rate):
    draws = torch.Generator().manual_seed(M)
    held_out = torch.randn(M, generator=draws)
    scores = torch.cat([held_out, torch.randn(2000, generator=draws)])
    flagged = scores > conformal.threshold(held_out, rate)
    assert torch.equal(flagged, conformal.p_value(scores, held_out)
                       <= conformal.promised(M, rate))


def test_equal_scores_and_the_ends():
    held_out = torch.tensor([1.0, 2.0, 2.0, 3.0])
    p = conformal.p_value(torch.tensor([0.0, 1.0, 2.0, 2.5, 3.0, 4.0]), held_out)
    assert p.tolist() == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]
    # 2 of 5 may be flagged; of the scores 2, 2, 3 and the new one none is among them
    assert conformal.threshold(held_out, 0.4) == 2.0
    assert conformal.threshold(held_out, 0.2) == 3.0
    assert conformal.threshold(held_out, 0.9) == 1.0
    same = torch.full((30,), 0.25)
    assert conformal.threshold(same, 0.1) == 0.25
    assert conformal.p_value(same, same).tolist() == [1.0] * 30


# --- on exchangeable scores

def trials(M, N, repeats=4000, ties=False):
    """Held-out (repeats, M) and new scores (repeats, N) of one distribution."""
    rng = np.random.default_rng(0)
    drawn = rng.gamma(2.0, size=(repeats, M + N)).astype(np.float32)
    drawn = torch.from_numpy(drawn.round(1) if ties else drawn)
    return drawn[:, :M], drawn[:, M:]


def test_p_is_uniform_on_exchangeable_scores():
    M = 24
    held_out, new = trials(M, 1)
    p = torch.cat([conformal.p_value(*pair) for pair in zip(new, held_out)]).numpy()
    ranks = np.bincount((p * (M + 1)).round().astype(int), minlength=M + 2)[1:]
    expected = len(p) / (M + 1)
    assert ((ranks - expected) ** 2 / expected).sum() < 52      # chi2(24), 99.9%
    smeared = p - np.random.default_rng(1).random(len(p)) / (M + 1)
    assert kstest(smeared, "uniform").pvalue > 0.001


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("M", "rate"), [(24, 0.05), (48, 0.05), (99, 0.1), (9, 0.05)])
def test_false_alarms_are_as_rare_as_promised(M, rate, ties):
    held_out, new = trials(M, 1, ties=ties)
    flagged = sum(new[i].item() > conformal.threshold(one, rate)
                  for i, one in enumerate(held_out))
    mean, _, _ = conformal.expected(M, rate)
    assert mean <= conformal.promised(M, rate)
    side = "greater" if ties else "two-sided"   # equal scores make it more careful
    assert binomtest(flagged, len(new), mean, alternative=side).pvalue > 0.001


@pytest.mark.parametrize(("M", "rate"), [(24, 0.05), (100, 0.1), (9, 0.05)])
def test_the_rate_given_the_held_out_images(M, rate):
    held_out = torch.from_numpy(np.random.default_rng(0).random((3000, M)))
    # of uniform scores the share above a threshold is known
    shares = [1 - conformal.threshold(one, rate) for one in held_out]
    mean, low, high = conformal.expected(M, rate)
    assert np.mean(shares) == pytest.approx(mean, rel=0.05)
    for outside in (np.less(shares, low), np.greater(shares, high)):
        assert binomtest(int(outside.sum()), len(shares), 0.05).pvalue > 0.001


# --- few images

def test_too_few_images_promise_what_they_can():
    held_out = torch.arange(10.0)
    assert conformal.threshold(held_out, 0.05) == 9
    assert conformal.promised(10, 0.05) == 1 / 11
    assert conformal.expected(10, 0.05)[0] == 1 / 11
    said = conformal.shortage(10, 0.05)
    assert "10 held-out" in said and "5.00%" in said and "9.09%" in said
    assert said.endswith("takes 19")
    assert conformal.shortage(19, 0.05) == "" and conformal.promised(19, 0.05) == 0.05


@pytest.mark.parametrize("rate", [0.003, 0.01, 0.03, 0.05, 1 / 49, 0.07, 0.3])
def test_the_number_it_names_is_the_smallest(rate):
    needed = int(conformal.shortage(1, rate).split()[-1])
    assert conformal.shortage(needed, rate) == ""
    assert conformal.shortage(needed - 1, rate) != ""


@pytest.mark.parametrize(("held_out", "rate"), [
    (torch.empty(0), 0.05), (torch.ones(3), 0.0), (torch.ones(3), 1.0),
    (torch.ones(3), float("nan"))])
def test_what_no_threshold_can_be_made_of(held_out, rate):
    with pytest.raises(ValueError, match="needs a rate between 0 and 1"):
        conformal.threshold(held_out, rate)
