"""The method on one page, book/one_page.py, says to the bit what the detector says."""
import ast
from pathlib import Path
from runpy import run_path

import pytest
import torch

from ddad.detector import Detector
from ddad.synthetic.products import PRODUCTS, render
from ddad.synthetic.weights import WEIGHTS

PAGE = Path(__file__).parents[2] / "book" / "one_page.py"
DEFECT = {"blister": ("missing", 0.1), "board": ("missing", 0.1),
          "fabric": ("missing_stripe", 0.1)}


def drawn(product, seed, *defect):
    """x0 (3, 128, 128)."""
    levels = render(product, 128, seed, *defect)[0]
    return torch.from_numpy(levels).permute(2, 0, 1).float() / 127.5 - 1


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_page_and_the_detector_agree_exactly(product):
    detector = Detector.from_pretrained(WEIGHTS / product, device="cpu")
    x0 = torch.stack([drawn(product, 900), drawn(product, 901, *DEFECT[product])])
    anomaly_map = run_path(str(PAGE))["anomaly_map"]
    A, score, T_hat, x0_hat = anomaly_map(detector, x0)
    found = detector.predict(x0, batch=2)
    assert torch.equal(A[:, 0], found.map) and torch.equal(score, found.score)
    assert torch.equal(T_hat, found.T_hat) and T_hat[0] < T_hat[1]
    assert torch.equal(x0_hat, found.reconstruction)


def test_it_fits_a_page_and_needs_nothing_of_the_package():
    source = PAGE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 45
    named = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add("." * node.level + (node.module or ""))
    assert {name.partition(".")[0] for name in named} == {"torch"}
