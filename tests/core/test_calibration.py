"""Constants chosen without test data: what is tried, on which images, what is measured,
and what is taken.
"""
import inspect
import itertools

import numpy as np
import pytest
import torch
from conftest import bad_images, good_images, tiny
from sklearn.metrics import roc_auc_score

from ddad import calibration
from ddad.calibration import CHOSEN, MAP, PATH, Calibration, Tried
from ddad.detector import Detector
from ddad.evaluation.metrics import PixelRanking
from ddad.settings import preset
from ddad.synthetic.defects import KINDS, Trial
from ddad.training import hold_out

# few enough to try all of them
FEW = {"T_MAX": (80, 400), "SMALLEST_BIN": (0.2, 1.0), "LAMBDA": (0.0, 1.0),
       "DEFECTS": 12}


@pytest.fixture
def few(monkeypatch):
    for name, value in FEW.items():
        monkeypatch.setattr(calibration, name, value)


# --- what is tried --------------------------------------------------------------------

def combined(rows, names):
    return [tuple(row[name] for name in names) for row in rows]


def test_it_chooses_from_held_out_images(fitted, few, monkeypatch):
    seen, real = [], calibration.sweep
    monkeypatch.setattr(calibration, "sweep", lambda detector, images, *given: (
        seen.append((images, given[-1])) or real(detector, images, *given)))
    images, settings = good_images(32), tiny(tune_epochs=0)
    chosen = Detector.fit(images, settings, device="cpu", unet=fitted.networks.unet,
                          calibrate=True)
    _, good = hold_out(images, settings)
    # the eight that are held out, and each of them twice with a defect
    assert [len(one) for one, _ in seen] == [24, 24, 24]
    assert all(torch.equal(one[:8], good) for one, _ in seen)
    assert [what for _, what in seen] == [
        "calibrate path", "calibrate guidance", "calibrate map"]
    table = chosen.record["calibration"]
    first, second, third = table[:16], table[16:-4], table[-4:]
    weighings = tuple(itertools.product((0.0, 1.0), (1.0, 0.0)))    # blur, lambda
    tried = itertools.product((80, 400), ("image", "static"), weighings)
    assert combined(first, ("T_max", "step_rule", "latent_blur", "lam")) == [
        (T, rule, *both) for T, rule, both in tried]
    assert all(row["guidance"] == 0 and row["smallest_bin"] == 2 for row in first)
    paths = combined(second, PATH)[:: len(weighings)]
    step = paths[1]
    assert step in combined(first, PATH)
    assert {path[:2] for path in paths} == {step[:2]}
    # the safe choice comes first: the settings' own guidance
    assert paths[0] == (*step[:3], settings.guidance)
    # guidance scales the first e by 1 - w (1 - abar) and must not turn it round
    noise = 1 - chosen.abar[step[1]].item()
    assert [round(1 - path[3] * noise, 2) for path in paths[-2:]] == [0.67, 0.34]
    bins = [10] if step[0] == "image" else []
    assert [path[2] for path in paths] == [2, 2, *bins, 2, 2]
    # the maps are weighed again when the features are tuned
    own = tuple(getattr(chosen.settings, name) for name in PATH)
    assert combined(third, PATH) == [own] * 4 and own in paths
    assert tuple(getattr(chosen.settings, name) for name in CHOSEN) in combined(
        third, CHOSEN)
    assert all(0 <= row["i_auroc"] <= 1 and 0 <= row["pro"] <= 1 for row in table)


def test_a_step_a_region_stays_one(fitted, few, monkeypatch):
    monkeypatch.setattr(calibration, "T_MAX", (80,))
    settings = tiny("regional", tune_epochs=0, patch_bank=50)
    chosen = Detector.fit(good_images(32), settings, device="cpu", calibrate=True,
                          unet=fitted.networks.unet)
    table, s = chosen.record["calibration"], chosen.settings
    assert {row["step_rule"] for row in table} == {"region"}
    assert chosen.predict(good_images(2)).score.isfinite().all()
    assert (chosen.ranges.patch is not None) == s.by_patch


@pytest.mark.parametrize("function", [
    Calibration, calibration.sweep, calibration.paths, calibration.further,
    calibration.weighings, Trial.of, Detector.fit])
def test_nothing_asks_for_test_images(function):
    names = inspect.signature(function).parameters
    assert names and not any("test" in name for name in names)


def test_calibration_needs_eight_images(fitted):
    fewer = "at least 8 held-out good images, there are 7"
    with pytest.raises(ValueError, match=fewer):
        Calibration([(fitted, good_images(7))])


def test_the_images_and_defects_of_a_trial(fitted, few):
    """No more images than settings allow, and enough defects of few images."""
    for images, most, expected in ((8, 32, (8, 16)), (12, 10, (10, 20)),
                                   (14, 14, (14, 14))):
        detector = fitted.under(fitted.settings.change(calibration_images=most))
        [trial] = Calibration([(detector, good_images(images))]).trials
        good = trial.kind.count("good")
        assert (good, len(trial.kind) - good) == expected
        of_these = calibration.drawn(good_images(images), detector.settings)
        assert torch.equal(trial.images[:good], of_these)


def test_it_uses_images_of_the_whole_time_that_they_are_of():
    """Drawn with the seed, in their order; all, where there are no more."""
    images, s = torch.arange(100), tiny(calibration_images=32)
    seen = [calibration.drawn(images, s.change(seed=seed)) for seed in range(3)]
    assert all(len(one) == 32 and one.sort().values.equal(one) for one in seen)
    assert all(one.min() < 20 and one.max() > 80 for one in seen)
    assert not seen[0].equal(seen[1])
    assert calibration.drawn(images[:32], s).equal(images[:32])


def test_the_paths_fit_the_schedule_and_begin_with_the_settings_own():
    rows = calibration.paths(tiny())
    assert rows[0] == {"step_rule": "image", "T_max": 80, "guidance": 0.0}
    assert [row["T_max"] for row in rows[::2]] == [80, 160, 320, 480]
    assert [row["step_rule"] for row in rows] == ["image", "static"] * 4
    region = calibration.paths(preset("regional"))
    assert region[0] == {"step_rule": "region", "T_max": 80, "guidance": 0.0}
    assert {row["step_rule"] for row in region} == {"region"}
    static = calibration.paths(tiny(step_rule="static", T_max=400))
    assert static[0] == {"step_rule": "static", "T_max": 480, "guidance": 0.0}
    # none that the network was not trained for
    for s in (tiny(train_timesteps=100), tiny(timesteps=100, train_timesteps=100)):
        assert {row["T_max"] for row in calibration.paths(s)} == {80}
    for s in (tiny(), preset("regional"), preset("one-call"), tiny(bins=3)):
        assert all(s.change(**row) for row in calibration.paths(s))


def test_one_call_has_a_step_and_a_blur_alone(fitted):
    s = preset("one-call")
    rows = calibration.paths(s)
    assert rows[0] == {"step_rule": "static", "T_max": 20, "guidance": 0.0}
    assert sorted(row["T_max"] for row in rows) == [*calibration.ONE_CALL]
    assert {row["step_rule"] for row in rows} == {"static"}
    one = fitted.under(s)
    path = {name: getattr(s, name) for name in PATH}
    assert calibration.further(path, one) == [path]
    assert calibration.weighings(s) == [
        {"latent_blur": blur, "lam": 1.0} for blur in (0.0, 1.0)]


def test_from_the_path_that_is_chosen(fitted):
    chosen = {"step_rule": "image", "T_max": 400, "smallest_bin": 6, "guidance": 0.0,
              "lam": 0.3}
    path = {name: chosen[name] for name in PATH}
    rows = calibration.further(chosen, fitted)
    noise = 1 - fitted.abar[400].item()
    assert rows == [path | {"guidance": 4.0}, path, path | {"smallest_bin": 2},
                    path | {"guidance": round(0.33 / noise, 2)},
                    path | {"guidance": round(0.66 / noise, 2)}]
    static = calibration.further(chosen | {"step_rule": "static"}, fitted)
    assert [row["smallest_bin"] for row in static] == [6, 6, 6, 6]
    none = fitted.under(fitted.settings.change(guidance=0.0))
    assert calibration.further(chosen, none) == rows[1:]
    few = fitted.under(fitted.settings.change(bins=3))
    assert all(few.settings.change(**row)
               for row in calibration.further(chosen | {"smallest_bin": 1}, few))


def test_weighings_begin_with_the_settings_own():
    s = tiny(lam=0.5)
    plain = calibration.weighings(s)
    assert plain[0] == {"latent_blur": 0.0, "lam": 0.5}
    assert len(plain) == 14 and {row["latent_blur"] for row in plain} == {0.0, 1.0}
    assert {row["lam"] for row in plain} == set(calibration.LAMBDA)


# --- what is measured -----------------------------------------------------------------

@pytest.mark.parametrize("blur", [0.0, 1.0])
@pytest.mark.parametrize("rule", ["image", "static"])
def test_a_sweep_measures_what_a_prediction_would(fitted, blur, rule):
    bad, masks = bad_images(3)
    images = torch.cat([good_images(3, seed=50), bad])
    masks = np.concatenate([np.zeros_like(masks), masks])
    path = {"step_rule": rule, "T_max": 160, "smallest_bin": 3, "guidance": 1.0}
    weighing = {"latent_blur": blur, "lam": 0.4}
    tried = calibration.sweep(fitted, images, masks, [path], [weighing])
    other = fitted.under(fitted.settings.change(**path, **weighing))
    other.set_ranges(images[:3])        # the sweep scales by its own good images
    A = other.predict(images).map.numpy()
    [row] = tried.table
    assert row["pro"] == pytest.approx(PixelRanking(A, masks).pro(0.3), abs=1e-6)
    auroc = roc_auc_score(masks.any((1, 2)), A.max((1, 2)))
    assert row["i_auroc"] == pytest.approx(auroc, abs=1e-6)
    assert {name: row[name] for name in CHOSEN} == path | weighing
    assert tried.q.shape == (1, 3)
    assert tried.q.mean() == pytest.approx(row["i_auroc"] + row["pro"], abs=1e-5)


def test_a_sweep_takes_every_path_with_every_weighing(fitted):
    bad, masks = bad_images(2)
    images = torch.cat([good_images(2, seed=50), bad])
    masks = np.concatenate([np.zeros_like(masks), masks])
    paths = [{"T_max": T} for T in (80, 160)]
    weighings = [{"lam": lam} for lam in (0.0, 0.5, 1.0)]
    tried = calibration.sweep(fitted, images, masks, paths, weighings)
    assert combined(tried.table, ("T_max", "lam")) == [
        (T, lam) for T in (80, 160) for lam in (0.0, 0.5, 1.0)]
    assert tried.q.shape == (6, 2)
    # each as if it were tried alone
    [alone] = calibration.sweep(fitted, images, masks, paths[1:], weighings[1:2]).q
    np.testing.assert_allclose(tried.q[4], alone)


def made_up(regions=1, ties=False):
    """Maps of four good images and five with a defect of so many regions each."""
    rng = np.random.default_rng(0)
    A, masks = rng.random((9, 24, 24)).astype(np.float32), np.zeros((9, 24, 24), bool)
    for n in range(4, 9):
        for k in range(regions):
            masks[n, 12 * k + 2 : 12 * k + 3 + n, 3 : 9 + k] = True
        A[n][masks[n]] += rng.random() / 2
    if ties:
        A = (A * 8).round()
    return A, masks, masks.any((1, 2))


@pytest.mark.parametrize("ties", [False, True])
def test_the_means_of_what_is_found_are_i_auroc_and_pro(ties):
    made = made_up(ties=ties)
    order = np.random.default_rng(1).permutation(9)
    for A, masks, labels in (made, [one[order] for one in made]):
        found = calibration.found_by(A, masks, labels)
        assert found.shape == (2, 5)
        assert found[0].mean() == pytest.approx(roc_auc_score(labels, A.max((1, 2))))
        assert found[1].mean() == pytest.approx(PixelRanking(A, masks).pro(0.3))


def test_an_image_with_two_regions_counts_once():
    A, masks, labels = made_up(regions=2)
    found = calibration.found_by(A, masks, labels)
    for n in range(4, 9):
        # this image's regions alone
        only = np.arange(9) == n
        pro = PixelRanking(A, masks).pro(0.3, regions_of=only)
        assert found[1][n - 4] == pytest.approx(pro)


# --- what is taken --------------------------------------------------------------------

def of(q, groups=None, image=None, seed=0):
    """The row taken, of q (rows, D) with all defects in one group, each on an image of
    its own.
    """
    q = np.asarray(q, float)
    D = q.shape[1]
    groups = np.ones((1, D), bool) if groups is None else np.asarray(groups, bool)
    image = np.arange(D) if image is None else np.asarray(image)
    return calibration.choose_row(Tried([], q), groups, image, seed)[0]


def test_a_tie_goes_to_the_safe_row_and_a_clear_win_to_the_best():
    rng = np.random.default_rng(0)
    q = rng.random(40)
    assert of([q, q, q]) == 0
    assert of([q, q + 0.2]) == 1 and of([q + 0.2, q]) == 0
    assert of([q, q + 0.1, q + 0.3, q + 0.2]) == 2
    # better on the mean by far less than it varies from image to image
    noise = rng.normal(0, 0.5, 40)
    noise += 0.01 - noise.mean()
    assert of([q, q + noise]) == 0 and of([q + noise, q]) == 0
    # the first of those that are as good, where the safe one is worse
    assert of([q - 0.5, q, q + noise]) == 1


def test_many_images_tell_what_few_do_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.5, 2000)
    better = np.stack([np.zeros(2000), noise + 0.05 - noise.mean()])
    assert of(better) == 1
    few = noise[:20] + 0.05 - noise[:20].mean()
    assert of([np.zeros(20), few]) == 0
    # and defects on one image are no more than one image
    assert of(np.repeat([np.zeros(20), few], 100, 1),
              image=np.arange(20).repeat(100)) == 0


def test_no_kind_and_no_size_is_given_up():
    """A candidate that is best on the mean, but by one kind; and one that is good at
    all of them.
    """
    kinds = np.arange(60) // 20
    groups = np.stack([np.ones(60, bool), *(kinds == k for k in range(3))])
    greedy = np.array([1.9, 1.9, 0.6])[kinds]
    fair = np.array([1.4, 1.4, 1.4])[kinds]
    poor = np.array([0.5, 0.5, 1.6])[kinds]
    assert greedy.mean() > fair.mean() > poor.mean()
    assert of([poor, greedy, fair]) == 1                # all are one group
    assert of([poor, greedy, fair], groups) == 2
    # a group that no defect is in does not count
    empty = np.vstack([groups, np.zeros((1, 60), bool)])
    assert of([poor, greedy, fair], empty) == 2


def test_J_by_hand():
    """Of two groups, with no noise between images: mean loss and worst loss."""
    groups = [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]
    # q of the groups: (1.0, 0.4), (0.8, 0.7), (0.5, 0.9); of all 0.7, 0.75, 0.7
    # lost: all 0.05 0 0.05; first 0 0.2 0.5; second 0.5 0.2 0; J 0.55 0.2 0.55
    rows = [[1.0, 1.0, 0.4, 0.4], [0.8, 0.8, 0.7, 0.7], [0.5, 0.5, 0.9, 0.9]]
    image = [0, 0, 0, 0]                    # one image: a resample is always the same
    assert of(rows, groups, image) == 1
    assert of(rows[::-1], groups, image) == 1
    # without the second row both others are as good
    assert of([rows[0], rows[2]], groups, image) == 0
    assert of([rows[2], rows[0]], groups, image) == 0


def test_the_choice_depends_on_the_seed_only_where_it_is_near(fitted):
    q = np.random.default_rng(0).random((3, 30))
    assert len({of(q, seed=0) for _ in range(3)}) == 1
    clear = np.stack([q[0], q[0] + 1])
    assert {of(clear, seed=seed) for seed in range(5)} == {1}


def test_groups_are_all_and_each_kind_and_size():
    trial = Trial.of(good_images(12), 0, 2)
    groups = calibration.groups_of(trial)
    assert groups.shape == (1 + len(KINDS) + 3, 24) and groups.dtype == bool
    assert groups[0].all()
    for kind, group in zip(KINDS, groups[1:]):
        assert group.tolist() == [one == kind for one in trial.kind[12:]]
    area, thirds = trial.area[12:], groups[-3:]
    assert (thirds.sum(0) == 1).all() and all(7 <= one.sum() <= 9 for one in thirds)
    for small, large in zip(thirds, thirds[1:]):
        assert area[small].max() <= area[large].min()


def test_one_choice_for_all_products(fitted, monkeypatch):
    """By the defects of all of them together, each product's table its own."""
    given = []
    monkeypatch.setattr(calibration, "DEFECTS", 8)

    def sweep(detector, images, masks, paths, weighings, shared, what):
        product, D = len(given) % 2, int(masks.any((1, 2)).sum())
        given.append((paths, weighings))
        # T_max 160 is a little worse on the first product, far better on the other
        better = (-0.1, 1.0)[product]
        table, q = [], []
        for path, weighing in itertools.product(paths, weighings):
            good = better if path["T_max"] == 160 and weighing["lam"] == 0.3 else 0.0
            table.append({name: (path | weighing).get(name, 0) for name in CHOSEN}
                         | {"product": product})
            q.append(np.full(D, 0.5 + good + 0.1 * (path["guidance"] > 0)))
        return Tried(table, np.stack(q))

    monkeypatch.setattr(calibration, "sweep", sweep)
    products = [(fitted, good_images(8, seed=seed)) for seed in (0, 1)]
    chosen, tables = Calibration(products).path()
    assert (chosen["T_max"], chosen["lam"]) == (160, 0.3)
    assert [{row["product"] for row in table} for table in tables] == [{0}, {1}]
    assert len(tables[0]) == len(tables[1]) == sum(
        len(paths) * len(weighings) for paths, weighings in given[::2])
    # of the guided ones, which are alike, the settings' own
    assert chosen["guidance"] == fitted.settings.guidance == 4
    alone, _ = Calibration(products[:1]).path()
    assert alone["T_max"] == 80
    chosen, _ = Calibration(products).map()
    assert {name: chosen[name] for name in PATH} == {
        name: getattr(fitted.settings, name) for name in PATH}
    assert set(chosen) == {*PATH, *MAP}
