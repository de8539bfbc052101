"""What a part is worth, from receipts."""
import pytest

from ddad.reproduction import worth as module
from ddad.reproduction.variants import NOISE, STATIC
from ddad.reproduction.verdicts import Effect
from ddad.reproduction.worth import Worth, evidence, told, worth


def test_the_part_with_the_most_pro_comes_first_and_one_without_a_run_is_not_there(
        tmp_path, monkeypatch):
    gains = {NOISE: (0.3, 0.2), STATIC: (-0.1, 0.0)}
    monkeypatch.setattr(module, "of_variant", lambda receipts, variant, measure: [
        Effect("a", gains[variant])] if variant in gains else [])
    found = worth(tmp_path)
    assert list(dict.fromkeys(row.part for row in found)) == [
        "a scaled start", "a step for each image"]
    assert found[0].across.value == pytest.approx(0.25) and len(found[0].runs) == 2


def row(part, metric, *by_set):
    return Worth(part, metric, [Effect(str(n), runs) for n, runs in enumerate(by_set)])


def test_three_sentences_say_what_the_rows_hold():
    sure, mixed = ((0.1, 0.11), (0.1, 0.12)), ((0.2, 0.1), (-0.1, 0.1))
    loss = tuple(tuple(-value for value in runs) for runs in sure)
    text = told([row("first", "PRO", *sure), row("first", "I-AUROC", *mixed),
                 row("second", "PRO", *loss), row("second", "I-AUROC", *mixed)])
    assert text.startswith("On the mean of 2 data sets the parts are worth, in points "
                           "of PRO (and of I-AUROC): first +10.8 (+7.5); second -10.8 "
                           "(+7.5). ")
    fewer = [row("first", "PRO", *sure), row("first", "I-AUROC", *mixed),
             row("second", "PRO", (0.1,)), row("second", "I-AUROC", (0.2,))]
    assert "(+7.5); second +10.0 (+20.0), on 0 alone. " in told(fewer)
    assert "Of these 4 figures, those above zero in every single run are: " in text
    assert "every single run are: first (PRO); those below in every run: second" in text
    assert "lie above zero for: first (PRO); below zero for: second (PRO);" in text
    assert "above zero for: none; below zero for: none" in told(
        [row("third", name, *mixed) for name in ("PRO", "I-AUROC")])


def test_another_latent_space_is_no_evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_receipt", lambda path: {"of": path.stem})
    assert evidence(tmp_path) == {}                         # no records: nothing
    for name in ("nuts", "nuts_taesd", "ablation_nuts"):
        (tmp_path / "receipts").mkdir(exist_ok=True)
        (tmp_path / "receipts" / f"{name}.json").touch()
    assert [*evidence(tmp_path)] == ["ablation_nuts", "nuts"]
