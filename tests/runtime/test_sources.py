"""Nothing executes from data: what the sources may not call, and what is shipped."""
import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODULES = {
    "pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "marshal",
    "shelve", "runpy", "code",
}
CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "exec_module",
    "import_module", "read_pickle", "gather_object", "all_gather_object",
    "broadcast_object_list", "torch.hub.load", "extractall",
}
# also names of methods, such as a regular expression's or a model's
BARE = ("eval", "compile")
OPTIONS = ("allow_pickle", "trust_remote_code", "shell")
LOADED = ("AutoencoderKL", "ResNetModel", "UNet2DModel")
ALLOWED = {
    # one file of a pinned package, whose hash is compared first
    ("ddad/networks/features.py", "torch.load"),
    # FILE.py:CALLABLE of the command line; no manifest and no table may name one
    ("ddad/networks/autoencoders.py", "exec_module"),
    # its own modules, when they are first asked for
    ("ddad/__init__.py", "import_module"),
    # between the processes of one launcher, never from a file
    ("ddad/runtime/processes.py", "gather_object"),
    ("ddad/runtime/processes.py", "broadcast_object_list"),
    # command lines that book/tools/experiments.py lists, as a reader would type them
    ("book/tools/made.py", "shell"),
}


def executes(source: str) -> set[str]:
    """What in Python source unpickles, evaluates text or runs code that a file names.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= imported(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found |= imported([node.module or ""])
        elif isinstance(node, ast.Call):
            found |= called(node)
    return found


def imported(names) -> set[str]:
    return {name for name in names if name.split(".")[0] in MODULES}


def called(node: ast.Call) -> set[str]:
    name = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    found = {
        call for call in CALLS
        if name == call or name.endswith("." + call) and call not in BARE
    }
    found |= {option for option in OPTIONS if given.get(option, "False") != "False"}
    if name.endswith("from_pretrained"):
        kind = ast.unparse(node.func.value).split(".")[-1]
        if kind in LOADED and given.get("use_safetensors") != "True":
            found.add("from_pretrained without use_safetensors=True")
    return found


def sources():
    """Every Python source of the package, the book and the notebooks: name and text."""
    for folder in ("ddad", "book"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        lines = "\n".join(code).splitlines()
        plain = ["pass" if line.startswith(("%", "!")) else line for line in lines]
        yield f"notebooks/{path.name}", "\n".join(plain)


@pytest.mark.parametrize("source", [
    "import pickle",
    "from joblib import load",
    "torch.load('a')",
    "np.load('a', allow_pickle=True)",
    "eval('1')",
    "exec(text)",
    "yaml.load(text)",
    "AutoModel.from_pretrained('x', trust_remote_code=True)",
    "AutoencoderKL.from_pretrained('x')",
    "tarfile.open('x').extractall()",
    "spec.loader.exec_module(m)",
    "subprocess.run('ls', shell=True)",
    "accelerate.utils.gather_object(x)",
])
def test_the_search_finds(source):
    assert executes(source)


def test_no_source_executes_data():
    found = {(name, call) for name, text in sources() for call in executes(text)}
    assert found == ALLOWED


def test_what_the_repository_ships_is_no_pickle():
    made = {"__pycache__", ".ipynb_checkpoints"}
    paths = [
        path
        for folder in ("ddad", "book", "notebooks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not made & set(path.parts)
    ]
    pickles = {".pt", ".pth", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".bin"}
    assert not {path.suffix for path in paths} & (pickles | {".ckpt", ".h5"})
    weights = [path for path in paths if ROOT / "ddad/weights" in path.parents]
    assert {path.suffix for path in weights} == {".json", ".md", ".safetensors"}
