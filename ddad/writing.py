"""Files that are whole or not there, and one writer to a folder: a process may be killed at any moment, and be started again."""
from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex

from safetensors import SafetensorError

try:
    import fcntl
except ImportError:                                                    # Windows: nothing keeps two processes apart
    fcntl = None


class WriteError(OSError):
    """A folder that cannot be written to, or that another process writes to; the sentence names it and says what to do."""


@contextmanager
def writing_to(folder: Path):
    """Makes `folder`, if need be; an error of the disk inside this context becomes a WriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except WriteError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WriteError(f"{folder} cannot be written to ({reason}): make room, see to your rights there, or choose another folder; "
                         "what was made before is kept") from error


@contextmanager
def whole(path: Path):
    """A new path, in a hidden folder beside `path`, for a file or a folder to be written at; it is renamed to `path` at the end, or removed
    after an error.

    A reader sees the old one or the new one, never half of it. A folder cannot be renamed over another: the old one first becomes
    NAME.old, and is put back by the next writer if the process was killed just then. What else a killed process leaves lies in the
    hidden folder, a library's own half-written files included, and nothing reads it.
    """
    aside, old = path.with_name(f".{path.name}.{token_hex(4)}.partial"), path.with_name(path.name + ".old")
    try:
        with writing_to(path.parent):
            if old.is_dir() and not path.exists():
                os.replace(old, path)
            aside.mkdir()
            yield aside / "new"                                        # no suffix: nobody's search for pictures finds half of one
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
    """Holds the file `lock`; WriteError while another process does. The system lets go of it when its holder dies.

    What killed processes left beside `target` and `others`, written aside and never renamed, is removed.
    """
    with writing_to(lock.parent):
        file = open(lock, "a")
    with file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                raise BlockingIOError                                  # its holder removed the file between our opening and locking it
        except (BlockingIOError, FileNotFoundError):
            raise WriteError(f"another process writes to {target}: wait for it to end, or choose another folder") from None
        except OSError:
            pass                                                       # a file system without locks
        try:
            for path in (target, *others):
                for left in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 8}.partial"):
                    _remove(left)
            yield
        finally:
            with suppress(OSError):
                lock.unlink()


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
