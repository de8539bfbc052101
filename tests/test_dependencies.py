"""The oldest versions that are tested are those that pyproject.toml promises, and the
lock pins all that it names.
"""
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAME = re.compile(r"([A-Za-z0-9_.-]+)")


def name_of(requirement: str) -> str:
    return NAME.match(requirement)[1].lower().replace("_", "-")


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    parts = (line.partition("==") for line in lines if not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, _, version in parts}


def padded(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in (version.split(".") + ["0", "0"])[:3])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_oldest_versions_are_the_lower_bounds_and_the_lock_has_all():
    import tomllib
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    required, groups = project["dependencies"], project["optional-dependencies"]
    bounds = {name_of(one): padded(re.search(r">=([\d.]+)", one)[1])
              for one in required}
    oldest = pins("requirements-oldest.txt")
    assert {name: padded(version) for name, version in oldest.items()} == bounds
    locked = pins("requirements.lock")
    wanted = {name_of(one) for group in (required, *groups.values()) for one in group}
    assert not wanted - {project["name"]} - locked.keys()
    release = lambda version: re.match(r"[\d.]+", version)[0].rstrip(".")
    assert all(padded(release(locked[name])) >= bound for name, bound in bounds.items())
