"""What else was tried of the map and the network, on a toy and by hand."""
import json

import further
import pytest
import step_rules
import torch
from conftest import tiny

from ddad.data.product import load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.scoring import evaluate
from ddad.networks.autoencoders import load_vae
from ddad.noise_predictor import alpha_bar, build_unet
from ddad.reproduction.runs import Run, reproduce
from ddad.training import hold_out


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_network_with_a_step_map_begins_as_the_one_without():
    s, z, t = tiny(), drawn(2, 3, 16, 16), torch.tensor([10, 20])
    torch.manual_seed(s.seed)
    told = further.Mapped(s, 3, 16).eval()
    torch.manual_seed(s.seed)
    plain = build_unet(s, 3, 16).eval()
    with torch.no_grad():
        assert torch.equal(told(z, t).sample, plain(z, t).sample)
        # once the input has weights, the map says where
        torch.nn.init.ones_(told.unet.conv_in.weight[:, 3:])
        everywhere = told(z, t).sample
        told.T = torch.full((2, 16, 16), 20)
        assert torch.equal(told(z, t).sample, everywhere)
        told.T[0, :8] = 9                                   # not yet at step 10
        changed = (told(z, t).sample - everywhere).abs().flatten(1).amax(1)
        assert changed[0] > 0 and changed[1] == 0
        m = torch.ones(2, 1, 16, 16)
        m[0, :, :8] = 0
        given = told(torch.cat([z, m], 1), t).sample
        assert torch.equal(given, told(z, t).sample)


def test_its_objective_is_told_where_the_noise_is():
    s, z0, t = tiny(), drawn(2, 3, 4, 4), torch.tensor([10, 20])
    eps = drawn(2, 3, 4, 4, seed=1)
    eps[:, :, 0] = 0
    seen = {}

    def eps_theta(z, t):
        seen["m"] = z[:, 3]
        return torch.zeros_like(eps)
    loss = further.mapped_loss(eps_theta, z0, t, eps, alpha_bar(s))
    assert torch.isclose(loss, (eps**2).mean())
    assert (seen["m"][:, 0] == 0).all() and (seen["m"][:, 1:] == 1).all()


def test_each_step_is_judged_by_good_images_of_that_step():
    T_good = torch.tensor([10.0, 20, 40]).view(3, 1, 1).expand(3, 64, 64).clone()
    T_good[2, 8:] = 20                                      # too few for their own
    good = drawn(3, 64, 64) * T_good + T_good
    T = torch.tensor([20.0, 40, 80]).view(3, 1, 1).expand(3, 64, 64)
    A = 2 * torch.ones(3, 64, 64) * T
    found = further.by_step(A, good, T, T_good)
    of_20 = good[T_good == 20]
    for one, value in zip(found, (40, 80, 160)):
        assert one.unique().item() == pytest.approx(
            ((value - of_20.mean()) / of_20.std()).item(), rel=1e-5)


def test_each_position_is_judged_by_its_surroundings():
    spread = torch.ones(128, 128)
    spread[:, 64:] = 10
    good = drawn(200, 128, 128) * spread + 3 * spread
    found = further.by_position(5 * spread.expand(1, -1, -1), good)
    assert found[0, :, :30].mean().item() == pytest.approx(2, abs=0.1)
    assert found[0, :, -30:].mean().item() == pytest.approx(2, abs=0.1)


def test_a_whitened_residual_is_as_long_in_every_direction():
    axes = torch.tensor([[4.0, 0, 0], [1, 0.5, 0], [0, 0, 0.1]])
    good = torch.einsum("ij,njhw->nihw", axes, drawn(50, 3, 16, 16)) + 1
    found = further.whitened(good, good, 16)
    assert (found**2).mean().item() == pytest.approx(3, rel=1e-3)
    one = torch.ones(1, 3, 16, 16)
    one[:, 2] += 0.3                                        # three of its deviations
    assert further.whitened(one, good, 16).mean().item() == pytest.approx(3, rel=0.05)


def test_the_shipped_detectors_are_asked_of_the_forms_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(further, "PRODUCTS", ("board",))
    monkeypatch.setattr(further, "load_test", lambda *_: None)
    monkeypatch.setattr(further, "fingerprint", lambda data: {})
    monkeypatch.setattr(further, "rows_of", lambda trained, detector, *_: [
        {"rule": "region", "T_max": 80, "form": form, "i_auroc": n / 10, "pro": 0.5}
        for n, form in enumerate((further.RANGE, "other"))])
    out = tmp_path / "out"
    further.main([str(out), "--shipped", str(tmp_path)])
    rows = json.loads((out / "further.json").read_text(encoding="utf-8"))
    assert {(row["category"], row["trained"]) for row in rows} == {("board", "plain")}
    told = further.by_form(rows)
    assert "| board | region | 80 | 0.000 / 0.500 | 0.100 / 0.500 | 1 |" in told
    assert "Of 2 figures, above *range*: *other* in 1." in told
    # a cell that lacks a network has no row
    assert further.by_network(rows).endswith("in 0, *mapped* in 0.")


def test_every_network_path_and_form_has_a_row(product, tmp_path, monkeypatch):
    for module in (further, step_rules):
        monkeypatch.setattr(module, "STEPS", (40, 80))
    data, runs, out = tmp_path / "data", tmp_path / "runs", tmp_path / "out"
    data.mkdir()
    (data / "disc").symlink_to(product)
    reproduce(Run("disc", "clean", 3), "folder", data / "disc", runs,
              tiny(seed=3, patch_bank=50), vae=load_vae("pixels"), device="cpu")
    asked = [str(out), "--of", str(runs), str(data), vae := "pixels"]
    further.main(asked)
    path = out / "further.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    by = {name: [row for row in rows if row["trained"] == name]
          for name in ("plain", "masked", "mapped")}
    assert [len(one) for one in by.values()] == [2 * 2 * 5 + 1, 2 + 1, 2]
    assert len({row["weights"]["unet"] for row in rows}) == 3
    assert all(0 <= row[name] <= 1 for row in rows for name in further.METRICS)
    plain = {row["form"]: row for row in by["plain"]
             if (row["rule"], row["T_max"]) == ("region", 80)}
    assert len({row["pro"] for row in plain.values()}) > 2
    one = Detector.from_pretrained(runs / "disc/clean-3/detector", vae=load_vae(vae))
    one = one.under(one.settings.change(**step_rules.SAME, step_rule="region"))
    train, good = hold_out(load_train(product, one.settings), one.settings)
    one.set_banks(train, good)
    one = one.under(one.settings.change(T_max=80))
    one.set_ranges(good)
    method = evaluate(one, load_test(product, one.settings))[0]
    for name in further.METRICS:                # its own form is the method's map
        assert plain["range"][name] == pytest.approx(method[name], abs=1e-6)
    monkeypatch.setattr(further, "mapped", None)            # nothing is done again
    further.main(asked)
    assert json.loads(path.read_text(encoding="utf-8")) == rows
