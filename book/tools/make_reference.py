"""Writes the reference pages from what they describe; --check only compares.

    book/command_line.md            from the parser: commands, arguments, help texts
    book/settings.md                from the fields of Settings and from the presets
    book/paper_against_code.md      the table "Where to set it", from the same, and
                                    "The network" (network_table.py)
    book/api/*.md                   the modules of each room, for sphinx's autodoc

On each page the part between `<!-- reference NAME -->` and `<!-- end -->` is written;
the text around it is not touched.
"""
from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import get_type_hints

import network_table

from ddad.cli import parser
from ddad.settings import PRESETS, Settings

BOOK = Path(__file__).resolve().parent.parent
PACKAGE = BOOK.parent / "ddad"
METHOD = ["settings", "latent_projection", "noise_predictor", "dynamic_noise",
          "scaled_denoising", "fine_tuning", "anomaly_map", "step_map", "conformal",
          "training", "calibration", "detector", "saved_model"]
ROOMS = ["", *sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))]
KINDS = {bool: "`true` or `false`", int: "a whole number", float: "a number",
         str: "text", tuple[int, ...]: "whole numbers"}
PART = re.compile(r"(<!-- reference (\w+) -->\n).*?(<!-- end -->)", re.S)
CODE = re.compile(r"(`[^`]+`)")
OPTION = re.compile(r"(?<![\w`-])--[a-z-]+")
# the first setting of each group, in the order of Settings
GROUPS = {"preset": "The run", "vae": "Latent projection",
          "timesteps": "Schedule and noise predictor", "step_rule": "Dynamic noise",
          "noise": "Scaled denoising", "features": "Features and fine-tuning",
          "map_stages": "Anomaly map, score, evaluation"}


def cell(text: str) -> str:
    """Plain text, with `code`, for a cell of a table or a paragraph."""
    parts = CODE.split(OPTION.sub(r"`\g<0>`", " ".join(text.split())))
    parts[::2] = [re.sub(r"([\\<*$])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts).replace("|", "\\|")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 88, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)


# the command line

def commands(
    one: argparse.ArgumentParser, text: str = ""
) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Each command that can be run, with its description, in the parser's order."""
    groups = [a for a in one._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield one, text
    for group in groups:
        helps = {action.dest: action.help for action in group._choices_actions}
        for name, below in group.choices.items():
            yield from commands(below, below.description or helps.get(name) or "")


def argument(action: argparse.Action) -> str:
    """What is typed for an argument: `DATA`, or `--seeds N ..`."""
    if action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        value = action.metavar or action.dest.upper()
    if action.nargs == 0:
        value = ""
    elif isinstance(value, tuple):
        value = " ".join(value)
    elif action.nargs == "+":
        value += " .."
    elif action.nargs == "?":
        value = f"[{value}]"
    return " ".join(filter(None, [", ".join(action.option_strings), value]))


def explained(one: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Its help text, with the default where the text does not tell it."""
    text = one._get_formatter()._expand_help(action) if action.help else ""
    told = action.default in (None, False, 0, [], argparse.SUPPRESS)
    if not told and "default" not in text:
        text += f" (default {action.default})"
    return cell(text)


def section(one: argparse.ArgumentParser, text: str) -> str:
    shown = [a for a in one._actions if a.help is not argparse.SUPPRESS]
    shown = [a for a in shown if not isinstance(a, argparse._HelpAction)]
    positionals = [argument(a) for a in shown if not a.option_strings]
    options = ["[options]"] if len(shown) > len(positionals) else []
    usage = " ".join([one.prog.replace("__main__.py", "ddad"), *positionals, *options])
    rows = [[f"`{argument(a)}`", explained(one, a)] for a in shown]
    parts = [f"## {one.prog}", wrapped(cell(text)), f"```bash\n{usage}\n```"]
    if rows:
        parts.append(table(["argument", "what it is"], rows))
    return "\n\n".join(parts)


def command_line() -> str:
    return "\n\n".join(section(*found) for found in commands(parser()))


# the settings

def number(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def shown(value: object) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, float):
        return f"`{number(value)}`"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`" if text else '`""`'


def allowed(field: Field) -> str:
    """What a setting may be."""
    choices, bounds = field.metadata["choices"], field.metadata["bounds"]
    if choices:
        return ", ".join(map(shown, choices))
    kind = KINDS[get_type_hints(Settings)[field.name]]
    return f"{kind}, {number(bounds[0])} to {number(bounds[1])}" if bounds else kind


def elsewhere(field: Field) -> str:
    """The presets whose value is not that of `clean`."""
    found: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        value = getattr(preset, field.name)
        if value != field.default and field.name != "preset":
            found.setdefault(shown(value), []).append(name)
    return "; ".join(f"{', '.join(names)}: {value}" for value, names in found.items())


def meaning(field: Field) -> str:
    """What a setting chooses, and from what."""
    row = field.metadata["row"]
    link = f" ([difference {row}](paper_against_code.md))" if row.isdigit() else ""
    return f"{cell(field.metadata['meaning'])}: {allowed(field)}{link}"


def settings() -> str:
    """A table for each group of settings, and which of them shape the networks."""
    groups: dict[str, list[list[str]]] = {}
    for f in fields(Settings):
        title = GROUPS.get(f.name, next(reversed(groups), ""))
        row = [shown(f.name), meaning(f), shown(f.default), elsewhere(f)]
        groups.setdefault(title, []).append(row)
    head = ["setting", "what it chooses, and from what", "`clean`", "other presets"]
    parts = [f"## {title}\n\n{table(head, rows)}" for title, rows in groups.items()]
    return "\n\n".join([*parts, f"## What shapes the networks\n\n{shaping()}"])


def shaping() -> str:
    """A list: which settings shape both networks, and which phi alone."""
    of: dict[tuple[str, ...], list[str]] = {}
    for f in fields(Settings):
        if f.metadata["shapes"]:
            of.setdefault(f.metadata["shapes"], []).append(shown(f.name))
    lines = [f"- {' and '.join(map(shown, networks))}: {', '.join(names)}"
             for networks, names in of.items()]
    return "\n".join(wrapped(line, "  ") for line in lines)


def differences() -> str:
    """Each setting that has a row, or in which two of the three presets differ."""
    names, rows = ("paper", "official", "clean"), []
    for field in fields(Settings):
        values = [getattr(PRESETS[name], field.name) for name in names]
        row = field.metadata["row"]
        if field.name != "preset" and (row or len(set(values)) > 1):
            mark = row if row.isdigit() else "–"
            rows.append([mark, shown(field.name), *map(shown, values)])
    rows.sort(key=lambda row: int(row[0]) if row[0].isdigit() else 99)
    return table(["#", "setting", *map(shown, names)], rows)


def network() -> str:
    """The official code's network and training beside those of the presets."""
    head = ["", "official code", "`paper`, `official`", "`clean`", "remark"]
    return table(head, network_table.rows())


# the Python API

def modules(room: str) -> str:
    """The modules that lie in a folder of the package, the method's in its order."""
    names = sorted(path.stem for path in (PACKAGE / room).glob("[!_]*.py"))
    if not room:
        names.sort(key=lambda name: METHOD.index(name) if name in METHOD else 99)
    within = [f"{room}.{name}" if room else name for name in names]
    return "\n\n".join(
        f"## {name}\n\n```{{eval-rst}}\n.. automodule:: ddad.{name}\n```"
        for name in within)


PARTS = {f.__name__: f for f in (command_line, settings, differences, network)}
PARTS |= {f"modules_{room or 'method'}": partial(modules, room) for room in ROOMS}
PAGES = [BOOK / name for name in
         ("command_line.md", "settings.md", "paper_against_code.md")]
PAGES += [BOOK / "api" / f"{room or 'method'}.md" for room in ROOMS]


def filled(text: str) -> str:
    """The text with every part between its markers written anew."""
    return PART.sub(lambda m: f"{m[1]}{PARTS[m[2]]()}\n{m[3]}", text)


def main(arguments: list[str]) -> int:
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(page.name)
            if "--check" not in arguments:
                page.write_text(filled(text), encoding="utf-8")
    print("stale: " + ", ".join(stale) if stale else "all reference pages are current")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
