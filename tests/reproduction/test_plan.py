"""What a matrix takes, told beforehand; and its first category beside the paper's."""
import json
from pathlib import Path

import pytest
import torch
from conftest import tiny, tiny_resnet, tiny_vae
from lookalikes import make_visa
from torch import nn

from ddad.cli import main
from ddad.noise_predictor import build_unet
from ddad.reproduction import intervals
from ddad.reproduction import plan as module
from ddad.reproduction.memory import reckon
from ddad.reproduction.plan import categories, counts, plan, told
from ddad.reproduction.published import PAPER, beside, deviations, missing
from ddad.reproduction.runs import Run, settings_of
from ddad.runtime.errors import BackboneError, DataError
from ddad.settings import preset

BOOK = Path(__file__).parents[2] / "book"
RECORDED = json.loads((BOOK / "results/plan_visa.json").read_text(encoding="utf-8"))
SIZES = {"neighbours": 3, "neighbour_pool": 4, "image_size": 64,
         "unet_channels": [32, 64], "unet_layers": 1, "train_batch": 4,
         "tune_batch": 4, "tune_epochs": 1, "features": "efficientnet-lite0"}
SET = [f"{name}={json.dumps(value)}" for name, value in SIZES.items()]


def planned(tmp_path, *cells, steps=0):
    """The plan of cells (category, preset, seed) of VisA with small networks."""
    matrix = [(run, settings_of(run, "paper", None, SET, "pixels"))
              for run in (Run(*cell) for cell in cells)]
    return plan("visa", tmp_path / "nowhere", tmp_path / "out", matrix, steps, "cpu")


@pytest.fixture(scope="module")
def visa(tmp_path_factory):
    """A look-alike of which one category has fewer images."""
    root = make_visa(tmp_path_factory.mktemp("visa"), ("candle", "cashew"), train=6)
    for path in sorted((root / "cashew/Data/Images/Normal").iterdir())[-2:]:
        path.unlink()
    table = root / "split_csv" / "1cls.csv"
    there = [line for line in table.read_text().splitlines()
             if not any(f"cashew/Data/Images/Normal/000{n}" in line for n in (6, 7))]
    table.write_text("\n".join(there) + "\n")
    return root


def test_images_are_those_of_the_folder_or_the_published_ones(visa, tmp_path):
    assert categories("visa", visa) == ["cashew", "candle"]
    assert counts("visa", visa, "cashew") == (4, 0, 4)
    first = categories("visa", tmp_path / "nowhere", published=True)
    assert first[0] == "cashew" and set(first) == set(PAPER["visa"])
    assert counts("visa", tmp_path / "nowhere", "cashew") == (450, 0, 150)
    with pytest.raises(DataError, match="nowhere holds no category"):
        categories("visa", tmp_path / "nowhere")
    with pytest.raises(DataError, match="give the folder"):
        counts("mine", tmp_path / "nowhere", "cashew")


STAGES = ("encode", "train", "fine-tune", "detect")
EACH = {"parameters": {"unet": 1000, "features": 100}, "feature": 10, "latent": 5,
        "operations": dict.fromkeys(STAGES, 2), "seconds": None}


def test_a_run_takes_what_its_stages_take():
    """By hand, of cashew: 450 good images, 150 to test on, batches of 30 and of 16."""
    takes = lambda name, **changes: module._takes(preset(name, **changes),
                                                  (450, 0, 150), EACH)
    row = takes("paper")
    assert (row["images"], row["held_out"], row["test"]) == (450, 0, 150)
    assert row["steps"] == 300 * 15
    assert row["passes"] == {"encode": 450, "train": 450 * 300, "fine-tune": 3 * 450,
                             "detect": 150}
    assert row["operations"]["train"] == 2 * 450 * 300
    assert row["disk"] == 4 * (1000 + 100 + 450 * 10)
    # weights, average, two moments, all twice; mean and deviation of each latent
    assert row["training_disk"] == 4 * (8 * 1000 + 2 * 450 * 5)
    # two autoencoders
    assert takes("official")["passes"]["encode"] == 900
    row = takes("clean", seed=1)
    assert (row["images"], row["held_out"]) == (360, 90)
    assert row["passes"]["train"] == 16 * 3000
    # dynamic steps are what it has: static ones and noise are asked about
    assert row["passes"]["detect"] == 3 * (150 + 90)
    assert takes("clean", seed=0)["passes"]["detect"] > 10 * (150 + 90)
    # images for validation are held out in place of a share
    row = module._takes(preset("clean"), (335, 54, 330), EACH)
    assert (row["images"], row["held_out"]) == (335, 54)


def test_what_comes_from_the_hub_is_told(tmp_path):
    fetched = lambda *args, **changes: set(module._fetched(
        preset(*args, **changes), {"vae": 1, "features": 2}))
    vae, other = "stabilityai/sd-vae-ft-mse", "CompVis/stable-diffusion-v1-4/vae"
    assert fetched("paper") == {vae, "microsoft/resnet-34"}
    assert fetched("official") == {vae, other, "microsoft/resnet-34"}
    for here in ("embedded", "pixels", str(tmp_path), "own/vae.py:make"):
        assert fetched("clean", vae=here) == set()


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The plan of VisA under the preset, with the paper's own networks."""
    out = tmp_path_factory.mktemp("plan")
    found = plan("visa", out / "nowhere", out, [
        (run, settings_of(run, "paper", None, [], None)) for run in
        (Run(row["category"], "paper", row["seed"]) for row in RECORDED["runs"])])
    return json.loads(json.dumps(found))


def test_the_papers_networks_without_making_them(paper):
    costs, s = paper["networks"][0], preset("paper")
    with torch.device("meta"):
        unet = build_unet(s, 4, 32)
    assert costs["parameters"]["unet"] == sum(w.numel() for w in unet.parameters())
    assert 250e6 < costs["parameters"]["unet"] < 300e6
    # 335 and 87 MB on the hub
    assert costs["files"]["vae"] == pytest.approx(334.6e6, rel=1e-3)
    assert costs["files"]["features"] == pytest.approx(87e6, rel=0.03)
    assert costs["feature"] == 32768 and costs["latent"] == 4 * 32 * 32
    each, train = costs["operations"], costs["memory"]["train"]
    # 622 G of a decoder; the U-Net; a little beside
    forward = (each["detect"] - each["encode"] - 622e9) / 10
    assert 2.5 * forward < each["train"] < 3.2 * forward
    assert train["weights"] == 4 * costs["parameters"]["unet"]
    assert train["Adam's moments"] == 2 * train["weights"]


def test_the_recorded_plan_is_that_of_this_package(paper):
    """Stale otherwise: `make experiments ONLY=plan_visa` makes the record anew."""
    for name in ("fetch", "disk", "runs"):
        assert paper[name] == RECORDED[name], name
    ours, theirs = paper["networks"][0], RECORDED["networks"][0]
    assert ours["settings"] == theirs["settings"]
    for stage, parts in theirs["memory"].items():
        assert ours["memory"][stage] == pytest.approx(parts, rel=0.05), stage


def test_the_light_autoencoder_is_a_file_of_ten_megabytes():
    found = module.counted(tiny("clean", vae="madebyollin/taesd"))
    assert found["files"]["vae"] == pytest.approx(9.8e6, rel=0.01)


def test_without_a_decoder_a_detection_is_the_calls_alone():
    each = {"encode": 1, "eps_theta": 10, "decode": 100, "phi": 1000, "train": 0,
            "tune": 0}
    detect = lambda name: module._by_stage(each, preset(name))["detect"]
    assert detect("one-call") == 11 and detect("clean") == 1 + 100 + 100 + 2000


def test_operations_are_counted_with_gradients():
    conv, x = nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(2, 3, 16, 16)
    forward = 2 * 2 * 8 * 3 * 9 * 16 * 16
    assert module._operations(lambda: conv(x)) == forward
    assert module._operations(lambda: conv(x).sum().backward()) == 2 * forward


def test_memory_is_what_the_benchmark_reckons():
    s = tiny("paper", train_batch=16,
             vae="madebyollin/taesd")
    networks = lambda: (tiny_vae(), build_unet(s, 4, 8), nn.Conv2d(3, 8, 3))
    theirs = reckon(networks, size=64)["train"]
    ours = module._memory(s)["train"]
    ours = sum(ours.values()) - ours["frozen networks"]
    assert ours == pytest.approx(theirs["fixed"] + 16 * theirs["an_image"], rel=0.02)


def test_other_networks_are_reckoned_from_their_files(tmp_path):
    tiny_vae().save_pretrained(tmp_path / "kl")
    tiny_resnet(tmp_path / "resnet")
    s = tiny(vae=str(tmp_path / "kl"), features=str(tmp_path / "resnet"))
    costs = module._costs(s, 0, "cpu")
    own = sum(w.numel() for w in tiny_vae().parameters())
    assert costs["parameters"]["vae"] == own
    assert module._fetched(s, costs["files"]) == {}
    (tmp_path / "own.py").write_text("import torch\nmake = lambda: torch.nn.Identity()")
    with pytest.raises(BackboneError, match="leave --plan out"):
        module._costs(tiny(vae=f"{tmp_path / 'own.py'}:make"), 0, "cpu")


def test_timed_here_a_run_has_hours_and_a_cpu_says_so(tmp_path):
    cells = [("cashew", "paper", 0), ("fryum", "paper", 0)]
    found = planned(tmp_path, *cells, steps=1)
    timed, spent = found["networks"][0]["timed"], found["networks"][0]["seconds"]
    assert (timed["device"], timed["steps"], timed["batch"]) == ("cpu", 1, 2)
    assert timed["peak_memory"]["train"] > 1e7
    assert all(spent[stage] > 0 for stage in ("fine-tune", "detect"))
    # a clock as slow as this is not to be relied on: times by hand
    spent = {"encode": 1.0, "train": 2.0, "fine-tune": 3.0, "detect": 4.0}
    for row in found["runs"]:
        row["seconds"] = {name: n * spent[name] for name, n in row["passes"].items()}
    text = told(found)
    assert "EXTRAPOLATED" in text and "MORE than a day" in text
    passes = found["runs"][0]["passes"]
    hours = sum(n * spent[name] for name, n in passes.items()) / 3600
    assert f"{hours:.1f}" in text and f"{2 * hours:.1f} h" in text
    found["runs"][0]["seconds"] = {"train": 3600.0}
    assert "takes 1.0 hours: less than a day" in told(found)
    assert "hours: give --plan" in told(planned(tmp_path, *cells))


# --- end to end, at a small size

def reproduce(data, out, *more):
    return main(["reproduce", "visa", str(data), str(out), "--presets", "paper",
                 "--seeds", "0", "--device", "cpu", "--set", "train_length=3 steps",
                 *SET, *more])


def test_plan_first_category_beside_the_paper_then_the_rest(visa, tmp_path, capsys,
                                                            monkeypatch):
    from diffusers import AutoencoderTiny
    monkeypatch.setattr(intervals, "REPEATS", 20)
    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    ).save_pretrained(tmp_path / "taesd")
    vae, out = ("--vae", str(tmp_path / "taesd")), tmp_path / "runs"
    assert reproduce(visa, out, *vae, "--plan") == 0
    # nothing is made
    assert [path.name for path in out.iterdir()] == ["plan.json"]
    said = capsys.readouterr().out
    assert "--categories cashew --presets paper --seeds 0" in said
    first = json.loads((out / "plan.json").read_text())["runs"][0]
    assert first["category"] == "cashew" and not first["done"]

    assert reproduce(visa, out, *vae, "--categories", first["category"]) == 0
    said = capsys.readouterr().out
    assert "cashew, paper, seed 0: I-AUROC" in said and "(paper 0.942, " in said
    assert "vae=taesd (stabilityai/sd-vae-ft-mse)" in said
    assert "11 of 12 categories are still missing" in said and "candle" in said
    row = next(line for line in said.splitlines() if line.startswith("| cashew"))
    assert "| 0.942 |" in row
    run = json.loads((out / "cashew/paper-0/run.json").read_text())
    assert run["training"]["steps"] == first["steps"] == 3
    saved = (out / "cashew/paper-0/detector").rglob("*.safetensors")
    on_disk = sum(path.stat().st_size for path in saved)
    assert on_disk == pytest.approx(first["disk"], rel=0.1)

    before = (out / "cashew/paper-0/run.json").stat().st_mtime_ns
    assert reproduce(visa, out, *vae, "--plan") == 0
    assert [one["done"] for one in json.loads((out / "plan.json").read_text())["runs"]
            ] == [True, False]
    assert reproduce(visa, out, *vae) == 0
    assert (out / "cashew/paper-0/run.json").stat().st_mtime_ns == before
    said = capsys.readouterr().out
    assert "10 of 12 categories are still missing" in said
    assert sum(line.startswith(("| cashew", "| candle", "| mean"))
               for line in said.splitlines()) == 6


def test_a_run_beside_the_paper():
    settings = preset("paper", seed=3).as_dict()
    run = {"dataset": "visa", "category": "pcb4", "preset": "paper", "seed": 3,
           "result": {"i_auroc": 0.9, "pro": 0.1, "pro_exact": 0.874},
           "settings": settings}
    assert beside(run) == (
        "pcb4, paper, seed 3: I-AUROC 0.900 (paper 0.998, -0.098), PRO 0.874 "
        "(paper 0.864, +0.010)\n  all settings are the paper's")
    assert "paper 0" not in beside(run | {"category": "mine"})
    run["settings"] = settings | {"guidance": 7.0, "ema": 0.9}
    assert deviations(run["settings"]) == {"guidance": (4.0, 7.0), "ema": (0.0, 0.9)}
    assert "guidance=7.0 (4.0), ema=0.9 (0.0)" in " ".join(beside(run).split()) or \
        "ema=0.9 (0.0), guidance=7.0 (4.0)" in " ".join(beside(run).split())


def test_what_is_missing_of_the_papers_table():
    cell = lambda category, seed: {"preset": "paper", "seed": seed,
                                   "category": category}
    receipt = {"dataset": "btad", "runs": [cell("01", 0), cell("02", 0), cell("03", 0),
                                           cell("02", 1)]}
    told = missing(receipt)
    assert "seed 0" not in told and told.endswith("01, 03")
    assert "paper, seed 1: 2 of 3 categories are still missing" in told
    assert missing(receipt | {"dataset": "mine"}) == ""
