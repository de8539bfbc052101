"""Archives that are damaged or not safe to unpack."""

import os
import stat
import tarfile
import zipfile

import pytest
from lookalikes import make_mvtec, pack
from serving import serving

from ddad.data.fetch import fetch
from ddad.runtime.errors import DataError

BOTTLE = {"counts": {"bottle": (4, 0, 2, 2)}}
LEAVING = ["../evil", "bottle/../../evil", "/tmp/ddad_evil", "..\\evil", "C:\\evil",
           "C:evil", "\\evil"]
LINKS = {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE,
         "device": tarfile.CHRTYPE}


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Serves an archive as MVTec AD's, and sees it refused; returns the folder."""
    with serving(monkeypatch, tmp_path) as serve:
        def refused(archive, match):
            serve("mvtec_ad", archive=archive, **BOTTLE)
            root = tmp_path / "root"
            with pytest.raises(DataError, match=match):
                fetch("mvtec_ad", root, consent=True)
            assert [path.name for path in root.iterdir()] == [archive.name + ".bad"]

        yield refused


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize("name", LEAVING)
def test_members_that_leave_the_folder_are_refused(refused, tmp_path, suffix, name):
    archive = tmp_path / f"archive{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("bottle/a", "x")
            file.writestr(zipfile.ZipInfo(name), "x")
    else:
        with tarfile.open(archive, "w") as file:
            file.addfile(tarfile.TarInfo("bottle/a"))
            file.addfile(tarfile.TarInfo(name))
    refused(archive, r"which leaves the folder .* not safe.*kept as .*\.bad")
    assert not list(tmp_path.rglob("*evil*")) and not os.path.exists("/tmp/ddad_evil")


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_devices_are_refused(refused, tmp_path, kind):
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as file:
        info = tarfile.TarInfo("bottle")
        info.type, info.linkname = LINKS[kind], "/etc"
        file.addfile(info)
    refused(archive, "'bottle', which is neither file nor folder")


def test_links_in_a_zip_are_refused(refused, tmp_path):
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo("bottle")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc")
    refused(archive, "'bottle', which is neither file nor folder")


@pytest.mark.parametrize("suffix", [".zip", ".tar.xz"])
def test_bombs_are_refused(refused, tmp_path, suffix):
    zeros = tmp_path / "made" / "bottle" / "zeros"
    zeros.parent.mkdir(parents=True)
    zeros.write_bytes(bytes(3_000_000))
    archive = pack(tmp_path / "made", tmp_path / f"archive{suffix}")
    refused(archive, "unpacks to more than 20 times its size")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.xz"])
def test_damaged_archives_are_refused(refused, tmp_path, suffix):
    archive = pack(make_mvtec(tmp_path / "m"), tmp_path / f"archive{suffix}")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    refused(archive, "cannot be unpacked")
