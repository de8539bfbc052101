"""`ddad train` on a tiny product, and every wrong input to it."""
import shutil
from functools import partial

import pytest
import torch
from cli_words import SET, lines_of
from conftest import bad_images, save_image, tiny_vae
from PIL import Image

from ddad import calibration
from ddad.cli import main
from ddad.data.images import read_images
from ddad.data.layouts import list_images
from ddad.detector import Detector

pytest_plugins = ["cli_fixtures"]
CPU = ["--device", "cpu"]
load = partial(Detector.from_pretrained, device="cpu")


def test_train_leaves_a_detector_and_nothing_else(model):
    assert [p.name for p in model.parent.iterdir()] == ["disc"]
    loaded = load(model)
    assert loaded.settings.vae == "pixels" and loaded.record["images"] == 16
    assert loaded.threshold is not None


def test_train_says_what_the_threshold_promises(model, product, tmp_path, capsys):
    args = ["train", str(product), str(tmp_path / "m"), *CPU, "--from", str(model)]
    assert main([*args, "--set", "false_alarms=0.05"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    # the largest of four scores: Beta(1, 4)
    threshold = load(tmp_path / "m").threshold
    assert said == (
        f"threshold {threshold:.4g}, from the scores of 4 held-out images, the largest "
        "of them: 20.0% false alarms promised; over draws of so many images 20.0% on "
        "average, and 1.3% to 52.7% in nine of ten; only roughly, as constants and "
        "ranges come from the same images")


def test_train_holds_out_validation_images_where_there_are_some(product, tmp_path):
    data, model = tmp_path / "data", tmp_path / "model"
    shutil.copytree(product, data)
    validation = data / "validation" / "good"
    validation.mkdir(parents=True)
    kept = sorted((data / "train" / "good").iterdir())[::3]
    for path in kept:
        path.rename(validation / path.name)
    assert main(["train", str(data), str(model), *CPU, *SET]) == 0
    record = load(model).record
    assert record["held_out"] == len(kept) == 6 and record["images"] == 16


def test_a_finished_detector_is_neither_trained_again_nor_replaced_unasked(
        model, product, tmp_path, capsys, monkeypatch, refused):
    out = tmp_path / "model"
    shutil.copytree(model, out)
    train = ["train", str(product), str(out), *CPU, *SET]
    other = [*train, "false_alarms=0.5"]
    before = (out / "manifest.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained again"))
        assert main(train) == 0 and "nothing to do" in capsys.readouterr().out
        (out / "results.json").write_text("{}")     # as `ddad evaluate` leaves it there
        assert main(train) == 0 and "nothing to do" in capsys.readouterr().out
        assert "--overwrite" in refused(*other)
        fast = ["--from", out, "--preset", "fast"]
        assert "--overwrite" in refused("train", product, out, *CPU, *fast)
    assert (out / "manifest.json").read_bytes() == before
    (out / "notes.txt").write_text("mine")
    assert "notes.txt beside the saved detector" in refused(*other, "--overwrite")
    (out / "notes.txt").unlink()
    assert main([*other, "--overwrite"]) == 0
    assert load(out).settings.false_alarms == 0.5
    assert not (out / "results.json").exists()      # of the detector that is gone
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("preset", ("regional", "one-call"))
def test_another_preset_with_the_same_unet_is_what_its_own_training_gives(
        model, product, images, tmp_path, monkeypatch, preset):
    train, own = ["train", str(product)], ["--preset", preset, "--set", "patch_bank=40"]
    same = [one for one in SET[1:]
            if preset == "regional" or not one.startswith("tune_epochs")]
    assert main([*train, str(tmp_path / "trained"), *CPU, *own, *same]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("ddad.training.train_noise_predictor",
                      lambda *a, **k: pytest.fail("the U-Net was trained again"))
        patch.setattr("ddad.training.load_vae",
                      lambda name: pytest.fail("the autoencoder was loaded again"))
        taken = ["--from", str(model), *own]
        assert main([*train, str(tmp_path / "taken"), *CPU, *taken]) == 0
    one, other = (load(tmp_path / name) for name in ("trained", "taken"))
    assert one.settings == other.settings and one.settings.preset == preset
    assert one.record["training"] == other.record["training"]
    assert one.threshold == other.threshold
    assert (one.predict(images).map == other.predict(images).map).all()
    assert other.record["asked"]["from"]


def test_constants_chosen_for_one_preset_are_not_those_of_the_next(
        model, like_model, product, tmp_path, monkeypatch):
    given = like_model(tmp_path / "given", "T_max=30", "lam=0.5", "sigma=3")
    monkeypatch.setattr(calibration, "T_MAX", (40,))
    monkeypatch.setattr(calibration, "FEWEST", 2)
    args = ["train", str(product), str(tmp_path / "m"), *CPU, "--from", str(given),
            "--preset", "regional", "--set", "patch_bank=40"]
    assert main(args) == 0
    s = load(tmp_path / "m").settings
    assert (s.step_rule, s.T_max, s.lam, s.guidance) == ("region", 80, 0.85, 0)
    assert s.sigma == 3                     # no choice of a calibration: as it was
    assert main([*args, "--calibrate", "--overwrite"]) == 0
    calibrated = load(tmp_path / "m")
    assert calibrated.settings.T_max == 40 and calibrated.record["calibration"]


def test_what_a_preset_has_of_its_own_does_not_stay_with_the_next(
        regional, product, tmp_path):
    given, out = tmp_path / "given", tmp_path / "m"
    own = regional.settings.change(preset="regional", threshold_share=0.5)
    regional.under(own).save_pretrained(given)
    assert main(["train", str(product), str(out), *CPU, "--from", str(given),
                 "--preset", "clean"]) == 0
    s = load(out).settings
    assert (s.preset, s.step_rule, s.threshold_share, s.T_max, s.guidance) == (
        "clean", "image", 0, 80, 4)


def test_from_refuses_what_needs_a_training(model, product, tmp_path, refused):
    start = ["train", product, tmp_path / "m", *CPU, "--from", model]
    assert "no U-Net of the preset paper" in refused(*start, "--preset", "paper")
    assert "needs --preset" in refused(*start, "--calibrate")
    assert "needs --preset" in refused(*start, "--preset", "fast", "--calibrate")
    said = refused(*start, "--preset", "regional", "--set", "unet_channels=[64]")
    assert "setting unet_channels: the networks were trained with another value" in said
    assert not (tmp_path / "m").exists()


def test_an_autoencoder_of_ones_own_file(product, tmp_path, refused):
    file = tmp_path / "mine.py"
    file.write_text("from ddad.networks.autoencoders import PixelSpace\n")
    model, out, good = tmp_path / "model", tmp_path / "out", product / "test" / "good"
    vae = ["--vae", f"{file}:PixelSpace"]
    assert main(["train", str(product), str(model), *CPU, *SET, *vae]) == 0
    assert "pass it as vae" in refused("detect", model, good, out, *CPU)
    assert main(["detect", str(model), str(good), str(out), *CPU, *vae]) == 0
    assert len(lines_of(out)) == 4


# --- wrong input


def test_train_on_what_is_not_there(product, tmp_path, refused):
    empty, bad, out = (tmp_path / name for name in ("empty", "bad only", "out"))
    assert "does not exist" in refused("train", tmp_path / "none", out, *SET)
    empty.mkdir()
    assert "does not exist" in refused("train", empty, out, *SET)
    (empty / "train" / "good").mkdir(parents=True)
    assert "holds no image" in refused("train", empty, out, *SET)
    save_image(bad / "train" / "scratch" / "0.png", bad_images(1)[0][0])
    assert "good" in refused("train", bad, out, *SET)
    file = product / "train" / "good" / "000.png"
    assert "train" in refused("train", file, out, *SET)
    assert not out.exists()


def test_train_on_too_few_or_broken_images(product, tmp_path, refused):
    disc, out = tmp_path / "disc", tmp_path / "out"
    train = ["train", product, out, *CPU, *SET]
    said = refused(*train, "neighbours=30")
    assert "12 training images are fewer than neighbours + 1 = 31" in said
    said = refused(*train, "--calibrate")
    assert "at least 8 held-out good images, there are 4" in said
    shutil.copytree(product, disc)
    broken = disc / "train" / "good" / "003.png"
    broken.write_bytes(broken.read_bytes()[:300])
    assert "003.png" in refused("train", disc, out, *CPU, *SET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disc"]


def test_train_with_what_cannot_be_had(product, tmp_path, refused):
    train = ["train", product, tmp_path / "out", *CPU, *SET]
    said = refused(*train, "--device", "cuba")
    assert "device 'cuba' is not available" in said
    assert "FILE.py:CALLABLE" in refused(*train, "--vae", f"{tmp_path}/none.py:make")
    assert "setting image_size: 100" in refused(*train, "image_size=100")


@pytest.mark.parametrize(("more", "hint"), [
    (["--vae", "nobody/nothing"], "--vae embedded"),
    (["features=nobody/nothing"], "efficientnet-lite0")])
def test_an_unknown_network_says_what_to_pass_instead(
        product, tmp_path, capsys, monkeypatch, more, hint):
    monkeypatch.setattr("ddad.training.train_noise_predictor",
                        lambda *a, **k: pytest.fail("trained before it was looked for"))
    assert main(["train", str(product), str(tmp_path / "out"), *CPU, *SET, *more]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("ddad train: ") and "nobody/nothing" in line and hint in line


def test_a_foreign_folder_is_refused_before_the_training(
        product, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained before"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"x")
    assert "no saved detector" in refused("train", product, out, *CPU, *SET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert [p.name for p in out.iterdir()] == ["holiday.jpg"]


def test_what_lies_beside_the_images_is_named(product, tmp_path, capsys):
    """Other types, and folders, are not read; a link to nothing is no image less."""
    copy, out = shutil.copytree(product, tmp_path / "disc"), tmp_path / "model"
    good = copy / "train" / "good"
    (good / "phone.heic").write_bytes(b"x")
    shutil.copytree(good, good / "tuesday")
    assert main(["train", str(copy), str(out), *CPU, *SET]) == 0
    told = capsys.readouterr().err
    assert "phone.heic: no image of the types" in told and "tuesday: a folder" in told
    assert load(out).record["asked"]["images"]
    first = sorted(good.glob("*.png"))[0]
    first.unlink()
    first.symlink_to(tmp_path / "gone" / "000.png")
    assert main(["train", str(copy), str(tmp_path / "other"), *CPU, *SET]) == 2
    assert "is a link to" in capsys.readouterr().err


def test_a_jfif_is_a_jpeg(product, tmp_path):
    copy = shutil.copytree(product, tmp_path / "disc")
    first = sorted((copy / "train" / "good").glob("*.png"))[0]
    with Image.open(first) as image:
        image.convert("RGB").save(first.with_suffix(".jfif"), "JPEG")
    count = len(list_images(first.parent))
    first.unlink()
    assert len(list_images(first.parent)) == count - 1
    assert read_images(list_images(first.parent), 16).shape[0] == count - 1


def test_the_unet_of_other_images_is_not_taken(model, product, tmp_path, refused):
    """Held-out images would be some that it was trained on."""
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(product, data)
    first = sorted((data / "train" / "good").iterdir())[0]
    first.unlink()
    said = refused("train", data, out, *CPU, "--from", model, "--set", "lam=0.5")
    assert "--from needs the images that MODEL was trained on" in said
    # good ones that it never saw may be held out
    shutil.copy(product / "train" / "good" / first.name, first)
    shutil.copytree(product / "test" / "good", data / "validation" / "good")
    assert main(["train", str(data), str(out), *CPU, "--from", str(model), "--set",
                 "lam=0.5"]) == 0
    assert load(out).record["held_out_from"] == "images given"
    shutil.rmtree(data / "validation")
    more = ["train", data, tmp_path / "more", *CPU, "--from", out, "--set", "lam=0.4"]
    assert "--from needs the images" in refused(*more)


def test_the_folder_one_is_in_is_not_replaced(product, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "choose one in it" in refused("train", product, ".", *CPU, *SET)


def test_a_unet_of_unknown_images_is_warned_of(product, tmp_path, fitted, capsys):
    fitted.save_pretrained(tmp_path / "given")      # by Python, which asks nothing
    assert main(["train", str(product), str(tmp_path / "m"), *CPU, "--from",
                 str(tmp_path / "given"), "--set", "lam=0.5"]) == 0
    assert "does not say which images" in capsys.readouterr().err


def test_a_detector_whose_autoencoder_has_changed_is_not_called_finished(
        product, tmp_path, refused, capsys):
    vae, out = tmp_path / "vae", tmp_path / "out"
    tiny_vae().save_pretrained(vae)
    train = ["train", str(product), str(out), *CPU, *SET, "--vae", str(vae)]
    assert main(train) == main(train) == 0
    assert "nothing to do" in capsys.readouterr().out
    other = tiny_vae()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    shutil.rmtree(vae)
    other.save_pretrained(vae)
    assert "autoencoder of other weights" in refused(*train)
