"""What the tests of the command line write and read."""
import json

from conftest import TINY


def _value(value):
    return json.dumps(list(value) if isinstance(value, tuple) else value)


SET = ["--set", *(f"{name}={_value(value)}" for name, value in TINY.items())]


def lines_of(out):
    """What `ddad detect` has written to results.jsonl in the folder `out`."""
    text = (out / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
