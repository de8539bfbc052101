"""The commands and their options, and what an error of any command becomes."""
import argparse
import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import torch

from ddad import cli
from ddad.cli import detector, main, parser

pytest_plugins = ["cli_fixtures"]


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          timeout=100)


def commands(one, name="ddad"):
    """Every parser by name, those of subcommands included."""
    yield name, one
    for action in one._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from commands(below, f"{name} {word}")


def test_help_and_settings_do_not_import_torch():
    done = python("""
import sys, ddad, ddad.cli
ddad.cli.parser()
assert ddad.cli.main(["settings", "--preset", "paper", "--set", "lam=0.5"]) == 0
try: ddad.cli.main(["train", "--help"])
except SystemExit as end: assert end.code == 0
heavy = set("torch diffusers transformers numpy scipy sklearn matplotlib".split())
assert not heavy & set(sys.modules), heavy & set(sys.modules)
""")
    assert done.returncode == 0, done.stderr
    assert '"z0_from": "e"' in done.stdout and '"lam": 0.5' in done.stdout


def test_python_m_is_not_needed_and_the_entry_point_exists():
    [script] = [e for e in entry_points(group="console_scripts") if e.name == "ddad"]
    assert script.load() is cli.main is main


def test_python_m_runs_the_same_commands():
    done = subprocess.run([sys.executable, "-m", "ddad", "settings"], timeout=100,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["preset"] == "clean"


def test_every_command_and_every_option_says_what_it_is():
    found = dict(commands(parser()))
    assert len(found) == 18 and {"ddad data check", "ddad train"} <= set(found)
    for name, one in found.items():
        assert one.description and one.description[-1] == ".", name
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                assert all(choice.help for choice in action._choices_actions), name
            else:
                assert action.help, f"{name}: {action.dest}"


def test_every_command_has_a_handler_of_its_name():
    last = {name: one for name, one in commands(parser()) if one._defaults}
    for name, one in last.items():
        assert one.get_default("run").__name__ == f"run_{name.split()[-1]}"
    assert len(last) == 16


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["train"], ["detect", "a", "b", "c", "--maps", "jpg"]])
def test_usage(arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0 and "detect" in capsys.readouterr().out


@pytest.mark.parametrize("command, default", [
    ("inspect", "regional"), ("train", "clean")])
def test_help_names_the_preset_that_is_taken(command, default, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    told = [one for one in ("regional", "clean") if f"{one} (default)" in said]
    assert told == [default]


def test_settings(capsys, refused):
    assert main(["settings", "--set", "T_max=160", "guidance=2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["T_max"] == 160 and printed["preset"] == "clean"
    assert printed["unet_channels"] == [64, 96, 160]
    assert "lamda" in refused("settings", "--set", "lamda=1")
    assert "setting lam: 2.0 lies outside" in refused("settings", "--set", "lam=2")
    assert "name=value" in refused("settings", "--set", "lam")
    assert "no preset is called 'mine'" in refused("settings", "--preset", "mine")
    said = refused("settings", "--set", "train_length=100")
    assert "'100' is neither 'N steps' nor 'N epochs'" in said


def failing(monkeypatch, error):
    """Makes `ddad settings` raise `error`."""
    def fail(options):
        raise error
    monkeypatch.setattr(detector, "run_settings", fail)


def test_a_full_gpu_is_one_sentence(monkeypatch, refused):
    failing(monkeypatch, torch.cuda.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB\nand more lines"))
    assert "the GPU's memory is full" in refused("settings")


def test_a_fault_of_the_program_is_not_made_a_sentence(monkeypatch):
    failing(monkeypatch, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        main(["settings"])


def test_an_interruption_is_130(monkeypatch, capsys):
    failing(monkeypatch, KeyboardInterrupt)
    assert main(["settings"]) == 130 and "goes on" in capsys.readouterr().err


INTERRUPT = """
import builtins, runpy
real = builtins.__import__
def interrupted(name, globals=None, locals=None, fromlist=(), level=0):
    if "inspection" in (fromlist or ()):
        raise KeyboardInterrupt
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = interrupted
"""


@pytest.mark.parametrize("start", [
    "from ddad.cli import main",
    "runpy.run_module('ddad.__main__', run_name='__main__')"])
def test_an_interruption_of_the_imports_is_quiet(start):
    done = python(INTERRUPT + start)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are others there")
@pytest.mark.parametrize("printed", ["'x' * 10**6", "'x'", "'x', flush=True"])
def test_a_reader_that_has_gone_is_no_error(printed):
    """As of `ddad show MODEL | head -1`."""
    code = f"""
import sys
from ddad.cli import detector, main
detector.run_settings = lambda options: print({printed})
sys.exit(main(["settings"]))
"""
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    done.stdout.close()
    assert (done.stderr.read(), done.wait(100)) == ("", 141)


def test_another_pipe_that_breaks_is_an_error(monkeypatch, capsys):
    failing(monkeypatch, BrokenPipeError(32, "Broken pipe"))
    assert main(["settings"]) == 2 and "Broken pipe" in capsys.readouterr().err
