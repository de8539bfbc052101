"""`ddad detect` on a tiny product: what it writes, how it goes on, what it refuses."""
import json
import os
import shutil

import numpy as np
import pytest
from cli_words import lines_of
from conftest import good_images, save_image
from PIL import Image

from ddad.cli import main
from ddad.cli.detector import _state
from ddad.detector import Detector

pytest_plugins = ["cli_fixtures"]
KEYS = {"image", "file", "sha256", "score", "threshold", "anomalous", "p", "rate",
        "T_hat", "bin", "distance", "level", "map"}


def detect(model, images, out, *more):
    return main(["detect", str(model), str(images), str(out), "--device", "cpu", *more])


@pytest.fixture
def square(product):
    """The folder of the four defective images."""
    return product / "test" / "square"


@pytest.fixture
def images(square, tmp_path):
    """A copy of them that a test may change."""
    return shutil.copytree(square, tmp_path / "images")


def test_detect(model, square, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert detect(model, square, out) == 0
    detector = Detector.from_pretrained(model, device="cpu")
    threshold, known = detector.threshold, detector.held_out_scores
    found = lines_of(out)
    flagged = sum(line["anomalous"] for line in found)
    assert f"4 images, {flagged} above" in capsys.readouterr().out
    assert [line["image"] for line in found] == [
        str(square / f"{i:03}.png") for i in range(4)]
    for line in found:
        assert set(line) == KEYS and line["T_hat"] in range(20, 81, 10)
        assert line["threshold"] == threshold
        assert line["anomalous"] == (line["score"] > threshold)
        assert line["anomalous"] == (line["p"] <= line["rate"])
        assert line["p"] == (1 + (known >= line["score"]).sum().item()) / 5
        with Image.open(out / "maps" / f"{line['map']}.png") as A:
            assert A.mode in ("I;16", "I") and A.size == (64, 64)
            # Pillow before 10.3 opens it as 32-bit
            levels = np.array(A).astype(np.uint16)
        expected = min(line["score"], 2 * threshold)
        largest = levels.max() / 65535 * 2 * threshold
        assert largest == pytest.approx(expected, abs=threshold / 16384)
        with Image.open(out / "overlays" / f"{line['map']}.png") as overlay:
            assert overlay.size == (4 * 192, 4 * 64)


def test_detect_one_image_with_a_float_map(model, square, tmp_path):
    assert detect(model, square / "002.png", tmp_path, "--maps", "npy") == 0
    [line] = lines_of(tmp_path)
    A = np.load(tmp_path / "maps" / f"{line['map']}.npy")
    assert A.dtype == np.float32 and A.shape == (64, 64)
    assert A.max() == pytest.approx(line["score"])


def test_detect_warns_where_too_few_images_were_held_out(
        like_model, square, tmp_path, capsys):
    for rate, warned in ((0.2, False), (0.05, True)):
        model = like_model(tmp_path / f"{rate}", f"false_alarms={rate}")
        capsys.readouterr()
        assert detect(model, square / "002.png", tmp_path / f"out {rate}") == 0
        [line], (_, said) = lines_of(tmp_path / f"out {rate}"), capsys.readouterr()
        assert line["rate"] == 0.2
        if warned:
            assert said == ("warning: 4 held-out images cannot promise 5.00% false "
                            "alarms, only 20.00%; that takes 19\n")
        else:
            assert "warning" not in said


def test_two_folders_with_the_same_names_keep_their_maps(model, product, tmp_path):
    for kind in ("good", "square"):
        assert detect(model, product / "test" / kind, tmp_path) == 0
    written = [len(list((tmp_path / name).iterdir())) for name in ("maps", "overlays")]
    assert len(lines_of(tmp_path)) == 8 and written == [8, 8]


# --- going on


def test_detect_goes_on_where_it_stopped(model, images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert detect(model, images, out) == 0
    before = (out / "results.jsonl").read_bytes()
    made = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    again = lambda *a, **k: pytest.fail("detected again")
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "predict", again)
        assert detect(model, images, out) == 0
        assert (out / "results.jsonl").read_bytes() == before
    # sorts first, and has the name of one that is done
    save_image(images / "000.bmp", good_images(1, seed=3)[0])
    assert detect(model, images, out) == 0
    assert (out / "results.jsonl").read_bytes().startswith(before)
    assert {p: p.stat().st_mtime_ns for p in made} == made
    assert len(list(out.rglob("*.png"))) == 10
    found = lines_of(out)
    assert len(found) == len({line["map"] for line in found}) == 5


def test_an_image_that_has_changed_is_scored_again(
        model, product, images, tmp_path, capsys):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    same, changed, new = (str(images / f"{name}.png") for name in ("000", "001", "zz"))
    assert detect(model, images, out) == 0
    before = {line["image"]: line for line in lines_of(out)}
    shutil.copy(product / "test" / "good" / "000.png", changed)
    shutil.copy(product / "test" / "good" / "001.png", new)
    assert detect(model, images, out) == 0
    assert detect(model, images, fresh) == 0
    after, anew = ({line["image"]: line for line in lines_of(folder)}
                   for folder in (out, fresh))
    assert len(after) == 5 and after[same] == before[same]
    for image in after:
        assert after[image]["score"] == pytest.approx(anew[image]["score"], abs=1e-6)
    assert after[changed]["score"] != before[changed]["score"]
    assert after[changed]["map"] == before[changed]["map"]
    maps = {line["map"] for line in after.values()}
    assert len(maps) == len(list((out / "maps").iterdir())) == 5
    # as a kill leaves it before 001.png is done again
    left = [line for line in lines_of(out) if line["image"] != changed]
    text = "".join(json.dumps(line) + "\n" for line in left)
    (out / "results.jsonl").write_text(text)
    assert detect(model, images, out) == 0
    assert sorted(int(line["map"][:5]) for line in lines_of(out)) == [0, 2, 3, 4, 5]
    capsys.readouterr()
    assert detect(model, new, out) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 image, ") and "with 4 of earlier runs" in said


def test_a_half_written_last_line_is_done_again(model, square, tmp_path):
    assert detect(model, square, tmp_path) == 0
    log, whole = tmp_path / "results.jsonl", lines_of(tmp_path)
    # the machine went down while it was written
    log.write_bytes(log.read_bytes()[:-40])
    assert detect(model, square, tmp_path) == 0
    again = lines_of(tmp_path)
    assert [line["image"] for line in again] == [line["image"] for line in whole]
    assert [line["score"] for line in again] == pytest.approx(
        [line["score"] for line in whole], abs=1e-5)


def test_a_test_set_range_starts_anew_and_keeps_the_old_results_until_then(
        like_model, images, tmp_path, monkeypatch):
    model, out = like_model(tmp_path / "model", "map_range=test"), tmp_path / "out"
    assert detect(model, images, out) == 0
    names = [line["image"] for line in lines_of(out)]
    assert detect(model, images, out) == 0
    assert [line["image"] for line in lines_of(out)] == names

    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "predict", interrupted)
        assert detect(model, images, out) == 130 and len(lines_of(out)) == len(names)
    (images / "001.png").write_bytes((images / "001.png").read_bytes()[:200])
    assert detect(model, images, out) == 2
    scored = ["score" in line for line in lines_of(out)]
    assert scored == [True] * (len(names) - 1) + [False]


# --- what cannot be used


def test_a_broken_image_is_named_and_the_others_are_done(model, tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    for i in range(17):
        save_image(images / f"{i:03}.png", good_images(1, seed=i)[0])
    broken = images / "003.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    assert detect(model, images, out) == 2
    assert "003.png cannot be read" in capsys.readouterr().err
    scored = [line for line in lines_of(out) if "score" in line]
    [refused] = [line for line in lines_of(out) if "score" not in line]
    assert len(scored) == 16 and set(refused) == {"image", "file", "error"}
    assert "003.png" in refused["image"]
    broken.write_bytes(whole)
    assert detect(model, images, out) == 0
    found = lines_of(out)
    assert found[:16] == scored and len(found) == 17 and "003.png" in found[16]["image"]


def test_nothing_but_broken_images(model, tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    (images / "a.png").write_bytes(b"no picture")
    assert detect(model, images, out) == 2
    assert "a.png" in capsys.readouterr().err
    assert [set(line) for line in lines_of(out)] == [{"image", "file", "error"}]


def test_detect_refuses_a_folder_of_another_detector(
        model, like_model, square, tmp_path, refused):
    other, out = like_model(tmp_path / "other", "false_alarms=0.5"), tmp_path / "out"
    image = square / "002.png"
    assert detect(model, image, out) == 0
    before = (out / "results.jsonl").read_bytes()
    cpu = ["--device", "cpu"]
    assert "another detector" in refused("detect", other, image, out, *cpu)
    assert "another detector" in refused("detect", model, image, out, *cpu,
                                         "--maps", "npy")
    assert "is a file" in refused("detect", model, image, out / "results.jsonl", *cpu)
    assert (out / "results.jsonl").read_bytes() == before


def test_detect_with_what_cannot_be_used(model, product, tmp_path, refused):
    good, out = product / "test" / "good", tmp_path / "out"
    empty, damaged = tmp_path / "empty", tmp_path / "damaged"
    assert "holds no manifest.json" in refused("detect", tmp_path / "none", good, out)
    assert "holds no manifest.json" in refused("detect", product, good, out)
    assert "does not exist" in refused("detect", model, tmp_path / "none", out)
    shutil.copytree(model, tmp_path / "inspected" / "detector")
    assert f"its detector is {tmp_path}/inspected/detector: give that" in refused(
        "detect", tmp_path / "inspected", good, out)
    empty.mkdir()
    assert "holds no image" in refused("detect", model, empty, out)
    shutil.copytree(model, damaged)
    (damaged / "state.safetensors").write_bytes(b"x")
    assert "state.safetensors" in refused("detect", damaged, good, out)


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf", "1e300"])
def test_it_can_look_again_after_some_seconds_alone(tmp_path, refused, seconds):
    said = refused("detect", tmp_path / "none", tmp_path, tmp_path / "out", "--watch",
                   seconds)
    assert "--watch" in said and "seconds" in said
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_gone_before_it_is_looked_at(tmp_path):
    """While a folder is watched, whoever fills it may move a file off."""
    path = tmp_path / "0.png"
    assert _state(path) == (path, None)
    path.write_bytes(b"a")
    first, when = _state(path), path.stat().st_mtime_ns
    path.write_bytes(b"ab"), os.utime(path, ns=(when, when))
    assert _state(path) != first
