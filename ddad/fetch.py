"""Fetching a data set by name: download, check, unpack; and comparing it with the counts that its authors publish.

Interrupted anywhere, the same call goes on: a download from the bytes that are there, unpacking from its beginning. What
lies under its final name is whole.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from . import magnetic_tiles
from .datasets import DATASETS, DataSet
from .layouts import DataError
from .manifest import write_json

CHUNK = 1 << 20
DISK = 2.2  # free bytes needed for each byte of the archive: itself and what is unpacked from it
BOMB = 20  # pictures hardly shrink in an archive: more bytes than this for each of its own are no data set


def fetch(name: str, root: str | Path, *, consent: bool = False, url: str | None = None) -> Path:
    """Downloads, checks and unpacks a data set; returns the folder that holds its categories' folders.

    name: a key of DATASETS; root: folder for all data sets; consent: whether the terms, which are printed, are agreed to;
    url: a mirror of the archive. An archive laid by hand at root/<its name> is taken instead of a download. If all is there
    already, nothing is done. Raises DataError for an unknown name or url, without consent, without network or disk space, and
    for an archive that is not the published one, which is kept as <its name>.bad.
    """
    data, root = _known(name), Path(root)
    home, unpacked = root / data.folder, root / data.unpacked
    if _whole(home, data):
        print(f"{data.title} is in {home} already")
        return home
    print(f"{data.title}: {data.size / 1e9:.2g} GB from {url or data.url}\npage: {data.page}\nlicence: {data.licence}\nterms: {data.terms}"
          f"\nplease cite: {data.citation}")  # fmt: skip
    if not consent:
        raise DataError(f"{data.title} was not fetched, because its terms are not agreed to: run again with --accept if you do.")
    if unpacked.exists() and name in magnetic_tiles.RULES:
        magnetic_tiles.count(unpacked)
    elif unpacked.exists():
        raise DataError(f"{unpacked} is there but does not hold all of {', '.join(data.categories)}: move it away and run again.")
    else:
        _fetch_archive(data, root, url or data.url)
    if name in magnetic_tiles.RULES:
        magnetic_tiles.arrange(name, unpacked, home)
    if not _whole(home, data):
        raise DataError(f"{home} does not hold all of {', '.join(data.categories)}, though the archive was unpacked: look into {unpacked}.")
    return home


def check_dataset(name: str, root: str | Path, size: int) -> dict:
    """What `data.check` says of each category, in short, and where the pictures are not as many as published.

    name, root: as in `fetch`; size: pixels a side at which masks may vanish. Ready for JSON: categories -> train, validation,
    test_good, defective (numbers), problems, warnings and differences (a sentence each), usable_for; usable: whether all of them are usable
    and none differs. Raises DataError for an unknown name and where the data set is not under root.
    """
    from .data import check  # brings torch, which fetching does without

    data = _known(name)
    home = Path(root) / data.folder
    if not home.is_dir():
        raise DataError(f"{home} does not exist: fetch {name} into {root} first.")
    categories = {}
    for category in tqdm(data.categories, name, leave=False, delay=2):
        report = check(home / category, size)
        good = report["test"].get("good", 0)
        found = {"train": report["train"].get("good", 0), "validation": report["validation"], "test_good": good,
                 "defective": sum(report["test"].values()) - good}  # fmt: skip
        words = ("good pictures to train on", "good pictures for validation", "good test pictures", "defective test pictures")
        categories[category] = found | {key: report[key] for key in ("problems", "warnings", "usable_for")} | {
            "differences": [f"{category} has {n} {word}, published are {expected}."
                            for n, word, expected in zip(found.values(), words, data.counts[category]) if n != expected]
        }  # fmt: skip
    usable = all(len(found["usable_for"]) == 2 and not found["differences"] for found in categories.values())
    return {"name": name, "root": str(home), "categories": categories, "usable": usable}


def _known(name: str) -> DataSet:
    if name not in DATASETS:
        raise DataError(f"The data set {name!r} is unknown: use one of {', '.join(DATASETS)}.")
    return DATASETS[name]


def _whole(home: Path, data: DataSet) -> bool:
    return all((home / category).is_dir() for category in data.categories)


def _fetch_archive(data: DataSet, root: Path, url: str) -> None:
    """Downloads where needed, checks, unpacks into root/<unpacked>."""
    root.mkdir(parents=True, exist_ok=True)
    archive = root / urlsplit(data.url).path.rpartition("/")[2]
    if data.sha256 is None:
        archive = root / f"{data.unpacked}.zip"  # the address ends in the name of a branch
    partial = archive.with_name(archive.name + ".partial")
    there = sum(path.stat().st_size for path in (archive, partial) if path.exists())
    needed, free = DISK * data.size - there, shutil.disk_usage(root).free
    if free < needed:
        raise DataError(f"{root} has {free / 1e9:.1f} GB free, {data.title} needs {needed / 1e9:.1f} GB: make room or choose another folder.")
    if not archive.exists():
        _download(url, partial, data.title)
        os.replace(partial, archive)
    if data.sha256 and (found := _sha256(archive)) != data.sha256:
        bad = _set_aside(archive)
        raise DataError(f"{bad} is not the published archive: its SHA-256 is {found}, expected was {data.sha256}; "
                        "run again, or give another address with --url.")  # fmt: skip
    aside = root / f"{data.unpacked}.unpacking.partial"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _unpack(archive, aside)
        if data.sha256 is None:
            magnetic_tiles.count(aside)
    except DataError as error:
        shutil.rmtree(aside, ignore_errors=True)
        bad = _set_aside(archive)
        raise DataError(f"{error} The archive is kept as {bad}.") from error
    os.replace(aside, root / data.unpacked)
    print(f"unpacked {root / data.unpacked}; {archive} is no longer needed")


def _set_aside(archive: Path) -> Path:
    bad = archive.with_name(archive.name + ".bad")
    os.replace(archive, bad)
    return bad


def _download(url: str, partial: Path, title: str) -> None:
    """Reads `url` into `partial`, from where it ends if the server still has the same file, else from the beginning.

    What tells "the same" (a strong ETag, else the date) lies beside it as <partial>.json; If-Range leaves it to the server.
    """
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url!r} is no address: give one that starts with https:// or http://.")
    record = partial.with_suffix(partial.suffix + ".json")
    have, headers = 0, {}
    if partial.exists() and record.exists():
        try:
            validator = json.loads(record.read_text(encoding="utf-8"))["validator"]
        except (ValueError, KeyError, TypeError):
            validator = None
        if validator:
            have = partial.stat().st_size
            headers = {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        with urlopen(Request(url, headers=headers), timeout=60) as answer:
            begins = re.match(rf"bytes {have}-\d+/\d+$", answer.headers.get("Content-Range", ""))
            if not (answer.status == 206 and begins):
                if answer.status == 206:
                    raise DataError(f"{url} sent another part than it was asked for: delete {partial} and run again.")
                have = 0
                etag = answer.headers.get("ETag", "")
                partial.unlink(missing_ok=True)  # before the record: new bytes never lie beside an old validator, nor old beside a new
                write_json(record, {"validator": etag if etag.startswith('"') else answer.headers.get("Last-Modified")})
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            with open(partial, "ab") as file, tqdm(desc=title, total=total, initial=have, unit="B", unit_scale=True, leave=False, delay=2) as bar:
                while block := answer.read(CHUNK):
                    file.write(block)
                    bar.update(len(block))
    except HTTPError as error:
        if error.code != 416:
            raise DataError(f"{url} cannot be fetched ({error.code} {error.reason}): try later, give another address with --url, "
                            f"or lay the archive at {partial.with_suffix('')} yourself.") from error  # fmt: skip
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total != str(have):
            partial.unlink()
            raise DataError(f"{url} has {total or 'unknown'} bytes, {have} were kept: they are deleted; run again.") from error
        total = have
    except (OSError, HTTPException) as error:
        raise DataError(f"{url} cannot be fetched ({error}): look at the network and run again, it goes on from what was kept.") from error
    if total is not None and partial.stat().st_size != total:
        raise DataError(f"{url} broke off after {partial.stat().st_size} of {total} bytes: run again, it goes on from there.")
    record.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file, tqdm(desc="checking", total=path.stat().st_size, unit="B", unit_scale=True, leave=False, delay=2) as bar:
        while block := file.read(CHUNK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _unpack(archive: Path, aside: Path) -> None:
    """Writes an archive's files under `aside`. Files and folders only, so neither links nor tarfile's filters are needed."""
    written, limit = 0, BOMB * archive.stat().st_size
    aside.mkdir(parents=True)
    try:
        for name, size, kind, open_member in tqdm(_members(archive), "unpacking", unit=" files", leave=False, delay=2):
            path = PureWindowsPath(name)  # knows drives and both slashes
            if path.drive or path.root or ".." in path.parts or not path.parts and kind == "file":
                raise DataError(f"{archive} would write {name!r}, which leaves the folder it is unpacked into: it is not safe.")
            if kind == "other":
                raise DataError(f"{archive} holds {name!r}, which is neither file nor folder: it is not safe.")
            target = aside.joinpath(*path.parts)
            (target if kind == "folder" else target.parent).mkdir(parents=True, exist_ok=True)
            if kind == "file":
                written += size
                if written > limit:
                    raise DataError(f"{archive} unpacks to more than {BOMB} times its size: it is not safe.")
                with open_member() as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
    except DataError:
        raise
    except Exception as error:  # tarfile and zipfile raise much besides their own errors; and names may be too long, or a file's and a folder's
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
            raise
        raise DataError(f"{archive} cannot be unpacked ({error}): run again to fetch it anew.") from error


def _members(archive: Path) -> Iterator[tuple[str, int, str, Callable[[], BinaryIO]]]:
    """Name, size, "file", "folder" or "other", and what opens it, of each member in the archive's order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                unix = info.external_attr >> 28  # the file type in the upper bits of st_mode: 0 not given, 4 folder, 8 file
                kind = "folder" if info.is_dir() else "file" if unix in (0, 8) else "other"
                yield info.filename, info.file_size, kind, lambda info=info: file.open(info)
    else:
        with tarfile.open(archive) as file:
            for info in file:
                kind = "folder" if info.isdir() else "file" if info.isfile() else "other"
                yield info.name, info.size, kind, lambda info=info: file.extractfile(info)
