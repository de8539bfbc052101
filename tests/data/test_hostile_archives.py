"""Whatever an archive names, it is unpacked inside its own folder."""
import io
import os
import tarfile
import warnings
import zipfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddad.data import fetch
from ddad.runtime.errors import DataError

PARTS = (
    "..", "..", "..", ".", "a", "b", "bottle", "é", "/", "\\", "C:", "", " ", "\0",
    "x" * 300, "~", "-", "\n",
)
NAMES = st.lists(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=5), min_size=1, max_size=5
)
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)
OTHERS = (tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)


def pack(archive, names, kind, outside):
    """A zip or a tar with an entry for each name, links pointing to `outside`."""
    opened = zipfile.ZipFile if kind == "zip" else tarfile.open
    with warnings.catch_warnings(), opened(archive, "w") as file:
        warnings.simplefilter("ignore")  # of names that come twice
        for name in names:
            if kind == "zip":
                file.writestr(zipfile.ZipInfo(name or "x"), b"x")
                continue
            info = tarfile.TarInfo(name)
            info.type = tarfile.REGTYPE if kind == "file" else kind
            info.linkname, info.size = str(outside), 1 if kind == "file" else 0
            file.addfile(info, io.BytesIO(b"x"))


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    parts=NAMES,
    joint=st.sampled_from(["/", "\\", ""]),
    kind=st.sampled_from(["zip", "file", *LINKS, *OTHERS]),
)
def test_whatever_an_archive_names_stays_in_its_folder(
    tmp_path_factory, parts, joint, kind
):
    home = tmp_path_factory.mktemp("archive")
    archive, within = home / "archive", home / "aside"
    names = [joint.join(part) for part in parts] + ["bottle/b"]
    pack(archive, names, kind, home / "outside")
    try:
        fetch._unpack(archive, within)
    except DataError:
        pass
    assert {path.name for path in home.iterdir()} <= {"archive", "aside"}
    for path in within.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or path.is_file() and os.lstat(path).st_nlink == 1
