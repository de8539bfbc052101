"""The reference pages say what the parser, the settings and the package's files say."""
import re
import sys
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book/tools"), str(ROOT / "book/extensions")]
import make_reference  # noqa: E402
import plain_docstrings  # noqa: E402

from ddad.cli import parser  # noqa: E402
from ddad.settings import PRESETS, Settings  # noqa: E402


def page(name: str) -> str:
    return (ROOT / "book" / name).read_text(encoding="utf-8")


def test_pages_are_current(capsys):
    assert make_reference.main(["--check"]) == 0, capsys.readouterr().out


def test_an_outdated_page_is_noticed_and_mended(tmp_path, monkeypatch, capsys):
    old = tmp_path / "settings.md"
    text = page("settings.md").replace("`guidance`", "`guide`")
    old.write_text(text, encoding="utf-8")
    monkeypatch.setattr(make_reference, "PAGES", [old])
    assert make_reference.main(["--check"]) == 1
    assert "settings.md" in capsys.readouterr().out
    assert old.read_text(encoding="utf-8") == text
    assert make_reference.main([]) == 0
    assert old.read_text(encoding="utf-8") == page("settings.md")


def test_every_command_and_option_is_there():
    text, found = page("command_line.md"), list(make_reference.commands(parser()))
    assert len(found) > 10
    for one, description in found:
        assert description and f"## {one.prog}\n" in text
        for action in one._actions[1:]:
            shown = action.option_strings or [action.metavar or action.dest.upper()]
            assert f"| `{shown[0]}" in text.partition(f"## {one.prog}\n")[2]


def test_every_setting_is_there_with_its_value_in_each_preset():
    row = re.compile(r"^\| `(\w+)` \|.*\| `(.*)` \| (.*) \|$", re.M)
    rows = row.findall(page("settings.md"))
    assert [name for name, *_ in rows] == [field.name for field in fields(Settings)]
    for name, own, others in rows[1:]:
        told = {preset: own for preset in PRESETS}
        for names, value in re.findall(r"([a-z, -]+): `([^`]*)`", others):
            told |= dict.fromkeys(names.strip().split(", "), value)
        for preset, value in told.items():
            changed = PRESETS[preset].parse([f"{name}={value.strip(chr(34))}"])
            assert changed == PRESETS[preset], (name, preset, value)


def test_every_module_is_on_one_page_of_the_api():
    files = [path.relative_to(ROOT / "ddad").with_suffix("")
             for path in (ROOT / "ddad").rglob("*.py") if path.name[0] != "_"]
    pages = [page(f"api/{path.name}") for path in (ROOT / "book/api").glob("*.md")]
    shown = re.findall(r"automodule:: ddad\.([\w.]+)", "\n".join(pages))
    assert sorted(shown) == sorted(".".join(path.parts) for path in files)


def test_the_method_is_in_the_order_of_the_data():
    text = page("api/method.md")
    assert re.findall(r"^## (\w+)", text, re.M) == make_reference.METHOD


def test_text_for_a_cell():
    assert make_reference.cell("a <kind> of\n  `x <y>` | --set, *z*") == (
        r"a \<kind> of `x <y>` \| `--set`, \*z\*")


def test_docstrings_keep_formulas_lists_and_characters():
    text = """Of |B| bins, a *star* and a name_ in `x
and_y`s.

    b = d / |B|
      c

    d

Files:
    one    two

bank: (N, D)
edges, distances: (N,), which
    go on
distance: of an image that is as far from the others as any, and goes
on here
And so it ends."""
    assert plain_docstrings.converted(text.split("\n")) == [
        "Of \\|B\\| bins, a \\*star\\* and a name\\_ in ``x", "and_y``\\ s.", "",
        ".. code-block:: text", "",
        "    b = d / |B|", "      c", "    ", "    d", "",
        "Files:", "", ".. code-block:: text", "", "    one    two", "",
        "- bank: (N, D)", "", "- edges, distances: (N,), which", "  go on", "",
        "- distance: of an image that is as far from the others as any, and goes",
        "  on here", "",
        "And so it ends.", ""]
