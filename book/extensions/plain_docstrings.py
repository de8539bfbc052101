"""Plain docstrings for autodoc: as the source's reader sees them, in reStructuredText.

    an indented block            a literal block: formulas, layouts, tables
    lines that begin "name: "    a list, where a block has two of them or more
    `code`                       ``code``
    * | _ and backslashes        are what they are, and no markup

Fields of a class are shown once, in its signature.
"""
from __future__ import annotations

import re

ITEM = re.compile(r"[\w|]+(?:, [\w|]+)*: ")
BULLET = re.compile(r"(?:[-*] |\d+\. )")
CODE = re.compile(r"(``?)([^`]+)\1")


def prose(lines: list[str]) -> str:
    """Lines of text: code in double backticks, everything else escaped."""
    text = "\n".join(line.strip() for line in lines)
    parts, end = [], 0
    for found in CODE.finditer(text):
        parts += [_escaped(text[end : found.start()]), f"``{found[2].strip()}``"]
        end = found.end()
        if text[end : end + 1].isalnum():           # `tensor`s: the markup ends there
            parts.append("\\ ")
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|_`])", r"\\\1", text)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _goes_on(before: str, line: str) -> bool:
    """Whether a line of a list continues the one before: its word had no room there."""
    return bool(_indent(line)) or len(before) + len(line.split()[0]) > 70


def literal(lines: list[str]) -> list[str]:
    """An indented block, some of whose lines may be empty."""
    least = min(_indent(line) for line in lines if line.strip())
    return [".. code-block:: text", "", *("    " + line[least:] for line in lines), ""]


def paragraph(block: list[str]) -> list[str]:
    """Lines without an empty one, the first not indented: prose, or a list.

    A block that is indented below a line with a colon at its end is literal.
    """
    starts = BULLET if BULLET.match(block[0]) else ITEM
    listed = starts is BULLET or sum(bool(ITEM.match(line)) for line in block) > 1
    pieces: list[tuple[str, list[str]]] = []        # "- " or "", and lines
    for n, line in enumerate(block):
        if listed and starts.match(line):
            text = line[starts.match(line).end() :] if starts is BULLET else line
            pieces.append(("- ", [text]))
        elif n == 0 or pieces[-1][0] and not _goes_on(block[n - 1], line):
            pieces.append(("", [line]))
        elif _indent(line) and not listed and block[n - 1].endswith(":"):
            return [prose(pieces[0][1]), "", *literal(block[n:])]
        else:
            pieces[-1][1].append(line)
    out = []
    for mark, lines in pieces:
        out += (mark + prose(lines).replace("\n", "\n" + " " * len(mark))).split("\n")
        out.append("")
    return out


def converted(lines: list[str]) -> list[str]:
    """The lines of a docstring, dedented as autodoc has them."""
    out, block, kept = [], [], []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block and all(map(_indent, block)):
            kept += [*([""] if kept else []), *block]
            block = []
        elif block:
            out += [*(literal(kept) if kept else []), *paragraph(block)]
            block, kept = [], []
    return [*out, *(literal(kept) if kept else [])]


def convert(app, what, name, thing, options, lines) -> None:
    lines[:] = converted(lines)


def leave_out(app, what, name, thing, skip, options) -> bool | None:
    """A class's fields, which its signature has already; its constants, too."""
    shown = callable(thing) or isinstance(thing, (property, classmethod, staticmethod))
    return True if what == "class" and not shown else None


def readable(app, what, name, thing, options, signature, returned):
    """The signature without what Sphinx cannot parse; Settings has its own page."""
    if name == "ddad.settings.Settings":
        return "(**values)", None
    return re.sub(r"<(\w+)[^>]*>", r"\1", signature or "") or None, returned


def setup(app):
    app.connect("autodoc-process-docstring", convert)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("autodoc-process-signature", readable)
    return {"parallel_read_safe": True}
