"""What guidance and regions give, each by itself, from planted receipts and from those
that are there.
"""
import guidance
import pytest
import step_rules
from test_ledger import images
from test_own_claims import beside, joined, rules


@pytest.fixture
def planted():
    """The paper's method finds 0.5, static steps 0.6, a step per region 0.9."""
    names = ("a", "b")
    sets = joined([rules(name, plain_static=0.6, plain_region=0.9) for name in names])
    return {"step_rules": sets} | {name: beside(name) for name in names}


def test_each_part_has_its_own_difference_and_both_are_their_sum(planted):
    without, region, both = guidance.effects(planted, "pro").values()
    for n, name in enumerate("ab"):
        assert {one[n].data for one in (without, region, both)} == {name}
        assert without[n].value == pytest.approx(0.11, abs=0.01)
        assert region[n].value == pytest.approx(0.3, abs=0.01)
        assert both[n].value == pytest.approx(without[n].value + region[n].value)
        assert len(both[n].by_seed) == 2
    rows = guidance.by_set(planted).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        "| a", "| b", "| a", "| b", "| mean of 2 sets", "| mean of 2 sets"]
    assert "mean of 2 real sets" in guidance.answer(planted)


def test_only_the_extensions_own_step_counts(planted):
    for run in planted["step_rules"]["runs"]:
        if run["preset"] == step_rules.name("plain", "region", 320):
            run["images"] = images(0.1, run["seed"])
    assert guidance.effects(planted, "pro")["a step per region"][0].value > 0.25


def test_groups_that_one_receipt_alone_knows_are_drawn_for_both(planted):
    alone = guidance.effects(planted, "pro")["both"][0]
    test = planted["a"]["test"]["a"]
    kinds = [kind != "good" for kind in test["kind"]]
    groups = [f"{kind} {n % 2}" for n, kind in enumerate(kinds)]
    planted["a"]["test"]["a"] = test | {"group": groups}
    grouped = guidance.effects(planted, "pro")["both"][0]
    assert grouped.data == "a" and grouped.value == alone.value
    assert grouped.interval != alone.interval


def test_an_ablation_of_the_same_images_does_not_take_the_place(planted):
    before = guidance.by_set(planted)
    runs = [run | {"preset": "full method"} for run in planted["a"]["runs"]]
    first = {"ablation_a": planted["a"] | {"runs": runs}}
    assert guidance.by_set(first | planted) == before


def test_other_test_images_are_no_pair(planted):
    test = planted["a"]["test"]["a"]
    planted["a"]["test"]["a"] = test | {"image": test["image"][::-1]}
    assert [one.data for one in guidance.effects(planted, "pro")["both"]] == ["b"]
    told = guidance.tables({"step_rules": planted["step_rules"]})
    assert {make() for make in told.values()} == {"Not run yet."}
    assert {make() for make in guidance.tables({}).values()} == {"Not run yet."}
