"""Files that are whole or not there, and one writer to a folder.

A process may be killed at any moment, and be started again.
"""
from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from .errors import WriteError

# what a file system without locks says
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def writing_to(folder: Path):
    """Makes `folder`, if need be; an error of the disk in here becomes a WriteError."""
    for path in (folder, *folder.parents):
        if os.path.islink(path) and not os.path.exists(path):
            raise WriteError(f"{path} is a link to {os.readlink(path)}, which is not "
                             "there: make that folder, or choose another one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except WriteError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WriteError(
            f"{folder} cannot be written to ({reason}): make room, see to your rights "
            "there, or choose another folder; what was made before is kept") from error


@contextmanager
def whole(path: Path):
    """A new path, in a hidden folder beside `path`, for a file or a folder to be
    written at; it is renamed to `path` at the end, or removed after an error.

    A reader sees the old one or the new one, never half of it. A folder cannot be
    renamed over another: the old one first becomes .NAME.replaced, and is put back by
    the next writer if the process was killed just then. What else a killed process
    leaves lies in the hidden folder, a library's own half-written files included, and
    nothing reads it. Where `path` is a link, what it leads to is replaced.
    """
    path = Path(os.path.realpath(path))
    aside = path.with_name(f".{path.name}.{token_hex(4)}.partial")
    old = path.with_name(f".{path.name}.replaced")
    try:
        with writing_to(path.parent):
            if old.is_dir() and not path.exists():
                os.replace(old, path)
            aside.mkdir()
            # no suffix: nobody's search for images finds half of one
            yield aside / "new"
            if path.is_dir():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(path, old)
            os.replace(aside / "new", path)
            if path.is_dir():
                shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        if old.is_dir() and not path.exists():
            os.replace(old, path)
        raise
    finally:
        _remove(aside)


@contextmanager
def sole_writer(lock: Path, target: Path, *others: Path):
    """Holds the file `lock`; WriteError while another process does. The system lets go
    of it when its holder dies.

    What killed processes left beside `target` and `others`, written aside and never
    renamed, is removed.
    """
    held = FileLock(lock)
    with writing_to(lock.parent):
        try:
            held.acquire(blocking=False)
        except Timeout:
            raise WriteError(f"another process writes to {target}: wait for it to end, "
                             "or choose another folder") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:         # no right to the file, say
                raise
    try:
        for path in map(Path, map(os.path.realpath, (target, *others))):
            half = f".{escape(path.name)}.{'[0-9a-f]' * 8}.partial"
            for left in path.parent.glob(half):
                _remove(left)
        yield
    finally:
        if held.is_locked:
            with suppress(OSError):
                lock.unlink()       # before it is let go: the next one makes a new file
        held.release()


def not_a_folder(path: Path) -> None:
    """WriteError where a folder lies, which a file would take the place of."""
    if path.is_dir():
        raise WriteError(f"{path} is a folder; give a file, in it or elsewhere")


def replaceable_file(path: Path, own: Callable[[Path], bool], command: str) -> None:
    """FileExistsError when what lies at `path` is not `own`, as all is that `command`
    writes there, and would be lost; WriteError: see `not_a_folder`.
    """
    not_a_folder(path)
    if os.path.exists(path) and not own(path):
        raise FileExistsError(f"{path} is none of `{command}`, and would be replaced; "
                              "move it, or choose another place")


def table_in(path: Path) -> dict:
    """The JSON object in a file; an empty one where it holds none, or is none."""
    if not path.is_file():              # a pipe would be waited for
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def replaceable(folder: Path, mark: str, own: set[str], what: str) -> None:
    """FileExistsError when `folder` cannot be replaced as a whole: it holds no file
    `mark`, as all of its kind do, or others than its `own` names, which would be lost;
    or it is a mounted disk, or the present folder. what: it should be.
    """
    if not folder.exists():
        return
    if os.path.ismount(folder) or folder.resolve() == Path.cwd():
        raise FileExistsError(f"{folder} is a mounted disk, or the folder you are in, "
                              "and cannot be replaced as a whole; choose one in it")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    if names and mark not in names:
        raise FileExistsError(f"{folder} holds something that is no {what}; choose "
                              "another folder")
    if beside := sorted(names - own - {mark, ".DS_Store"}):
        raise FileExistsError(
            f"{folder} holds {', '.join(beside)} beside the {what}, and saving would "
            "delete it; move it, or choose another folder")


def write_text(path: Path, text: str) -> None:
    """UTF-8, whole or not at all: see `whole`. WriteError: see `not_a_folder`."""
    not_a_folder(path)
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value) -> None:
    """Indented JSON, written whole or not at all: see `whole`."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex, read a megabyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
