"""Verdicts: each on planted data, the coverage of both intervals by simulation, and
what would follow if trainings on one test set counted as independent.
"""
import numpy as np
import pytest
from scipy.stats import norm, spearmanr, ttest_1samp

from ddad.reproduction import verdicts
from ddad.reproduction.verdicts import (
    CONFIRMED,
    CONTRADICTED,
    DIFFERS,
    OPEN,
    Effect,
    across,
    effect,
    holm,
    minus,
    sides,
    verdict,
)

N, RUN = 80, {"category": "any"}


def receipt_of(group=None, kinds=("good", "bad")):
    """Half of the test images good, each defective one with one region."""
    kind = np.repeat(kinds, N // len(kinds)).tolist()
    bad = np.array([one != "good" for one in kind])
    area = bad * np.linspace(0.01, 0.2, N)
    test = {"kind": kind, "area": area.tolist(), "regions": bad.astype(int).tolist(),
            "image": [str(n) for n in range(N)], "group": group}
    return {"format": 2, "test": {"any": test}}


def planted(data, values, noise, seed=0):
    """A data set whose seeds have these values, and whose images this much noise."""
    scattered = np.random.default_rng(seed).normal(np.mean(values), noise, 1000)
    return Effect(data, tuple(values), scattered)


def judged(*effects):
    """As the only claim of a ledger."""
    return verdict(effects, *holm([across(effects).p]))


# --- each verdict

def test_the_same_gain_everywhere_confirms_and_the_same_loss_contradicts():
    gains = [planted(name, [gain, gain + 0.2, gain - 0.2], 0.5)
             for name, gain in (("a", 3), ("b", 3.5), ("c", 2.5), ("d", 3.2))]
    losses = [Effect(one.data, tuple(-v for v in one.by_seed), -one.resampled)
              for one in gains]
    assert judged(*gains) == CONFIRMED and judged(*losses) == CONTRADICTED
    assert sides(gains) == [1] * 4 and sides(losses) == [-1] * 4


def test_a_gain_on_one_set_and_a_loss_on_another_differ_by_set():
    mixed = [planted("a", [3, 3.1], 0.5), planted("b", [-3, -3.1], 0.5),
             planted("c", [3, 3.1], 0.5), planted("d", [3, 3.1], 0.5)]
    assert judged(*mixed) == DIFFERS
    # the loss on b may be chance by its images, or by its seeds
    assert judged(mixed[0], planted("b", [-3, -3.1], 3), *mixed[2:]) == OPEN
    torn = planted("b", [-9, 2.8], 0.5)
    assert judged(mixed[0], torn, *mixed[2:]) == OPEN and sides([torn]) == [0]
    # even where the mean over many sets is above zero
    many = [planted(str(n), [3, 3 + n / 50], 0.5) for n in range(15)]
    assert across([*many, mixed[1]]).p < 0.001
    assert judged(*many) == CONFIRMED and judged(*many, mixed[1]) == DIFFERS


def test_sets_that_disagree_on_how_much_and_a_single_one_leave_it_open():
    assert judged(planted("a", [5], 0.5), planted("b", [0.1], 0.5),
                  planted("c", [30], 0.5)) == OPEN
    alone = planted("a", [5, 5.1, 4.9], 0.5)
    assert judged(alone) == OPEN and across([alone]).p is None and sides([alone]) == [1]
    nothing = planted("a", [0.0, 0.0], 0.5)
    assert judged(nothing, nothing) == OPEN


def test_records_without_images_say_nothing_of_one_set_alone():
    mixed = [Effect("a", (3, 3.1)), Effect("b", (-3, -3.1))]
    assert sides(mixed) == [0, 0] and judged(*mixed) == OPEN
    same = [Effect(name, (3 + k / 10,)) for k, name in enumerate("abcd")]
    assert judged(*same) == CONFIRMED


def test_a_claim_among_many_needs_more():
    gains = [planted(name, [gain], 0.5)
             for name, gain in (("a", 3), ("b", 6), ("c", 2), ("d", 5))]
    p = across(gains).p
    assert 0.01 < p < 0.05 and across(gains).low > 0
    alone, among = holm([p])[0], holm([p, *[0.5] * 9])[0]
    assert verdict(gains, alone) == CONFIRMED and verdict(gains, among) == OPEN


def test_holm_is_the_step_down_of_its_paper():
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0] and holm([None]) == [None] and holm([]) == []


def test_sets_are_corrected_for_their_number():
    # a p of about 0.03 by itself
    weak = planted("weak", [2.2, 2.2], 1.0)
    assert 0.01 < weak.p < 0.05 and sides([weak]) == [1]
    others = [planted(str(n), [0.1, 0.1], 1) for n in range(4)]
    assert sides([weak, *others]) == [0] * 5


def test_one_seed_says_nothing_of_another():
    assert sides([planted("a", [9], 0.5)]) == [0] != sides([planted("a", [9, 9], 0.5)])


# --- what is measured

def scores(rng, gain, shared, own=0.5):
    labels = np.repeat([0, 1], N // 2)
    return {"score": (gain * labels + shared + rng.normal(0, own, N)).tolist()}


def auroc_of(gain, own=0.5):
    return norm.cdf(gain / np.sqrt(2 * (1 + own**2)))


def test_the_interval_of_one_set_holds_the_truth_as_often_as_it_says():
    """Two seeds of either run share what is hard about an image."""
    receipt, rng, held = receipt_of(), np.random.default_rng(0), []
    truth, repeats = auroc_of(1.5) - auroc_of(1.0), 150
    for _ in range(repeats):
        shared = rng.normal(size=N)
        pairs = [minus(*(verdicts.auroc(receipt, RUN, scores(rng, gain, shared))
                         for gain in (1.5, 1.0))) for _ in range(2)]
        low, high = effect("any", pairs).interval
        held.append(low <= truth <= high)
    assert 0.90 <= np.mean(held) <= 0.99


def test_pairing_takes_out_what_both_runs_share():
    receipt, rng = receipt_of(), np.random.default_rng(0)
    shared = rng.normal(size=N)
    one, other = (verdicts.auroc(receipt, RUN, scores(rng, gain, shared))
                  for gain in (1.5, 1.0))
    width = lambda drawn: np.subtract(*np.quantile(drawn, [0.975, 0.025]))
    paired = effect("any", [minus(one, other)])
    assert paired.value == one[0] - other[0]
    low, high = paired.interval
    assert high - low < 0.8 * np.hypot(width(one[1]), width(other[1]))


def test_images_of_one_group_count_once():
    """Four copies of each image, in groups: an interval about twice as wide."""
    copied = np.repeat(np.random.default_rng(0).normal(size=N // 4), 4)
    images = {"score": (np.repeat([0, 1.0], N // 2) + copied).tolist()}
    group = [str(n // 4) for n in range(N)]
    whole, alone = (effect("any", [verdicts.auroc(receipt_of(one), RUN, images)])
                    for one in (group, None))
    assert np.diff(whole.interval) > 1.6 * np.diff(alone.interval)


def test_pro_of_a_third_and_the_steps_correlation_are_those_of_the_images():
    receipt = receipt_of()
    test = receipt["test"]["any"]
    overlap = 0.5 * np.array(test["regions"], float)
    overlap[N // 2 : N // 2 + 14] *= 0.2             # the smallest third
    images = {"overlap": overlap, "false": np.zeros((3, N)),
              "T_hat": np.arange(N) // 7}
    value, drawn = verdicts.pro(receipt, RUN, images, third=0)
    assert value < 0.12 and len(drawn) == 1000 and max(drawn) < 0.12
    assert verdicts.pro(receipt, RUN, images, third=2)[0] == pytest.approx(0.5)
    value, _ = verdicts.step_against_area(receipt, RUN, images)
    area = np.array(test["area"])
    expected = spearmanr(images["T_hat"][area > 0], area[area > 0]).statistic
    assert value == pytest.approx(expected)
    static = images | {"T_hat": np.full(N, 80)}
    assert verdicts.step_against_area(receipt, RUN, static)[0] == 0


def test_only_some_kinds_of_defects_count_where_they_are_asked_for():
    receipt = receipt_of(kinds=("good", "dirt", "good", "missing"))
    part = verdicts.only(receipt, "any", ["missing"])["test"]["any"]
    assert part["kept"] == [*range(20), *range(40, 80)] and part["group"] is None
    score = np.zeros(N)
    score[60:] = 1                                  # finds what is missing, not dirt
    images = {"score": [score[n] for n in part["kept"]]}
    assert verdicts.auroc({"test": {"any": part}}, RUN, images)[0] == 1
    assert verdicts.auroc(receipt, RUN, {"score": score.tolist()})[0] == 0.75


# --- data sets are what is independent

def trainings(rng, sets=4, seeds=3, between=1.0, within=0.2):
    """Differences of seeds on data sets; the mean over all data sets is zero."""
    of_set = rng.normal(0, between, (sets, 1))
    return of_set + rng.normal(0, within, (sets, seeds))


def test_the_interval_across_sets_holds_the_truth_as_often_as_it_says():
    """And one that takes trainings as independent misses it four times in ten."""
    rng, ours, naive = np.random.default_rng(0), [], []
    for _ in range(1000):
        values = trainings(rng)
        found = across([Effect(str(n), tuple(one)) for n, one in enumerate(values)])
        ours.append(found.low <= 0 <= found.high)
        naive.append(ttest_1samp(values.ravel(), 0).pvalue >= 0.05)
        assert (found.p >= 0.05) == ours[-1]
    assert 0.935 <= np.mean(ours) <= 0.965
    assert np.mean(naive) < 0.7


def test_twelve_trainings_of_four_sets_are_four_pieces_of_evidence():
    """Large on one set, near nothing on the others: as 12 it would stand."""
    sets = {"a": (5.2, 5.3, 5.1), "b": (6.4, 6.6, 6.5), "c": (2.1, 2.3, 2.2),
            "d": (29.0, 29.3, 29.1)}
    effects = [Effect(name, values) for name, values in sets.items()]
    pooled = ttest_1samp(np.concatenate([*sets.values()]), 0)
    assert pooled.pvalue < 0.01 and pooled.confidence_interval().low > 0
    found = across(effects)
    assert found.low < 0 and found.p > 0.1 and judged(*effects) == OPEN
