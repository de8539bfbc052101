"""What candidates share is made once; what is chosen and recorded stays the same."""
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import good_images

from ddad import anomaly_map as maps
from ddad import calibration
from ddad.calibration import CHOSEN, PATH, Calibration
from ddad.evaluation.metrics import found_by
from ddad.runtime.adapter import Networks
from ddad.runtime.shared_paths import BATCH, FREE, SharedPaths, progress
from ddad.settings import Settings
from ddad.synthetic.defects import groups_of
from ddad.training import adapt

BATCHES = 2                     # of a trial: full ones, as a network's bits may tell


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for name, value in {"T_MAX": (80, 160), "SMALLEST_BIN": (0.2, 0.6), "DEFECTS": 24,
                        "LAMBDA": (0.0, 1.0), "GUIDANCE": (0.33,)}.items():
        monkeypatch.setattr(calibration, name, value)


@pytest.fixture
def rows(monkeypatch):
    """How many rows each network was given."""
    given = Counter()
    for name in ("eps_theta", "D", "features", "E"):
        monkeypatch.setattr(Networks, name, counted(getattr(Networks, name), given))
    return given


def counted(real, given):
    def call(self, x, *rest):
        given[real.__name__] += len(x)
        return real(self, x, *rest)
    return call


def good_trial():
    return good_images(8, seed=7)


def with_steps(fitted, rule="image", **changes):
    """A detector under which images of a trial have different steps."""
    if rule == "region":
        changes |= {"patch_bank": 50, "guidance": 0.0}
    return adapt(fitted, good_images(16), fitted.settings.change(
        step_rule=rule, held_out=0.25, **changes))


# --- the same choice ------------------------------------------------------------------

def plainly(detector, trial, paths, weighings):
    """The table and q of a sweep that makes all of it anew for each candidate."""
    table, q, bad = [], [], trial.masks.any((1, 2))
    for path in paths:
        for weighing in weighings:
            one = detector.under(detector.settings.change(**path, **weighing))
            s, found = one.settings, []
            for x0 in trial.images.split(BATCH):
                found.append(one.respond(one.observe(x0), x0.shape[-1]))
            A_l, A_f = (torch.cat([getattr(part, name) for part in found])
                        for name in ("A_l", "A_f"))
            A_p = None if found[0].A_p is None else torch.cat(
                [part.A_p for part in found])
            good = torch.from_numpy(~bad)
            ranges = maps.Ranges.of(A_l[good], A_f[good],
                                    None if A_p is None else A_p[good])
            A = maps.combine(A_l, A_f, ranges, s.lam, s.sigma, A_p, s.patch_share)
            parts = found_by(A.numpy(), trial.masks, bad)
            i_auroc, pro = parts.mean(1).round(6).tolist()
            table.append({name: getattr(s, name) for name in CHOSEN}
                         | {"i_auroc": i_auroc, "pro": pro})
            q.append(parts.sum(0))
    return table, np.stack(q)


def chosen_plainly(detector, trial, paths, weighings):
    table, q = plainly(detector, trial, paths, weighings)
    image = np.arange(8).repeat(len(trial.kind) // 8 - 1)
    row, *told = calibration.choose_row(calibration.Tried(table, q), groups_of(trial),
                                        image, detector.settings.seed)
    for one, J, error in zip(table, *told):
        one |= {"J": round(J, 6), "J_error": round(error, 6)}
    return {name: table[row][name] for name in CHOSEN}, table


@pytest.mark.parametrize("rule", ["image", "region"])
def test_the_choice_and_the_table_are_those_of_a_plain_loop(fitted, rule):
    detector = with_steps(fitted, rule)
    calibrated = Calibration([(detector, good_trial())])
    [trial] = calibrated.trials
    assert len(trial.kind) == BATCHES * BATCH
    chosen, [table] = calibrated.path()
    weighings = calibration.weighings(detector.settings)
    first, expected = chosen_plainly(detector, trial, calibration.paths(
        detector.settings), weighings)
    second, more = chosen_plainly(detector, trial, calibration.further(
        first, detector), weighings)
    assert table == expected + more and chosen == second
    detector.settings = detector.settings.change(**chosen)
    last, [table] = calibrated.map()
    path = {name: chosen[name] for name in PATH}
    weighings = calibration.weighings(detector.settings)
    assert (last, table) == chosen_plainly(detector, trial, [path], weighings)


# --- made once ------------------------------------------------------------------------

def test_each_image_is_denoised_once_from_each_step(fitted, rows, monkeypatch):
    """With two bins: the lower one of T_max 160 starts where static 80 does."""
    monkeypatch.setattr(calibration, "SMALLEST_BIN", (0.5, 1.0))
    detector = with_steps(fitted, bins=2, smallest_bin=1)
    calibrated = Calibration([(detector, good_trial())])
    [trial], s = calibrated.trials, detector.settings
    rows.clear()
    chosen, [table] = calibrated.path()
    made = Counter(rows)
    weighings = len(calibration.weighings(s))
    paths = [{name: row[name] for name in PATH} for row in table[::weighings]]
    first, N = len(calibration.paths(s)), len(trial.kind)
    seen, known, full = detector.observe(trial.images), set(), 0
    for stage in (paths[:first], paths[first:]):
        new = set()
        for path in stage:
            T = detector.under(s.change(**path)).step_map(seen)[0].tolist()
            new |= {(path["guidance"], n, t) for n, t in enumerate(T)} - known
        known |= new
        for many in Counter(w for w, *_ in new).values():
            full += -(-many // BATCH) * BATCH
    assert full < 0.7 * len(paths) * N                     # else it tells nothing
    assert made["D"] == full
    assert made["eps_theta"] == s.ddim_steps * made["D"]
    assert made["E"] == N and made["features"] == N + made["D"]
    # features may be others afterwards, reconstructions are not
    detector.settings = s.change(**chosen)
    rows.clear()
    calibrated.map()
    assert rows["eps_theta"] == 0 and rows["D"] == N and rows["features"] == 2 * N


def test_a_lone_row_is_made_in_a_full_batch(fitted, rows):
    images = good_images(2 * BATCH)
    shared = SharedPaths(fitted, images, 64)
    rows.clear()
    shared.of(fitted)
    assert rows["features"] == 2 * BATCH
    key = next(iter(shared.A_f))
    before = shared.A_f.pop(key), shared.z0_hat.pop(key)
    shared.of(fitted)
    assert rows["features"] == 3 * BATCH
    assert torch.equal(shared.A_f[key], before[0])
    assert torch.equal(shared.z0_hat[key], before[1])
    few = SharedPaths(fitted, images[:3], 64)
    rows.clear()
    few.of(fitted)
    assert rows["features"] == 3


# --- never shared by what differs -----------------------------------------------------

def test_only_what_gives_steps_or_weighs_maps_is_free():
    known = {one for one in Settings().as_dict()}
    assert known > set(FREE)
    for name in ("guidance", "ddim_steps", "call_every", "first_call", "z0_from",
                 "noise", "precision", "clamp", "map_stages", "align_corners"):
        assert name in known and name not in FREE


@pytest.mark.parametrize("change", [
    {"guidance": 1.0}, {"ddim_steps": 5}, {"call_every": 2}, {"first_call": "below"},
    {"z0_from": "e"}, {"map_stages": (2,)}])
def test_another_way_to_denoise_or_to_compare_shares_nothing(fitted, rows, change):
    shared = SharedPaths(fitted, good_images(4), 64)
    z0_hat, A_f = shared.of(fitted)
    rows.clear()
    other = shared.of(fitted.under(fitted.settings.change(**change)))
    assert rows["eps_theta"] and rows["features"] == 4
    if "map_stages" not in change:
        assert not torch.equal(other[0], z0_hat)
    assert not torch.equal(other[1], A_f)


def test_a_faulty_first_step_is_kept_apart(fitted, rows):
    """The official code's static sampler does not denoise as its dynamic one does."""
    images = good_images(4)
    for fault, again in (("same", 0), ("zeroed", 4)):
        static, image = (fitted.under(fitted.settings.change(
            step_rule=rule, static_first_step=fault, smallest_bin=10))
            for rule in ("static", "image"))
        shared = SharedPaths(static, images, 64)
        first = shared.of(static)[0]
        rows.clear()
        second = shared.of(image)[0]
        assert rows["features"] == again
        assert torch.equal(first, second) == (fault == "same")


# --- told -----------------------------------------------------------------------------

def test_progress_tells_what_is_left_and_the_best():
    row = {"step_rule": "image", "T_max": 80, "lam": 0.85, "i_auroc": 0.5, "pro": 0.5}
    better = row | {"step_rule": "static", "i_auroc": 0.75}
    assert progress([row, better, row], 15) == (
        "12 candidates left, best so far: static, T_max 80, lam 0.85, i_auroc 0.75, "
        "pro 0.5")


def test_a_bar_shows_it(fitted, monkeypatch):
    told = []
    monkeypatch.setattr(calibration.tqdm, "set_postfix_str",
                        lambda self, text, refresh: told.append((self.desc, text)))
    images = torch.cat([good_images(4)] * 2)
    masks = np.zeros((8, 64, 64), bool)
    masks[4:, :9, :9] = True
    paths = [{"T_max": T} for T in (80, 160)]
    calibration.sweep(fitted, images, masks, paths, [{"lam": 0.0}, {"lam": 1.0}],
                      what="of two")
    assert [(name, text.split()[0]) for name, text in told] == [
        ("of two", "2"), ("of two", "0")]


def test_what_is_made_after_fine_tuning_is_not_mixed_with_what_was_before(fitted):
    """Another variant of an ablation goes on from there, with steps of its own."""
    detector = with_steps(fitted)
    calibration = Calibration([(detector, good_trial())])
    calibration.path()
    [before] = calibration.before
    known, bank = set(before.z0_hat), detector.memory_bank
    assert known == set(before.A_f)
    detector.memory_bank = replace(bank, distances=0.8 * bank.distances)
    calibration.map()
    assert set(before.z0_hat) == set(before.A_f) == known
