"""The shipped weights: they fit the code, stay small, and find what a reader sees at
once.
"""
import json

import numpy as np
import pytest
import torch

from ddad.detector import Detector
from ddad.settings import shaping
from ddad.synthetic.products import PRODUCTS, render
from ddad.synthetic.weights import SETTINGS, WEIGHTS, agrees

PLAIN = {
    "blister": ("missing", 0.1),
    "board": ("missing", 0.1),
    "fabric": ("missing_stripe", 0.1),
}


def drawn(product, seed, *defect):
    """x0 (3, 128, 128) and its mask."""
    levels, mask, _ = render(product, 128, seed, *defect)
    return torch.from_numpy(levels).permute(2, 0, 1).float() / 127.5 - 1, mask


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_plain_defect_stands_out_where_it_is(product):
    detector = Detector.from_pretrained(WEIGHTS / product, device="cpu")
    for name in shaping("eps_theta"):
        assert getattr(detector.settings, name) == getattr(SETTINGS, name), name
    good = [drawn(product, seed)[0] for seed in (900, 901)]
    bad, masks = zip(*(drawn(product, seed, *PLAIN[product]) for seed in (900, 901)))
    found = detector.predict(torch.stack([*good, *bad]))
    assert found.score[2:].min() > max(detector.threshold, found.score[:2].max().item())
    for A, mask in zip(found.map[2:].numpy(), masks):
        assert A[mask].mean() > 2 * A[~mask].mean()
    assert found.T_hat[2:].float().mean() > found.T_hat[:2].float().mean()
    assert np.isin(found.T_hat, range(20, 81, 10)).all()


def test_they_are_small_and_agree_with_themselves():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")) < 25e6
    shipped = json.loads((WEIGHTS / "results.json").read_text(encoding="utf-8"))
    assert all(agrees(shipped).values())
    shipped["board"]["pro"] -= 0.04
    assert not agrees(shipped)["board"]
