"""Downloading a published data set: licence first, resumable, checked by its hash, unpacked safely."""
from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from .data import DataError
from .datasets import arrange_mtd, named

CHUNK, TIMEOUT = 1 << 20, 60
LARGEST = 40 * 2**30                             # bytes an archive may unpack to


def fetch(name: str, root: str | Path, *, consent: bool = False, url: str | None = None) -> Path:
    """Download and unpack the data set `name` under `root`; the folder that holds its categories' folders.

    Without consent nothing is fetched: DataError shows size, licence and terms, and says how to accept them. Interrupted, it goes on
    where it stopped; done already, it returns at once. url: another place of the same archive. Raises DataError.
    """
    dataset, root = named(name), Path(root)
    done = root / name
    if done.exists():
        print(f"{done} is there already", file=sys.stderr)
        return done / dataset.folder
    size = f"{dataset.bytes / 1e9:.1f} GB" if dataset.bytes else "the server says how large"
    about = f"{dataset.title}: {size}; licence: {dataset.licence}; {dataset.page}; cite: {dataset.cite}"
    if not consent:
        raise DataError(f"{about}. To accept that and fetch it, say so: --accept, or consent=True")
    print(about, file=sys.stderr)
    root.mkdir(parents=True, exist_ok=True)
    archive = root / Path(url or dataset.url).name if dataset.sha256 else root / "mtd.zip"
    if not archive.exists():
        _download(url or dataset.url, archive)
    if dataset.sha256 and (found := _sha256(archive)) != dataset.sha256:
        bad = archive.with_name(archive.name + ".bad")
        os.replace(archive, bad)
        raise DataError(f"{bad} is not the published archive: its SHA-256 is {found}, not {dataset.sha256}; delete it and fetch again")
    aside = root / f"{name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    unpack(archive, aside)
    if name.startswith("mtd"):
        arrange_mtd(aside, done, name.removeprefix("mtd_"))
        shutil.rmtree(aside)
    else:
        if not (aside / dataset.folder).is_dir():
            raise DataError(f"{archive} holds no folder {dataset.folder}: is it another version of {dataset.title}?")
        os.replace(aside, done)
    return done / dataset.folder


def _download(url: str, path: Path) -> None:
    """To path.part, going on where an earlier call stopped if the server's file is still the same one; then renamed."""
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.etag")
    have = part.stat().st_size if part.exists() and note.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "ddad"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", note.read_text(encoding="utf-8"))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if answer.status != 206:                                   # no ranges, or another file: from the start
                have = 0
            left = int(answer.headers.get("Content-Length", 0))
            free = shutil.disk_usage(path.parent).free
            if left * 2.2 > free:                                      # the archive, and what it unpacks to
                raise DataError(f"{path.parent} has {free / 1e9:.1f} GB free; {left / 1e9:.1f} GB come, and as much again when unpacked")
            mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            if mark and not mark.startswith("W/"):                     # a weak mark does not tell whether the bytes are the same
                note.write_text(mark, encoding="utf-8")
            else:
                note.unlink(missing_ok=True)
            bar = tqdm(desc=path.name, total=have + left, initial=have, unit="B", unit_scale=True, leave=False)
            with part.open("ab" if have else "wb") as file, bar:
                while block := answer.read(CHUNK):
                    file.write(block)
                    bar.update(len(block))
        if left and part.stat().st_size != have + left:
            raise DataError(f"the download of {url} ended at {part.stat().st_size} of {have + left} bytes; the same command goes on from there")
    except urllib.error.HTTPError as error:
        if error.code == 416:                                          # all of it is there already, or the file has changed
            part.unlink(missing_ok=True)
        raise DataError(f"{url} answers {error.code} {error.reason}; look at the data set's page for its present address") from error
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{url} cannot be fetched ({error}); what has come is kept, the same command goes on from there") from error
    os.replace(part, path)
    note.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file, tqdm(desc="checking", total=path.stat().st_size, unit="B", unit_scale=True, leave=False, delay=2) as bar:
        while block := file.read(CHUNK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or a .tar of any compression into `folder`; only plain files and folders, and only inside it. DataError for anything else."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                members = file.infolist()
                _safe(archive, [(m.filename, m.file_size, stat.S_ISLNK(m.external_attr >> 16)) for m in members])
                for member in tqdm(members, "unpack", leave=False, delay=2):
                    file.extract(member, folder)
        else:
            with tarfile.open(archive) as file:
                members = file.getmembers()
                _safe(archive, [(m.name, m.size, not (m.isfile() or m.isdir())) for m in members])
                for member in tqdm(members, "unpack", leave=False, delay=2):
                    member.mode = 0o755 if member.isdir() else 0o644
                    file.extract(member, folder, set_attrs=False, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); delete it and fetch it again") from error


def _safe(archive: Path, members: list[tuple[str, int, bool]]) -> None:
    for name, _, special in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] if path.parts else False:
            raise DataError(f"{archive} wants to write to {name!r}, outside its folder: it is not the published archive; delete it")
        if special:
            raise DataError(f"{archive} holds {name!r}, which is neither a file nor a folder: it is not the published archive; delete it")
    if (total := sum(size for _, size, _ in members)) > LARGEST:
        raise DataError(f"{archive} would unpack to {total / 1e9:.0f} GB: it is not the published archive; delete it")
