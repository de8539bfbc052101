"""Synthetic defects: of known place, balanced, faint ones among them, and for the same
seed the same.
"""
import numpy as np
import pytest
import torch
from conftest import good_images
from scipy.ndimage import binary_dilation, gaussian_filter, maximum_filter

from ddad.synthetic import defects
from ddad.synthetic.defects import AREA, CONTRAST, FILLINGS, KINDS, Trial, region


def made(count=12, seed=3, copies=2):
    return Trial.of(good_images(count), seed, copies)


def same(a, b):
    return (torch.equal(a.images, b.images) and (a.masks == b.masks).all()
            and a.kind == b.kind and (a.contrast == b.contrast).all())


@pytest.fixture
def full_contrast(monkeypatch):
    """The defects as they are before they are blended in."""
    monkeypatch.setattr(defects, "CONTRAST", (1.0, 1.0))


def test_the_same_seed_makes_the_same_trial():
    one = made(6)
    assert same(one, made(6))
    assert not torch.equal(one.images, made(6, seed=4).images)


def test_good_images_come_first_and_stay_as_they_are():
    good, trial = good_images(12), made()
    assert torch.equal(trial.images[:12], good)
    assert trial.images.shape == (36, 3, 64, 64) and trial.images.dtype == torch.float32
    assert trial.masks.shape == (36, 64, 64) and trial.masks.dtype == bool
    assert trial.kind[:12] == ["good"] * 12 and set(trial.kind[12:]) == set(KINDS)
    assert (trial.masks.any((1, 2)) == [False] * 12 + [True] * 24).all()
    assert (trial.contrast[:12] == 0).all()
    assert trial.contrast[12:].min() >= CONTRAST[0] and trial.contrast.max() <= 1
    np.testing.assert_array_equal(trial.area, trial.masks.mean((1, 2)))
    # the copies of an image follow each other: most of each is that image
    change = (trial.images[12:] - good.repeat_interleave(2, 0)).abs().amax(1)
    narrow = torch.tensor([kind != "light" for kind in trial.kind[12:]])
    assert change.flatten(1).median(1).values[narrow].max() < 1e-3


def test_nothing_depends_on_the_images_that_follow():
    good = good_images(9)
    every, first = Trial.of(good, 5, 2), Trial.of(good[:4], 5, 2)
    assert torch.equal(every.images[9:17], first.images[4:])
    assert (every.masks[9:17] == first.masks[4:]).all()
    assert every.kind[9:17] == first.kind[4:]
    # nor on those before it, but for the last one, whose texture it may take
    changed = Trial.of(torch.cat([good_images(3, seed=8), good[3:]]), 5, 2)
    assert torch.equal(every.images[17:], changed.images[17:])


@pytest.mark.parametrize("seed", range(4))
def test_kinds_areas_and_contrasts_are_balanced(seed):
    kind, area, contrast = defects.design(96, seed)
    u, v = (np.log(x / low) / np.log(high / low)
            for x, (low, high) in ((area, AREA), (contrast, CONTRAST)))
    assert min(u.min(), v.min()) >= 0 and max(u.max(), v.max()) <= 1
    for six in range(0, 96, 6):
        assert set(kind[six : six + 6]) == set(KINDS)
        for x in (u, v):
            gaps = np.diff(np.sort(x[six : six + 6]))
            np.testing.assert_allclose(gaps, 1 / 6, atol=1e-9)
    assert abs(np.corrcoef(u, v)[0, 1]) < 0.15
    for one in KINDS:
        for x in (u[kind == one], v[kind == one]):
            assert np.diff(np.sort([0, *x, 1])).max() < 0.1
        assert abs(np.corrcoef(u[kind == one], v[kind == one])[0, 1]) < 0.6
        # large and small, faint and plain, in all four combinations
        quarter = 2 * (u[kind == one] > 0.5) + (v[kind == one] > 0.5)
        assert np.bincount(quarter, minlength=4).min() >= 2
    prefix = defects.design(10, seed)
    assert all((a[:10] == b).all() for a, b in zip((kind, area, contrast), prefix))


def test_the_trial_keeps_to_its_design():
    trial = made()
    kind, area, contrast = defects.design(24, 3)
    assert trial.kind[12:] == list(kind)
    assert (trial.contrast[12:] == contrast).all()
    off = np.abs(np.log(trial.area[12:] / area))
    assert np.median(off) < 0.15 and off.max() < 1
    assert all(a != b for a, b in zip(trial.kind[12::2], trial.kind[13::2]))
    assert len(set(made(1, copies=6).kind[1:])) == 6


def test_contrast_scales_the_change_and_not_the_mask(monkeypatch):
    good, faint = good_images(6).repeat_interleave(2, 0), made(6)
    monkeypatch.setattr(defects, "CONTRAST", (1.0, 1.0))
    full = made(6)
    assert (full.masks == faint.masks).all() and full.kind == faint.kind
    scaled = torch.from_numpy(faint.contrast[6:]).float()[:, None, None, None]
    expected = good + scaled * (full.images[6:] - good)
    torch.testing.assert_close(faint.images[6:], expected, atol=1e-6, rtol=0)


def test_masks_lie_where_the_image_changes(full_contrast):
    good, trial = good_images(24), made(24, copies=1)
    change = (trial.images[24:] - good).abs().amax(1).numpy() / 2
    for n in range(24):
        mask = trial.masks[24 + n]
        assert change[n][mask].mean() > defects.SEEN        # it can be seen
        near = binary_dilation(mask, np.ones((3, 3)), iterations=3)
        if trial.kind[24 + n] != "light":                   # whose edge is broad
            assert change[n][~near].max() < 0.1


def test_masks_leave_out_what_stays_as_it_was():
    plain = np.full((64, 64, 3), 0.4, np.float32)
    plain[20:36, 24:40] = 0.9
    for seed in range(8):
        rng = np.random.default_rng(seed)
        full, mask, kind = defects.damage(plain, plain, "pasted", 0.02, rng)
        changed = maximum_filter(np.abs(full - plain).max(-1), 7) > defects.CLEAR
        assert kind == "pasted" and changed[mask].all()


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_plain_images_get_what_can_be_seen(level):
    trial = Trial.of(torch.full((4, 3, 32, 32), level), 0, 3)
    assert trial.masks[4:].any((1, 2)).all()
    assert trial.images.abs().max() <= 1 and trial.images.isfinite().all()
    # what needs something in the image became a stain, and is called so
    assert not {"erased", "pasted", "texture"} & set(trial.kind)
    assert trial.kind.count("stained") >= 8


def test_values_stay_in_range(full_contrast):
    levels = np.random.default_rng(0).choice([-1.0, 1.0], (4, 3, 8, 8))
    extreme = torch.from_numpy(levels.repeat(4, -1).repeat(4, -2)).float()
    assert Trial.of(extreme, 0, 6).images.abs().max() <= 1


def test_without_images_it_says_so():
    with pytest.raises(ValueError, match="needs good images, there are none"):
        Trial.of(torch.zeros(0, 3, 32, 32), 0)


# --- what the kinds show

def disc():
    """A disc on grainy ground, (64, 64, 3) in [0, 1], and its place."""
    yy, xx = np.mgrid[:64, :64]
    m = np.hypot(yy - 30, xx - 34) < 13
    rng = np.random.default_rng(0)
    image = np.where(m[..., None], (0.9, 0.2, 0.1), 0.4)
    return (image + rng.normal(0, 0.04, (64, 64, 3))).astype(np.float32), m


def test_an_erased_part_shows_the_ground_with_its_grain():
    image, part = disc()
    m = binary_dilation(part, iterations=2)
    new = FILLINGS["erased"](image, image, m, np.random.default_rng(1))
    assert np.abs(new[m].mean(0) - 0.4).max() < 0.05
    fine = new - gaussian_filter(new, (2, 2, 0))
    assert 0.7 < fine[m].std() / fine[~binary_dilation(m, iterations=6)].std() < 1.2
    assert (new[~m] == image[~m]).all()
    # the rest of a part does not run into the ground that takes its place
    m[:, 36:] = False
    new = FILLINGS["erased"](image, image, m, np.random.default_rng(1))
    assert np.abs(new[m].mean(0) - 0.4).max() < 0.03


def test_another_texture_has_the_colours_of_its_place():
    smooth = gaussian_filter(disc()[0], (8, 8, 0))
    stripes = 0.5 + 0.3 * np.sin(np.arange(64, dtype=np.float32))
    other = np.broadcast_to(stripes[:, None], (64, 64, 3))
    everywhere, changes = np.ones((64, 64), bool), []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        changes.append(FILLINGS["texture"](smooth, other, everywhere, rng) - smooth)
        assert np.abs(gaussian_filter(changes[-1], (6, 6, 0))).max() < 0.1
    # its own turned, or the other image's
    assert sorted(change.std() > 0.08 for change in changes)[:: 11] == [False, True]


def test_light_changes_slowly(full_contrast):
    trial = Trial.of(torch.zeros(18, 3, 32, 32), 1)
    large = [n for n, kind in enumerate(trial.kind)
             if kind == "light" and trial.area[n] > 0.03]
    assert large
    for n in large:
        change = trial.images[n, 0].abs().numpy()
        step = max(np.abs(np.diff(change, axis=axis)).max() for axis in (0, 1))
        assert step < 0.25 * change.max() and change.max() > 0.3
        assert 0.3 < change[trial.masks[n]].min() / change.max() < 0.75


@pytest.mark.parametrize("area", [0.001, 0.01, 0.1, 0.2])
def test_regions_have_about_the_area_asked_for(area):
    image = np.random.default_rng(0).random((4, 4, 3)).repeat(16, 0).repeat(16, 1)
    seeds = map(np.random.default_rng, range(40))
    shares = [region(image, area, rng).mean() for rng in seeds]
    assert 0.4 * area < np.median(shares) < 2 * area
    assert min(shares) >= 0 and max(shares) < 3 * area + 0.01
