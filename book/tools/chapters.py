"""What the outputs of a chapter depend on, found without running anything.

Its own cells, and the records that they name; the modules of the package that it
imports, directly or not; the data that those load; the locked versions; and the source
that it shows. `fingerprint` is one hash of all that, so a chapter is stale when
something that it uses has changed, and is not when a comment elsewhere has.
"""
from __future__ import annotations

import ast
import hashlib
import inspect
import json
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# module of the package: what it reads beside its own code, from the package's folder
DATA = {"synthetic.weights": "weights/**/*",
        "networks.autoencoders": "weights/vae/**/*",
        "reproduction.runs": "reproduction/by_category/*.json",
        "reproduction.worth": "../book/results/receipts/*.json"}
DOCUMENTED = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef


class Module:
    """A module's code: as it runs, and as text."""

    def __init__(self, name: str, path: Path):
        self.name, self.text = name, path.read_text(encoding="utf-8")
        self.is_package = path.name == "__init__.py"

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the code without comments, docstrings and layout."""
        return sha256(json.dumps(plain(self.tree)))

    def imports(self) -> list[tuple[str, str | None, str]]:
        package = self.name if self.is_package else self.name.rpartition(".")[0]
        return imports(self.tree, package)

    def definition(self, path: list[str]) -> ast.FunctionDef | ast.ClassDef | None:
        """A function or class by its name, or by that of its class and its own."""
        node = self.tree
        for name in path:
            body = getattr(node, "body", [])
            node = next((n for n in body if getattr(n, "name", None) == name), None)
        return node

    def names(self) -> dict[str, str]:
        """What a package hands out on demand, name -> module: {"Detector": "detector"}.

        The dictionaries of a module with a `__getattr__`; else empty.
        """
        functions = [n for n in self.tree.body if isinstance(n, ast.FunctionDef)]
        if "__getattr__" not in [function.name for function in functions]:
            return {}
        return {key.value: value.value for node in ast.walk(self.tree)
                if isinstance(node, ast.Dict)
                for key, value in zip(node.keys, node.values)
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)}


class Package:
    """The modules of the package below `root`, and what they use of one another."""

    def __init__(self, root: Path = ROOT, name: str = "ddad"):
        self.root, self.name = root, name
        self.modules = {}
        for path in sorted((root / name).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[module] = Module(module, path)

    def home(self, module: str, name: str) -> tuple[str, str | None]:
        """Where `from module import name` finds it: a module, and a name in it or None.

        LookupError where a package would have to be imported to know.
        """
        if f"{module}.{name}" in self.modules:
            return f"{module}.{name}", None
        on_demand = self.modules[module].names()
        if not on_demand:
            return module, name
        if f"{module}.{on_demand.get(name)}" in self.modules:
            return f"{module}.{on_demand[name]}", name
        raise LookupError(f"{module} says nowhere which module has {name}")

    def used(self, found: list[tuple[str, str | None, str]]) -> set[str]:
        """The modules that imports lead to, directly or not, and their packages."""
        seen, ahead = set(), [*found]
        while ahead:
            module, name, _ = ahead.pop()
            if module.split(".")[0] != self.name:
                continue
            target = self.home(module, name)[0] if name else module
            parts = target.split(".")
            for end in range(1, len(parts) + 1):
                part = ".".join(parts[:end])
                if part not in seen:
                    seen.add(part)
                    ahead += self.modules[part].imports()
        return seen

    def source(self, module: str, path: list[str]) -> str:
        """The text of a definition, as `inspect.getsource` gives it: its lines, whole.

        path: ["Class", "method"], say; [] for the module. LookupError where it is not.
        """
        if not path:
            return self.modules[module].text
        module, name = self.home(module, path[0])
        if name is None:
            return self.source(module, path[1:])
        within = self.modules[module]
        if node := within.definition(path):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            lines = within.text.splitlines(keepends=True)[first - 1 :]
            return "".join(inspect.getblock(lines))
        for target, name, own in within.imports():
            if name and own == path[0]:
                return self.source(target, [name, *path[1:]])
        raise LookupError(f"{module} does not define {'.'.join(path)}")

    def data(self, modules: set[str]) -> dict[str, str]:
        """SHA-256 of the files that the modules read, by their path."""
        found = {}
        for module, pattern in DATA.items():
            if f"{self.name}.{module}" in modules:
                paths = sorted((self.root / self.name).glob(pattern))
                found |= {p.relative_to(self.root).as_posix(): of_file(p)
                          for p in paths if p.is_file()}
        return found


def imports(tree: ast.AST, package: str = "") -> list[tuple[str, str | None, str]]:
    """All imports, those within functions too: (module, name in it or None, own name).

    package: of the module whose tree this is, for its relative imports.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                own = one.asname or one.name.split(".")[0]
                found.append((one.name, None, own))
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*parts, *filter(None, [node.module])])
            for one in node.names:
                found.append((module, one.name, one.asname or one.name))
    return found


def plain(node: object) -> object:
    """Code as lists for JSON, the same by any Python: without docstrings and places."""
    if isinstance(node, list):
        return [plain(one) for one in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):             # Python 3.12 ends some with ""
        fields["values"] = [v for v in node.values if getattr(v, "value", None) != ""]
    given = {name: value for name, value in fields.items() if value not in (None, [])}
    return [type(node).__name__, *([name, plain(one)] for name, one in given.items())]


def sha256(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file; line ends do not count in text."""
    content = path.read_bytes()
    return sha256(content if path.suffix == ".safetensors"
                  else content.replace(b"\r\n", b"\n"))


def own_cells(notebook) -> list:
    """The chapter's code cells, without the set-up."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"
            and "setup" not in cell.metadata.get("tags", [])]


def shown(notebook, package: Package) -> dict[str, str]:
    """The text of each function and class that a chapter shows: source(x) -> text of x.

    LookupError for one that was not imported by its name.
    """
    tree = ast.parse("\n".join(cell.source for cell in own_cells(notebook)))
    scope = {own: (module, name) for module, name, own in imports(tree)}
    found = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "source":
            thing = ast.unparse(call.args[0])
            first, *rest = thing.split(".")
            if first not in scope:
                raise LookupError(f"source({thing}): {first} is imported by no cell")
            module, name = scope[first]
            found[thing] = package.source(module, [*filter(None, [name]), *rest])
    return found


def records(tree: ast.AST, results: Path) -> dict[str, str]:
    """SHA-256 of the records that a text in the code is the name of."""
    names = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
             and isinstance(node.value, str) and node.value.endswith(".json")}
    return {name: of_file(results / name) for name in sorted(names)
            if (results / name).is_file()}


def fingerprint(notebook, package: Package) -> str:
    """SHA-256 over all that shapes the outputs. Prose and the set-up do not."""
    cells = own_cells(notebook)
    tree = ast.parse("\n".join(cell.source for cell in cells))
    modules = package.used(imports(tree))
    content = {
        "cells": [[cell.source, cell.metadata.get("tags", [])] for cell in cells],
        "modules": {name: package.modules[name].digest for name in modules},
        "shown": shown(notebook, package),
        "data": package.data(modules),
        "lock": of_file(package.root / "requirements.lock"),
    }
    if named := records(tree, package.root / "book/results"):
        content["records"] = named
    return sha256(json.dumps(content, sort_keys=True))
