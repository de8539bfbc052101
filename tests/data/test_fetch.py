import hashlib
import json
import re
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
from conftest import TINY
from lookalikes import make_btad, make_loco, make_mvtec, make_visa
from serving import serving

from ddad.cli import main
from ddad.data import fetch as fetching
from ddad.data.datasets import DATASETS
from ddad.data.fetch import check_dataset, fetch
from ddad.runtime.errors import DataError

BOTTLE = {"counts": {"bottle": (4, 0, 2, 2)}}
NOBODY = "http://127.0.0.1:9/archive.tar.xz"


@pytest.fixture
def serve(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path) as serve:
        yield serve


@pytest.fixture
def bottle(serve, tmp_path):
    """A server of a small MVTec AD."""
    return serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE)


def test_consent_comes_first(bottle, tmp_path, capsys):
    with pytest.raises(DataError, match="MVTec AD was not fetched.*--accept"):
        fetch("mvtec_ad", tmp_path / "root")
    printed = capsys.readouterr().out
    for part in ("MVTec AD", "GB", "CC BY-NC-SA 4.0", "not use it commercially",
                 "Bergmann"):
        assert part in printed
    assert bottle.asked == [] and not (tmp_path / "root").exists()
    with pytest.raises(DataError, match="'mvtec' is unknown: use one of mvtec_ad"):
        fetch("mvtec", tmp_path, consent=True)


@pytest.mark.parametrize("name, make, suffix, counts", [
    ("mvtec_ad", make_mvtec, ".tar.xz", {"bottle": (4, 0, 2, 2)}),
    ("mvtec_loco", make_loco, ".tar.xz", {"juice_bottle": (4, 2, 2, 2)}),
    ("visa", make_visa, ".tar", {"candle": (4, 0, 2, 2)}),
    ("btad", make_btad, ".zip", {c: (4, 0, 2, 2) for c in ("01", "02", "03")}),
])
def test_fetch_and_second_call(serve, tmp_path, capsys, name, make, suffix, counts):
    root = tmp_path / "root"
    server = serve(name, make(tmp_path / "made"), suffix, counts=counts)
    home = fetch(name, str(root), consent=True)
    assert home == root / DATASETS[name].folder
    assert check_dataset(name, root, 32)["usable"]
    assert not list(root.glob("*.partial*")) and len(server.asked) == 1
    shutil.rmtree(tmp_path / "made")
    capsys.readouterr()
    # no consent needed, no request
    assert fetch(name, root) == home and "already" in capsys.readouterr().out
    assert len(server.asked) == 1


def test_a_download_goes_on_where_it_broke_off(bottle, tmp_path):
    half = bottle.dies_after = bottle.path.stat().st_size // 2
    for _ in range(2):
        with pytest.raises(DataError, match="broke off after .* run again, it goes on"):
            fetch("mvtec_ad", tmp_path / "root", consent=True)
        bottle.dies_after = 7
    bottle.dies_after = None
    assert fetch("mvtec_ad", tmp_path / "root", consent=True).is_dir()
    assert bottle.asked == [None, f"bytes={half}-", f"bytes={half + 7}-"]


@pytest.mark.parametrize("change", ["no ranges", "another file", "no validator",
                                    "weak validator", "damaged record"])
def test_a_download_starts_anew_where_it_cannot_go_on(bottle, tmp_path, change):
    bottle.dies_after = 1000
    etags = {"no validator": None, "weak validator": 'W/"one"'}
    bottle.etag = etags.get(change, bottle.etag)
    with pytest.raises(DataError, match="broke off"):
        fetch("mvtec_ad", tmp_path / "root", consent=True)
    (partial,) = (tmp_path / "root").glob("*.partial")
    partial.write_bytes(b"x" * 1000)  # glued to the rest, the hash would be wrong
    bottle.dies_after, bottle.ranges = None, change != "no ranges"
    if change == "another file":
        bottle.etag = '"two"'
    if change == "damaged record":
        partial.with_name(partial.name + ".json").write_text("{")
    assert fetch("mvtec_ad", tmp_path / "root", consent=True).is_dir()


def test_a_download_that_was_whole_but_not_renamed(bottle, tmp_path):
    root, content = tmp_path / "root", bottle.path.read_bytes()

    def kept(content):
        root.mkdir()
        partial = root / (bottle.path.name + ".partial")
        partial.write_bytes(content)
        record = json.dumps({"url": bottle.url, "validator": bottle.etag})
        partial.with_name(partial.name + ".json").write_text(record)

    kept(content)
    assert fetch("mvtec_ad", root, consent=True).is_dir()
    assert bottle.asked == [f"bytes={len(content)}-"]
    shutil.rmtree(root)
    kept(content + b"more")
    with pytest.raises(DataError, match="they are deleted; run again"):
        fetch("mvtec_ad", root, consent=True)
    assert fetch("mvtec_ad", root, consent=True).is_dir()


def test_wrong_hash(serve, tmp_path):
    root = tmp_path / "root"
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE, sha256="0" * 64)
    found = hashlib.sha256(server.path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=r"\.bad is not the published archive: its "
                                        rf"SHA-256 is {found}, expected was 0000"):
        fetch("mvtec_ad", root, consent=True)
    assert [path.name for path in root.iterdir()] == [server.path.name + ".bad"]


def test_an_archive_laid_by_hand_and_an_interrupted_unpacking(bottle, tmp_path):
    root = tmp_path / "root"
    (root / "mvtec_ad.unpacking.partial" / "bottle").mkdir(parents=True)
    shutil.copy(bottle.path, root)
    home = fetch("mvtec_ad", root, consent=True)
    assert bottle.asked == [] and check_dataset("mvtec_ad", root, 32)["usable"]
    shutil.rmtree(home / "bottle")
    with pytest.raises(DataError, match="does not hold all of bottle: move it away"):
        fetch("mvtec_ad", root, consent=True)


def test_another_address_and_one_that_answers_404(serve, bottle, tmp_path):
    root = tmp_path / "root"
    serve("mvtec_ad", archive=bottle.path, urls=(NOBODY,))
    with pytest.raises(DataError, match="127.0.0.1:9/.* cannot be fetched .*run again"):
        fetch("mvtec_ad", root, consent=True)
    bottle.status = 404
    with pytest.raises(DataError, match=r"\(404 .*--url, or lay the archive at "
                                        r".*archive\.tar\.xz yourself"):
        fetch("mvtec_ad", root, consent=True, url=bottle.url)
    with pytest.raises(DataError, match="'archive.tar.xz' is no address"):
        fetch("mvtec_ad", root, consent=True, url="archive.tar.xz")
    bottle.status = 200
    assert fetch("mvtec_ad", root, consent=True, url=bottle.url).is_dir()


@pytest.fixture
def two(serve, bottle, monkeypatch):
    """Two servers of a small MVTec AD, of which the first answers 404.

    Their ETags are the same: only the addresses tell them apart.
    """
    second = serve("mvtec_ad", archive=bottle.path)
    changed = replace(DATASETS["mvtec_ad"], urls=(bottle.url, second.url))
    monkeypatch.setitem(DATASETS, "mvtec_ad", changed)
    bottle.status = 404
    return bottle, second


@pytest.mark.parametrize("down", ["404", "no server"])
def test_the_next_address_where_the_first_is_dead(two, tmp_path, monkeypatch, capsys,
                                                  down):
    first, second = two
    dead, reason = first.url, "404 Not Found"
    if down == "no server":
        dead, reason = NOBODY, "<urlopen error .*>"
        changed = replace(DATASETS["mvtec_ad"], urls=(dead, second.url))
        monkeypatch.setitem(DATASETS, "mvtec_ad", changed)
    assert fetch("mvtec_ad", tmp_path / "root", consent=True).is_dir()
    printed = capsys.readouterr().out
    assert re.search(rf"^{dead} cannot be fetched \({reason}\): trying {second.url}$",
                     printed, re.MULTILINE)
    assert f"GB from {dead}\n" in printed and second.asked == [None]


def test_all_addresses_dead(two, tmp_path):
    first, second = two
    second.status = 503
    with pytest.raises(DataError, match=rf"^{first.url} .*\(404 .*{second.url} .*\(503 "
                                        r".*: try later, .*--url, or lay the archive"):
        fetch("mvtec_ad", tmp_path / "root", consent=True)
    # --url takes the place of both
    with pytest.raises(DataError, match=rf"^{NOBODY} cannot .*: look at the network"):
        fetch("mvtec_ad", tmp_path / "root", consent=True, url=NOBODY)
    assert len(first.asked) == len(second.asked) == 1


@pytest.mark.parametrize("first_is_back", [False, True])
def test_a_download_goes_on_at_the_next_address(two, tmp_path, capsys, first_is_back):
    first, second = two
    second.dies_after = 1000
    with pytest.raises(DataError, match=f"{second.url} broke off after 1000 of"):
        fetch("mvtec_ad", tmp_path / "root", consent=True)
    second.dies_after = None
    first.status = 200 if first_is_back else 404
    capsys.readouterr()
    assert fetch("mvtec_ad", tmp_path / "root", consent=True).is_dir()
    assert f"going on with what was kept from {second.url}" in capsys.readouterr().out
    assert first.asked == [None] and second.asked == [None, "bytes=1000-"]


def test_what_is_kept_of_one_address_is_not_continued_from_another(two, tmp_path):
    first, second = two
    second.dies_after = 1000
    with pytest.raises(DataError, match="broke off"):
        fetch("mvtec_ad", tmp_path / "root", consent=True)
    first.status, second.status = 503, 404
    with pytest.raises(DataError, match=r"\(404 .*\(503 "):
        fetch("mvtec_ad", tmp_path / "root", consent=True)
    (partial,) = (tmp_path / "root").glob("*.partial")
    assert partial.stat().st_size == 1000  # nobody had anything better
    partial.write_bytes(b"x" * 1000)  # glued to the rest, the hash would be wrong
    first.status = 200
    assert fetch("mvtec_ad", tmp_path / "root", consent=True).is_dir()
    assert first.asked == [None] * 3
    assert second.asked == [None, "bytes=1000-", "bytes=1000-"]


def test_a_wrong_hash_at_the_first_of_two_addresses(two, tmp_path):
    first, second = two
    first.status, first.path = 200, tmp_path / "broken"
    first.path.write_bytes(second.path.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"\.bad is not the published archive"):
        fetch("mvtec_ad", tmp_path / "root", consent=True)
    assert second.asked == []


def test_too_little_room(serve, tmp_path, monkeypatch):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE, size=10**9)
    usage = namedtuple("usage", "free")(2 * 10**9)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="has 2.0 GB free, MVTec AD needs 2.2 GB"):
        fetch("mvtec_ad", tmp_path / "root", consent=True)
    assert server.asked == []


def test_check_names_what_is_off(tmp_path, monkeypatch):
    counts = dict.fromkeys(("bottle", "cable", "pill"), (4, 0, 2, 2))
    changed = replace(DATASETS["mvtec_ad"], counts=counts)
    monkeypatch.setitem(DATASETS, "mvtec_ad", changed)
    home = make_mvtec(tmp_path / "mvtec_ad", ("bottle", "cable"))
    (home / "cable" / "train" / "good" / "0000.png").unlink()
    (home / "cable" / "test" / "cut" / "0000.png").unlink()
    (home / "cable" / "test" / "good" / "0001.png").write_text("x")
    report = check_dataset("mvtec_ad", tmp_path, 32)
    assert json.loads(json.dumps(report)) == report and report["usable"] is False
    bottle, cable, pill = report["categories"].values()
    assert bottle["differences"] == bottle["problems"] == []
    assert bottle["usable_for"] == ["train", "evaluate"]
    assert "4 good images" in bottle["warnings"][0]
    assert cable["differences"] == [
        "cable has 3 good images to train on, published are 4.",
        "cable has 1 defective test images, published are 2.",
    ]
    assert cable["usable_for"] == ["train"] and len(cable["problems"]) == 1
    assert pill["usable_for"] == [] and len(pill["differences"]) == 3
    with pytest.raises(DataError, match="visa does not exist: fetch visa into"):
        check_dataset("visa", tmp_path, 32)


def _value(value):
    return json.dumps(list(value) if isinstance(value, tuple) else value)


SET = ["--set", *(f"{name}={_value(value)}" for name, value in TINY.items())]


@pytest.mark.parametrize("name, make, suffix, categories", [
    ("mvtec_ad", make_mvtec, ".tar.xz", ("bottle",)),
    ("visa", make_visa, ".tar", ("candle",)),
    ("btad", make_btad, ".zip", ("01", "02", "03")),
])
def test_fetched_checked_trained_evaluated(serve, tmp_path, name, make, suffix,
                                           categories):
    """By the command line, from a server to the metrics, in the data set's own layout.
    """
    made = make(tmp_path / "made", train=14, good=3, bad=4)
    counts = dict.fromkeys(categories, (14, 0, 3, 4))
    server = serve(name, made, suffix, counts=counts)
    data, model = str(tmp_path / "data"), str(tmp_path / "model")
    assert main(["data", "fetch", name, data]) == 2 and not server.asked
    assert main(["data", "fetch", name, data, "--accept"]) == 0
    assert main(["data", "check", data, "--name", name, "--size", "64"]) == 0
    folder = str(tmp_path / "data" / DATASETS[name].folder / categories[0])
    assert main(["train", folder, model, "--device", "cpu", *SET]) == 0
    assert main(["evaluate", model, folder, "--device", "cpu"]) == 0
    results = (tmp_path / "model" / "results.json").read_text(encoding="utf-8")
    assert json.loads(results)["result"]["defective"] == 4
