"""The package's own source, shown in a chapter where it is explained."""
from __future__ import annotations

import inspect


class Source(str):
    """Python source that a notebook shows with colours."""

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"


def source(thing) -> Source:
    """The source of a function or class, as it runs: no page copies it by hand."""
    return Source(inspect.getsource(thing).rstrip())
