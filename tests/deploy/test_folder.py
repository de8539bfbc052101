"""Detection on a folder of images, by a detector that sees nothing but brightness."""
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import save_image, tiny
from PIL import Image

from ddad.anomaly_map import Ranges
from ddad.deploy import folder
from ddad.deploy.folder import inspect
from ddad.detector import Prediction
from ddad.dynamic_noise import MemoryBank
from ddad.runtime.errors import DataError, WriteError
from ddad.step_map import PatchBank

SIZE = 64
HELD_OUT = torch.linspace(0.585, 0.775, 20)


class Brightness:
    """Scores an image by its mean level; notes how many it was given. Held-out scores
    are 0.585, 0.595 .. 0.775, of which the fourth largest, 0.745, is the threshold.
    """

    def __init__(self, held_out=HELD_OUT, decode=True, **changes):
        self.settings, self.record = tiny(false_alarms=0.2, **changes), {}
        self.held_out_scores, self.decode, self.given = held_out, decode, []
        known = held_out is not None and self.settings.map_range == "held-out"
        self.threshold = held_out[-4:][0].item() if known else None
        self.networks = SimpleNamespace(vae=None, unet=None, phi=None)
        self.projection, self.ranges = SimpleNamespace(s=0.5), Ranges((0.0, 1.0), None)
        self.memory_bank = MemoryBank(torch.zeros(4, 2), torch.zeros(4))
        self.patch_bank = None

    def predict(self, images):
        self.given.append(len(images))
        score = (images.mean((1, 2, 3)) + 1) / 2
        A = score[:, None, None].expand(-1, SIZE, SIZE)
        step = torch.full((len(images),), 20)
        more = [A, images, step, step // 10, score] if self.decode else [
            None, None, step, None, None]
        return Prediction(score, A, A, *more)


@pytest.fixture
def paths(tmp_path):
    levels = [0.0, 0.2, 0.4, 0.6, 0.8]
    return [
        save_image(tmp_path / "images" / f"{i}.png", torch.full((3, SIZE, SIZE), v))
        for i, v in enumerate(levels)
    ]


def lines_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").open(encoding="utf-8")]


def test_a_line_a_map_and_an_overlay_each(paths, tmp_path):
    detector, out = Brightness(), tmp_path / "out"
    lines = inspect(detector, paths, out, batch=2)
    assert detector.given == [2, 2, 1] and lines == lines_of(out)
    assert [line["image"] for line in lines] == list(map(str, paths))
    assert [line["anomalous"] for line in lines] == [False, False, False, True, True]
    for line in lines:
        assert line["score"] == pytest.approx(line["distance"]) and line["bin"] == 2
        A = np.asarray(Image.open(out / "maps" / f"{line['map']}.png")).astype(int)
        level = line["score"] / (2 * line["threshold"]) * 65535
        assert abs(A - level).max() <= 1 and A.shape == (SIZE, SIZE)
    files = {path.stem for path in (out / "overlays").iterdir()}
    assert files == {line["map"] for line in lines}


def test_what_is_done_is_not_done_again_unless_the_file_has_changed(paths, tmp_path):
    out = tmp_path / "out"
    before = inspect(Brightness(), paths[:3], out)
    save_image(paths[1], torch.full((3, SIZE, SIZE), 0.9))
    again = Brightness()
    lines = {line["image"]: line for line in inspect(again, paths, out)}
    assert again.given == [3] and len(lines) == len(lines_of(out)) == 5
    assert lines[str(paths[0])] == before[0] and lines[str(paths[2])] == before[2]
    assert lines[str(paths[1])]["map"] == before[1]["map"]
    assert lines[str(paths[1])]["score"] > before[1]["score"]
    assert len({line["map"] for line in lines.values()}) == 5


def test_an_image_that_cannot_be_read_gets_a_line_and_stops_nothing(paths, tmp_path):
    paths[2].write_bytes(b"no image")
    lines = inspect(Brightness(), paths, tmp_path / "out")
    refused = {"image", "file", "error"}
    assert [set(line) == refused for line in lines] == 4 * [False] + [True]
    assert "2.png" in lines[-1]["error"]
    paths[1].unlink()
    paths[1].symlink_to(tmp_path / "gone.png")
    again = inspect(Brightness(), paths, tmp_path / "out")
    assert "is a link to" in again[-2]["error"] + again[-1]["error"]
    assert sum("error" in line for line in again) == 2
    [refused] = inspect(Brightness(), [paths[2]], tmp_path / "other")
    assert refused == lines[-1]


def test_a_range_of_all_images_takes_them_as_one_batch(paths, tmp_path):
    detector = Brightness(map_range="test")
    for _ in range(2):
        assert len(inspect(detector, paths, tmp_path / "out", batch=2)) == 5
    assert detector.given == [5, 5]


def test_p_ranks_a_score_among_those_of_held_out_images(paths, tmp_path):
    lines = inspect(Brightness(), paths, tmp_path / "out")
    # none of the 20 is as large as the last two
    assert [round(21 * line["p"], 9) for line in lines] == [21, 19, 9, 1, 1]
    assert all(line["anomalous"] == (line["p"] <= line["rate"] == 0.2)
               for line in lines)
    # of three images no score can have a p of 0.2
    few = Brightness(HELD_OUT[14:17])
    few.threshold = few.held_out_scores.max().item()
    lines = inspect(few, paths, tmp_path / "few")
    assert {line["rate"] for line in lines} == {0.25}
    assert [line["p"] for line in lines] == [1, 1, 1, 0.25, 0.25]
    assert [line["anomalous"] for line in lines] == [False] * 3 + [True] * 2


def test_maps_of_another_scale_have_no_p_and_no_threshold(paths, tmp_path):
    for line in inspect(Brightness(map_range="test"), paths, tmp_path / "out"):
        assert line["p"] is line["rate"] is line["anomalous"] is None


def test_an_image_that_could_not_be_read_is_not_forgotten(paths, tmp_path):
    out, bad = tmp_path / "out", tmp_path / "images" / "bad.png"
    bad.write_bytes(b"no image")
    inspect(Brightness(), [bad, paths[0]], out)
    lines = inspect(Brightness(), paths[1:2], out)      # another day, another folder
    assert [line["image"] for line in lines if "error" in line] == [str(bad)]
    assert lines_of(out) == [lines[0], lines[2], lines[1]] and len(lines) == 3
    save_image(bad, torch.zeros(3, SIZE, SIZE))
    assert all("score" in line for line in inspect(Brightness(), [bad], out))


def test_a_report_of_something_else_is_not_replaced(paths, tmp_path):
    out = tmp_path / "out"
    out.mkdir(), (out / "report.html").write_text("what to expect")
    with pytest.raises(FileExistsError, match="report.html is none of `ddad detect`"):
        inspect(Brightness(), paths, out)
    assert (out / "report.html").read_text() == "what to expect"


def test_a_latent_map_alone(paths, tmp_path):
    out = tmp_path / "out"
    for line in inspect(Brightness(decode=False), paths, out):
        assert line["bin"] is line["distance"] is None and line["T_hat"] == 20
        with Image.open(out / "overlays" / f"{line['map']}.png") as overlay:
            assert overlay.size == (4 * 2 * SIZE, 4 * SIZE)


def test_without_a_threshold_nothing_is_called_anomalous(paths, tmp_path):
    lines = inspect(Brightness(None), paths, tmp_path / "out", maps="npy")
    for name in ("threshold", "anomalous", "p", "rate"):
        assert {line[name] for line in lines} == {None}
    A = np.load(tmp_path / "out" / "maps" / f"{lines[0]['map']}.npy")
    assert A.dtype == np.float32 and A[0, 0] == pytest.approx(lines[0]["score"])


def test_refuses_results_of_another_detector(paths, tmp_path):
    inspect(Brightness(), paths[:1], tmp_path / "out")
    for other in (dict(held_out=torch.ones(20)), dict(lam=0.1)):
        with pytest.raises(FileExistsError, match="results of another detector"):
            inspect(Brightness(**other), paths, tmp_path / "out")
    with pytest.raises(FileExistsError, match="maps of another kind"):
        inspect(Brightness(), paths, tmp_path / "out", maps="npy")
    with pytest.raises(FileExistsError, match="is a file; give a folder"):
        inspect(Brightness(), paths, paths[0])
    assert len(lines_of(tmp_path / "out")) == 1


@pytest.mark.parametrize("network", ["vae", "unet", "phi"])
def test_refuses_results_of_another_network(paths, tmp_path, network):
    """Mended weights under the same settings give other scores."""
    one, other = (Brightness() for _ in range(2))
    for n, detector in enumerate((one, other)):
        setattr(detector.networks, network, torch.nn.Linear(1, 1))
        torch.nn.init.constant_(getattr(detector.networks, network).weight, n)
    inspect(one, paths, tmp_path / "out")
    name = {"vae": "autoencoder", "unet": "U-Net", "phi": "features"}[network]
    with pytest.raises(FileExistsError, match=f"other {name}"):
        inspect(other, paths, tmp_path / "out")


@pytest.mark.parametrize("name, other", [
    ("ranges", dict(ranges=Ranges((0.0, 3.0), None))),
    ("scale", dict(projection=SimpleNamespace(s=0.6))),
    ("memory bank", dict(memory_bank=MemoryBank(torch.ones(4, 2), torch.zeros(4)))),
    ("memory bank", dict(memory_bank=MemoryBank(torch.zeros(4, 2), torch.ones(4)))),
    ("patch bank", dict(patch_bank=PatchBank(torch.ones(3, 2), torch.ones(2))))])
def test_refuses_results_on_another_scale(paths, tmp_path, name, other):
    out, detector = tmp_path / "out", Brightness()
    inspect(Brightness(), paths[:1], out)
    for attribute, value in other.items():
        setattr(detector, attribute, value)
    with pytest.raises(FileExistsError, match=rf"\(other {name}\); choose another"):
        inspect(detector, paths, out)
    assert detector.given == [] and len(lines_of(out)) == 1


def test_refuses_results_of_another_version(paths, tmp_path, monkeypatch):
    out = tmp_path / "out"
    inspect(Brightness(), paths[:1], out)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "versions", lambda: {"ddad": "0.0.1"})
        with pytest.raises(FileExistsError, match=r"\(other versions\); choose"):
            inspect(Brightness(), paths, out)
    made_by = out / "detector.json"
    older = json.loads(made_by.read_text())
    del older["ranges"], older["scale"]
    made_by.write_text(json.dumps(older))
    with pytest.raises(FileExistsError, match="older version of ddad, .*scale, ranges"):
        inspect(Brightness(), paths, out)
    assert json.loads(made_by.read_text()) == older and len(lines_of(out)) == 1


def test_refuses_results_of_nobody_knows_whom(paths, tmp_path):
    out = tmp_path / "out"
    inspect(Brightness(), paths[:1], out)
    (out / "detector.json").unlink()
    with pytest.raises(FileExistsError, match="results.jsonl has no detector.json"):
        inspect(Brightness(), paths, out)
    assert len(lines_of(out)) == 1 and not (out / "detector.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", "\udc80", '{"format": 2}'])
def test_refuses_a_detector_json_of_something_else(paths, tmp_path, text):
    made_by = tmp_path / "out" / "detector.json"
    made_by.parent.mkdir(), made_by.write_text(text, errors="surrogateescape")
    with pytest.raises(FileExistsError, match="detector.json is none of `ddad detect`"):
        inspect(Brightness(), paths, made_by.parent)
    assert made_by.read_text(errors="surrogateescape") == text


@pytest.mark.parametrize("spoil", [
    lambda line: line[:-30], lambda line: "3", lambda line: '["error"]',
    lambda line: line.replace('"file"', '"no file"'),
    lambda line: line.replace('"sha256"', '"sha"'),
    lambda line: line.replace('"map": "00001', '"map": "one'),
    lambda line: line.replace('"map": ', '"map": 3, "name": '),
    lambda line: line.replace("1.png", "\udc80.png")])
def test_a_line_that_is_none_is_named(paths, tmp_path, spoil):
    out = tmp_path / "out"
    inspect(Brightness(), paths[:3], out)
    log, again = out / "results.jsonl", Brightness()
    lines = log.read_text().splitlines()
    spoilt = "\n".join([lines[0], spoil(lines[1]), lines[2], ""])
    log.write_bytes(spoilt.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match="results.jsonl, line 2, is none of `ddad "
                                        "detect`: delete that line, .* another folder"):
        inspect(again, paths, out)
    assert log.read_bytes() == spoilt.encode("utf-8", "surrogateescape")
    assert again.given == []


def test_a_range_of_all_images_is_not_joined_by_other_images(paths, tmp_path):
    """Scores of two runs could not be compared, and those of the first be lost."""
    out, detector = tmp_path / "out", Brightness(map_range="test")
    bad = save_image(tmp_path / "bad.png", torch.zeros(3, SIZE, SIZE))
    bad.write_bytes(b"no image")
    before = inspect(detector, [*paths[1:3], bad], out)
    with pytest.raises(FileExistsError, match="results of other images, .* cannot be "
                                              "compared; choose another folder"):
        inspect(detector, paths[2:], out)
    assert lines_of(out) == before and detector.given == [2]
    lines = inspect(detector, paths, out)       # one that sorts first keeps no name
    names = {line["file"]: line["map"] for line in lines if "score" in line}
    assert [names[str(path)] for path in paths[1:3]] == [
        line["map"] for line in before[:2]]
    for part in ("maps", "overlays"):           # none is left that no line is of
        assert {path.stem for path in (out / part).iterdir()} == set(names.values())
    assert lines == lines_of(out) and "error" in lines[-1] and len(lines) == 6


def test_a_range_of_all_images_waits_for_the_first(tmp_path):
    assert inspect(Brightness(map_range="test"), [], tmp_path / "out") == []


@pytest.mark.parametrize("maps", ["png16", "npy"])
def test_what_was_deleted_is_made_again(paths, tmp_path, maps):
    out, again = tmp_path / "out", Brightness()
    first, second, *others = inspect(Brightness(), paths, out, maps)
    made = {path: path.read_bytes() for path in out.rglob("0000*")}
    (out / "overlays" / f"{first['map']}.png").unlink()
    next((out / "maps").glob(f"{second['map']}*")).unlink()
    lines = inspect(again, paths, out, maps)
    assert again.given == [2] and lines == [*others, first, second]
    assert {path: path.read_bytes() for path in out.rglob("0000*")} == made


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
def test_a_pipe_is_not_waited_for(paths, tmp_path):
    pipe = tmp_path / "images" / "ff.png"
    inspect(Brightness(), paths[:1], tmp_path / "out")
    os.mkfifo(pipe)
    for _ in range(2):
        lines = inspect(Brightness(), [*paths, pipe], tmp_path / "out")
    assert "ff.png cannot be read (it is no plain file)" in lines[-1]["error"]
    assert len(lines) == 6 and all("score" in line for line in lines[:-1])
    paths[0].unlink(), os.mkfifo(paths[0])          # in place of one that was done
    assert "0.png" in inspect(Brightness(), paths, tmp_path / "out")[-1]["error"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_to_nothing_is_no_folder(paths, tmp_path):
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(WriteError, match="out is a link to .*gone, which is not there"):
        inspect(Brightness(), paths, link)
    assert not (tmp_path / "gone").exists()


def test_one_name_typed_in_two_folders_is_two_images(tmp_path, monkeypatch):
    """Tuesday's shots/0.png is not Monday's; but ./shots/0.png is shots/0.png."""
    out = tmp_path / "out"
    for day, level in (("monday", 0.2), ("tuesday", 0.8)):
        save_image(tmp_path / day / "shots" / "0.png",
                   torch.full((3, SIZE, SIZE), level))
        monkeypatch.chdir(tmp_path / day)
        lines = inspect(Brightness(), [Path("shots/0.png")], out)
    assert len(lines) == len(lines_of(out)) == 2
    assert len({line["map"] for line in lines}) == 2
    first, second = sorted(line["score"] for line in lines)
    assert (first, second) == (pytest.approx(0.6, abs=0.01),
                               pytest.approx(0.9, abs=0.01))
    again = Brightness()
    here = os.path.abspath("shots/0.png")
    for same in ("./shots/0.png", "../tuesday/shots/0.png", here):
        assert len(inspect(again, [Path(same)], out)) == 2
    assert again.given == []


@pytest.mark.parametrize("name", [
    "one\u2028line", "one\u0085line", "a\x1ebell", "\u6f22" * 60, "\U0001f4f7" * 62,
    "e\u0301" * 70])
def test_odd_names_cost_nothing(tmp_path, name):
    path, out = tmp_path / f"{name}.png", tmp_path / "out"
    try:
        save_image(path, torch.full((3, SIZE, SIZE), 0.5))
    except OSError:
        pytest.skip("no such name here")
    [line] = inspect(Brightness(), [path], out)
    assert line["image"] == str(path)
    assert (out / "maps" / f"{line['map']}.png").exists()
    again = Brightness()
    assert inspect(again, [path], out) == [line] and again.given == []
