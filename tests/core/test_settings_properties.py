"""Whatever is given: settings make their round trip, or are refused by name."""

import json
from dataclasses import fields

from hypothesis import given, settings
from hypothesis import strategies as st

from ddad.runtime.errors import SettingsError
from ddad.settings import PRESETS, Settings, preset

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
FIELDS = {one.name: one for one in fields(Settings)}
NAMES = list(FIELDS)
SIMPLE = (st.none() | st.booleans() | st.integers() | st.floats()
          | st.text(max_size=20))
JSON = st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6)


def of_the_right_kind(name: str):
    """Values that the setting may take, and some just outside."""
    default, told = FIELDS[name].default, FIELDS[name].metadata
    low, high = told["bounds"] or (0, 4)
    if told["choices"]:
        return st.sampled_from(told["choices"])
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(int(low) - 1, int(min(high, 10**6)) + 1)
    if isinstance(default, float):
        return st.floats(low, high) | st.just(high * 2)
    if isinstance(default, tuple):
        numbers = st.sampled_from([0, 1, 2, 3, 4, 32, 64, 96])
        return st.lists(numbers, max_size=4).map(tuple)
    return st.text(max_size=8)


@few
@given(name=st.sampled_from(list(PRESETS)), chosen=st.data())
def test_settings_round_trip(name, chosen):
    changed = chosen.draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    values = {key: chosen.draw(of_the_right_kind(key)) for key in changed}
    try:
        one = preset(name, **values)
    except SettingsError as error:
        assert str(error)
        return
    told = json.loads(json.dumps(one.as_dict()))
    assert preset(told["preset"], **told) == one
    assignments = [f"{key}={json.dumps(value)}" for key, value in told.items()]
    assert preset(one.preset).parse(assignments) == one


@few
@given(name=st.sampled_from(NAMES), value=JSON)
def test_any_value_is_taken_or_refused_by_name(name, value):
    try:
        given = Settings().change(**{name: value})
        assert given == Settings().parse([f"{name}={json.dumps(value)}"])
    except SettingsError as error:
        assert "setting " in str(error)


@few
@given(text=st.text(max_size=40))
def test_any_text_is_an_assignment_or_refused(text):
    try:
        Settings().parse([text])
    except SettingsError:
        pass
