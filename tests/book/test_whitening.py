"""Whether held-out images would choose the whitened residual, on a toy."""
import json

import numpy as np
import pytest
import torch
import whitening
from conftest import tiny
from scipy.ndimage import gaussian_filter

from ddad import anomaly_map as maps
from ddad import calibration
from ddad.data.product import load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.scoring import summary
from ddad.networks.autoencoders import load_vae
from ddad.reproduction.runs import Run, reproduce
from ddad.training import hold_out, split


def by_hand(detector, row, train, test):
    """What a row's whitened map gives, by the distance of Mahalanobis."""
    s, seen = detector.settings, {}
    good = split(hold_out(train, s)[1], s)[0]
    for name, images in (("good", good), ("test", test.images)):
        of = detector.observe(images)
        found = detector.respond(of, s.image_size)
        r = (of.z0 - found.z0_hat).numpy().astype(float)
        if blur := row["latent_blur"]:
            r = gaussian_filter(r, (0, 0, blur, blur), mode="mirror", truncate=4.0)
        seen[name] = np.moveaxis(r, 1, -1), found.A_f
    rows = seen["good"][0].reshape(-1, seen["good"][0].shape[-1])
    inverse = np.linalg.inv(np.cov(rows.T))
    A_l = {}
    for name, (r, _) in seen.items():
        r = r - rows.mean(0)
        length = np.sqrt(np.einsum("nhwi,ij,nhwj->nhw", r, inverse, r))
        A_l[name] = maps.upsample(torch.from_numpy(length).float(), s.image_size)
    ranges = maps.Ranges.of(A_l["good"], seen["good"][1])
    A = maps.combine(A_l["test"], seen["test"][1], ranges, row["lam"], s.sigma)
    return summary(maps.score(A), A, test)


def test_every_choice_has_a_row(product, tmp_path, monkeypatch):
    # the latent map alone, or the features could decide
    monkeypatch.setattr(calibration, "LAMBDA", (1.0,))
    data, runs, out = tmp_path / "data", tmp_path / "runs", tmp_path / "out"
    data.mkdir()
    (data / "disc").symlink_to(product)
    run = reproduce(Run("disc", "regional", 3), "folder", data / "disc", runs,
                    tiny("regional", seed=3, patch_bank=50, held_out=0.5),
                    vae=load_vae("pixels"), device="cpu", calibrate=True)
    asked = [str(out), "--of", str(runs), str(data), "pixels", "--seeds"]
    whitening.main([*asked, "4"])                           # none
    assert not out.exists()
    whitening.main([*asked, "3"])
    path = out / "whitening.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert [row["offered"] for row in rows] == [*whitening.OFFERED]
    own, white, either = rows
    assert (own["form"], white["form"]) == ("plain", "whitened")
    # what the calibration chose, and what the detector gives
    chosen = run["settings"]
    assert (own["latent_blur"], own["lam"]) == (chosen["latent_blur"], chosen["lam"])
    detector = Detector.from_pretrained(runs / "disc/regional-3/detector",
                                        vae=load_vae("pixels"))
    s = detector.settings
    expected = by_hand(detector, white, load_train(product, s), load_test(product, s))
    for name in whitening.METRICS:
        assert own[name] == pytest.approx(run["result"][name], abs=1e-6)
        assert white[name] == pytest.approx(expected[name], abs=1e-3)
    assert abs(white["pro"] - own["pro"]) > 0.01            # the two do differ
    assert white["held_out"] != own["held_out"]
    assert either["held_out"] in (own["held_out"], white["held_out"])
    monkeypatch.setattr(whitening, "rows_of", None)         # nothing is done again
    whitening.main([*asked, "3"])
    assert json.loads(path.read_text(encoding="utf-8")) == rows


def test_the_tables_tell_test_images_from_held_out_ones(monkeypatch):
    rows = [{"category": name, "seed": 0, "vae": "taef2", "offered": offered,
             "form": form, "i_auroc": i + more, "pro": p,
             "held_out": {"i_auroc": 0.1, "pro": 0.2}}
            for name, more in (("mtd", 0.0), ("board", 0.1))
            for offered, form, i, p in (("plain", "plain", 0.5, 0.6),
                                        ("whitened", "whitened", 0.7, 0.5),
                                        ("either", "whitened", 0.7, 0.7))]
    told = whitening.by_set(rows)
    assert "| mtd | taef2 | 0.500 / 0.600 | 0.700 / 0.500 | 0.700 / 0.700 | 1 |" in told
    assert told.endswith("Of 4 figures, above *plain*: *whitened* in 2, *either* in 4.")
    monkeypatch.setattr(whitening, "load", lambda name: rows)
    monkeypatch.setattr(whitening, "recorded", lambda *names: names)
    asked = {name: make() for name, make in whitening.TABLES.items()}
    assert "0.100 / 0.200" not in asked["whitening"]
    assert asked["whitening_held_out"].count("0.100 / 0.200") == 6
    rows[2]["form"] = "plain"
    assert whitening.taken(rows) == ("Where either could be chosen, 1 of 2 took the "
                                     "whitened map.")
    assert whitening.differences(rows) == (
        "Whitened minus plain on test images: I-AUROC +0.200 on the mean, +0.200 to "
        "+0.200; PRO -0.100 on the mean, -0.100 to -0.100.")
