"""`ddad ablate`, and in what order `reproduce` makes its runs; the other experiments
are tested with what they call.
"""
import pytest
from cli_words import SET

from ddad.cli import main
from ddad.reproduction import ablation, published, runs

pytest_plugins = ["cli_fixtures"]


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


@pytest.fixture
def made(monkeypatch):
    """The runs that `reproduce` is asked for, none of which it makes."""
    asked = []
    monkeypatch.setattr(runs, "reproduce", lambda run, *_, **__: asked.append(run))
    monkeypatch.setattr(published, "beside", lambda run: "its row")
    return asked


def test_runs_are_made_seed_by_seed_the_smallest_category_first(made, tmp_path, capsys):
    for category, images in (("large", 3), ("small", 2)):
        good, tested = (tmp_path / category / use / "good" for use in ("train", "test"))
        for folder in (good, tested):
            folder.mkdir(parents=True)
            for n in range(images):
                (folder / f"{n}.png").touch()
    arguments = ["reproduce", "mine", str(tmp_path), str(tmp_path / "out"), "--single",
                 "--presets", "paper", "clean", "--seeds", "0", "1"]
    assert main(arguments) == 0
    cells = [(run.seed, run.preset, run.category) for run in made]
    assert cells[:4] == [(0, "paper", "small"), (0, "paper", "large"),
                         (0, "clean", "small"), (0, "clean", "large")]
    assert [seed for seed, *_ in cells] == [0] * 4 + [1] * 4
    # each beside the paper's as soon as it is made
    assert capsys.readouterr().out.count("its row") == 8
    made.clear()
    assert main([*arguments, "--categories", "large", "small"]) == 0
    assert [run.category for run in made][:2] == ["large", "small"]


def test_plan_makes_nothing_and_refuses_what_is_not_there(made, tmp_path, refused):
    where = (tmp_path / "nowhere", tmp_path / "out")
    assert "nowhere" in refused("reproduce", "mine", *where, "--plan")
    assert "no_such" in refused("reproduce", "visa", *where, "--plan", "--set",
                                "no_such=1")
    assert not made and not (tmp_path / "out").exists()
