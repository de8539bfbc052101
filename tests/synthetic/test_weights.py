"""The shipped weights: they fit the code, stay small, and find what a reader sees at once."""
import json

import numpy as np
import pytest
import torch

from ddad.detector import Detector
from ddad.embedded import SETTINGS, WEIGHTS, agrees
from ddad.products import PRODUCTS, render
from ddad.training import SHAPING

PLAIN = {"blister": ("missing", 0.1), "board": ("missing", 0.1), "fabric": ("missing_stripe", 0.1)}


def picture(product: str, seed: int, *defect) -> torch.Tensor:
    return torch.from_numpy(render(product, 128, seed, *defect)[0]).permute(2, 0, 1).float() / 127.5 - 1


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_plain_defect_stands_out_where_it_is(product):
    detector = Detector.from_pretrained(WEIGHTS / product, device="cpu")
    assert [getattr(detector.settings, name) for name in SHAPING] == [getattr(SETTINGS, name) for name in SHAPING]
    good, bad = [picture(product, s) for s in (900, 901)], [picture(product, s, *PLAIN[product]) for s in (900, 901)]
    found = detector.predict(torch.stack(good + bad))
    assert found.score[2:].min() > max(detector.threshold, found.score[:2].max().item())
    for n, seed in ((2, 900), (3, 901)):
        mask = render(product, 128, seed, *PLAIN[product])[1]
        assert found.map[n].numpy()[mask].mean() > 2 * found.map[n].numpy()[~mask].mean()
    assert found.T_hat[2:].float().mean() > found.T_hat[:2].float().mean() and np.isin(found.T_hat, range(20, 81, 10)).all()


def test_they_are_small_and_agree_with_themselves():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")) < 20e6
    shipped = json.loads((WEIGHTS / "results.json").read_text(encoding="utf-8"))
    assert all(agrees(shipped).values())
    shipped["board"]["pro"] -= 0.04
    assert not agrees(shipped)["board"]
