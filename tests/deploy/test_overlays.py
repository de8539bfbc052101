"""Images of results: colours, sizes, the outline of the true defect."""
import numpy as np
import torch
from PIL import Image

from ddad.deploy.overlays import heat, pixels, save_overlay


def test_levels_become_pixels():
    x0 = torch.tensor([-1.0, 0.0, 1.0, 2.0]).expand(3, 5, 4)
    shown = pixels(x0)
    assert shown.shape == (5, 4, 3) and shown.dtype == np.uint8
    assert shown[0, :, 0].tolist() == [0, 128, 255, 255]


def test_the_threshold_lies_in_the_middle_of_the_scale():
    A = np.linspace(0, 2, 9)[None]
    by_threshold, by_largest = heat(A, 1.0), heat(A, None)
    assert by_threshold.shape == (1, 9, 3) and by_threshold.dtype == np.uint8
    assert (by_threshold[0, 4] == by_largest[0, 8]).all()
    light = by_threshold[0].astype(int).sum(1)
    assert (np.diff(light) > 0).all()


def test_input_reconstruction_and_map_side_by_side(tmp_path):
    x0, x0_hat, A = torch.ones(3, 64, 64), torch.zeros(3, 64, 64), torch.zeros(64, 64)
    mask = np.zeros((64, 64), bool)
    mask[20:30, 20:30] = True
    save_overlay(tmp_path / "one.png", x0, x0_hat, A, 0.5, mask)
    shown = np.asarray(Image.open(tmp_path / "one.png"))
    assert shown.shape == (4 * 64, 4 * 192, 3)
    left, middle = shown[::4, ::4][:, :64], shown[::4, ::4][:, 64:128]
    outlined = (left == (255, 0, 255)).all(-1)
    assert outlined[20, 20:30].all() and outlined[20:30, 29].all()
    assert outlined.sum() == 36 and (left[~outlined] == 255).all()
    assert (middle == 128).all()
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    large = torch.zeros(3, 256, 256)
    save_overlay(tmp_path / "large.png", large, large, torch.zeros(256, 256), None)
    assert Image.open(tmp_path / "large.png").size == (3 * 256, 256)
    save_overlay(tmp_path / "two.png", large, None, torch.zeros(256, 256), None)
    assert Image.open(tmp_path / "two.png").size == (2 * 256, 256)
