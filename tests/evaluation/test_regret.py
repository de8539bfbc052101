"""How far the chosen constants are from the best of the calibration's own grid."""
import pytest

from ddad.calibration import CHOSEN
from ddad.evaluation import regret as module
from ddad.evaluation.regret import regret


def test_regret(fitted, test_set, monkeypatch):
    def grid(settings):
        return [{"T_max": T, "smallest_bin": 2, "guidance": 0.0} for T in (80, 160)]

    monkeypatch.setattr(module, "grid", grid)
    monkeypatch.setattr(module, "LAMBDA", (0.0, 0.5))
    found = regret(fitted, test_set)
    # three candidates, two blurs, three lambdas
    assert found["images"] == 8 and len(found["table"]) == 18
    assert {name: found["chosen"][name] for name in CHOSEN} == {
        "T_max": 80, "smallest_bin": 2, "guidance": 4.0, "latent_blur": 0.0,
        "lam": 0.85}
    best = max(found["table"], key=lambda row: row["i_auroc"] + row["pro"])
    assert found["best_on_test"] == best
    lost = best["pro"] - found["chosen"]["pro"]
    assert found["regret"]["pro"] == pytest.approx(lost)
    assert regret(fitted, test_set, every=4)["images"] == 2
