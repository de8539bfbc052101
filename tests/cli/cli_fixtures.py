"""Fixtures of the tests of the command line: a plugin, so that each process that runs
them trains once.
"""
import pytest
from cli_words import SET

from ddad.cli import main


@pytest.fixture(scope="session")
def model(product, tmp_path_factory):
    """A detector's folder, made by `ddad train`, that no test may change."""
    out = tmp_path_factory.mktemp("models") / "disc"
    assert main(["train", str(product), str(out), "--device", "cpu", *SET]) == 0
    return out


@pytest.fixture(scope="session")
def like_model(model, product):
    """Makes a detector with the networks of `model` and other settings in a folder."""
    def make(out, *changes):
        assert main(["train", str(product), str(out), "--device", "cpu",
                     "--from", str(model), "--set", *changes]) == 0
        return out
    return make


@pytest.fixture
def refused(capsys):
    """Runs a command that has to fail, and returns its one line."""
    def run(*arguments):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"ddad {arguments[0]}: ")
        assert len(err.strip().splitlines()) == 1 and len(err) < 600, err
        return err
    return run
