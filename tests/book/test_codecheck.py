"""codecheck.yml lists each table, figure, chapter and record with a command that there
is, in the form of the CODECHECK community.
"""
import re
import shlex

import make_codecheck
import pytest
import yaml

from ddad.cli import parser

ROOT = make_codecheck.ROOT
TEXT = make_codecheck.FILE.read_text(encoding="utf-8")
CONTENT = yaml.safe_load(TEXT)
MANIFEST = CONTENT["manifest"]
FIGURE = re.compile(r"(?:\{figure\} |!\[[^]]*\]\()([\w./-]+\.(?:png|svg))")
COMMANDS = sorted({row["command"] for row in MANIFEST})


def test_it_is_current(capsys):
    assert make_codecheck.main(["--check"]) == 0, capsys.readouterr().out


def test_a_stale_one_is_noticed_and_mended(tmp_path, monkeypatch, capsys):
    old = tmp_path / "codecheck.yml"
    old.write_text(TEXT.replace("README.md", "README.txt"), encoding="utf-8")
    monkeypatch.setattr(make_codecheck, "FILE", old)
    assert make_codecheck.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().out
    assert make_codecheck.main([]) == 0
    assert old.read_text(encoding="utf-8") == TEXT
    old.unlink()
    assert make_codecheck.main(["--check"]) == 1


def test_it_has_the_form_that_is_asked_for():
    """The specification's MUST and SHOULD for a file that nobody has checked yet."""
    assert TEXT.startswith("---\n")
    assert CONTENT["version"] == "https://codecheck.org.uk/spec/config/1.0/"
    for row in MANIFEST:
        assert row.keys() == {"file", "comment", "command"}
        assert all(isinstance(text, str) and text for text in row.values())
    paper = CONTENT["paper"]
    assert paper["title"] and paper["reference"].startswith("https://")
    assert paper["authors"] and all(one["name"] for one in paper["authors"])
    assert not re.search("FIXME|TODO|XXX", TEXT)
    # these are for who checks it
    assert not CONTENT.keys() & {"codechecker", "report", "certificate", "check_time"}


def test_every_file_is_there_once():
    files = [row["file"] for row in MANIFEST]
    assert len(set(files)) == len(files)
    assert not [name for name in files if not (ROOT / name).is_file()]
    assert not [name for name in files if name.startswith(("/", ".."))]


def test_nothing_that_is_shown_is_left_out():
    listed = {row["file"] for row in MANIFEST}
    pages = [ROOT / "README.md", *(ROOT / "book").glob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT).as_posix()
        assert (name in listed) == ("<!-- table " in text or "<!-- reference " in text)
        for figure in FIGURE.findall(text):
            assert (page.parent / figure).relative_to(ROOT).as_posix() in listed
    chapters = (ROOT / "notebooks").glob("*.ipynb")
    assert {f"notebooks/{path.name}" for path in chapters} <= listed


def test_every_record_has_a_command():
    results = ROOT / "book" / "results"
    recorded = {path.relative_to(results).with_suffix("").as_posix()
                for path in results.rglob("*.json")}
    assert recorded == make_codecheck.RECORDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_given(command):
    for one in command.split(" && "):
        first, *arguments = shlex.split(one)
        if first == "ddad":
            parser().parse_args(arguments)
        elif first == "python":
            assert (ROOT / arguments[0]).is_file()
        else:
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
            assert first == "make" and arguments[0] in targets
