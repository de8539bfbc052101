"""Published data sets by name: fetched from a server on this machine, checked, read in their true layouts, trained on and evaluated."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import TINY
from lookalikes import make_btad, make_mtd, make_mvtec_ad, make_mvtec_loco, make_visa, pack

from ddad import datasets
from ddad import fetch as fetching
from ddad.cli import main
from ddad.data import DataError, check, held_out_items, read_item, test_items, train_items
from ddad.datasets import DATASETS, check_dataset, split_mtd, tiles
from ddad.fetch import fetch, unpack

test_items.__test__ = False
MAKE = {"mvtec_ad": make_mvtec_ad, "mvtec_loco": make_mvtec_loco, "btad": make_btad, "visa": make_visa}
CATEGORY = {"mvtec_ad": "bottle", "mvtec_loco": "juice_bottle", "btad": "01", "visa": "candle"}
SET = ["--set", *(f"{name}={json.dumps(list(value) if isinstance(value, tuple) else value)}" for name, value in TINY.items())]


# --- reading


@pytest.mark.parametrize("name", MAKE)
def test_items_of_each_layout(name, tmp_path):
    root = MAKE[name](tmp_path) / CATEGORY[name]
    train, held_out, test = train_items(root), held_out_items(root), test_items(root)
    assert len(train) == (12 if name == "mvtec_loco" else 14) and len(held_out) == (4 if name == "mvtec_loco" else 0)
    assert {item.kind for item in train + held_out} == {"good"}
    good = [item for item in test if item.kind == "good"]
    assert len(good) == 3 and len(test) == 7 and all((item.mask is None) == (item.kind == "good") for item in test)
    assert [item.path for item in train] == sorted(item.path for item in train)
    for item in test:
        share = read_item(item, 64)[1].mean().item()
        assert share == 0 if item.kind == "good" else 0.03 < share < 0.5
    report = check(root, 64)
    assert report["usable"] or report["problems"] == [], report["problems"]
    assert report["test"]["good"] == 3 and not report["masks"]["missing"]


def test_visa_says_what_is_missing(tmp_path):
    root = make_visa(tmp_path) / "candle"
    (root / "Data/Images/Normal/0003.JPG").unlink()
    with pytest.raises(DataError, match="0003.JPG is listed .* and missing"):
        train_items(root)
    (root / "Data/Masks/Anomaly/001.png").unlink()
    assert sum("missing" in p or "no mask" in p for p in check(root, 64)["problems"]) == 2
    shutil.move(tmp_path / "candle", tmp_path / "other")
    with pytest.raises(DataError, match="lists no picture of other"):
        train_items(tmp_path / "other")
    shutil.rmtree(tmp_path / "split_csv")
    with pytest.raises(DataError, match="1cls.csv is missing"):
        train_items(tmp_path / "other")
    assert not check(tmp_path / "other", 64)["usable"]


# --- the table


def test_published_totals():
    total = lambda name: tuple(map(sum, zip(*DATASETS[name].counts.values())))
    assert total("mvtec_ad") == (3629, 0, 467, 1258) and len(DATASETS["mvtec_ad"].counts) == 15
    assert total("visa") == (8659, 0, 962, 1200) and len(DATASETS["visa"].counts) == 12     # 9,621 good ones
    assert total("btad") == (1799, 0, 451, 290) and len(DATASETS["btad"].counts) == 3
    assert total("mvtec_loco") == (1778, 305, 575, 993) and len(DATASETS["mvtec_loco"].counts) == 5


def test_check_names_what_is_off(tmp_path, monkeypatch):
    make_mvtec_ad(tmp_path)
    few = replace(DATASETS["mvtec_ad"], counts={"bottle": (14, 0, 3, 4)})
    monkeypatch.setitem(DATASETS, "mvtec_ad", few)
    assert check_dataset("mvtec_ad", tmp_path, 64)["problems"] == []
    (tmp_path / "bottle/test/good/014.png").unlink()
    monkeypatch.setitem(DATASETS, "mvtec_ad", replace(few, counts=few.counts | {"cable": (1, 0, 1, 1)}))
    problems = check_dataset("mvtec_ad", tmp_path, 64)["problems"]
    assert f"{tmp_path / 'bottle'}: 2 good test images, 3 are published" in problems
    assert any("cable" in p and "does not exist" in p for p in problems)
    assert main(["data", "check", str(tmp_path), "--name", "mvtec_ad", "--size", "64"]) == 1
    with pytest.raises(DataError, match="no data set is called 'mvtec'; there are mvtec_ad, visa"):
        check_dataset("mvtec", tmp_path, 64)


# --- MTD's two splits


def test_tiles_are_pictures_whose_numbers_lie_close():
    names = ["exp2_num_350", "exp1_num_100", "exp1_num_9000", "exp3_num_651", "exp1_num_400"]
    assert tiles(names) == [["exp1_num_100", "exp2_num_350", "exp1_num_400", "exp3_num_651"], ["exp1_num_9000"]]
    with pytest.raises(DataError, match="a.b is no name of MTD"):
        tiles(["a.b"])


def test_no_tile_on_both_sides():
    good = [f"exp{e}_num_{5000 * tile + 40 * e}" for tile in range(50) for e in range(6)]
    train, test = split_mtd(good, ["exp1_num_10250"], "by_tile")
    of = lambda stems: {int(stem.split("_")[-1]) // 5000 for stem in stems}
    assert not of(train) & of(test) and 2 in of(test)                    # the tile that is photographed broken, too
    assert sorted(train + test) == sorted(good) and 0.2 <= len(test) / len(good) <= 0.23
    assert split_mtd(good, [], "by_tile", seed=1) != split_mtd(good, [], "by_tile") == split_mtd(good[::-1], [], "by_tile")
    at_random = split_mtd(good, [], "random")
    assert len(at_random[1]) == 60 and len(of(at_random[0]) & of(at_random[1])) > 20


# --- fetching


class Server:
    """Serves bytes on 127.0.0.1; may ignore ranges, or break off after so many bytes, once."""

    def __init__(self, content, ranges=True, break_after=None, etag='"one"'):
        served = self
        self.content, self.ranges, self.break_after, self.etag, self.asked = content, ranges, break_after, etag, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                served.asked.append(wanted)
                start = int(wanted[6:-1]) if wanted and served.ranges and self.headers.get("If-Range") == served.etag else 0
                body = served.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", served.etag)
                self.end_headers()
                if served.break_after is not None:
                    body, served.break_after = body[: served.break_after], None
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server.server_port}/{name}"


@pytest.fixture
def serve(monkeypatch):
    """Serves an archive as the data set `name` and returns the server; the table is told its hash and counts."""
    servers = []

    def start(name, archive, counts=None, **options):
        server = Server(archive.read_bytes(), **options)
        servers.append(server)
        known = hashlib.sha256(server.content).hexdigest() if DATASETS[name].sha256 else None
        told = {"url": server.url(archive.name), "sha256": known, "counts": DATASETS[name].counts if counts is None else counts}
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], **told))
        return server

    yield start
    for server in servers:
        server.server.shutdown()


@pytest.mark.parametrize(("name", "file"), [("mvtec_ad", "a.tar.xz"), ("visa", "v.tar"), ("btad", "b.zip")])
def test_fetch_check_train_evaluate(name, file, tmp_path, serve, capsys):
    source = MAKE[name](tmp_path / "source" / DATASETS[name].folder)
    serve(name, pack(tmp_path / "source", tmp_path / file), counts={CATEGORY[name]: (14, 0, 3, 4)})
    out, model = tmp_path / "data", tmp_path / "model"
    assert main(["data", "fetch", name, str(out)]) == 2                  # no consent, nothing fetched
    assert "licence" in capsys.readouterr().err and not out.exists()
    assert main(["data", "fetch", name, str(out), "--accept"]) == 0
    root = out / name / DATASETS[name].folder
    assert {p.relative_to(root) for p in root.rglob("*.*")} == {p.relative_to(source) for p in source.rglob("*.*")}
    assert main(["data", "check", str(root), "--name", name, "--size", "64"]) == 0
    assert main(["train", str(root / CATEGORY[name]), str(model), "--device", "cpu", *SET]) == 0
    assert main(["evaluate", str(model), str(root / CATEGORY[name]), "--device", "cpu"]) == 0
    assert json.loads((model / "results.json").read_text())["result"]["defective"] == 4


def test_fetch_goes_on_where_it_stopped(tmp_path, serve):
    make_mvtec_ad(tmp_path / "source")
    server = serve("mvtec_ad", pack(tmp_path / "source", tmp_path / "a.tar"), break_after=50_000)
    with pytest.raises(DataError, match="goes on from there"):
        fetch("mvtec_ad", tmp_path / "data", consent=True)
    kept = (tmp_path / "data/a.tar.part").stat().st_size
    assert 0 < kept <= 50_000
    fetch("mvtec_ad", tmp_path / "data", consent=True)
    assert server.asked == [None, f"bytes={kept}-"]
    fetch("mvtec_ad", tmp_path / "data", consent=True)                   # there already: nothing is asked
    assert len(server.asked) == 2


@pytest.mark.parametrize("change", [{"ranges": False}, {"etag": '"two"'}])
def test_without_ranges_or_with_another_file_it_starts_anew(change, tmp_path, serve):
    make_mvtec_ad(tmp_path / "source")
    server = serve("mvtec_ad", pack(tmp_path / "source", tmp_path / "a.tar"), break_after=50_000)
    with pytest.raises(DataError):
        fetch("mvtec_ad", tmp_path / "data", consent=True)
    vars(server).update(change)
    assert (fetch("mvtec_ad", tmp_path / "data", consent=True) / "bottle").is_dir()


def test_wrong_hash_is_set_aside(tmp_path, serve, monkeypatch):
    make_mvtec_ad(tmp_path / "source")
    serve("mvtec_ad", pack(tmp_path / "source", tmp_path / "a.tar"))
    monkeypatch.setitem(DATASETS, "mvtec_ad", replace(DATASETS["mvtec_ad"], sha256="0" * 64))
    with pytest.raises(DataError, match="its SHA-256 is [0-9a-f]{64}, not 0000"):
        fetch("mvtec_ad", tmp_path / "data", consent=True)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["a.tar.bad"]


def test_no_server_and_a_full_disk_are_said(tmp_path, serve, monkeypatch):
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch("visa", tmp_path, consent=True, url="http://127.0.0.1:9/visa.tar")
    make_mvtec_ad(tmp_path / "source")
    serve("mvtec_ad", pack(tmp_path / "source", tmp_path / "a.tar"))
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DataError, match="0.0 GB free"):
        fetch("mvtec_ad", tmp_path / "data", consent=True)


def test_mtd_is_arranged_both_ways(tmp_path, serve):
    archive = pack(make_mtd(tmp_path / "source"), tmp_path / "m.zip")
    for name in ("mtd_by_tile", "mtd_random"):
        serve(name, archive)
        root = fetch(name, tmp_path / "data", consent=True) / "mtd"
        split = json.loads((root / "split.json").read_text())
        train, test = train_items(root), test_items(root)
        assert split["rule"] == name.removeprefix("mtd_") and sorted(p.path.stem for p in train) == split["train"]
        assert len(train) + sum(item.kind == "good" for item in test) == 27
        assert {item.kind for item in test} == {"good", *datasets.MTD_KINDS}
        assert all(read_item(item, 64)[1].any() for item in test if item.kind != "good")
        problems = check_dataset(name, root.parent, 64)["problems"]
        assert any("27 images of good, 952 are published" in p for p in problems)
    near = [f"exp{e + 1}_num_{40 * e}" for e in range(3)]                 # a broken one has the next number
    by_tile = json.loads((tmp_path / "data/mtd_by_tile/mtd/split.json").read_text())
    assert set(near) <= set(by_tile["test"])


# --- archives that mean harm


def tar_with(tmp_path, member, content=b"x"):
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as file:
        member.size = len(content) if member.isfile() else 0
        file.addfile(member, io.BytesIO(content))
    return archive


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png", "..\\out.png", "C:\\out.png"])
def test_archives_cannot_write_outside_their_folder(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(zipfile.ZipInfo(name), b"x")
    for archive in (tar_with(tmp_path, tarfile.TarInfo(name)), tmp_path / "bad.zip"):
        with pytest.raises(DataError, match="outside its folder"):
            unpack(archive, tmp_path / "a/b")
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.parametrize("member", [link("a", "/etc"), link("a", "b", tarfile.LNKTYPE), link("a", "", tarfile.FIFOTYPE)])
def test_links_and_devices_are_refused(member, tmp_path):
    with pytest.raises(DataError, match="neither a file nor a folder"):
        unpack(tar_with(tmp_path, member), tmp_path / "out")


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        member = zipfile.ZipInfo("a")
        member.external_attr = 0o120777 << 16
        file.writestr(member, "/etc")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        unpack(tmp_path / "bad.zip", tmp_path / "out")


def test_bombs_and_rubbish_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "LARGEST", 1000)
    with pytest.raises(DataError, match="would unpack to"):
        unpack(tar_with(tmp_path, tarfile.TarInfo("a"), b"x" * 1001), tmp_path / "out")
    (tmp_path / "rubbish.tar").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "rubbish.tar", tmp_path / "out")
