"""The detector as a whole: what may and what may not change a score, saving and loading, evaluation, calibration, ablation."""

import inspect
import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import bad_images, good_images, make_product, tiny, tiny_vae
from safetensors.torch import load_file, save_file

from ddad import calibration, detector, evaluation, experiments, metrics, saved_model
from ddad.detector import Detector, pick_device, split
from ddad.evaluation import TestSet
from ddad.manifest import MANIFEST, ModelError, read_manifest, sha256
from ddad.metrics import PixelRanking
from ddad.noise_predictor import build_unet
from ddad.saved_model import STATE, UNET
from ddad.settings import Settings, SettingsError

TestSet.__test__ = False


@pytest.fixture(scope="module")
def fitted():
    return Detector.fit(good_images(16), tiny(), device="cpu")


@pytest.fixture(scope="module")
def test_images():
    return torch.cat([good_images(4, seed=50), bad_images(3)[0]])


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_set():
    bad, masks = bad_images(4)
    images = torch.cat([good_images(4, seed=50), bad])
    masks = np.concatenate([np.zeros_like(masks), masks]).astype(np.float32)
    return TestSet(images, masks, np.array([0] * 4 + [1] * 4), ["good"] * 4 + ["square"] * 4, [])


test_set.__test__ = False


def close(a, b, atol=1e-5):
    for name in ("score", "map", "latent_map", "feature_map", "reconstruction", "distance"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(a.T_hat, b.T_hat) and torch.equal(a.bin, b.bin)


# --- fitting and predicting


def test_what_a_fit_and_a_prediction_hold(fitted, test_images):
    found = fitted.predict(test_images)
    assert found.score.shape == found.T_hat.shape == found.bin.shape == found.distance.shape == (7,)
    assert found.map.shape == found.latent_map.shape == found.feature_map.shape == (7, 64, 64) and found.reconstruction.shape == (7, 3, 64, 64)
    assert found.score.dtype == found.map.dtype == torch.float32 and found.T_hat.dtype == torch.int64
    assert torch.equal(found.score, found.map.flatten(1).amax(1)) and all(torch.isfinite(v).all() for v in vars(found).values())
    assert found.bin.min() >= 1 and found.bin.max() <= 10 and set(found.T_hat.tolist()) <= {20, 30, 40, 50, 60, 70, 80}
    assert found.reconstruction.abs().max() <= 1 and not found.map.requires_grad
    assert found.distance[4:].mean() > found.distance[:4].max()  # the square is seen
    assert found.T_hat[6] == 80
    assert fitted.record["images"] == 16 and fitted.record["training"]["steps"] == 3 and len(fitted.record["tune_loss"]) == 1
    assert len(fitted.dynamic_noise.bank) == 12 and math.isfinite(fitted.threshold) and json.dumps(fitted.record)


def test_given_held_out_images_take_the_place_of_a_share(fitted):
    good = good_images(16)
    train, held_out = split(good, fitted.settings)
    again = Detector.fit(train, fitted.settings, held_out=held_out, device="cpu", unet=fitted.unet)
    assert again.record["images"] == 16 and again.record["held_out"] == len(held_out) == 4 and len(again.dynamic_noise.bank) == 12
    assert again.record["held_out_from"] == "images given"
    assert again.threshold == fitted.threshold and again.ranges == fitted.ranges
    other = Detector.fit(train, fitted.settings, held_out=good_images(4, seed=9), device="cpu", unet=fitted.unet)
    assert other.threshold != fitted.threshold and torch.equal(other.dynamic_noise.bank, again.dynamic_noise.bank)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batch_size_does_not_change_a_score(fitted, test_images, batch):
    close(fitted.predict(test_images, batch), fitted.predict(test_images, 7))


def test_order_and_other_images_do_not_change_a_score(fitted, test_images):
    together, order = fitted.predict(test_images), torch.tensor([6, 0, 3, 5, 1, 4, 2])
    shuffled = fitted.predict(test_images[order])
    torch.testing.assert_close(shuffled.score, together.score[order], rtol=0, atol=1e-5)
    torch.testing.assert_close(shuffled.map, together.map[order], rtol=0, atol=1e-5)
    for n in range(7):
        torch.testing.assert_close(fitted.predict(test_images[n : n + 1]).score[0], together.score[n], rtol=0, atol=1e-5)


def test_official_scores_depend_on_the_other_test_images(test_images):
    """The fault that map_range "test" keeps for comparison: min and max over all images given."""
    official = Detector.fit(good_images(12), tiny("official", held_out=0.0), device="cpu")
    assert official.threshold is None and official.ranges is None
    together, some = official.predict(test_images), official.predict(test_images[:4])
    assert (together.score[:4] - some.score).abs().max() > 0.01
    torch.testing.assert_close(together.latent_map[:4], some.latent_map, rtol=0, atol=1e-5)  # only the scaling does


def test_a_posterior_sample_is_drawn_by_place_not_by_batch(test_images):
    settings = tiny(posterior="sample", noise=True, vae="given")
    sampled = Detector.fit(good_images(12), settings, device="cpu", vae=tiny_vae())
    close(sampled.predict(test_images, 2), sampled.predict(test_images, 7))
    other = sampled.under(sampled.settings.change(seed=1)).predict(test_images)
    assert (other.latent_map - sampled.predict(test_images).latent_map).abs().max() > 1e-3


def test_the_seed_decides_everything(fitted, test_images):
    torch.manual_seed(123)
    close(Detector.fit(good_images(16), tiny(), device="cpu").predict(test_images), fitted.predict(test_images), atol=0)
    other = Detector.fit(good_images(16), tiny(seed=1), device="cpu").predict(test_images)
    assert (other.score - fitted.predict(test_images).score).abs().max() > 1e-4


def test_ranges_and_threshold_come_from_held_out_images_alone(fitted):
    _, held_out = split(good_images(16), fitted.settings)
    found = fitted.predict(held_out)
    assert fitted.ranges.latent == pytest.approx((found.latent_map.min().item(), found.latent_map.max().item()))
    assert fitted.ranges.feature == pytest.approx((found.feature_map.min().item(), found.feature_map.max().item()))
    assert fitted.threshold == pytest.approx(torch.quantile(found.score.double(), 0.95).item(), abs=1e-5)


def test_split():
    images = torch.arange(10.0)
    train, held_out = split(images, tiny(held_out=0.3))
    assert len(held_out) == 3 and sorted([*train.tolist(), *held_out.tolist()]) == images.tolist()
    assert train.tolist() == sorted(train.tolist()) and held_out.tolist() == sorted(held_out.tolist())
    assert torch.equal(held_out, split(images, tiny(held_out=0.3))[1]) and not torch.equal(held_out, split(images, tiny(held_out=0.3, seed=1))[1])
    assert len(split(images, tiny("official", held_out=0.0))[1]) == 0
    with pytest.raises(SettingsError, match="held_out"):
        tiny(held_out=0.0)


def test_too_few_images_say_so_before_training(monkeypatch):
    monkeypatch.setattr(detector, "train_noise_predictor", lambda *_: pytest.fail("training began"))
    with pytest.raises(ValueError, match="3 training images are fewer than neighbours \\+ 1 = 4"):
        Detector.fit(good_images(4), tiny(), device="cpu")
    with pytest.raises(ValueError, match="at least 8 held-out good images"):
        Detector.fit(good_images(16), tiny(), device="cpu", calibrate=True)


def test_bfloat16_is_close_and_stays_float32_outside(fitted, test_images):
    low = Detector.fit(good_images(16), tiny(precision="bfloat16", tune_epochs=0), device="cpu", unet=fitted.unet, phi=fitted.phi)
    full = Detector.fit(good_images(16), tiny(tune_epochs=0), device="cpu", unet=fitted.unet, phi=fitted.phi)
    one, other = low.predict(test_images), full.predict(test_images)
    assert one.score.dtype == one.reconstruction.dtype == torch.float32
    difference = (one.latent_map - other.latent_map).abs().max()
    assert 0 < difference < 0.1 * other.latent_map.abs().max()
    assert torch.equal(one.distance, other.distance) and (one.T_hat == other.T_hat).all()  # the step is chosen at full precision


def test_networks_of_ones_own(fitted, test_images):
    vae, phi = tiny_vae(), fitted.phi
    before = {k: v.clone() for k, v in fitted.unet.state_dict().items()}
    own = Detector.fit(good_images(12), tiny(tune_epochs=0), device="cpu", unet=fitted.unet, phi=phi)
    assert own.unet is fitted.unet and own.phi is phi and "training" not in own.record
    assert all(torch.equal(v, before[k]) for k, v in own.unet.state_dict().items())
    assert Detector.fit(good_images(12), tiny(vae=Settings.vae), device="cpu", vae=vae).settings.vae == "given"


def test_devices():
    assert pick_device("cpu") == torch.device("cpu") and pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("tpu", "cuda:0", "cuda:99", "cpux", "cpu:x", "cpu:1"):
        if name != "cuda:0" or not torch.cuda.is_available():
            with pytest.raises(ValueError, match=f"device '{name}' is not available"):
                pick_device(name)


def test_the_map_follows_the_sampler_and_the_features_by_hand(fitted, test_images):
    """predict, taken apart: the modules called one by one for one image."""
    from ddad import anomaly_map as maps
    from ddad.dynamic_noise import feature, select_step
    from ddad.noise_predictor import epsilon
    from ddad.scaled_denoising import scaled_denoising

    x0, settings = test_images[5:6], fitted.settings
    with torch.no_grad():
        z0, phi_x0 = fitted.projection.encode(x0), fitted.phi(x0)
        y = feature(phi_x0[1], settings.neighbour_pool)
        d = sum(sorted((y - fitted.dynamic_noise.bank).abs().mean(1).tolist())[:3]) / 3
        b = min(10, 1 + sum(d >= edge for edge in fitted.dynamic_noise.edges.tolist()[1:-1]))
        T_hat = select_step(torch.tensor([b]), settings)
        z0_hat = scaled_denoising(epsilon(fitted.unet), z0, T_hat, fitted.abar, settings)
        x0_hat = fitted.projection.decode(z0_hat)
        A_l, A_f = maps.latent_map(z0, z0_hat, 64, settings), maps.feature_map(phi_x0, fitted.phi(x0_hat), 64, settings)
    found = fitted.predict(x0)
    assert found.bin.item() == b and torch.equal(found.T_hat, T_hat) and found.distance.item() == pytest.approx(d, abs=1e-5)
    torch.testing.assert_close(found.reconstruction, x0_hat)
    torch.testing.assert_close(found.map, maps.combine(A_l, A_f, fitted.ranges, settings))


def test_the_zeroed_first_step_is_for_static_runs_only(fitted, monkeypatch):
    seen, real = [], detector.scaled_denoising
    monkeypatch.setattr(detector, "scaled_denoising", lambda *a, **k: seen.append(k["zero_first"]) or real(*a, **k))
    x0 = good_images(1)
    for change, expected in (({}, False), ({"static_first_step": "zeroed"}, False), ({"static_first_step": "zeroed", "dynamic": False}, True),
                             ({"dynamic": False}, False)):  # fmt: skip
        fitted.under(fitted.settings.change(**change)).predict(x0)
        assert seen.pop() is expected
    for first_step in ("zeroed", "same"):  # fine-tuning counts as static
        other = fitted.under(fitted.settings.change(static_first_step=first_step))
        other._reconstruct_rows(*fitted.projection.encode_all(x0))(torch.tensor([0]), torch.tensor([30]), torch.tensor([24]))
        assert seen.pop() is (first_step == "zeroed")


def test_under_changes_nothing_in_the_original(fitted, test_images):
    before = fitted.predict(test_images)
    other = fitted.under(fitted.settings.change(dynamic=False, lam=0.0))
    other.set_ranges(good_images(4, seed=9))
    assert other.predict(test_images).T_hat.tolist() == [80] * 7
    close(fitted.predict(test_images), before, atol=0)


def test_maps_weighed_anew_are_those_of_a_new_prediction(fitted, test_images):
    found = fitted.predict(test_images)
    for change in ({"lam": 0.0}, {"lam": 1.0, "sigma": 8.0}, {"map_range": "test"}):
        other = fitted.under(fitted.settings.change(**change))
        close(other.weigh(found), other.predict(test_images), atol=1e-6)
        assert (other.weigh(found).map - found.map).abs().max() > 1e-3
    close(fitted.weigh(found), found, atol=0)
    test = test_set()
    other = fitted.under(fitted.settings.change(lam=0.0))
    again, fresh = evaluation.evaluate(other, test, found=fitted.predict(test.images))[0], evaluation.evaluate(other, test)[0]
    assert all(again[name] == pytest.approx(fresh[name], abs=1e-6) for name in ("i_auroc", "p_auroc", "pro", "recall"))


# --- saving and loading


def test_save_and_load(fitted, saved, test_images):
    assert sorted(p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()) == [MANIFEST, STATE, "unet/config.json", UNET]
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
    loaded = Detector.from_pretrained(saved, device="cpu")
    close(loaded.predict(test_images), fitted.predict(test_images), atol=0)
    assert (loaded.settings, loaded.threshold, loaded.ranges) == (fitted.settings, fitted.threshold, fitted.ranges)
    assert loaded.record == json.loads(json.dumps(fitted.record))
    assert not any(p.requires_grad for p in [*loaded.unet.parameters(), *loaded.phi.parameters()])
    loaded.save_pretrained(saved)  # over itself
    close(Detector.from_pretrained(str(saved), device="cpu").predict(test_images), fitted.predict(test_images), atol=0)
    manifest = read_manifest(saved)
    assert manifest["format"] == 1 and set(manifest["versions"]) >= {"python", "torch", "ddad"} and manifest["sha256"][UNET] == sha256(saved / UNET)


def test_float16_halves_the_files_and_hardly_changes_a_score(fitted, saved, test_images, tmp_path):
    fitted.save_pretrained(tmp_path / "half", torch.float16)
    loaded, full = Detector.from_pretrained(tmp_path / "half", device="cpu"), fitted.predict(test_images)
    found = loaded.predict(test_images)
    assert loaded.unet.dtype == torch.float32 and next(loaded.phi.parameters()).dtype == torch.float32
    assert (found.score - full.score).abs().max() < 0.03 * full.score.abs().max() and (found.distance - full.distance).abs().max() < 0.02
    assert (tmp_path / "half" / UNET).stat().st_size < 0.6 * (saved / UNET).stat().st_size
    assert (tmp_path / "half" / STATE).stat().st_size < 0.6 * (saved / STATE).stat().st_size
    assert load_file(tmp_path / "half" / STATE)["distances"].dtype == torch.float32  # the bins' edges stay exact
    assert next(fitted.unet.parameters()).dtype == torch.float32  # the one saved is as it was


def test_a_detector_with_resnet_features_and_a_given_autoencoder(tmp_path, test_images):
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1] * 4, layer_type="basic")).save_pretrained(tmp_path / "resnet")
    one = Detector.fit(good_images(12), tiny(features=str(tmp_path / "resnet"), vae="given"), device="cpu", vae=tiny_vae())
    shutil.rmtree(tmp_path / "resnet")  # the saved detector brings its own
    one.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="model was made with the autoencoder 'given'.*pass it as vae"):
        Detector.from_pretrained(tmp_path / "model", device="cpu")
    close(Detector.from_pretrained(tmp_path / "model", device="cpu", vae=tiny_vae()).predict(test_images), one.predict(test_images), atol=0)


def test_a_recorded_python_file_is_not_run_on_load(tmp_path, test_images):
    ran, file = tmp_path / "ran", tmp_path / "mine.py"
    file.write_text("from pathlib import Path\nfrom ddad.latent_projection import PixelSpace\n"
                    f"def make():\n    Path({str(ran)!r}).touch()\n    return PixelSpace()\n")  # fmt: skip
    one = Detector.fit(good_images(12), tiny(vae=f"{file}:make"), device="cpu")
    one.save_pretrained(tmp_path / "model")
    ran.unlink()
    with pytest.raises(ModelError, match="mine.py:make.*pass it as vae"):
        Detector.from_pretrained(tmp_path / "model", device="cpu")
    assert not ran.exists()
    from ddad.latent_projection import PixelSpace

    close(Detector.from_pretrained(tmp_path / "model", device="cpu", vae=PixelSpace()).predict(test_images), one.predict(test_images), atol=0)
    manifest = read_manifest(tmp_path / "model")
    manifest["settings"]["train_vae"] = f"{file}:make"
    (tmp_path / "model" / MANIFEST).write_text(json.dumps(manifest))
    Detector.from_pretrained(tmp_path / "model", device="cpu", vae=PixelSpace())
    assert not ran.exists()


def change_manifest(folder, **values):
    manifest = read_manifest(folder)
    (folder / MANIFEST).write_text(json.dumps(manifest | values))


@pytest.mark.parametrize("name", [STATE, UNET])
def test_a_damaged_file_is_named(saved, name):
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[:-4] + b"\1\2\3\4")
    with pytest.raises(ModelError, match=f"{name}.*copy the folder again"):
        Detector.from_pretrained(saved, device="cpu")
    (saved / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=name):
        Detector.from_pretrained(saved, device="cpu")
    (saved / name).unlink()
    with pytest.raises(ModelError, match=name):
        Detector.from_pretrained(saved, device="cpu")


def test_a_compiled_detector_fills_its_batches_up(saved, monkeypatch, test_images):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)
    plain, filled = (Detector.from_pretrained(saved, device="cpu") for _ in range(2))
    filled.compile(batch=4)
    sizes = []
    filled.unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    close(filled.predict(test_images, batch=4), plain.predict(test_images, batch=4), atol=1e-6)
    assert len(test_images) % 4 and set(sizes) == {4}


def test_a_machine_that_cannot_compile(saved, monkeypatch, tmp_path, test_images):
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))       # what was compiled once would be found again
    found = Detector.from_pretrained(saved, device="cpu")
    with pytest.raises(ModelError, match="torch.compile does not work on this machine.*C\\+\\+ compiler"):
        found.compile(batch=2)
    close(found.predict(test_images), Detector.from_pretrained(saved, device="cpu").predict(test_images), atol=0)
    assert not found.compiled


def test_weights_that_do_not_fit(saved, fitted):
    save_file(build_unet(tiny(unet_channels=(64,)), 192, 8).state_dict(), saved / UNET)
    change_manifest(saved, sha256={STATE: sha256(saved / STATE), UNET: sha256(saved / UNET)})
    with pytest.raises(ModelError, match="model.*cannot be read") as error:
        Detector.from_pretrained(saved, device="cpu")
    assert UNET in str(error.value) or "UNet2DModel" in str(error.value)
    fitted.save_pretrained(saved)
    state = load_file(saved / STATE)
    del state["bank"]
    save_file(state, saved / STATE)
    change_manifest(saved, sha256={STATE: sha256(saved / STATE), UNET: sha256(saved / UNET)})
    with pytest.raises(ModelError, match="bank"):
        Detector.from_pretrained(saved, device="cpu")
    (saved / STATE).write_bytes(b"no safetensors")
    change_manifest(saved, sha256={STATE: sha256(saved / STATE), UNET: sha256(saved / UNET)})
    with pytest.raises(ModelError, match="model"):
        Detector.from_pretrained(saved, device="cpu")


def test_a_missing_or_wrong_manifest(saved, tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(ModelError, match="holds no manifest.json"):
            Detector.from_pretrained(folder, device="cpu")
    good = (saved / MANIFEST).read_text()
    for text, reason in ((b"{", "no JSON"), (b"[]", "no manifest of format 1"), (b'{"format": 2}', "no manifest of format 1"), (b"\xff", "no JSON")):
        (saved / MANIFEST).write_bytes(text)
        with pytest.raises(ModelError, match=f"manifest.json is {reason}"):
            Detector.from_pretrained(saved, device="cpu")
    for name in ("settings", "sha256", "latent", "ranges", "resnet", "threshold", "scale"):
        manifest = json.loads(good)
        del manifest[name]
        (saved / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ModelError, match=name):
            Detector.from_pretrained(saved, device="cpu")
    for name, wrong in (("settings", []), ("settings", {"preset": "clean", "lam": 3}), ("settings", {"preset": ["clean"]}), ("sha256", []),
                        ("sha256", "x"), ("latent", 3), ("latent", ["a", "b"]), ("ranges", [1]), ("resnet", 5)):  # fmt: skip
        (saved / MANIFEST).write_text(json.dumps(json.loads(good) | {name: wrong}))
        with pytest.raises(ModelError, match="model"):
            Detector.from_pretrained(saved, device="cpu")
    (saved / MANIFEST).write_text(good)
    Detector.from_pretrained(saved, device="cpu")


def test_a_foreign_folder_is_not_overwritten(fitted, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="photos holds something that is no saved detector"):
        fitted.save_pretrained(folder)
    assert [p.name for p in folder.iterdir()] == ["holiday.jpg"] and [p.name for p in tmp_path.iterdir()] == ["photos"]
    fitted.save_pretrained(tmp_path / "a" / "new" / "folder")
    (tmp_path / "empty").mkdir()
    fitted.save_pretrained(tmp_path / "empty")
    assert read_manifest(tmp_path / "empty") and read_manifest(tmp_path / "a" / "new" / "folder")


@pytest.mark.parametrize("where", ["save_file", "versions"])
def test_nothing_is_lost_when_saving_fails(fitted, saved, test_images, monkeypatch, where):
    def fails(*_, **__):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saved_model, where, fails)
        with pytest.raises(OSError, match="no space"):
            fitted.under(fitted.settings.change(lam=0.1)).save_pretrained(saved)
    close(Detector.from_pretrained(saved, device="cpu").predict(test_images), fitted.predict(test_images), atol=0)
    fitted.under(fitted.settings.change(lam=0.1)).save_pretrained(saved)  # what the failure left does not stand in the way
    assert Detector.from_pretrained(saved, device="cpu").settings.lam == 0.1 and [p.name for p in saved.parent.iterdir()] == ["model"]


# --- evaluation


def test_evaluation_by_the_clean_rules(fitted):
    test = test_set()
    result, found = evaluation.evaluate(fitted, test, bootstrap_repeats=5)
    assert json.loads(json.dumps(result)) == result
    assert result["threshold"] == fitted.threshold and result["images"] == 8 and result["defective"] == 4
    summary = evaluation.summary(found.score, found.map, test)
    assert {name: result[name] for name in summary} == pytest.approx(summary)
    flagged = (found.score > fitted.threshold).float()
    assert result["recall"] == flagged[4:].mean().item() and result["false_positive_rate"] == flagged[:4].mean().item()
    assert all(0 <= result[name] <= 1 for name in ("i_auroc", "p_auroc", "pro", "pro_005", "p_ap")) and len(result["interval"]["pro"]) == 2


def test_evaluation_by_the_official_rules(fitted):
    test, official = test_set(), fitted.under(fitted.settings.change(pro="200-thresholds", mask_rule="bilinear", threshold="youden"))
    test.masks[4:, 0, :4] = 0.3  # a blurred edge: above 0 counts for the pixels, below 1 not for PRO
    result, found = evaluation.evaluate(official, test)
    A, scores = found.map.numpy(), found.score.numpy()
    assert result["pro"] == metrics.pro_200(A, test.masks) and result["pro_005"] is None
    assert result["p_auroc"] == pytest.approx(PixelRanking(A, test.masks > 0).auroc())
    assert result["p_auroc"] != pytest.approx(PixelRanking(A, test.masks > 0.5).auroc(), abs=1e-6)
    assert result["threshold"] == evaluation.youden(scores, test.labels)


def test_youden_by_hand():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8, 0.7]), np.array([0, 0, 1, 1, 1])
    threshold = evaluation.youden(scores, labels)  # 0.7 and 0.8 found, none wrongly: 2/3; all three and one wrongly: 1 - 1/2
    assert 0.4 < threshold < 0.7 and np.mean(scores[labels == 1] > threshold) == pytest.approx(2 / 3)


# --- calibration


def test_calibration_chooses_from_held_out_images(monkeypatch):
    monkeypatch.setattr(calibration, "T_MAX", (80, 400))
    monkeypatch.setattr(calibration, "SMALLEST_BIN", (0.2, 1.0))
    monkeypatch.setattr(calibration, "LAMBDA", (0.0, 1.0))
    seen, real = [], calibration.sweep
    monkeypatch.setattr(calibration, "sweep", lambda d, i, m, c: seen.append(len(i)) or real(d, i, m, c, (0.0, 1.0)))
    chosen = Detector.fit(good_images(32), tiny(), device="cpu", calibrate=True)
    table, names = chosen.record["calibration"], calibration.CHOSEN
    assert seen == [16, 16]  # the eight held-out images and their damaged copies
    first, second = table[:16], table[16:]
    tried = itertools.product((80, 400), (2, 10), (0.0,), (0.0, 1.0), (0.0, 1.0))
    assert {tuple(row[n] for n in names) for row in first} == set(tried)
    step = max(first, key=lambda row: row["i_auroc"] + row["pro"])
    assert {(row["T_max"], row["smallest_bin"]) for row in second} == {(step["T_max"], step["smallest_bin"])}
    left = {round(1 - row["guidance"] * (1 - chosen.abar[step["T_max"]].item()), 1) for row in second}
    assert left == {0.7, 0.3}  # guidance scales the first e by 1 - w (1 - abar) and must not turn it round
    best = max(table, key=lambda row: row["i_auroc"] + row["pro"])
    assert all(getattr(chosen.settings, name) == best[name] for name in names)
    assert all(0 <= row["i_auroc"] <= 1 and 0 <= row["pro"] <= 1 for row in table)
    for function in (calibration.choose, calibration.sweep, calibration.grid, calibration.synthetic_defects, Detector.fit):
        assert not any("test" in name for name in inspect.signature(function).parameters)


@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_the_sweep_is_what_predict_gives(fitted, blur):
    images, masks = bad_images(3)
    images, masks = torch.cat([good_images(3, seed=50), images]), np.concatenate([np.zeros_like(masks), masks])
    [row] = calibration.sweep(fitted, images, masks, [{"T_max": 160, "smallest_bin": 4, "guidance": 1.0}], (0.4,), (blur,))
    chosen = {"T_max": 160, "smallest_bin": 4, "guidance": 1.0, "latent_blur": blur, "lam": 0.4}
    other = fitted.under(fitted.settings.change(**chosen))
    other.set_ranges(images[:3])  # the sweep scales by its own good images
    found = other.predict(images)
    assert row["pro"] == pytest.approx(PixelRanking(found.map.numpy(), masks).pro(0.3), abs=1e-6)
    assert row == chosen | {"i_auroc": row["i_auroc"], "pro": row["pro"]}


def test_calibration_needs_eight_images(fitted):
    with pytest.raises(ValueError, match="at least 8 held-out good images, there are 7"):
        calibration.choose([(fitted, good_images(7))])


def test_one_choice_for_all_products(fitted, monkeypatch):
    figures = iter([0.9, 0.5, 0.6, 0.6, 0.1, 0.1])  # step A then B of product 1, A then B of product 2, the guided ones of both
    monkeypatch.setattr(calibration, "grid", lambda settings: [{"T_max": T, "smallest_bin": 2, "guidance": 0.0} for T in (80, 160)])
    monkeypatch.setattr(calibration, "guided", lambda chosen, detector: [chosen | {"guidance": 1.0}])
    rows = lambda d, i, m, c: [{**one, "latent_blur": 1.0, "lam": 0.5, "i_auroc": (f := next(figures)), "pro": f} for one in c]
    monkeypatch.setattr(calibration, "sweep", rows)
    chosen, tables = calibration.choose([(fitted, good_images(8)), (fitted, good_images(8, seed=1))])
    assert chosen == {"T_max": 80, "smallest_bin": 2, "guidance": 0.0, "latent_blur": 1.0, "lam": 0.5} and [len(table) for table in tables] == [3, 3]


def test_the_grid_fits_the_schedule():
    grid = calibration.grid(tiny(timesteps=100))
    assert {row["T_max"] for row in grid} == {80} and [row["smallest_bin"] for row in grid] == [2, 6, 10]
    assert all(tiny(bins=3).change(**row) for row in calibration.grid(tiny(bins=3)))
    assert {row["T_max"] for row in calibration.grid(tiny())} == {80, 160, 300, 400, 500, 650}


def test_regret(fitted, monkeypatch):
    monkeypatch.setattr(experiments, "grid", lambda settings: [{"T_max": T, "smallest_bin": 2, "guidance": 0.0} for T in (80, 160)])
    monkeypatch.setattr(experiments, "LAMBDA", (0.0, 0.5))
    found = experiments.regret(fitted, test_set())
    assert found["images"] == 8 and len(found["table"]) == 18  # three candidates, two blurs, three lambdas
    assert {name: found["chosen"][name] for name in calibration.CHOSEN} == {
        "T_max": 80, "smallest_bin": 2, "guidance": 4.0, "latent_blur": 0.0, "lam": 0.85}  # fmt: skip
    best = max(found["table"], key=lambda row: row["i_auroc"] + row["pro"])
    assert found["best_on_test"] == best and found["regret"]["pro"] == pytest.approx(best["pro"] - found["chosen"]["pro"])
    assert experiments.regret(fitted, test_set(), every=2)["images"] == 4


# --- ablation


def test_ablation_writes_rows_and_resumes(tmp_path, monkeypatch):
    root, out = make_product(tmp_path / "disc", train=12, good=2, bad=2), tmp_path / "out"
    rows = experiments.ablate(root, tiny(vae="given"), [0], out, vae=tiny_vae(), device="cpu")
    names = [*experiments.ONE_MAP, *experiments.OTHER_PATH, "features not fine-tuned", "pixels, not latents"]
    assert [row["variant"] for row in rows] == names and json.loads((out / "ablation.json").read_text()) == rows
    assert all(0 <= row[k] <= 1 for row in rows for k in ("i_auroc", "p_auroc", "pro", "p_ap"))
    settings = {row["variant"]: row["settings"] for row in rows}
    assert settings["noise added"]["noise"] and not settings["static steps"]["dynamic"] and settings["features not fine-tuned"]["tune_epochs"] == 0
    assert (settings["latent map alone"]["lam"], settings["feature map alone"]["lam"], settings["pixels, not latents"]["vae"]) == (1, 0, "pixels")
    assert settings["full method"] == tiny(vae="given").as_dict()

    real = Detector.fit
    monkeypatch.setattr(Detector, "fit", lambda *a, **k: pytest.fail("a detector was fitted again"))
    assert experiments.ablate(root, tiny(vae="given"), [0], out, vae=tiny_vae(), device="cpu") == rows
    kept = [row for row in rows if row["variant"] not in ("static steps", "pixels, not latents")]
    (out / "ablation.json").write_text(json.dumps(kept))
    again = experiments.ablate(root, tiny(vae="given"), [0], out, vae=tiny_vae(), device="cpu")  # from the detectors that were saved
    assert sorted(again, key=lambda r: r["variant"]) == sorted(rows, key=lambda r: r["variant"])
    monkeypatch.setattr(Detector, "fit", real)
    more = experiments.ablate(root, tiny(vae="given"), [0, 1], out, vae=tiny_vae(), device="cpu")
    assert len(more) == 14 and more[:7] == again


@pytest.mark.parametrize("images", [torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 32, 32), "picture.png"])
def test_predict_says_what_shape_it_wants(fitted, images):
    with pytest.raises(ValueError, match=r"images must be a tensor \(N, 3, 64, 64\) in \[-1, 1\].*, not "):
        fitted.predict(images)
