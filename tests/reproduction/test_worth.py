"""What a part is worth, from receipts."""
import pytest

from ddad.reproduction import worth as module
from ddad.reproduction.variants import NOISE, STATIC
from ddad.reproduction.verdicts import Effect
from ddad.reproduction.worth import evidence, worth


def test_the_part_with_the_most_pro_comes_first_and_one_without_a_run_is_not_there(
        monkeypatch):
    gains = {NOISE: (0.3, 0.2), STATIC: (-0.1, 0.0)}
    monkeypatch.setattr(module, "of_variant", lambda receipts, variant, measure: [
        Effect("a", gains[variant])] if variant in gains else [])
    found = worth([])
    assert list(dict.fromkeys(row.part for row in found)) == [
        "a scaled start", "a step for each image"]
    assert found[0].across.value == pytest.approx(0.25) and len(found[0].runs) == 2


def test_another_latent_space_is_no_evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_receipt", lambda path: {"of": path.stem})
    assert evidence(tmp_path) == {}                         # no records: nothing
    for name in ("nuts", "nuts_taesd", "ablation_nuts"):
        (tmp_path / "receipts").mkdir(exist_ok=True)
        (tmp_path / "receipts" / f"{name}.json").touch()
    assert [*evidence(tmp_path)] == ["ablation_nuts", "nuts"]
