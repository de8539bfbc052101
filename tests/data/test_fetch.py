import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import threading
import zipfile
from collections import namedtuple
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import TINY
from lookalikes import make_btad, make_loco, make_mvtec, make_tiles, make_visa, pack

from ddad import data, fetch, magnetic_tiles
from ddad.cli import main
from ddad.data import DataError
from ddad.datasets import DATASETS


class Server(ThreadingHTTPServer):
    """Serves one file on 127.0.0.1; `ranges`, `dies_after` bytes and `etag` can be changed, `asked` holds the Range of each request."""

    def __init__(self, path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.path, self.ranges, self.dies_after, self.etag, self.status, self.asked = path, True, None, '"one"', 200, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/{self.path.name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, content, begin = self.server, self.server.path.read_bytes(), 0
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            return self.send_error(server.status)
        if asked and server.ranges and self.headers.get("If-Range") == server.etag:
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin:][: server.dies_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Packs a folder as the archive of a data set and serves it; the table then has that archive's address, hash and size."""
    servers = []

    def start(name, folder=None, suffix=".tar.xz", archive=None, **changes):
        archive = archive or pack(folder, tmp_path / f"archive{suffix}")
        server = Server(archive)
        servers.append(server)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest() if DATASETS[name].sha256 else None
        changes = {"url": server.url, "sha256": digest, "size": archive.stat().st_size} | changes
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], **changes))
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


BOTTLE = {"counts": {"bottle": (4, 0, 2, 2)}}


# --- the table


def test_totals_are_the_published_ones():
    totals = {name: tuple(map(sum, zip(*found.counts.values()))) for name, found in DATASETS.items()}
    assert totals["mvtec_ad"] == (3629, 0, 467, 1258) and totals["btad"] == (1799, 0, 451, 290)
    assert totals["visa"][0] + totals["visa"][2] == 9621 and totals["visa"][3] == 1200
    assert totals["mvtec_loco"] == (1778, 305, 575, 993)
    for name in ("mtd_by_tile", "mtd_random"):
        assert totals[name][0] + totals[name][2] == magnetic_tiles.COUNTS["Free"] and totals[name][3] == sum(magnetic_tiles.COUNTS.values()) - 952
    assert [len(found.categories) for found in DATASETS.values()] == [15, 12, 3, 5, 1, 1]
    for name, found in DATASETS.items():
        assert found.name == name and found.url.startswith("https://") and (found.sha256 is None or re.fullmatch("[0-9a-f]{64}", found.sha256))
        assert found.licence and found.terms and found.citation


# --- layouts


def test_btad_is_read(tmp_path):
    root = make_btad(tmp_path) / "BTech_Dataset_transformed"
    for category, mask in (("01", "png"), ("02", "png"), ("03", "bmp")):
        home = root / category
        assert [(i.path.parent.name, i.kind, i.mask) for i in data.train_items(home)] == [("ok", "good", None)] * 4
        assert data.held_out_items(home) == []
        items = data.test_items(home)
        assert [(i.path.parent.name, i.kind) for i in items] == [("ok", "good")] * 2 + [("ko", "ko")] * 2
        assert items[2].mask == home / "ground_truth" / "ko" / f"0000.{mask}" and data.read_item(items[2], 32)[1].sum() == 64
        report = data.check(home, 32)
        assert report["usable"] and report["train"] == {"good": 4} and report["test"] == {"good": 2, "ko": 2} and report["ignored"] == []


def test_a_kind_of_defect_may_be_called_ok_beside_good(tmp_path):
    root = make_mvtec(tmp_path) / "bottle"
    (root / "test" / "cut").rename(root / "test" / "ok")
    (root / "ground_truth" / "cut").rename(root / "ground_truth" / "ok")
    assert [i.kind for i in data.test_items(root)] == ["good", "good", "ok", "ok"]


def test_visa_is_read(tmp_path, monkeypatch):
    root = make_visa(tmp_path, ("candle", "pcb1")) / "candle"
    assert [i.path.relative_to(root).as_posix() for i in data.train_items(root)] == [f"Data/Images/Normal/000{i}.JPG" for i in (2, 3, 4, 5)]
    assert data.held_out_items(root) == []
    items = data.test_items(root)
    assert [(i.kind, i.path.stem) for i in items] == [("anomaly", "0000"), ("anomaly", "0001"), ("good", "0000"), ("good", "0001")]
    assert items[0].mask == root / "Data" / "Masks" / "Anomaly" / "0000.png"
    assert [int(data.read_item(i, 32)[1].sum()) for i in items] == [64, 100, 0, 0]  # levels 1 and 2 are defect
    report = data.check(root, 32)
    assert report["usable"] and report["test"] == {"anomaly": 2, "good": 2} and report["ignored"] == []
    (root / "Data" / "Images" / "Normal" / "extra.JPG").write_bytes(b"x")
    assert data.check(root, 32)["ignored"] == ["Data/Images/Normal/extra.JPG"]
    monkeypatch.chdir(root)
    assert len(data.train_items(".")) == 4


def test_visa_names_what_is_wrong(tmp_path):
    root = make_visa(tmp_path) / "candle"
    table = tmp_path / "split_csv" / "1cls.csv"
    text = table.read_text()
    gone = root / "Data" / "Images" / "Normal" / "0003.JPG"
    gone.unlink()
    with pytest.raises(DataError, match=r"0003\.JPG is not there, though .*1cls\.csv lists it"):
        data.train_items(root)
    assert len(data.test_items(root)) == 4
    report = data.check(root, 32)
    assert report["usable_for"] == ["evaluate"] and report["train"] == {"good": 3}
    (root / "Data" / "Masks" / "Anomaly" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"0001\.JPG has no mask: add .*Anomaly.0001\.png"):
        data.test_items(root)
    assert data.check(root, 32)["masks"]["missing"] == ["Data/Images/Anomaly/0001.JPG"]
    for wrong, match in (
        (text.replace("candle/Data/Images/Normal/0003", "candle/../../secret"), "not in the folder candle"),
        (text.replace("candle/Data/Images/Normal/0003", "pcb1/Data/Images/Normal/0003"), "not in the folder candle"),
        (text.replace("train,normal", "train,anomaly"), "which is no good picture"),
        (text.replace("train,normal", "train,fine"), "label 'fine'"),
        (text.replace("label", "name"), "lacks one of the columns"),
        (text.replace("candle,", "lamp,"), "no picture for object candle, split train"),
    ):
        table.write_text(wrong)
        with pytest.raises(DataError, match=match):
            data.train_items(root)
        assert not data.check(root, 32)["usable"]
    table.unlink()
    with pytest.raises(DataError, match=r"1cls\.csv does not exist: .*copy the folder split_csv beside candle"):
        data.test_items(root)


def test_loco_is_read(tmp_path):
    root = make_loco(tmp_path) / "juice_bottle"
    assert len(data.held_out_items(root)) == 2 and data.test_items(root)[0].mask.is_dir() and data.check(root, 32)["usable"]


# --- fetching


def test_consent_comes_first(serve, tmp_path, capsys):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE)
    with pytest.raises(DataError, match="MVTec AD was not fetched.*--accept"):
        fetch.fetch("mvtec_ad", tmp_path / "root")
    printed = capsys.readouterr().out
    for part in ("MVTec AD", "GB", "CC BY-NC-SA 4.0", "not use it commercially", "Bergmann"):
        assert part in printed
    assert server.asked == [] and not (tmp_path / "root").exists()
    with pytest.raises(DataError, match="'mvtec' is unknown: use one of mvtec_ad"):
        fetch.fetch("mvtec", tmp_path, consent=True)


@pytest.mark.parametrize("name, make, suffix, counts", [
    ("mvtec_ad", make_mvtec, ".tar.xz", {"bottle": (4, 0, 2, 2)}),
    ("mvtec_loco", make_loco, ".tar.xz", {"juice_bottle": (4, 2, 2, 2)}),
    ("visa", make_visa, ".tar", {"candle": (4, 0, 2, 2)}),
    ("btad", make_btad, ".zip", {c: (4, 0, 2, 2) for c in ("01", "02", "03")}),
])  # fmt: skip
def test_fetch_and_second_call(serve, tmp_path, capsys, name, make, suffix, counts):
    server = serve(name, make(tmp_path / "made"), suffix, counts=counts)
    home = fetch.fetch(name, str(tmp_path / "root"), consent=True)
    assert home == tmp_path / "root" / DATASETS[name].folder
    assert fetch.check_dataset(name, tmp_path / "root", 32)["usable"]
    assert not list((tmp_path / "root").glob("*.partial*")) and len(server.asked) == 1
    shutil.rmtree(tmp_path / "made")
    capsys.readouterr()
    assert fetch.fetch(name, tmp_path / "root") == home and "already" in capsys.readouterr().out  # no consent needed, no request
    assert len(server.asked) == 1


def test_a_download_goes_on_where_it_broke_off(serve, tmp_path):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE)
    half = server.dies_after = server.path.stat().st_size // 2
    for _ in range(2):
        with pytest.raises(DataError, match="broke off after .* run again, it goes on"):
            fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)
        server.dies_after = 7
    server.dies_after = None
    assert fetch.fetch("mvtec_ad", tmp_path / "root", consent=True).is_dir()
    assert server.asked == [None, f"bytes={half}-", f"bytes={half + 7}-"]


@pytest.mark.parametrize("change", ["no ranges", "another file", "no validator", "weak validator", "damaged record"])
def test_a_download_starts_anew_where_it_cannot_go_on(serve, tmp_path, change):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE)
    server.dies_after = 1000
    server.etag = {"no validator": None, "weak validator": 'W/"one"'}.get(change, server.etag)
    with pytest.raises(DataError, match="broke off"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)
    (partial,) = (tmp_path / "root").glob("*.partial")
    partial.write_bytes(b"x" * 1000)  # glued to the rest, the hash would be wrong
    server.dies_after, server.ranges = None, change != "no ranges"
    if change == "another file":
        server.etag = '"two"'
    if change == "damaged record":
        partial.with_name(partial.name + ".json").write_text("{")
    assert fetch.fetch("mvtec_ad", tmp_path / "root", consent=True).is_dir()


def test_a_download_that_was_whole_but_not_renamed(serve, tmp_path):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE)
    root = tmp_path / "root"
    partial = root / (server.path.name + ".partial")
    root.mkdir()
    shutil.copy(server.path, partial)
    partial.with_name(partial.name + ".json").write_text(json.dumps({"validator": server.etag}))
    assert fetch.fetch("mvtec_ad", root, consent=True).is_dir()
    assert server.asked == [f"bytes={server.path.stat().st_size}-"]
    shutil.rmtree(root)
    root.mkdir()
    partial.write_bytes(server.path.read_bytes() + b"more")
    partial.with_name(partial.name + ".json").write_text(json.dumps({"validator": server.etag}))
    with pytest.raises(DataError, match="they are deleted; run again"):
        fetch.fetch("mvtec_ad", root, consent=True)
    assert fetch.fetch("mvtec_ad", root, consent=True).is_dir()


def test_wrong_hash(serve, tmp_path):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE, sha256="0" * 64)
    found = hashlib.sha256(server.path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=rf"\.bad is not the published archive: its SHA-256 is {found}, expected was 0000"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [server.path.name + ".bad"]


def test_an_archive_laid_by_hand_and_an_interrupted_unpacking(serve, tmp_path):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE)
    root = tmp_path / "root"
    (root / "mvtec_ad.unpacking.partial" / "bottle").mkdir(parents=True)
    shutil.copy(server.path, root)
    home = fetch.fetch("mvtec_ad", root, consent=True)
    assert server.asked == [] and fetch.check_dataset("mvtec_ad", root, 32)["usable"]
    shutil.rmtree(home / "bottle")
    with pytest.raises(DataError, match="does not hold all of bottle: move it away"):
        fetch.fetch("mvtec_ad", root, consent=True)


def test_another_address_and_one_that_answers_404(serve, tmp_path):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE)
    url = server.url
    serve("mvtec_ad", archive=server.path, url="http://127.0.0.1:9/archive.tar.xz")
    with pytest.raises(DataError, match="127.0.0.1:9/.* cannot be fetched .*run again"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)
    server.status = 404
    with pytest.raises(DataError, match=r"\(404 .*--url, or lay the archive at .*archive\.tar\.xz yourself"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True, url=url)
    with pytest.raises(DataError, match="'archive.tar.xz' is no address"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True, url="archive.tar.xz")
    server.status = 200
    assert fetch.fetch("mvtec_ad", tmp_path / "root", consent=True, url=url).is_dir()


def test_too_little_room(serve, tmp_path, monkeypatch):
    server = serve("mvtec_ad", make_mvtec(tmp_path / "m"), **BOTTLE, size=10**9)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(2 * 10**9))
    with pytest.raises(DataError, match="has 2.0 GB free, MVTec AD needs 2.2 GB"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)
    assert server.asked == []


# --- archives that are not safe


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize("name", ["../evil", "bottle/../../evil", "/tmp/ddad_evil", "..\\evil", "C:\\evil", "C:evil", "\\evil"])
def test_members_that_leave_the_folder_are_refused(serve, tmp_path, suffix, name):
    archive = tmp_path / f"archive{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("bottle/a", "x")
            file.writestr(zipfile.ZipInfo(name), "x")
    else:
        with tarfile.open(archive, "w") as file:
            file.addfile(tarfile.TarInfo("bottle/a"))
            file.addfile(tarfile.TarInfo(name))
    serve("mvtec_ad", archive=archive, **BOTTLE)
    with pytest.raises(DataError, match=r"which leaves the folder .* not safe.*kept as .*\.bad"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [archive.name + ".bad"]
    assert not [path for path in tmp_path.rglob("*evil*")] and not os.path.exists("/tmp/ddad_evil")


@pytest.mark.parametrize("kind", ["symlink", "hard link", "device", "zip symlink"])
def test_links_and_devices_are_refused(serve, tmp_path, kind):
    archive = tmp_path / ("archive.zip" if "zip" in kind else "archive.tar")
    if "zip" in kind:
        with zipfile.ZipFile(archive, "w") as file:
            info = zipfile.ZipInfo("bottle")
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            file.writestr(info, "/etc")
    else:
        with tarfile.open(archive, "w") as file:
            info = tarfile.TarInfo("bottle")
            info.type, info.linkname = {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}[kind], "/etc"
            file.addfile(info)
    serve("mvtec_ad", archive=archive, **BOTTLE)
    with pytest.raises(DataError, match="'bottle', which is neither file nor folder"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)


@pytest.mark.parametrize("suffix", [".zip", ".tar.xz"])
def test_bombs_are_refused(serve, tmp_path, suffix):
    (tmp_path / "made" / "bottle").mkdir(parents=True)
    (tmp_path / "made" / "bottle" / "zeros").write_bytes(bytes(3_000_000))
    serve("mvtec_ad", tmp_path / "made", suffix, **BOTTLE)
    with pytest.raises(DataError, match="unpacks to more than 20 times its size"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.xz"])
def test_damaged_archives_are_refused(serve, tmp_path, suffix):
    archive = pack(make_mvtec(tmp_path / "m"), tmp_path / f"archive{suffix}")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    serve("mvtec_ad", archive=archive, **BOTTLE)
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch.fetch("mvtec_ad", tmp_path / "root", consent=True)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [archive.name + ".bad"]


# --- the magnetic tiles


def test_tiles_are_grouped_by_number():
    stems = ["exp1_num_1000", "exp2_num_1300", "exp1_num_1601", "exp6_num_20", "exp2_num_25"]
    assert magnetic_tiles.tiles(stems) == [["exp6_num_20", "exp2_num_25"], ["exp1_num_1000", "exp2_num_1300"], ["exp1_num_1601"]]
    with pytest.raises(DataError, match="magnetic tile 0001 is not named"):
        magnetic_tiles.tiles(["0001"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_tile_is_on_both_sides(seed):
    good = [f"exp{e}_num_{tile * 400 + e * 15}" for tile in range(50) for e in range(1, 7)]
    defective = ["exp1_num_900", f"exp2_num_{7 * 400 - 200}"]
    held = magnetic_tiles.held_for_test("mtd_by_tile", good, defective, seed)
    assert len(held) == 60 and len(set(held)) == 60
    assert all(len({stem in held for stem in tile}) == 1 for tile in magnetic_tiles.tiles(good))
    numbers = {magnetic_tiles.number(stem) // 400 for stem in held}
    assert {2, 6, 7} <= numbers                                                    # within 300 of a defective picture
    assert numbers != {magnetic_tiles.number(stem) // 400 for stem in magnetic_tiles.held_for_test("mtd_by_tile", good, defective, seed + 1)}
    drawn = magnetic_tiles.held_for_test("mtd_random", good, defective, seed)
    assert len(drawn) == 60 and any(len({stem in drawn for stem in tile}) == 2 for tile in magnetic_tiles.tiles(good))


def test_every_tile_near_a_defective_picture_is_tested():
    good = [f"exp{e}_num_{tile * 400 + e * 15}" for tile in range(10) for e in range(1, 7)]
    held = magnetic_tiles.held_for_test("mtd_by_tile", good, [f"exp1_num_{tile * 400 + 50}" for tile in range(5)])
    assert {magnetic_tiles.number(stem) // 400 for stem in held} == {0, 1, 2, 3, 4} and len(held) == 30 > 0.2 * len(good)


def test_tiles_are_fetched_once_and_arranged_twice(serve, tmp_path, monkeypatch):
    counts = {"Free": 60, "Blowhole": 3, "Break": 2, "Crack": 2, "Fray": 2, "Uneven": 2}
    monkeypatch.setattr(magnetic_tiles, "COUNTS", counts)
    made = make_tiles(tmp_path / "made", counts)
    expected = {"mtd": (48, 0, 12, 11)}
    server = serve("mtd_by_tile", made, ".zip", counts=expected)
    serve("mtd_random", archive=server.path, counts=expected)
    root = tmp_path / "root"
    home = fetch.fetch("mtd_by_tile", root, consent=True)
    assert fetch.fetch("mtd_random", root, consent=True) == root / "mtd_random" and server.asked == [None]
    for name in magnetic_tiles.RULES:
        report = fetch.check_dataset(name, root, 8)
        assert report["usable"], report
        split = json.loads((root / name / "mtd" / "split.json").read_text())
        assert len(split["train"]) == 48 and len(split["test_good"]) == 12 and split["seed"] == 0 and "fifth" in split["rule"]
        assert {path.stem for path in (root / name / "mtd" / "train" / "good").iterdir()} == set(split["train"])
    item = next(item for item in data.test_items(home / "mtd") if item.kind == "crack")
    assert data.read_item(item, 8)[1].sum() == 4                                   # the grey edge is no defect
    assert item.path.stat().st_nlink == 3                                          # unpacked once, linked twice
    assert "exp1_num_1000" in json.loads((home / "mtd" / "split.json").read_text())["test_good"]


def test_tiles_that_are_missing_are_noticed(serve, tmp_path, monkeypatch):
    counts = {"Free": 12, "Blowhole": 3, "Break": 2, "Crack": 2, "Fray": 2, "Uneven": 2}
    monkeypatch.setattr(magnetic_tiles, "COUNTS", counts | {"Crack": 3})
    serve("mtd_by_tile", make_tiles(tmp_path / "made", counts), ".zip")
    with pytest.raises(DataError, match=r"holds 2 \.jpg files in MT_Crack/Imgs, not 3: .*kept as .*mtd\.zip\.bad"):
        fetch.fetch("mtd_by_tile", tmp_path / "root", consent=True)
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["mtd.zip.bad"]


# --- the report


def test_check_names_what_is_off(tmp_path, monkeypatch):
    counts = {"bottle": (4, 0, 2, 2), "cable": (4, 0, 2, 2), "pill": (4, 0, 2, 2)}
    monkeypatch.setitem(DATASETS, "mvtec_ad", replace(DATASETS["mvtec_ad"], counts=counts))
    home = make_mvtec(tmp_path / "mvtec_ad", ("bottle", "cable"))
    (home / "cable" / "train" / "good" / "0000.png").unlink()
    (home / "cable" / "test" / "cut" / "0000.png").unlink()
    (home / "cable" / "test" / "good" / "0001.png").write_text("x")
    report = fetch.check_dataset("mvtec_ad", tmp_path, 32)
    assert json.loads(json.dumps(report)) == report and report["usable"] is False
    bottle, cable, pill = report["categories"].values()
    assert bottle["differences"] == bottle["problems"] == [] and bottle["usable_for"] == ["train", "evaluate"]
    assert "4 good pictures" in bottle["warnings"][0]
    assert cable["differences"] == [
        "cable has 3 good pictures to train on, published are 4.",
        "cable has 1 defective test pictures, published are 2.",
    ]
    assert cable["usable_for"] == ["train"] and len(cable["problems"]) == 1
    assert pill["usable_for"] == [] and len(pill["differences"]) == 3
    shutil.rmtree(home / "pill", ignore_errors=True)
    with pytest.raises(DataError, match="visa does not exist: fetch visa into"):
        fetch.check_dataset("visa", tmp_path, 32)


SET = ["--set", *(f"{name}={json.dumps(list(value) if isinstance(value, tuple) else value)}" for name, value in TINY.items())]


@pytest.mark.parametrize(("name", "make", "suffix"), [("mvtec_ad", make_mvtec, ".tar.xz"), ("visa", make_visa, ".tar"), ("btad", make_btad, ".zip")])
def test_fetched_checked_trained_evaluated(serve, tmp_path, name, make, suffix):
    """By the command line, from a server to the metrics, in the data set's own layout."""
    category = {"mvtec_ad": "bottle", "visa": "candle", "btad": "01"}[name]
    counts = {c: (14, 0, 3, 4) for c in (("01", "02", "03") if name == "btad" else (category,))}
    server = serve(name, make(tmp_path / "made", train=14, good=3, bad=4), suffix, counts=counts)
    data, model = tmp_path / "data", tmp_path / "model"
    assert main(["data", "fetch", name, str(data)]) == 2 and not server.asked
    assert main(["data", "fetch", name, str(data), "--accept"]) == 0
    assert main(["data", "check", str(data), "--name", name, "--size", "64"]) == 0
    folder = data / DATASETS[name].folder / category
    assert main(["train", str(folder), str(model), "--device", "cpu", *SET]) == 0
    assert main(["evaluate", str(model), str(folder), "--device", "cpu"]) == 0
    assert json.loads((model / "results.json").read_text(encoding="utf-8"))["result"]["defective"] == 4
