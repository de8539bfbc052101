"""What a record in book/results was made with, and whether it still stands.

book/results/made.json notes it, for each record: the commands, the fingerprint of the
code that they use, the outcome of a miniature of them (probes.py), and the record's
hash. While that code is the same, or the miniature's outcome is, the record is fresh.
"""
from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import probes
from chapters import ROOT, Package, of_file, sha256
from filelock import FileLock
from records import BOOK, figures

from ddad.runtime.files import write_json

RESULTS, RUNS = BOOK / "results", ROOT / "build/experiments"
NOTES = RESULTS / "made.json"
# the commands are those of this Python's environment
PATHS = {"PATH": os.pathsep.join([str(Path(sys.executable).parent),
                                  os.environ.get("PATH", "")])}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Kind:
    """What the records of one command have in common.

    modules: of the package, where its code begins. probes: its miniatures. tolerance:
    by how much figures may differ from those of another machine; relative: of their
    size. watch: the test that tells when such a record is stale, in place of probes.
    alone: what is measured is time, on all cores, and no other job may run beside it.
    """

    modules: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    tolerance: float = 0.0
    relative: bool = False
    watch: str = ""
    alone: bool = False


@dataclass(frozen=True)
class Experiment:
    """A record, book/results/NAME.json.

    commands: shell lines, in which {out} is a folder of the experiment's own, {runs}
    that of all of them, {products} the drawn products, {data} the user's folder of real
    sets, {taef2} and {taesd} an autoencoder. makes: the file in {out} that becomes the
    record; empty where the command writes the record itself. minutes: of one core,
    about. needs: real sets, autoencoders, "a GPU". after: experiments whose folders the
    commands use. tables: on the pages, made of it. also: probes beside its kind's.
    """

    name: str
    shows: str
    kind: Kind
    commands: tuple[str, ...]
    makes: str
    minutes: int
    seeds: str = "0"
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.name}.json"

    @property
    def probes(self) -> tuple[str, ...]:
        return self.kind.probes + self.also


# --- fresh or stale

@cache
def package() -> Package:
    return Package()


def code(one: Experiment) -> str:
    """SHA-256 of the modules that the experiment uses, without comments, docstrings and
    layout, of the data that they load, and of the locked versions.
    """
    own = package()
    used = own.used([(f"{own.name}.{name}", None, "") for name in one.kind.modules])
    content = {"modules": {name: own.modules[name].digest for name in used},
               "data": own.data(used), "lock": of_file(ROOT / "requirements.lock")}
    return sha256(json.dumps(content, sort_keys=True))


def notes() -> dict[str, dict]:
    return json.loads(NOTES.read_text(encoding="utf-8")) if NOTES.exists() else {}


def stale(one: Experiment, outcome: Callable = probes.outcome) -> str:
    """Why the record cannot be shown any more; empty while it is fresh."""
    if not one.path.exists():
        return "it is not there"
    if one.kind.watch:
        return ""
    note = notes().get(one.name)
    if note is None:
        return "it is not noted what code it was made with"
    if note["sha256"] != of_file(one.path):
        return "the file was changed after it was made"
    return changed(note, one, outcome)


def changed(note: dict, one: Experiment, outcome: Callable = probes.outcome) -> str:
    """What is other now than when `note` was written; empty where it makes no
    difference.
    """
    if note["commands"] != [*one.commands]:
        return "its commands are others now"
    if note["code"] == code(one):
        return ""
    said = probes.apart(note["probe"], outcome(one.probes))
    more = f", and {len(said) - 1} more" if len(said) > 1 else ""
    return f"its code gives another outcome: {said[0]}{more}" if said else ""


def present(one: Experiment) -> dict:
    """The note of a record whose making begins now."""
    return {"commands": [*one.commands], "code": code(one),
            "probe": probes.outcome(one.probes)}


# --- making it

def make(one: Experiment, given: dict[str, str]) -> None:
    """Runs the commands, and keeps the record.

    Killed, it goes on where it was; but from the beginning where the code has changed
    in between and its probes notice. given: what stands in for {data} and the like.
    """
    if not one.makes:
        return run(one, given)
    out = RUNS / one.name
    begun = out / "begun.json"
    if begun.exists() and changed(json.loads(begun.read_text(encoding="utf-8")), one):
        shutil.rmtree(out)
    if not begun.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(begun, present(one))
    started = time.time()
    run(one, given)
    note = json.loads(begun.read_text(encoding="utf-8"))
    keep(one, out / one.makes, note | {"seconds": round(time.time() - started)})


def run(one: Experiment, given: dict[str, str]) -> None:
    known = {name: value for name, value in os.environ.items()
             if name not in ONE_THREAD} | PATHS
    for line in lines(one, given):
        print(f"$ {line}", flush=True)
        subprocess.run(line, shell=True, check=True, cwd=ROOT,
                       env=known if one.kind.alone else known | ONE_THREAD)


def lines(one: Experiment, given: dict[str, str]) -> list[str]:
    """The commands with all names filled in."""
    runs = Path(os.path.relpath(RUNS, ROOT)).as_posix()
    names = {"out": f"{runs}/{one.name}", "runs": runs,
             "products": "build/products"} | given
    return [line.format_map(names) for line in one.commands]


def keep(one: Experiment, made: Path, note: dict) -> None:
    """Copies what the commands made into book/results, with its note."""
    for folder in (one.path.parent, RUNS):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, one.path)
    with FileLock(RUNS / "made.lock"):              # several may end at once
        rows = notes() | {one.name: note | {"sha256": of_file(one.path)}}
        write_json(NOTES, dict(sorted(rows.items())))


# --- beside another person's

def compare(one: Experiment, other: Path) -> list[tuple[str, str, str, str]]:
    """A row a figure: name, the record's value, the other's, and whether they are the
    same, within tolerance, different, or in one of the two only.
    """
    first, second = (figures(json.loads(path.read_text(encoding="utf-8")))
                     for path in (one.path, other))
    bound = {"rel_tol" if one.kind.relative else "abs_tol": one.kind.tolerance}
    shown = lambda found, name: f"{found[name]:.6g}" if name in found else ""
    rows = []
    for name in dict.fromkeys([*first, *second]):
        a, b = first.get(name), second.get(name)
        if a is None or b is None:
            verdict = "in one of the two only"
        elif a == b or math.isnan(a) and math.isnan(b):
            verdict = "same"
        else:
            near = math.isclose(a, b, **({"rel_tol": 0.0} | bound))
            verdict = "within tolerance" if near else "different"
        rows.append((name, shown(first, name), shown(second, name), verdict))
    return rows
