"""`ddad inspect`: from good pictures to a detector and what to expect of it; and
`ddad detect` on what comes then.
"""
import json
import re
import shutil
import time
from argparse import Namespace
from contextlib import redirect_stdout
from io import StringIO

import pytest
from cli_words import SET, lines_of
from PIL import Image, ImageOps

from ddad.cli import main
from ddad.cli.inspection import _say, chosen
from ddad.deploy import expectation
from ddad.deploy.report import page
from ddad.detector import Detector
from ddad.runtime.errors import SettingsError

pytest_plugins = ["cli_fixtures"]
ON = ["--device", "cpu", "--vae", "pixels"]
TINY = [*SET, "held_out=0.5", "calibration_images=8"]


@pytest.fixture(scope="module")
def pictures(product, tmp_path_factory):
    """A folder of pictures and nothing else: 16 good ones."""
    return shutil.copytree(product / "train" / "good",
                           tmp_path_factory.mktemp("pictures") / "discs")


@pytest.fixture(scope="module")
def told():
    """What `inspected` printed."""
    return {}


@pytest.fixture(scope="module")
def inspected(pictures, told, tmp_path_factory):
    out = tmp_path_factory.mktemp("inspected") / "out"
    with redirect_stdout(StringIO()) as printed:
        assert main(["inspect", str(pictures), str(out), *ON, *TINY]) == 0
    told["out"] = printed.getvalue()
    return out


def test_it_leaves_a_detector_and_a_report(inspected, pictures):
    assert sorted(path.name for path in inspected.iterdir()) == [
        "detector", "expected.json", "report.html"]
    detector = Detector.from_pretrained(inspected / "detector", device="cpu")
    assert detector.settings.step_rule == "region"
    assert detector.record["calibration"] and detector.threshold
    expected = json.loads((inspected / "expected.json").read_text())
    assert expected["defects"] >= 192
    counts = [row["all"][1] for kind, row in expected["found"].items() if kind != "all"]
    assert sum(counts) == expected["defects"] == expected["found"]["all"]["all"][1]
    for row in expected["found"].values():
        for names in (("faint", "middling", "clear"), ("small", "medium", "large")):
            assert sum(row[name][1] for name in names) == row["all"][1]
    report = (inspected / "report.html").read_text(encoding="utf-8")
    assert "Detector of discs" in report and "held-out images" in report
    share, count = expected["found"]["all"]["all"]
    assert f"{share:.0%} of {count} synthetic defects" in report
    assert '="http' not in report


def test_it_says_what_it_will_do_and_whether_it_works(inspected, told):
    first, *_ = told["out"].splitlines()
    assert first == ("preset regional, 64 pixels a side, 3 steps, autoencoder pixels; "
                     "8 pictures to train on, 8 held out")
    found = json.loads((inspected / "expected.json").read_text())["found"]
    report = (inspected / "report.html").read_text(encoding="utf-8")
    fails = found["all"]["all"][0] <= 1 / 9 + 0.1
    for text in (told["out"], report):
        assert (expectation.FAILS in text) == fails


@pytest.mark.parametrize("share, fails", [(0.2, True), (0.22, False)])
def test_a_detector_that_hardly_finds_more_than_it_flags(inspected, tmp_path, share,
                                                         fails):
    """8 held-out images promise a ninth of false alarms."""
    detector = Detector.from_pretrained(inspected / "detector", device="cpu")
    said = expectation.failing({"all": {"all": [share, 200]}}, detector)
    assert said.startswith(expectation.FAILS) == fails
    what = expectation.remedies(detector)
    assert '"train_length=12 steps"' in what[0] and "no --vae pixels" in what[1]
    assert "now 8 to train on" in what[2] and "image_size=128" in what[3]
    path = tmp_path / "report.html"
    expectation.write_expectation(path, "x", "promised", detector, [], [], 0.1, said)
    text = path.read_text(encoding="utf-8")
    assert ("<ol><li>train longer" in text) == fails
    if fails:
        assert text.index(expectation.FAILS) < text.index("promised")


@pytest.mark.parametrize("images, apart, told", [
    (47, 0, ""), (46, 0, "18 held-out images cannot promise 5.00% false alarms, only "
                         "5.26%; that takes 19, of 47 good pictures in all"),
    (46, 19, ""), (46, 9, "that takes 19\n")])
def test_too_few_pictures_are_told_of_before_the_training(capsys, images, apart, told):
    options = Namespace(preset=None, vae="pixels", set=[])
    _say(chosen(options, images, 64, False), images, apart)
    out, err = capsys.readouterr()
    assert f"{apart or round(images * 0.4)} held out" in out
    assert (told in err) if told else not err


@pytest.mark.parametrize("wanted", [["false_alarms=0.02"],
                                    ["false_alarms=0.02", "held_out=0.3"]])
def test_the_number_told_of_is_enough_and_one_less_is_not(capsys, wanted):
    options = Namespace(preset=None, vae="pixels", set=wanted)

    def told(images):
        _say(chosen(options, images, 64, False), images, 0)
        return capsys.readouterr().err

    enough = int(re.search(r"of (\d+) good pictures", told(60))[1])
    assert not told(enough) and told(enough - 1)


def test_where_nothing_is_held_out_no_number_is_sought(capsys):
    options = Namespace(preset="official", vae="pixels", set=["held_out=0"])
    _say(chosen(options, 30, 64, False), 30, 0)
    assert "30 pictures to train on, 0 held out" in capsys.readouterr().out


def test_a_second_time_nothing_is_trained(inspected, pictures, monkeypatch, capsys):
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained again"))
    before = (inspected / "expected.json").read_text()
    assert main(["inspect", str(pictures), str(inspected), *ON, *TINY]) == 0
    after = (inspected / "expected.json").read_text()
    assert json.loads(after)["found"] == json.loads(before)["found"]
    assert main(["inspect", str(pictures), str(inspected), *ON, *TINY, "seed=3"]) == 2
    assert "holds another detector" in capsys.readouterr().err


def test_odd_pictures_are_told_of_before_the_training(pictures, tmp_path, monkeypatch,
                                                      capsys):
    copy = shutil.copytree(pictures, tmp_path / "discs")
    shutil.copy(sorted(copy.iterdir())[0], copy / "again.png")
    (copy / "notes.txt").write_text("x")
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", str(copy), str(tmp_path / "out"), *ON, *TINY])
    told = capsys.readouterr().err
    assert "again.png" in told and "pixel for pixel" in told and "notes.txt" in told
    (copy / "torn.png").write_bytes(b"x")
    assert main(["inspect", str(copy), str(tmp_path / "out"), *ON, *TINY]) == 2
    assert "torn.png cannot be read" in capsys.readouterr().err


def test_where_no_pictures_lie_none_are_made_up(tmp_path, refused):
    folder, out = tmp_path / "empty", tmp_path / "out"
    folder.mkdir()
    for images in (folder, tmp_path / "none"):
        assert "does not exist: check the path (images lie directly" in refused(
            "inspect", images, out, *ON)
    assert not out.exists()


def test_images_given_as_held_out_are(pictures, product, tmp_path, capsys):
    """Of a product's folder with validation/good none of train/good is held out; what
    lies beside either and is no image is named.
    """
    root = tmp_path / "discs"
    shutil.copytree(pictures, root / "train" / "good")
    for n, path in enumerate(sorted(pictures.iterdir())[:8]):
        with Image.open(path) as image:
            ImageOps.mirror(image).save(tmp_path / f"{n}.png")
        (root / "validation" / "good").mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / f"{n}.png", root / "validation" / "good")
    (root / "validation" / "good" / "notes.txt").write_text("x")
    assert main(["inspect", str(root), str(tmp_path / "out"), *ON, *TINY]) == 0
    assert "validation/good/notes.txt" in capsys.readouterr().err
    record = Detector.from_pretrained(tmp_path / "out/detector", device="cpu").record
    assert record["images"] == 24 and record["held_out"] == 8
    assert record["held_out_from"] == "images given"


@pytest.mark.parametrize("images, side, gpu, size, share, neighbours", [
    (1000, 900, False, 128, 0.2, 20), (1000, 900, True, 256, 0.2, 20),
    (100, 200, True, 192, 0.4, 20), (160, 100, False, 96, 0.25, 20),
    (30, 20, False, 32, 0.4, 9)])
def test_settings_fit_number_size_and_device(images, side, gpu, size, share,
                                             neighbours):
    options = Namespace(preset=None, vae="pixels", set=["lam=0.5"])
    s = chosen(options, images, side, gpu)
    assert (s.image_size, s.held_out, s.neighbours) == (size, share, neighbours)
    assert s.preset == "regional" and s.lam == 0.5 and s.vae == "pixels"
    options.set = ["lam=7"]
    with pytest.raises(SettingsError):
        chosen(options, images, side, gpu)


def test_a_folder_that_is_watched(inspected, product, tmp_path, monkeypatch, capsys):
    """Images that come while it waits are done, each once; it ends when interrupted."""
    new, out = tmp_path / "new", tmp_path / "out"
    new.mkdir()
    (new / "notes.txt").write_text("x")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 4:
            raise KeyboardInterrupt
        if len(waits) < 3:
            shutil.copy(product / "test" / "good" / f"00{len(waits)}.png", new)

    monkeypatch.setattr(time, "sleep", sleep)
    done = main(["detect", str(inspected / "detector"), str(new), str(out),
                 "--device", "cpu", "--watch", "7"])
    assert done == 130 and waits == [7] * 4
    assert len(lines_of(out)) == 2 and (out / "report.html").exists()
    assert capsys.readouterr().out.count("above the threshold") == 2


def test_neither_command_replaces_the_report_of_the_other(
        inspected, pictures, tmp_path, refused):
    before = (inspected / "report.html").read_bytes()
    said = refused("detect", inspected / "detector", pictures, inspected, *ON)
    assert "report.html is none of `ddad detect`" in said
    assert (inspected / "report.html").read_bytes() == before
    (tmp_path / "results.jsonl").write_text("")
    assert "holds results of `ddad detect`" in refused(
        "inspect", pictures, tmp_path, *ON, *TINY)


@pytest.mark.parametrize("name, text", [
    ("report.html", "<!doctype html>\n<title>Detector of mine</title>"),
    ("report.html", page("Data check of discs", [])), ("expected.json", "[1]"),
    ("expected.json", '{"mine": 1}'), ("expected.json", "")])
def test_what_it_did_not_write_it_does_not_replace(pictures, tmp_path, refused,
                                                   monkeypatch, name, text):
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained"))
    (tmp_path / name).write_text(text)
    assert f"{name} is none of `ddad inspect`, and would be replaced" in refused(
        "inspect", pictures, tmp_path, *ON, *TINY)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


def test_without_a_threshold_there_is_nothing_to_expect(pictures, tmp_path, refused):
    assert "leaves no threshold" in refused(
        "inspect", pictures, tmp_path / "out", *ON, *TINY, "map_range=test")
