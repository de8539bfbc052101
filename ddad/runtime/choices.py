"""A record of choices that checks itself: each field says what it may hold."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import get_type_hints

from .errors import SettingsError

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def setting(default, meaning: str, *, row: str = "", choices: tuple[str, ...] = (),
            bounds: tuple | None = None, shapes: tuple[str, ...] = ()):
    """One choice: its default and, as metadata, what it means, the values it may have,
    its row in the table of book/paper_against_code.md ("-": a row without a number),
    and which trained networks it shapes: another value needs another training.
    """
    return field(default=default, metadata={
        "meaning": meaning, "row": row, "shapes": shapes, "choices": choices,
        "bounds": bounds})


@dataclass(frozen=True)
class Choices:
    """The base of a frozen dataclass of `setting`s; immutable, and right or not there.

    Raises SettingsError for a value of another type, out of bounds, or none of the
    choices, and for what `disagreements` yields.
    """

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for one in fields(self):
            value = _typed(one.name, getattr(self, one.name), hints[one.name])
            object.__setattr__(self, one.name, value)
            choices, bounds = one.metadata["choices"], one.metadata["bounds"]
            if choices and value not in choices:
                raise SettingsError(
                    f"setting {one.name}: {value!r} is none of {', '.join(choices)}")
            if bounds and not bounds[0] <= value <= bounds[1]:
                raise SettingsError(f"setting {one.name}: {value} lies outside "
                                    f"{bounds[0]} .. {bounds[1]}")
        for name, wrong in self.disagreements():
            raise SettingsError(f"setting {name}: {wrong}")

    def disagreements(self):
        """(setting, what is wrong), where settings do not fit one another."""
        return ()

    def change(self, **values) -> Choices:
        """A copy with other values; SettingsError names one that does not exist."""
        names = [one.name for one in fields(self)]
        if unknown := sorted(set(values) - set(names)):
            near = [m for name in unknown for m in get_close_matches(name, names, 1)]
            hint = f"did you mean {', '.join(near)}? " if near else ""
            raise SettingsError(f"no setting is called {', '.join(unknown)}; {hint}"
                                "`ddad settings` lists them")
        return replace(self, **values)

    def parse(self, assignments: list[str]) -> Choices:
        """A copy changed by "name=value" strings, as the command line gives them; JSON
        values, bare words as text.
        """
        values, hints = {}, get_type_hints(type(self))
        for item in assignments:
            name, equals, text = item.partition("=")
            if not equals:
                raise SettingsError(f"{item!r} is not of the form name=value")
            try:
                values[name] = json.loads(text)
            except (ValueError, RecursionError):
                values[name] = text
            if hints.get(name) is str and type(values[name]) is not str:
                # train_length=100: its own sentence says what is missing
                values[name] = text
        return self.change(**values)

    def as_dict(self) -> dict:
        """JSON-ready: tuples become lists."""
        return json.loads(json.dumps(asdict(self)))


def _typed(name: str, value, kind):
    """The value as its field's type has it: whole numbers as floats, lists as
    tuples.
    """
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if kind == tuple[int, ...] and isinstance(value, (list, tuple)):
        if value and all(type(v) is int for v in value):
            return tuple(value)
    elif type(value) is kind:
        return value
    wanted = KINDS.get(kind, "a list of whole numbers, such as [32,64]")
    raise SettingsError(f"setting {name}: {value!r} is not {wanted}")
