"""One writer to a folder, among processes."""
import subprocess
import sys

import pytest

from ddad.runtime.errors import WriteError
from ddad.runtime.files import sole_writer

# holds the lock until its input ends, or says who else does
HOLDER = """import sys
from pathlib import Path
from ddad.runtime.errors import WriteError
from ddad.runtime.files import sole_writer
try:
    with sole_writer(Path(sys.argv[1]), Path(sys.argv[2])):
        print("held", flush=True)
        sys.stdin.read()
except WriteError as error:
    print(error)
"""


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "model.lock"


@pytest.fixture
def second(lock):
    """Another process that wants to write to `model`, and what it says first."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock, lock.with_name("model")], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield holder
    holder.kill()
    holder.communicate()


def test_a_second_process_is_refused(lock, second):
    folder = lock.with_name("model")
    assert second.stdout.readline() == "held\n"
    with pytest.raises(WriteError, match="another process writes to .*model: wait"):
        with sole_writer(lock, folder):
            pass
    assert lock.exists()                    # the refused one leaves it to its holder
    second.communicate()
    assert second.returncode == 0 and not lock.exists()
    with sole_writer(lock, folder):
        pass


def test_a_process_is_refused_while_this_one_writes(lock, request):
    with sole_writer(lock, lock.with_name("model")):
        second = request.getfixturevalue("second")
        said, _ = second.communicate()
    assert said.startswith("another process writes to ") and not lock.exists()


def test_a_killed_holder_lets_go(lock, second):
    assert second.stdout.readline() == "held\n"
    second.kill()
    second.wait()
    assert lock.exists()                                # nobody was left to remove it
    with sole_writer(lock, lock.with_name("model")):
        pass
    assert not lock.exists()


def test_the_lock_is_let_go_after_an_error(lock):
    with pytest.raises(KeyboardInterrupt):
        with sole_writer(lock, lock.with_name("model")):
            raise KeyboardInterrupt
    assert not lock.exists()


def test_a_lock_that_cannot_be_opened_is_told(tmp_path):
    """As one that belongs to somebody else: going on without it would let two write."""
    (tmp_path / "lock").mkdir()
    with pytest.raises(WriteError, match="cannot be written to"):
        with sole_writer(tmp_path / "lock", tmp_path / "target"):
            pytest.fail("it went on without the lock")
