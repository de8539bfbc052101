"""Algorithm 2: features, distances, bins at every edge, steps in exact arithmetic."""
import numpy as np
import pytest
import torch
from formulas import LEVELS, seeded

from ddad.dynamic_noise import (
    MemoryBank,
    bin_edges,
    choose_bin,
    feature,
    mean_distance,
    nearest_ten,
    select_step,
)

BINS = torch.arange(1, 11)


@pytest.mark.parametrize("rounding", ["floor", "half-up"])
def test_steps_of_every_bin(rounding):
    step = lambda T_max: select_step(BINS, T_max, rounding=rounding).tolist()
    assert step(80) == [20, *LEVELS]
    assert step(400) == [80, *range(80, 401, 40)]
    # never below ten: ten DDIM steps need as many
    assert step(10) == [10] * 10


@pytest.mark.parametrize("T_max", [25, 45, 50, 80, 89, 127, 160, 250, 333, 505])
@pytest.mark.parametrize("bins", [7, 10])
def test_rounding_by_whole_numbers(T_max, bins):
    """floor(b T_max / bins), then the nearest ten, ties to the even one; or halves up
    at once: both in exact arithmetic.
    """
    for b in range(1, bins + 1):
        n = max(b, 2) * T_max
        tens, ones = divmod(n // bins, 10)
        floored = max(10, 10 * (tens + (ones > 5 or ones == 5 and tens % 2)))
        direct = max(10, (n + 5 * bins) // (10 * bins) * 10)
        one = torch.tensor([b])
        assert select_step(one, T_max, bins).item() == floored
        assert select_step(one, T_max, bins, rounding="half-up").item() == direct


def test_the_two_roundings_differ_at_ties_only():
    up = lambda T_max: select_step(BINS, T_max, rounding="half-up")
    assert select_step(BINS, 50).tolist() == [10, 10, 20, 20, 20, 30, 40, 40, 40, 50]
    assert up(50).tolist() == [10, 10, 20, 20, 30, 30, 40, 40, 50, 50]
    # the floor itself changes nothing: it never crosses a tie, which is a whole number
    for T_max in range(20, 500, 7):
        no_tie = (BINS * T_max // 10).clamp(min=2 * T_max // 10) % 10 != 5
        assert torch.equal(select_step(BINS, T_max)[no_tie], up(T_max)[no_tie])


def test_levels_stay_between_ten_and_the_schedule():
    levels = torch.tensor([0.0, 4.0, 994.0, 2000.0]).double()
    assert nearest_ten(levels).tolist() == [10, 10, 990, 999]
    assert nearest_ten(levels, T=100).tolist() == [10, 10, 99, 99]


# distances 0, 1, .., 10 make the edges 0, 1, .., 10
EDGES = bin_edges(torch.arange(11.0), 10)


@pytest.mark.parametrize("edge_bin", ["upper", "lower"])
def test_bins_at_every_edge_and_beyond(edge_bin):
    choose = lambda d: choose_bin(d, EDGES, edge_bin).tolist()
    assert EDGES.tolist() == list(range(11))
    upper = edge_bin == "upper"
    assert choose(torch.arange(11.0)) == ([*range(1, 11), 10] if upper
                                          else [1, *range(1, 11)])
    assert choose(torch.arange(10) + 0.5) == list(range(1, 11))
    assert choose(torch.tensor([-5.0, -1e-6, 10.001, 1e9])) == [1, 1, 10, 10]


def test_lower_bins_are_those_of_numpy_histogram_and_digitize():
    distances = np.random.default_rng(0).gamma(4.0, 1.0, 60).astype(np.float32)
    ours = bin_edges(torch.from_numpy(distances), 10)
    edges = torch.from_numpy(np.histogram(distances, 10)[1].astype(np.float64))
    torch.testing.assert_close(ours.double(), edges, rtol=1e-6, atol=1e-6)
    beyond = np.random.default_rng(1).uniform(-1, 15, 300).astype(np.float32)
    tested = np.concatenate([distances, ours.numpy(), beyond])
    official = np.minimum(np.digitize(tested, ours.numpy(), right=True) - 1, 9) + 1
    # bin 0 there: raised to 2 in the end, like bin 1
    assert (choose_bin(torch.from_numpy(tested), ours, "lower").tolist()
            == np.maximum(official, 1).tolist())


def test_features_are_pooled_to_the_grid():
    stage = torch.randn(2, 3, 32, 32, generator=seeded())
    y = feature(stage, 16)
    assert y.shape == (2, 3 * 16 * 16)
    by_hand = stage[1, 1, 2:4, 4:6].mean().item()
    assert y[1, 16 * 16 + 16 + 2].item() == pytest.approx(by_hand, abs=1e-6)
    assert torch.equal(feature(stage, 64), stage.flatten(1))        # never enlarged


def test_mean_distance_by_hand():
    bank = torch.tensor([[0.0, 0], [1, 0], [0, 4], [9, 9]])
    y = torch.tensor([[0.0, 1], [8, 9]])
    # L1 distances: 1, 2, 3, 17 and 17, 16, 13, 1; divided by two features
    assert mean_distance(y, bank, 2).tolist() == [0.75, 3.5]
    assert mean_distance(y, bank, 3).tolist() == [1.0, 5.0]
    # rows of the bank itself: 0 1 4 18, 1 0 5 17, 4 5 0 14, 18 17 14 0
    assert (mean_distance(bank, bank, 2, skip_self=True).tolist()
            == [1.25, 1.5, 2.25, 7.75])
    assert (mean_distance(bank, bank, 2, skip_self=False).tolist()
            == [0.25, 0.25, 1.0, 3.5])


@pytest.mark.parametrize("self_neighbour", [False, True])
def test_a_training_image_is_or_is_not_its_own_neighbour(self_neighbour):
    y = torch.randn(9, 5, generator=seeded())
    bank = MemoryBank.fit(y, 3, self_neighbour)
    for n in range(9):
        others = sorted((y[n] - y[m]).abs().mean().item() for m in range(9) if m != n)
        nearest = [0.0, *others[:2]] if self_neighbour else others[:3]
        assert bank.distances[n].item() == pytest.approx(sum(nearest) / 3, abs=1e-6)
    edges = bin_edges(bank.distances, 10)
    assert edges[0] == bank.distances.min() and edges[-1] == bank.distances.max()
    new = torch.randn(1, 5, generator=seeded(1))
    nearest = sorted((new - y).abs().mean(1).tolist())[:3]
    assert bank.distance(new, 3).item() == pytest.approx(sum(nearest) / 3, abs=1e-6)


def test_too_few_images_for_the_neighbours():
    y = torch.randn(5, 4, generator=seeded())
    MemoryBank.fit(y, 4)
    with pytest.raises(ValueError, match="neighbours.*at least 6.*there are 5"):
        MemoryBank.fit(y, 5)
