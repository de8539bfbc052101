"""The ablation: a row for each variant and seed, written at once and resumed."""
import json
from functools import partial

import pytest
from conftest import make_product, tiny, tiny_vae

from ddad.detector import Detector
from ddad.reproduction import ablation
from ddad.reproduction.ablation import ONE_MAP, OTHER_PATH, PIXELS, UNTUNED


def test_ablation_writes_rows_and_resumes(tmp_path, monkeypatch):
    root, out = tmp_path / "disc", tmp_path / "out"
    make_product(root, train=12, good=2, bad=2)
    ablate = partial(ablation.ablate, root, tiny(vae="given"), out=out, vae=tiny_vae(),
                     device="cpu")
    written = out / "ablation.json"
    rows = ablate([0])
    names = [*ONE_MAP, *OTHER_PATH, UNTUNED, PIXELS]
    assert [row["variant"] for row in rows] == names
    assert json.loads(written.read_text()) == rows
    metrics = ("i_auroc", "p_auroc", "pro", "p_ap")
    assert all(0 <= row[k] <= 1 for row in rows for k in metrics)
    settings = {row["variant"]: row["settings"] for row in rows}
    assert settings["noise added"]["noise"]
    assert not settings["static steps"]["dynamic"]
    assert settings[UNTUNED]["tune_epochs"] == 0
    assert settings["latent map alone"]["lam"] == 1
    assert settings["feature map alone"]["lam"] == 0
    assert settings[PIXELS]["vae"] == "pixels"
    assert settings["full method"] == tiny(vae="given").as_dict()

    with monkeypatch.context() as patch:        # from the detectors that were saved
        again = lambda *a, **k: pytest.fail("a detector was fitted again")
        patch.setattr(Detector, "fit", again)
        assert ablate([0]) == rows
        kept = [row for row in rows if row["variant"] not in ("static steps", PIXELS)]
        written.write_text(json.dumps(kept))
        made = ablate([0])
    by_name = partial(sorted, key=lambda row: row["variant"])
    assert by_name(made) == by_name(rows)
    more = ablate([0, 1])
    assert len(more) == 14 and more[:7] == made
