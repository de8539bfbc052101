"""Detectors on the hub: fetched as a folder is read, and never for a folder that is
here. The hub is a small one on this machine.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Hub

from ddad.detector import Detector
from ddad.runtime import hub
from ddad.runtime.errors import ModelError, WriteError
from ddad.runtime.manifest import CARD, MANIFEST, STATE, UNET

FILES = sorted([CARD, MANIFEST, STATE, "unet/config.json", UNET])
FETCH = """
import sys
from ddad.runtime.errors import ModelError
from ddad.runtime.hub import local
try:
    print(local(sys.argv[1]))
except ModelError as error:
    print("ModelError:", error)
"""
PUSH = """
import shutil, sys
from ddad.runtime.errors import WriteError
from ddad.runtime.hub import upload
save = lambda folder: shutil.copytree(sys.argv[1], folder)
try:
    print(upload(save, sys.argv[2], private=True))
except WriteError as error:
    print("WriteError:", error)
"""
THERE_AND_BACK = """
import sys
import torch
from conftest import close
from ddad import Detector
own = Detector.from_pretrained(sys.argv[1], device="cpu")
print(own.push_to_hub("me/bottle"))
loaded = Detector.from_pretrained("me/bottle", device="cpu")
images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
close(loaded.predict(images), own.predict(images), atol=0)
assert loaded.record == own.record and loaded.threshold == own.threshold
"""


@pytest.fixture
def server():
    one = Hub()
    yield one
    one.shutdown()
    one.server_close()


@pytest.fixture
def run(server, tmp_path):
    """A function that runs code in a process of its own, whose hub is this one, since
    huggingface_hub reads the variables when it is imported; what it prints last.
    """
    keep = {name: value for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING"))}
    path = os.pathsep.join(map(str, (Path(__file__).parents[2],
                                     Path(__file__).parents[1])))
    keep |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"),
             "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": path}

    def code(text, *arguments, **env):
        done = subprocess.run([sys.executable, "-c", text, *map(str, arguments)],
                              capture_output=True, text=True, env=keep | env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    return code


def test_a_detector_goes_to_the_hub_and_comes_back(server, run, saved):
    # conftest sets HF_HUB_OFFLINE before huggingface_hub is imported
    online = "import os; os.environ.pop('HF_HUB_OFFLINE', None)\n"
    text = THERE_AND_BACK.replace("from conftest", "import conftest; " + online
                                  + "from conftest")
    told = run(text, saved)
    assert told == f"{server.url}/me/bottle/commit/{server.commit_of('me/bottle')}"
    files = server.repositories["me/bottle"]
    assert sorted(files) == FILES and server.private["me/bottle"] is True
    assert b'from_pretrained("me/bottle")' in files[CARD]
    assert b"# bottle\n" in files[CARD]
    for name in (STATE, UNET):
        assert files[name] == (saved / name).read_bytes()


def test_nothing_but_the_files_of_a_detector_is_fetched(server, run, saved):
    for name in ("code.py", "pytorch_model.bin", "unet/x.pkl", "model.ckpt", "x.pt"):
        (saved / name).write_bytes(b"anything")
    server.add("user/bottle", saved)
    folder = Path(run(FETCH, "user/bottle"))
    assert server.fetched() == FILES
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    assert sorted(found) == FILES
    assert Detector.from_pretrained(folder, device="cpu").threshold is not None
    server.asked.clear()
    assert run(FETCH, f"user/bottle@{server.commit_of('user/bottle')}") == str(folder)
    assert not server.fetched()                     # a commit that is in the cache
    again = run(FETCH, "user/bottle", HF_HUB_OFFLINE="1")
    assert again == str(folder)


def test_what_the_hub_gives_is_checked_as_a_folder_is(server, run, saved):
    state = bytearray((saved / STATE).read_bytes())
    state[-1] ^= 1
    server.add("user/bottle", saved)
    server.repositories["user/bottle"][STATE] = bytes(state)
    with pytest.raises(ModelError, match=f"{STATE} is not the file the manifest"):
        Detector.from_pretrained(Path(run(FETCH, "user/bottle")), device="cpu")
    del server.repositories["user/bottle"][MANIFEST]
    with pytest.raises(ModelError, match="holds no manifest.json"):
        Detector.from_pretrained(Path(run(FETCH, "user/bottle")), device="cpu")


@pytest.mark.parametrize("name", ["../" * 8 + "evil.json", "/evil.json"])
def test_a_file_name_that_leads_out_of_the_cache_is_refused(server, run, saved, name,
                                                            tmp_path):
    server.add("user/bottle", saved)
    server.repositories["user/bottle"][name] = b"{}"
    assert run(FETCH, "user/bottle").startswith("ModelError: user/bottle")
    assert not list(tmp_path.rglob("evil.json"))


@pytest.mark.parametrize("name, status", [
    ("user/none", None), ("user/bottle@no_such_branch", None), ("user/bottle", 500)])
def test_what_the_hub_does_not_give_is_one_sentence(server, run, saved, name, status):
    server.add("user/bottle", saved)
    server.broken = status
    told = run(FETCH, name)
    assert told.startswith(f"ModelError: {name} is no folder here, and the Hugging "
                           "Face hub does not give it (")
    assert told.endswith("the user/name of one on the hub")


def test_without_a_network_it_says_so(run):
    told = run(FETCH, "user/bottle", HF_HUB_OFFLINE="1")
    assert told.startswith("ModelError: user/bottle is no folder here")


def test_a_hub_that_refuses_is_one_sentence(server, run, saved):
    server.broken = 403
    told = run(PUSH, saved, "user/bottle")
    assert told.startswith("WriteError: user/bottle cannot be written to the Hugging "
                           "Face hub (") and "hf auth login" in told


def test_a_card_that_the_hub_refuses_is_told_of(server, run, saved):
    text = (saved / CARD).read_text(encoding="utf-8")
    (saved / CARD).write_text(text.replace("license: unknown\n", ""), encoding="utf-8")
    told = run(PUSH, saved, "me/bottle")
    assert told.startswith("WriteError") and server.repositories == {"me/bottle": {}}


# --- a folder of this machine ---------------------------------------------------------

@pytest.fixture
def unreachable(monkeypatch):
    """A hub that fails the test when it is asked."""
    import huggingface_hub

    def asked(*_, **__):
        raise AssertionError("the hub was asked")

    for name in ("snapshot_download", "hf_hub_download", "HfApi"):
        monkeypatch.setattr(huggingface_hub, name, asked)


def test_a_folder_that_is_here_never_asks_the_hub(unreachable, saved, tmp_path,
                                                  monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user").mkdir()
    shutil.copytree(saved, tmp_path / "user/bottle")
    for folder in ("user/bottle", "user/bottle/", "./user/bottle", Path("user/bottle"),
                   str(tmp_path / "user/bottle")):
        assert hub.local(folder) == Path(folder)
        assert Detector.from_pretrained(folder, device="cpu").threshold is not None
    # here, but no detector
    (tmp_path / "user/file").write_text("x")
    (tmp_path / "user/link").symlink_to("nowhere")
    (tmp_path / "user/empty").mkdir()
    for name in ("file", "link", "empty"):
        with pytest.raises(ModelError, match=f"user/{name} holds no manifest.json"):
            Detector.from_pretrained(f"user/{name}", device="cpu")


@pytest.mark.parametrize("name", [
    Path("user/none"), "none", "a/b/c", "/user/none", "./none", "../none", "../a/b",
    "~/none", "user/", "/", "", "user/na me", "user\\name", "user/name@", "üser/name",
    "https://huggingface.co/user/name", "a/b\n", "\0/b"])
def test_what_is_no_name_of_the_hub_does_not_ask_it(unreachable, name):
    assert hub.local(name) == Path(name)


def test_one_of_several_processes_uploads(unreachable, monkeypatch):
    made = []
    monkeypatch.setenv("RANK", "1")
    assert hub.upload(made.append, "user/bottle", private=True) == ""
    assert [folder.name for folder in made] == ["bottle"]
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(WriteError, match="the hub was asked"):
        hub.upload(made.append, "user/bottle", private=True)


def test_upload_names_what_went_wrong(monkeypatch):
    import huggingface_hub

    class Refuses:
        def __init__(self, **_):
            pass

        def create_repo(self, *_, **__):
            raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "HfApi", Refuses)
    with pytest.raises(WriteError, match=r"user/bottle cannot be written.*no route\)"):
        hub.upload(lambda folder: None, "user/bottle", private=True)
