"""The ledger's rows, from planted receipts."""
from dataclasses import replace

import ledger
import numpy as np
import pytest

from ddad.reproduction.variants import FULL, NOISE, STATIC
from ddad.reproduction.verdicts import CONFIRMED, OPEN, Effect

N = 40
KIND = ["good"] * 20 + ["missing"] * 10 + ["dirt"] * 10
AREA = [0.0] * 20 + np.linspace(0.01, 0.2, 20).tolist()


def images(share, seed=0):
    """Scores and PRO of which about this share is found."""
    rng = np.random.default_rng(seed)
    bad = np.array(AREA) > 0
    return {"score": (3 * share * bad + rng.normal(size=N)).tolist(),
            "overlap": (share * bad + 0.01 * rng.normal(size=N) * bad).tolist(),
            "false": [[0.0] * N] * 3, "T_hat": [80] * N}


def receipt(data, runs):
    test = {"image": [str(n) for n in range(N)], "kind": KIND, "area": AREA,
            "regions": [int(area > 0) for area in AREA], "group": None}
    return {"format": 2, "test": {data: test},
            "runs": [{"category": data} | run for run in runs]}


def ablation(data, **shares):
    """Two seeds of the full method, which finds 0.8, and of each variant."""
    shares = {"full method": 0.8} | shares
    return receipt(data, [
        {"preset": name, "seed": seed, "images": images(share, seed)}
        for name, share in shares.items() for seed in (0, 1)])


def matrix(data, baseline=None, seeds=(0, 1)):
    """Dynamic steps that cost small defects; with the baseline's scores, if given."""
    static, dynamic = images(0.8), images(0.8)
    dynamic["overlap"][20:27] = [0.5] * 7
    dynamic["T_hat"] = [80] * 20 + np.linspace(20, 90, 20).tolist()
    paths = {"dynamic steps": dynamic, "static steps": static}
    runs = [{"preset": "clean", "seed": seed, "images": images(0.9, seed),
             "questions": {"paths": paths}} for seed in seeds]
    if baseline is not None:
        runs[-1]["questions"]["baselines"] = {"neighbours": baseline}
    return receipt(data, runs)


def rows_of(receipts):
    return {(row.claim.split(".")[0], row.unit): row for row in ledger.rows(receipts)}


def test_what_a_variant_loses_is_its_row():
    sets = [ablation(name, **{NOISE: 0.5, STATIC: 0.8}) for name in "abc"]
    rows = rows_of(sets)
    row = rows["Scaling the latent beats adding noise to it", "PRO"]
    assert [one.data for one in row.effects] == ["a", "b", "c"]
    assert all(one.value == pytest.approx(0.3, abs=0.01) for one in row.effects)
    assert [len(one.by_seed) for one in row.effects] == [2, 2, 2]
    static = rows["A step chosen for each image beats $T_{max}$ for all", "PRO"]
    assert static.verdict == OPEN
    pixels = [row for (claim, _), row in rows.items() if "pixels" in claim]
    assert {row.verdict for row in pixels} == {ledger.TO_BE_RUN} and len(pixels) == 2
    cells = ledger.cells(pixels)[0]
    assert "to be run: `ddad ablate DATA OUT`" in cells and len(cells) == 7


def test_a_seed_without_its_pair_does_not_count():
    one = ablation("a", **{NOISE: 0.5})
    one["runs"] = [run for run in one["runs"]
                   if (run["preset"], run["seed"]) != (FULL, 1)]
    row = rows_of([one])["Scaling the latent beats adding noise to it", "PRO"]
    assert [len(effect.by_seed) for effect in row.effects] == [1]


def test_small_defects_and_steps_come_from_the_questions():
    rows = rows_of([matrix(name) for name in "ab"])
    small = rows["Dynamic steps cost small defects, against $T_{max}$ for all",
                 "PRO lost, smallest third"]
    assert all(one.value == pytest.approx(0.3, abs=0.02) for one in small.effects)
    follows = rows["The step follows the size of the defect", "rank correlation"]
    assert [one.value for one in follows.effects] == pytest.approx([1, 1])
    assert "+1.00" in ledger.ours(follows)[0] and "+30" in ledger.ours(small)[0]
    assert ledger.ours(small)[2] == "2 a set; 4 of 4 runs above zero"
    large = rows["Dynamic steps help large defects, against $T_{max}$ for all",
                 "PRO, largest third"]
    assert [one.value for one in large.effects] == [0, 0]


def test_logical_defects_need_the_scores_of_full_strength_neighbours():
    def row(baseline):
        return ledger.logical_defects([matrix("a", baseline)])

    assert row(None).verdict == row({"i_auroc": 0.5}).verdict == ledger.TO_BE_RUN
    assert not row({"i_auroc": 0.5}).effects        # no scores, no pairs
    finds_dirt = (np.array(KIND) == "dirt").astype(float).tolist()
    by_neighbours, = row({"score": finds_dirt}).effects
    # dirt is no logical defect: of the others neighbours know nothing
    assert by_neighbours.value > 0.4 and len(by_neighbours.by_seed) == 2


def test_a_data_set_counts_once():
    with pytest.raises(ValueError, match="two receipts hold a: keep one"):
        ledger.rows([ablation("a", **{NOISE: 0.5}), ablation("a", **{NOISE: 0.6})])


def planted(claim, value, seeds=2, **more):
    made = [Effect(name, (value + k / 50,) * seeds, np.full(1000, value))
            for k, name in enumerate("abc")]
    return ledger.Row(claim, "results", "", "PRO", "", made, **more)


def test_p_values_are_corrected_for_the_rows_that_have_one():
    row, waits = planted("Gain.", 0.15), ledger.Row("Later.", "results", "", "PRO", "")
    alone, _ = ledger.judged([row, waits])
    p = alone.p
    assert alone.verdict == CONFIRMED and 0.004 < p < 0.02
    among = ledger.judged([row, waits, *[planted("None.", 0.0)] * 14])[0]
    assert among.verdict == OPEN and among.p == pytest.approx(15 * p)
    assert ledger.verdict(among) == "open; confirmed if it were the only claim"
    losses = [planted("Loss.", -0.15), *[planted("None.", 0.0)] * 14]
    below = ledger.judged(losses)[0]
    assert ledger.verdict(below) == "open; contradicted if it were the only claim"
    said = ledger.answer(ledger.judged(losses))
    assert "15 open. 1 of the open ones would be decided, were each" in said
    assert said.endswith("- *Contradicted if it were the only claim*: “Loss” (PRO).")


def test_the_answer_counts_and_names_what_the_table_shows():
    gain, loss = planted("Gain.", 0.15), planted("Loss.", -0.15)
    rows = ledger.judged([gain, ledger.Row("Later.", "results", "", "PRO", "")])
    text = ledger.answer(rows)
    assert text.startswith("Of 2 figures that can be tested here, 1 have runs: 1 "
                           "confirmed, 0 contradicted, 0 differs by set, 0 open. "
                           "1 figures wait ")
    assert "\n- *Confirmed*: “Gain” (PRO).\n- *Contradicted*: none.\n" in text
    assert "by itself on every data set of more than one seed*: “Gain” (PRO).\n" in text
    assert "\n- *Contradicted*: “Loss” (PRO).\n" in ledger.answer(
        ledger.judged([loss]))
    # one seed is not enough to stand by itself, one run on the other side is too much
    assert not ledger.everywhere(planted("One.", 0.15, seeds=1))
    runs = replace(gain, effects=[*gain.effects, Effect("d", (-0.01,))])
    assert ledger.everywhere(gain) and not ledger.everywhere(runs)


def test_the_rules_by_size_stand_with_one_detectors_constants_and_each_its_own():
    one = matrix("a")
    for run, rule in zip(one["runs"], ("image", "static")):
        run["settings"] = {"step_rule": rule}
    own = ablation("a", **{STATIC: 0.7})
    *_, row, _, told = ledger.by_size_alone([one, own]).splitlines()
    name, rules, small, small_own, large, large_own = row.strip("| ").split(" | ")
    assert (name, rules) == ("a", "image, static")
    assert float(small) == pytest.approx(-30, abs=2) and float(large) == 0
    assert float(small_own) == pytest.approx(10, abs=1) == float(large_own)
    assert "constants of 1 of 2 runs had been chosen for static steps" in told
    alone = ledger.by_size_alone([one]).splitlines()[-3]
    assert alone.count("to be run") == 2


def test_a_claim_that_differs_names_the_sets_of_either_side():
    effects = [Effect("up", [0.2, 0.21], np.full(1000, 0.2)),
               Effect("down", [-0.1, -0.12], np.full(1000, -0.1)),
               Effect("open", [0.1, -0.1], np.linspace(-1, 1, 1000))]
    row = replace(ledger.Row("It pays.", "x", "", "PRO", ""), effects=effects)
    assert ledger.apart([row]) == ("“It pays” (PRO): above zero by itself is up +20.5, "
                                   "below it down -11.0")
    assert ledger.apart([]) == "none"
