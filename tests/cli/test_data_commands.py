"""`ddad data`; fetching is tested with the data sets."""
import json

from ddad.cli import main


def test_check_data(product, tmp_path, capsys):
    assert main(["data", "check", str(product), "--size", "64"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] is True
    assert main(["data", "check", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]
