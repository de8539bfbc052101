"""The oldest versions that are tested are those that pyproject.toml promises, and the lock pins all that it names."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAME = re.compile(r"([A-Za-z0-9_.-]+)")


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))}


def padded(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in (version.split(".") + ["0", "0"])[:3])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_oldest_versions_are_the_lower_bounds_and_the_lock_has_all():
    import tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {NAME.match(one)[1].lower(): re.search(r">=([\d.]+)", one)[1] for one in project["dependencies"]}
    oldest = pins("requirements-oldest.txt")
    assert {name: padded(version) for name, version in oldest.items()} == {name: padded(version) for name, version in bounds.items()}
    locked = pins("requirements.lock")
    wanted = [NAME.match(one)[1] for group in (project["dependencies"], *project["optional-dependencies"].values()) for one in group]
    assert not [name for name in wanted if name != project["name"] and name.lower().replace("_", "-") not in locked]
    assert all(padded(re.match(r"[\d.]+", locked[name])[0].rstrip(".")) >= padded(version) for name, version in bounds.items())
