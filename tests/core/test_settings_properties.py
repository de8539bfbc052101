"""Properties that hold for whatever is given: settings round trips, readers, masks and metrics."""

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from sklearn.metrics import roc_auc_score

from ddad import data, metrics
from ddad.layouts import DataError
from ddad.settings import PRESETS, Settings, SettingsError, preset

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
NAMES = [field.name for field in fields(Settings)]
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6)


def of_the_right_kind(name: str):
    """Values that the setting may take, and some just outside."""
    if name in Settings.CHOICES:
        return st.sampled_from(Settings.CHOICES[name])
    default, (low, high) = getattr(Settings, name), Settings.BOUNDS.get(name, (0, 4))
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(int(low) - 1, int(min(high, 10**6)) + 1)
    if isinstance(default, float):
        return st.floats(low, high) | st.just(high * 2)
    return st.lists(st.sampled_from([0, 1, 2, 3, 4, 32, 64, 96]), max_size=4).map(tuple) if isinstance(default, tuple) else st.text(max_size=8)


@few
@given(name=st.sampled_from(list(PRESETS)), chosen=st.data())
def test_settings_round_trip(name, chosen):
    changed = chosen.draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    try:
        one = preset(name, **{key: chosen.draw(of_the_right_kind(key)) for key in changed})
    except SettingsError as error:
        assert str(error)
        return
    told = json.loads(json.dumps(one.as_dict()))
    assert preset(told["preset"], **told) == one and preset(one.preset).parse([f"{k}={json.dumps(v)}" for k, v in told.items()]) == one


@few
@given(name=st.sampled_from(NAMES), value=JSON)
def test_any_value_is_taken_or_refused_by_name(name, value):
    try:
        assert Settings().change(**{name: value}) == Settings().parse([f"{name}={json.dumps(value)}"])
    except SettingsError as error:
        assert "setting " in str(error)


@few
@given(text=st.text(max_size=40))
def test_any_text_is_an_assignment_or_refused(text):
    try:
        Settings().parse([text])
    except SettingsError:
        pass


@few
@given(levels=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)), mode=st.sampled_from(["L", "RGB", "RGBA", "P", "1", "CMYK", "LA"]),
       size=st.integers(1, 33))
def test_a_picture_is_read_within_its_range(tmp_path_factory, levels, mode, size):
    path = tmp_path_factory.getbasetemp() / ("picture.tif" if mode == "CMYK" else "picture.png")
    Image.fromarray(levels).convert(mode).save(path)
    read = data.read_image(path, size)
    assert read.shape == (3, size, size) and read.min() >= -1 and read.max() <= 1
    if mode == "L" and levels.min() == levels.max():
        assert read.min() == read.max()                                # a constant picture stays one


@few
@given(levels=arrays(np.float32, (3, 4), elements=st.floats(width=32)))
def test_float_levels_are_read_or_refused(tmp_path_factory, levels):
    path = tmp_path_factory.getbasetemp() / "float.tif"
    Image.fromarray(levels).save(path)
    if (levels >= 0).all() and (levels <= 1).all():
        assert data.read_image(path, 4).isfinite().all()
    else:
        with pytest.raises(DataError, match="levels outside 0 to 1"):
            data.read_image(path, 4)


@few
@given(defect=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24)), size=st.integers(1, 30))
def test_the_area_rule_counts_areas(defect, size):
    height, width = defect.shape
    fine = defect.repeat(size, 0).repeat(size, 1).reshape(size, height, size, width)     # each target pixel's share, cell by cell
    assert np.array_equal(data._resize_mask(defect, size, "area").numpy() == 1, 2 * fine.sum((1, 3)) > height * width)


@few
@given(ranks=arrays(np.int8, (3, 4, 5)), masks=arrays(bool, (3, 4, 5)))
def test_metrics_depend_on_the_order_alone(ranks, masks):
    maps = ranks.astype(np.float64)
    if masks.all() or not masks.any():
        with pytest.raises(ValueError):
            metrics.PixelRanking(maps, masks).auroc()
        return
    one, other = metrics.PixelRanking(maps, masks), metrics.PixelRanking(maps**3 / 7, masks)
    assert one.auroc() == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9)
    assert 0 <= one.pro() <= 1 and one.pro() == pytest.approx(other.pro(), abs=1e-12)
    assert metrics.PixelRanking(-maps, masks).auroc() == pytest.approx(1 - one.auroc(), abs=1e-9)
