"""Whatever an image or a mask holds: it is read within its range, or refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from ddad.data.images import read_image
from ddad.data.masks import resize_mask
from ddad.runtime.errors import DataError

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
MODES = ["L", "RGB", "RGBA", "P", "1", "CMYK", "LA"]


def plane(kind, side):
    """Arrays of two dimensions, with sides of at most `side`."""
    return arrays(kind, array_shapes(min_dims=2, max_dims=2, max_side=side))


@few
@given(levels=plane(np.uint8, 40), mode=st.sampled_from(MODES), size=st.integers(1, 33))
def test_an_image_is_read_within_its_range(tmp_path_factory, levels, mode, size):
    name = "image.tif" if mode == "CMYK" else "image.png"
    path = tmp_path_factory.getbasetemp() / name
    Image.fromarray(levels).convert(mode).save(path)
    read = read_image(path, size)
    assert read.shape == (3, size, size) and read.min() >= -1 and read.max() <= 1
    if mode == "L" and levels.min() == levels.max():
        assert read.min() == read.max()  # a constant image stays one


@few
@given(levels=arrays(np.float32, (3, 4), elements=st.floats(width=32)))
def test_float_levels_are_read_or_refused(tmp_path_factory, levels):
    path = tmp_path_factory.getbasetemp() / "float.tif"
    Image.fromarray(levels).save(path)
    if (levels >= 0).all() and (levels <= 1).all():
        assert read_image(path, 4).isfinite().all()
    else:
        with pytest.raises(DataError, match="levels outside 0 to 1"):
            read_image(path, 4)


@few
@given(defect=plane(bool, 24), size=st.integers(1, 30))
def test_the_area_rule_counts_areas(defect, size):
    height, width = defect.shape
    # each target pixel's share, cell by cell
    fine = defect.repeat(size, 0).repeat(size, 1).reshape(size, height, size, width)
    found = resize_mask(defect, size, "area").numpy() == 1
    assert np.array_equal(found, 2 * fine.sum((1, 3)) > height * width)
