"""The claims of our own, from planted receipts; and the comparison of step rules, from
a tiny run.
"""
import json
import sys

import ledger
import own_claims
import pytest
import step_rules
from conftest import tiny
from test_ledger import images, receipt

from ddad.networks.autoencoders import load_vae
from ddad.reproduction.receipts import read_receipt
from ddad.reproduction.runs import Run, reproduce
from ddad.reproduction.verdicts import CONFIRMED, CONTRADICTED


def rules(data, **found):
    """Two seeds of each path, of which a share is found, by network and rule."""
    return receipt(data, [
        {"preset": step_rules.name(trained, rule, T), "seed": seed,
         "images": images(found.get(f"{trained}_{rule}", 0.5) + 0.01 * (T == 80), seed)}
        for trained in step_rules.TRAININGS for rule in step_rules.RULES
        for T in step_rules.STEPS for seed in (0, 1)])


def joined(receipts):
    """One receipt of several data sets."""
    return {"format": 2, "test": {name: test for one in receipts
                                  for name, test in one["test"].items()},
            "runs": [run for one in receipts for run in one["runs"]]}


def beside(data):
    """The extension finds more than the paper's method, less than PatchCore."""
    asked = {"baselines": {"neighbours": images(0.5, 7), "padim": images(0.7, 7),
                           "patchcore": {"seeds": [
        {"seed": seed} | images(0.9, seed) for seed in (0, 1)]}}}
    runs = [{"preset": "regional", "seed": seed, "images": images(0.7, seed),
             "one_call": images(0.7, seed)} for seed in (0, 1)]
    runs += [{"preset": "clean", "seed": seed, "images": images(0.5, seed)}
             | ({} if seed else {"questions": asked}) for seed in (0, 1)]
    return receipt(data, runs)


def rows_of(receipts):
    return {(row.claim, row.unit): row for row in own_claims.rows(receipts)}


def test_each_claim_can_be_confirmed_and_refuted():
    sets = [rules(name, plain_region=0.8, masked_region=0.6 + 0.01 * k)
            for k, name in enumerate("abcd")]
    receipts = {"step_rules": joined(sets)} | {name: beside(name) for name in "efgh"}
    rows = rows_of(receipts)
    found = {claim: rows[claim, "PRO"] for claim, *_ in own_claims.PATHS}
    image, static, masked = found.values()
    for row in (image, static):
        assert [one.value for one in row.effects] == pytest.approx([0.3] * 4, abs=0.01)
        assert row.verdict == CONFIRMED and len(row.effects[0].by_seed) == 2
    assert masked.verdict == CONTRADICTED
    assert masked.effects[0].value == pytest.approx(-0.2, abs=0.01)
    clean, neighbours, patchcore, _, one_call, apart = (
        rows[claim, "PRO"] for claim, *_ in own_claims.AGAINST)
    assert clean.verdict == CONFIRMED and patchcore.verdict == CONTRADICTED
    # one without seeds stands beside every seed
    assert len(neighbours.effects[0].by_seed) == 2
    assert all(one.value == 0 for one in one_call.effects)
    # one call minus the paper's method, not the extension minus one of them
    assert [one.value for one in apart.effects] == pytest.approx([0.2] * 4, abs=0.01)


def test_the_mean_over_the_steps_is_taken():
    one = rules("a", plain_region=0.8)
    for run in one["runs"]:
        if run["preset"] == "plain, region, 80":
            run["images"] = images(0.4, run["seed"])
    row = rows_of({"step_rules": one})[own_claims.PATHS[0][0], "PRO"]
    assert row.effects[0].value == pytest.approx((0.3 - 0.11) / 2, abs=0.01)


def test_without_receipts_the_rows_name_their_commands():
    text = own_claims.tables({})["own_claims"]()
    assert text.count(ledger.TO_BE_RUN) == 2 * len(own_claims.rows({}))
    assert "step_rules.py" in text and "ddad reproduce" in text
    widths = {line.count(" | ") for line in text.splitlines()}
    assert widths == {5}


def test_every_network_takes_every_path(product, tmp_path, monkeypatch):
    monkeypatch.setattr(step_rules, "STEPS", (40, 80))
    data, runs, out = tmp_path / "data", tmp_path / "runs", tmp_path / "out"
    data.mkdir()
    (data / "disc").symlink_to(product)
    s = tiny(seed=3, patch_bank=50)
    made = reproduce(Run("disc", "clean", 3), "folder", data / "disc", runs, s,
                     vae=load_vae("pixels"), device="cpu")
    monkeypatch.setattr(sys, "argv", ["step_rules", str(out), "--of", str(runs),
                                      str(data), "pixels"])
    step_rules.main()
    found = {run["preset"]: run for run in read_receipt(out)["runs"]}
    assert len(found) == 12 and {run["seed"] for run in found.values()} == {3}
    for name, run in found.items():
        trained, rule, T = name.split(", ")
        own = run["settings"]
        assert (own["step_rule"], own["T_max"]) == (rule, int(T))
        assert own["masked_share"] == (0.5 if trained == "masked" else 0)
        assert {key: own[key] for key in step_rules.SAME} == step_rules.SAME
        weights = "unet/diffusion_pytorch_model.safetensors"
        same = run["weights"][weights] == made["weights"][weights]
        assert same == (trained == "plain")
    paths = {json.dumps(run["images"]["score"]) for run in found.values()}
    assert len(paths) > 8
