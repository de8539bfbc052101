"""Held-out images like the training images pass; others are told of."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from ddad.evaluation.likeness import compare_distances, limits


def distances(n, shift=0.0, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return 1 + shift + 0.1 * torch.randn(n, generator=draws)


def test_alike():
    held_out, training = distances(20), distances(80, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare_distances(held_out, training)
    expected = ks_2samp(held_out.numpy(), training.numpy())
    assert found == {
        "ks": expected.statistic, "p": expected.pvalue, "alike": True,
        "median_held_out": np.median(held_out), "median_training": np.median(training),
    }
    images = torch.linspace(-1, 1, 20).view(20, 1, 1, 1).expand(20, 3, 2, 2)
    level = (torch.linspace(-1, 1, 20) + 1) * 127.5
    assert limits(held_out, images) == {
        "far": held_out.sort().values[-2].item(),
        "dark": pytest.approx(level[1].item()),
        "bright": pytest.approx(level[-2].item())}


def test_unlike_is_told_of_where_the_package_is_called():
    with pytest.warns(UserWarning, match="unlike the 80 training images") as told:
        found = compare_distances(distances(20, shift=0.5), distances(80, seed=1))
    assert told[0].filename == __file__ and "is 1.537," in str(told[0].message)
    assert not found["alike"] and found["p"] < 1e-3


def test_too_near_is_told_of_as_such():
    """As copies, and images that were trained on, are."""
    with pytest.warns(UserWarning, match="unlike the 80 training images") as told:
        compare_distances(distances(20, shift=-0.5), distances(80, seed=1))
    [said] = [str(one.message) for one in told]
    assert "nearer to these than these are to one another" in said
    assert "copies" in said and "trained on" in said and "threshold will be too" in said
    assert "light" not in said
