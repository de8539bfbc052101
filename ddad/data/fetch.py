"""Fetching a data set by name: download, check, unpack; and comparing it with the
counts that its authors publish.

Interrupted anywhere, the same call goes on: a download from the bytes that are there,
unpacking from its beginning. What lies under its final name is whole.
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
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PureWindowsPath
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from ..runtime.errors import DataError
from ..runtime.files import write_json
from . import magnetic_tiles
from .datasets import DATASETS, DataSet

CHUNK = 1 << 20
# free bytes needed for each byte of the archive: itself and what is unpacked from it
DISK = 2.2
# images hardly shrink in an archive: one that unpacks to more times its size is none
BOMB = 20
# what is wrong with the disk, not with the archive
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
               errno.EIO)
ON_THE_NETWORK = "look at the network and run again, it goes on from what was kept."
IN_BYTES = dict(unit="B", unit_scale=True, leave=False, delay=2)  # a bar's options


def fetch(name: str, root: str | Path, *, consent: bool = False,
          url: str | None = None) -> Path:
    """Downloads, checks and unpacks a data set; returns the folder of its categories'.

    name: a key of DATASETS; root: folder for all data sets; consent: whether the terms,
    which are printed, are agreed to; url: an address of the archive in place of the
    known ones, which are tried in order. An archive laid by hand at root/<its name> is
    taken instead of a download. If all is there already, nothing is done. Raises
    DataError for an unknown name or url, without consent, without network or disk
    space, and for an archive that is not the published one, which is kept as
    <its name>.bad.
    """
    data, root = _known(name), Path(root)
    home, unpacked = root / data.folder, root / data.unpacked
    if _whole(home, data):
        print(f"{data.title} is in {home} already")
        return home
    urls = (url,) if url else data.urls
    print(f"{data.title}: {data.size / 1e9:.2g} GB from {urls[0]}\n"
          f"page: {data.page}\nlicence: {data.licence}\nterms: {data.terms}\n"
          f"please cite: {data.citation}")
    if not consent:
        raise DataError(f"{data.title} was not fetched, because its terms are not "
                        "agreed to: run again with --accept if you do.")
    of_tiles, categories = name in magnetic_tiles.RULES, ", ".join(data.categories)
    if not unpacked.exists():
        _fetch_archive(data, root, urls)
    elif of_tiles:
        magnetic_tiles.count(unpacked)
    else:
        raise DataError(f"{unpacked} is there but does not hold all of {categories}: "
                        "move it away and run again.")
    if of_tiles:
        magnetic_tiles.arrange(name, unpacked, home)
    if not _whole(home, data):
        raise DataError(f"{home} does not hold all of {categories}, though the archive "
                        f"was unpacked: look into {unpacked}.")
    return home


def check_dataset(name: str, root: str | Path, size: int) -> dict:
    """What `check.check` says of each category, in short, and where the images are not
    as many as published.

    name, root: as in `fetch`; size: pixels a side at which masks may vanish. Ready for
    JSON: categories -> train, validation, test_good, defective (numbers), problems,
    warnings and differences (a sentence each), usable_for; usable: whether all of them
    are usable and none differs. Raises DataError for an unknown name and where the data
    set is not under root.
    """
    data = _known(name)
    home = Path(root) / data.folder
    if not home.is_dir():
        raise DataError(f"{home} does not exist: fetch {name} into {root} first.")
    names = tqdm(data.categories, name, leave=False, delay=2)
    categories = {category: _compared(home / category, data.counts[category], size)
                  for category in names}
    usable = all(len(found["usable_for"]) == 2 and not found["differences"]
                 for found in categories.values())
    return {"name": name, "root": str(home), "categories": categories, "usable": usable}


def _compared(folder: Path, published: tuple[int, ...], size: int) -> dict:
    """`check_dataset`'s entry for one category."""
    from .check import check  # brings torch, which fetching does without

    report = check(folder, size)
    good, tested = report["test"].get("good", 0), sum(report["test"].values())
    found = {
        "train": report["train"].get("good", 0),
        "validation": report["validation"],
        "test_good": good,
        "defective": tested - good,
    }
    words = ("good images to train on", "good images for validation",
             "good test images", "defective test images")
    differences = [f"{folder.name} has {n} {what}, published are {expected}."
                   for n, what, expected in zip(found.values(), words, published)
                   if n != expected]
    said = {key: report[key] for key in ("problems", "warnings", "usable_for")}
    return found | said | {"differences": differences}


def _known(name: str) -> DataSet:
    if name not in DATASETS:
        raise DataError(
            f"The data set {name!r} is unknown: use one of {', '.join(DATASETS)}.")
    return DATASETS[name]


def _whole(home: Path, data: DataSet) -> bool:
    return all((home / category).is_dir() for category in data.categories)


def _fetch_archive(data: DataSet, root: Path, urls: tuple[str, ...]) -> None:
    """Downloads where needed, checks, unpacks into root/<unpacked>."""
    root.mkdir(parents=True, exist_ok=True)
    archive = root / urlsplit(data.urls[0]).path.rpartition("/")[2]
    if data.sha256 is None:
        archive = root / f"{data.unpacked}.zip"  # the address ends in a branch's name
    partial = archive.with_name(archive.name + ".partial")
    _make_sure_of_room(data, root, archive, partial)
    if not archive.exists():
        _download(urls, partial, data.title)
        os.replace(partial, archive)
    if data.sha256 and (found := _sha256(archive)) != data.sha256:
        bad = _set_aside(archive)
        raise DataError(
            f"{bad} is not the published archive: its SHA-256 is {found}, expected was "
            f"{data.sha256}; run again, or give another address with --url.")
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


def _make_sure_of_room(data: DataSet, root: Path, *there: Path) -> None:
    """DataError where the disk has less than is needed beside the files in `there`."""
    have = sum(path.stat().st_size for path in there if path.exists())
    needed, free = DISK * data.size - have, shutil.disk_usage(root).free
    if free < needed:
        raise DataError(
            f"{root} has {free / 1e9:.1f} GB free, {data.title} needs "
            f"{needed / 1e9:.1f} GB: make room or choose another folder.")


def _set_aside(archive: Path) -> Path:
    bad = archive.with_name(archive.name + ".bad")
    os.replace(archive, bad)
    return bad


def _download(urls: tuple[str, ...], partial: Path, title: str) -> None:
    """Reads the first of `urls` that answers into `partial`, from where it ends if that
    server still has the same file, else from the beginning.

    What tells "the same" (the address, and a strong ETag, else the date) lies beside it
    as <partial>.json; If-Range leaves it to the server.
    """
    record = partial.with_suffix(partial.suffix + ".json")
    url, have, answer = _first_answer(urls, partial, record)
    try:
        with answer:
            if answer.status == 416:  # nothing is left to send
                said = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if said != str(have):
                    partial.unlink()
                    raise DataError(f"{url} has {said or 'unknown'} bytes, {have} were "
                                    "kept: they are deleted; run again.")
                record.unlink()
                return
            have = _begin(answer, url, partial, record, have)
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            bar = tqdm(desc=title, total=total, initial=have, **IN_BYTES)
            with open(partial, "ab") as file, bar:
                while block := answer.read(CHUNK):
                    file.write(block)
                    bar.update(len(block))
    except (OSError, HTTPException) as error:
        raise DataError(f"{url} cannot be fetched ({error}): {ON_THE_NETWORK}"
                        ) from error
    now = partial.stat().st_size
    if total is not None and now != total:
        raise DataError(f"{url} broke off after {now} of {total} bytes: run again, it "
                        "goes on from there.")
    record.unlink(missing_ok=True)


def _first_answer(urls: tuple[str, ...], partial: Path, record: Path
                  ) -> tuple[str, int, HTTPResponse | HTTPError]:
    """The first address that answers, how many bytes of its file are there, and the
    answer: the rest of it, all of it, or 416. DataError where none does.

    The address that `partial` is from comes first: what is there is only of use to it.
    """
    for url in urls:
        if not url.startswith(("https://", "http://")):
            raise DataError(f"{url!r} is no address: give one that starts with "
                            "https:// or http://.")
    kept, size, rest = _kept(partial, record)
    failed, by_server = [], False
    for url in sorted(urls, key=lambda url: url != kept):
        if failed:
            print(f"{failed[-1]}: trying {url}")
        elif url != urls[0]:
            print(f"going on with what was kept from {url}")
        have, headers = (size, rest) if url == kept else (0, {})
        try:
            return url, have, urlopen(Request(url, headers=headers), timeout=60)
        except HTTPError as error:
            if error.code == 416 and headers:
                return url, have, error
            failed.append(f"{url} cannot be fetched ({error.code} {error.reason})")
            by_server, last = True, error
        except (OSError, HTTPException) as error:
            failed.append(f"{url} cannot be fetched ({error})")
            last = error
    advice = ("try later, give another address with --url, or lay the archive at "
              f"{partial.with_suffix('')} yourself.") if by_server else ON_THE_NETWORK
    raise DataError(f"{'; '.join(failed)}: {advice}") from last


def _kept(partial: Path, record: Path) -> tuple[str | None, int, dict[str, str]]:
    """What is there to go on from: its address, how many bytes, and the headers that
    ask for the rest.
    """
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
        url, validator, have = said["url"], said["validator"], partial.stat().st_size
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None, 0, {}
    if not validator:
        return None, 0, {}
    return url, have, {"Range": f"bytes={have}-", "If-Range": validator}


def _begin(answer: HTTPResponse, url: str, partial: Path, record: Path,
           have: int) -> int:
    """How many bytes to keep before the answer's: those asked for, or none, and then
    the record is the new file's. DataError for another part of the file.
    """
    if answer.status == 206:
        said = answer.headers.get("Content-Range", "")
        if not re.match(rf"bytes {have}-\d+/\d+$", said):
            raise DataError(f"{url} sent another part than it was asked for: delete "
                            f"{partial} and run again.")
        return have
    # first: new bytes never lie beside an old validator, nor old ones beside a new one
    partial.unlink(missing_ok=True)
    etag = answer.headers.get("ETag", "")
    strong = etag.startswith('"')
    validator = etag if strong else answer.headers.get("Last-Modified")
    write_json(record, {"url": url, "validator": validator})
    return 0


def _sha256(path: Path) -> str:
    """The file's SHA-256 in hex, under a bar."""
    digest = hashlib.sha256()
    bar = tqdm(desc="checking", total=path.stat().st_size, **IN_BYTES)
    with open(path, "rb") as file, bar:
        while block := file.read(CHUNK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _unpack(archive: Path, aside: Path) -> None:
    """Writes an archive's files under `aside`; DataError if it is unsafe or damaged.

    Files and folders only, so neither links nor tarfile's filters are needed.
    """
    aside.mkdir(parents=True)
    written, limit = 0, BOMB * archive.stat().st_size
    bar = dict(desc="unpacking", unit=" files", leave=False, delay=2)
    try:
        for name, size, kind, open_member in tqdm(_members(archive), **bar):
            target = aside.joinpath(*_safe(name, kind, archive))
            folder = target if kind == "folder" else target.parent
            folder.mkdir(parents=True, exist_ok=True)
            if kind == "folder":
                continue
            written += size
            if written > limit:
                raise DataError(f"{archive} unpacks to more than {BOMB} times its "
                                "size: it is not safe.")
            with open_member() as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
    except DataError:
        raise
    # tarfile and zipfile raise much besides their own errors; and names may be too
    # long, or a file's and a folder's
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise DataError(f"{archive} cannot be unpacked ({error}): run again to fetch "
                        "it anew.") from error


def _safe(name: str, kind: str, archive: Path) -> tuple[str, ...]:
    """The parts of a member's name; DataError where it is a link or leaves the folder.
    """
    path = PureWindowsPath(name)  # knows drives and both slashes
    nameless = kind == "file" and not path.parts
    if path.drive or path.root or ".." in path.parts or nameless:
        raise DataError(f"{archive} would write {name!r}, which leaves the folder it "
                        "is unpacked into: it is not safe.")
    if kind == "other":
        raise DataError(f"{archive} holds {name!r}, which is neither file nor folder: "
                        "it is not safe.")
    return path.parts


def _members(archive: Path) -> Iterator[tuple[str, int, str, Callable[[], BinaryIO]]]:
    """Name, size, "file", "folder" or "other", and what opens it, of each member in the
    archive's order.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                # the file type in st_mode's upper bits: 0 not given, 4 folder, 8 file
                unix = info.external_attr >> 28
                plain = "file" if unix in (0, 8) else "other"
                kind = "folder" if info.is_dir() else plain
                opening = lambda info=info: file.open(info)
                yield info.filename, info.file_size, kind, opening
    else:
        with tarfile.open(archive) as file:
            for info in file:
                plain = "file" if info.isfile() else "other"
                kind = "folder" if info.isdir() else plain
                opening = lambda info=info: file.extractfile(info)
                yield info.name, info.size, kind, opening
