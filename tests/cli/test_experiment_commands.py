"""`ddad ablate`; the other experiments are tested with what they call."""
from cli_words import SET

from ddad.cli import main
from ddad.reproduction import ablation


def test_ablate(product, tmp_path, capsys, monkeypatch):
    rows = [{"variant": variant, "seed": seed, "i_auroc": 0.5 + seed / 10,
             "p_auroc": 0.5, "pro": 0.5, "p_ap": 0.5}
            for variant in ("a", "b") for seed in (0, 1)]
    given = {}

    def run(root, settings, seeds, out, **others):
        given.update(root=root, settings=settings, seeds=seeds, out=out, **others)
        return rows

    monkeypatch.setattr(ablation, "ablate", run)
    assert main(["ablate", str(product), str(tmp_path), "--seeds", "0", "1",
                 "--device", "cpu", *SET]) == 0
    assert given["seeds"] == [0, 1] and given["root"] == product
    assert given["settings"].unet_channels == (32,) and given["vae"] is None
    assert "0.5500" in capsys.readouterr().out
