"""Synthetic defects: the same for the same seed, of known place, of every size."""
import numpy as np
import pytest
import torch
from conftest import good_images
from scipy.ndimage import binary_dilation

from ddad.synthetic.defects import region, synthetic_defects


def test_synthetic_defects():
    good = good_images(24)
    defective, masks = synthetic_defects(good, seed=3)
    again, masks_again = synthetic_defects(good, seed=3)
    assert torch.equal(defective, again) and (masks == masks_again).all()
    assert not torch.equal(defective, synthetic_defects(good, seed=4)[0])
    assert defective.shape == good.shape and defective.dtype == torch.float32
    assert masks.dtype == bool and masks.any((1, 2)).all()
    assert defective.min() >= -1.001 and defective.max() <= 1.001
    change = (defective - good).abs().amax(1).numpy() / 2
    for n in range(24):
        inside = change[n][masks[n]]
        assert inside.mean() > 0.1  # it can be seen
        assert inside.min() > 0.03 - 1e-6
        near = binary_dilation(masks[n], np.ones((3, 3)), iterations=3)
        # its soft edge apart, nothing else changed
        assert change[n][~near].max() <= 0.03 + 1e-6
    areas = np.sort(masks.mean((1, 2)))
    assert areas[0] < 0.005 and areas[-1] > 0.1
    assert areas[3] < 0.01 < areas[12] * 3 and areas[18] > 0.01


@pytest.mark.parametrize("area", [0.001, 0.01, 0.1, 0.2])
def test_regions_have_about_the_area_asked_for(area):
    image = np.random.default_rng(0).random((4, 4, 3)).repeat(16, 0).repeat(16, 1)
    seeds = map(np.random.default_rng, range(40))
    shares = [region(image, area, rng).mean() for rng in seeds]
    assert 0.4 * area < np.median(shares) < 2 * area
    assert min(shares) >= 0 and max(shares) < 3 * area + 0.01
