"""The ablation: every variant calibrated for itself, in a receipt, resumed, and kept
only where all it was made from is the same.
"""
import shutil

import pytest
import torch
from conftest import bad_images, good_images, make_product, save_image, tiny, tiny_vae

from ddad import calibration
from ddad.detector import Detector
from ddad.reproduction import ablation
from ddad.reproduction.receipts import read_receipt
from ddad.reproduction.runs import MADE_FROM, RUN
from ddad.reproduction.variants import (
    AVERAGED,
    DRAWS,
    FEATURE_MAP,
    FULL,
    LATENT_MAP,
    NOISE,
    PIXELS,
    STATIC,
    UNSCALED,
    UNTUNED,
    VARIANTS,
    NoiseAveraged,
    NotScaled,
    ScaledPixels,
    wide_enough,
)
from ddad.runtime.adapter import Networks
from ddad.runtime.errors import SettingsError
from ddad.runtime.manifest import STATE, UNET

SETTINGS = tiny(vae="given", image_size=32, ddim_steps=2, calibration_images=8)
NETWORK = {"device": "cpu", "vae": tiny_vae()}


@pytest.fixture(autouse=True, scope="module")
def few_candidates():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "T_MAX", (300,))
        patch.setattr(calibration, "GUIDANCE", (0.5,))
        patch.setattr(calibration, "DEFECTS", 8)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_product(tmp_path_factory.mktemp("data") / "disc", 32, good=3, bad=3)


@pytest.fixture(scope="module")
def out(root, tmp_path_factory):
    """One seed of all variants."""
    out = tmp_path_factory.mktemp("ablation")
    rows = ablation.ablate(root, SETTINGS, [0], out, **NETWORK)
    assert [(row["variant"], row["seed"]) for row in rows] == [(v, 0) for v in VARIANTS]
    return out


@pytest.fixture(scope="module")
def runs(out):
    return {run["preset"]: run for run in read_receipt(out)["runs"]}


def test_the_receipt_holds_all_it_takes_to_check_a_run(runs, root):
    assert runs.keys() == VARIANTS.keys()
    for run in runs.values():
        assert len(run["data"]["sha256"]) == 64 and run["versions"]["torch"]
        assert run["commit"] and len(run["weights"][STATE]) == 64
        assert run["training"]["steps"] == 3 and run["training"]["parameters"]
        assert run["settings"]["preset"] == "clean" and run["seed"] == 0
        each = {"score", "T_hat", "bin", "distance", "overlap"}
        assert all(len(run["images"][name]) == 6 for name in each)
        assert {"encode", "train", "calibrate path", "fine-tune", "calibrate map"} <= (
            set(run["cost"]["seconds"]))
    latents = [run for name, run in runs.items() if name != PIXELS]
    assert len({run["weights"]["vae"] for run in latents}) == 1
    assert latents[0]["weights"]["vae"] and not runs[PIXELS]["weights"]["vae"]


def test_each_claim_is_off_in_its_variant(runs):
    settings = {name: run["settings"] for name, run in runs.items()}
    assert settings[STATIC]["step_rule"] == "static" and settings[NOISE]["noise"]
    assert settings[AVERAGED]["noise"] and not settings[UNSCALED]["noise"]
    assert settings[LATENT_MAP]["lam"] == 1 and settings[FEATURE_MAP]["lam"] == 0
    assert settings[UNTUNED]["tune_epochs"] == 0 and settings[FULL]["tune_epochs"] == 1
    assert settings[PIXELS]["vae"] == "pixels"
    assert settings[PIXELS]["unet_channels"] == [192]
    # one U-Net for all but pixels, and features of each one's own
    unet = [run["weights"][UNET] for name, run in runs.items() if name != PIXELS]
    assert len(set(unet)) == 1 and runs[PIXELS]["weights"][UNET] != unet[0]
    state = {name: run["weights"][STATE] for name, run in runs.items()}
    assert state[UNTUNED] != state[FULL] and state[NOISE] != state[FULL]
    scores = {name: tuple(run["images"]["score"]) for name, run in runs.items()}
    assert len(set(scores.values())) == len(VARIANTS)
    calls = {name: run["cost"]["calls"] for name, run in runs.items()}
    assert calls[FULL] == calls[PIXELS] == 2 and calls[AVERAGED] == 2 * DRAWS


def test_the_book_tells_what_each_variant_chose_and_took(out):
    import ledger
    receipt = read_receipt(out)
    text = ledger.variants([receipt])
    assert all(text.count(f"| disc | {name} | 1 | ") == 1 for name in VARIANTS)
    assert ledger.variants([]) == "To be run: `ddad ablate DATA OUT`."
    effect, = ledger.of_variant([receipt], STATIC, ledger.MEASURES["pro"])
    of = {run["preset"]: run["result"]["pro_exact"] for run in receipt["runs"]}
    assert effect.value == pytest.approx(of[FULL] - of[STATIC], abs=1e-6)


def test_each_variant_chooses_within_what_it_leaves(root, tmp_path, runs, monkeypatch):
    tried, sweep = [], calibration.sweep
    monkeypatch.setattr(calibration, "sweep", lambda *given: (
        tried.append(given[3:5]) or sweep(*given)))
    one = ablation.OneSeed(root, SETTINGS, tmp_path, NETWORK["vae"], "cpu")
    one.settings = one.settings.change(tune_epochs=0)
    for name in (FULL, STATIC, LATENT_MAP, FEATURE_MAP):
        tried.clear()
        detector, variant = one.variant(VARIANTS[name]), VARIANTS[name]
        row, s = detector.record["calibration"], detector.settings
        assert s.step_rule == ("static" if name == STATIC else "image")
        assert {path["step_rule"] for paths, _ in tried for path in paths} == {
            s.step_rule}
        assert all(change["lam"] in variant.lam and change["latent_blur"] in
                   variant.blur for _, weighings in tried for change in weighings)
        assert len(tried) == 3 and all(weighings for _, weighings in tried)
        assert all(getattr(s, constant) == row[constant] for constant in
                   calibration.CHOSEN)
        assert 0 <= row["i_auroc"] <= 1 and 0 <= row["pro"] <= 1
    assert runs[FULL]["calibration"]["lam"] == runs[FULL]["settings"]["lam"]


def test_finished_runs_are_kept_and_a_lost_one_comes_back_the_same(root, out, tmp_path,
                                                                   monkeypatch):
    again = shutil.copytree(out, tmp_path / "again")
    before = read_receipt(again)
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained again"))
    with monkeypatch.context() as patch:
        patch.setattr(ablation, "evaluate", lambda *a: pytest.fail("evaluated again"))
        ablation.ablate(root, SETTINGS, [0], again, **NETWORK)
    (again / "static-steps" / "0" / RUN).unlink()
    (again / "pixels-not-latents" / "0" / RUN).unlink()
    ablation.ablate(root, SETTINGS, [0], again, **NETWORK)
    for run, was in zip(read_receipt(again)["runs"], before["runs"], strict=True):
        for name in ("preset", "settings", "result", "images", "weights", "training"):
            assert run[name] == was[name], (run["preset"], name)


def test_some_of_the_variants_and_another_seed(root, out, tmp_path):
    more = shutil.copytree(out, tmp_path / "more")
    rows = ablation.ablate(root, SETTINGS, [1], more, variants=[STATIC, FULL],
                           **NETWORK)
    assert [(row["variant"], row["seed"]) for row in rows] == [(STATIC, 1), (FULL, 1)]
    receipt = read_receipt(more)
    assert len(receipt["runs"]) == len(VARIANTS) + 2
    of = {(run["preset"], run["seed"]): run["weights"][UNET] for run in receipt["runs"]}
    assert of[FULL, 1] == of[STATIC, 1] != of[FULL, 0]


def test_a_folder_made_from_something_else_is_refused(root, out, tmp_path):
    copy = shutil.copytree(out, tmp_path / "out")

    def refused(match, root=root, settings=SETTINGS, out=copy, **network):
        with pytest.raises(SettingsError, match=match):
            ablation.ablate(root, settings, [0], out, **(NETWORK | network))

    refused(r"made from other: train_length \(3 steps, now 4 steps\); choose",
            settings=SETTINGS.change(train_length="4 steps"))
    refused("other: the autoencoder's weights", vae=tiny_vae(seed=1))
    for where, changed in (("train/good/000.png", good_images(1, seed=7)[0]),
                           ("ground_truth/square/000_mask.png", bad_images(2)[1][1])):
        other = shutil.copytree(root, tmp_path / where.split("/")[0] / "disc")
        save_image(other / where, changed)
        refused("other: images, masks and split", root=other)
    other = shutil.copytree(root, tmp_path / "groups" / "disc")
    test = sorted(other.glob("test/*/*"))
    rows = [f"{path.relative_to(other).as_posix()},one\n" for path in test]
    (other / "groups.csv").write_text("image,group\n" + "".join(rows))
    refused("other: groups.csv", root=other)
    (copy / MADE_FROM).unlink()
    refused("holds runs and no made_from.json")
    refused("no variant is called regional; there are full method",
            out=tmp_path / "no", variants=["regional"])
    refused("setting bins: 1", settings=SETTINGS.change(bins=1, smallest_bin=1))
    refused("setting decode: false", settings=SETTINGS.change(
        decode=False, step_rule="static", lam=1.0))
    # what cannot be made of a variant is told before anything is trained
    refused("setting noise", settings=SETTINGS.change(step_rule="region"))


def test_too_few_held_out_images_are_told_of_before_the_training(root, tmp_path,
                                                                 monkeypatch):
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(ValueError, match="at least 8 held-out"):
        ablation.ablate(root, SETTINGS.change(held_out=0.1), [0], tmp_path, **NETWORK)


# --- the controls


def as_path(path, detector, **changes):
    """The detector, denoising by another path."""
    other = path(detector.settings.change(**changes), detector.networks,
                 detector.projection.s)
    other.memory_bank, other.ranges = detector.memory_bank, detector.ranges
    return other


def test_variants_of_the_same_path_share_its_reconstructions(root, tmp_path,
                                                             monkeypatch):
    """Before their features are tuned they are one detector."""
    def choose(names):
        one = ablation.OneSeed(root, SETTINGS.change(tune_epochs=0), tmp_path,
                               NETWORK["vae"], "cpu")
        rows = []
        for name in names:
            calls.clear()
            record = one.variant(VARIANTS[name]).record["calibration"]
            rows.append((record, sum(calls)))
        # of those that no other variant shares nothing stays
        assert [*one.shared] == [one.alike(VARIANTS[FULL])]
        return rows

    calls, real = [], Networks.eps_theta
    monkeypatch.setattr(Networks, "eps_theta", lambda self, z, t: (
        calls.append(len(z)) or real(self, z, t)))
    choose([FULL])                                  # trains
    (full, made), (latent, again), (noise, others) = choose(
        [FULL, LATENT_MAP, NOISE])
    (alone, own), = choose([LATENT_MAP])
    # held-out images are predicted twice in the end, for ranges and threshold
    assert latent == alone and 0 < again < own / 2 < made
    assert others > own / 2


def test_averaged_noise_has_the_mean_maps_of_its_draws(fitted, images):
    averaged = as_path(NoiseAveraged, fitted, noise=True)
    found = averaged.predict(images)
    seen, single = averaged.observe(images), as_path(Detector, fitted, noise=True)
    alone = single.observe(images)
    first, *others = seen.eps.chunk(DRAWS, 1)
    assert torch.equal(first, alone.eps)        # the draw of the variant with one
    assert len({eps.sum().item() for eps in (first, *others)}) == DRAWS
    maps = []
    for eps in (first, *others):
        alone.eps = eps
        maps.append(single.respond(alone, images.shape[-1])[1:3])
    for name, of in zip(("latent_map", "feature_map"), zip(*maps)):
        mean = torch.stack(of).mean(0)
        torch.testing.assert_close(getattr(found, name), mean, rtol=0, atol=1e-5)
    # what calibration reweighs is the same map
    z0_hat, A_l, *_ = averaged.respond(seen, images.shape[-1])
    latent_map = calibration.maps.latent_map(seen.z0, z0_hat, images.shape[-1])
    torch.testing.assert_close(latent_map, A_l, rtol=0, atol=1e-5)


def test_averaged_noise_does_not_depend_on_the_batch(fitted, images):
    averaged = as_path(NoiseAveraged, fitted, noise=True)
    one, whole = averaged.predict(images, batch=1), averaged.predict(images)
    torch.testing.assert_close(one.latent_map, whole.latent_map, rtol=0, atol=1e-4)


def test_what_is_not_scaled_takes_the_same_path_from_the_latent_itself(fitted, images):
    z0 = fitted.observe(images).z0
    T_hat = torch.full((len(z0),), 400)

    def path(detector):
        steps = []
        detector.denoise(z0, T_hat, callback=steps.append)
        return [step["t"].tolist() for step in steps], steps[0]["z_t"]

    scaled, not_scaled = path(fitted), path(as_path(NotScaled, fitted))
    assert scaled[0] == not_scaled[0]
    torch.testing.assert_close(scaled[1], fitted.abar[400].sqrt() * z0)
    torch.testing.assert_close(not_scaled[1], z0, rtol=1e-3, atol=0)


def test_pixels_have_the_variance_of_the_noise_and_a_network_as_wide_as_they_are():
    good = good_images(8)
    vae = ScaledPixels(good)
    z = vae.encode(good) * vae.config.scaling_factor
    assert z.std().item() == pytest.approx(1, abs=1e-3) and z.shape[1] == 192
    torch.testing.assert_close(vae.decode(vae.encode(good)), good)
    s = tiny(unet_channels=(32, 64, 256), train_vae="another")
    assert wide_enough(s).unet_channels == (192, 192, 256)
    assert wide_enough(s).vae == "pixels" and not wide_enough(s).train_vae
