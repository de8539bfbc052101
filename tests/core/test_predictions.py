"""Predictions: what they hold, and what may and may not change a score."""
import pytest
import torch
from conftest import close, good_images, tiny, tiny_vae

from ddad import anomaly_map as maps
from ddad.detector import Detector
from ddad.dynamic_noise import bin_edges, feature, select_step
from ddad.scaled_denoising import scaled_denoising


@pytest.fixture(scope="module")
def found(fitted, images):
    return fitted.predict(images)


def test_what_a_prediction_holds(found):
    for name in ("score", "T_hat", "bin", "distance"):
        assert getattr(found, name).shape == (7,)
    for name in ("map", "latent_map", "feature_map"):
        assert getattr(found, name).shape == (7, 64, 64)
    assert found.reconstruction.shape == (7, 3, 64, 64)
    assert found.score.dtype == found.map.dtype == torch.float32
    assert found.T_hat.dtype == torch.int64
    assert found.patch_map is None and found.step_map is None       # no region's step
    assert all(value.isfinite().all() for value in vars(found).values()
               if value is not None)
    assert torch.equal(found.score, found.map.flatten(1).amax(1))
    assert found.bin.min() >= 1 and found.bin.max() <= 10
    assert set(found.T_hat.tolist()) <= {20, 30, 40, 50, 60, 70, 80}
    assert found.reconstruction.abs().max() <= 1 and not found.map.requires_grad
    # the square is seen
    assert found.distance[4:].mean() > found.distance[:4].max()
    assert found.T_hat[6] == 80


def test_a_prediction_is_that_of_the_modules_called_by_hand(fitted, images):
    """predict, taken apart: the modules called one by one for one image."""
    x0, s, projection = images[5:6], fitted.settings, fitted.projection
    phi, unet, bank = fitted.networks.phi, fitted.networks.unet, fitted.memory_bank
    with torch.no_grad():
        z0, phi_x0 = projection.encode(x0), phi(x0)
        y = feature(phi_x0[1], s.neighbour_pool)
        d = sum(sorted((y - bank.y).abs().mean(1).tolist())[:3]) / 3
        inner = bin_edges(bank.distances, 10).tolist()[1:-1]
        b = min(10, 1 + sum(d >= edge for edge in inner))
        T_hat = select_step(torch.tensor([b]), 80)
        z0_hat = scaled_denoising(lambda z_t, t: unet(z_t, t).sample, z0, T_hat,
                                  fitted.abar, 4.0)
        x0_hat = projection.decode(z0_hat)
        A_l = maps.latent_map(z0, z0_hat, 64)
        A_f = maps.feature_map(phi_x0, phi(x0_hat), 64, (2, 3))
    found = fitted.predict(x0)
    assert found.bin.item() == b and torch.equal(found.T_hat, T_hat)
    assert found.distance.item() == pytest.approx(d, abs=1e-5)
    torch.testing.assert_close(found.reconstruction, x0_hat)
    A = maps.combine(A_l, A_f, fitted.ranges, 0.85, 4.0)
    torch.testing.assert_close(found.map, A)


# --- batch, order and other images ----------------------------------------------------

@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_none_is_refused(fitted, images, batch):
    with pytest.raises(ValueError, match=f"batch is {batch}; give 1 or more"):
        fitted.predict(images, batch)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batch_size_does_not_change_a_score(fitted, images, batch):
    close(fitted.predict(images, batch), fitted.predict(images, 7))


def test_order_and_other_images_do_not_change_a_score(fitted, images, found):
    same = lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    order = torch.tensor([6, 0, 3, 5, 1, 4, 2])
    shuffled = fitted.predict(images[order])
    same(shuffled.score, found.score[order])
    same(shuffled.map, found.map[order])
    for n in range(7):
        same(fitted.predict(images[n : n + 1]).score[0], found.score[n])


def test_official_scores_depend_on_the_other_test_images(fitted, images):
    """The fault that map_range "test" keeps for comparison: min and max over all images
    given.
    """
    settings = tiny("official", held_out=0.0, tune_epochs=0)
    official = Detector.fit(good_images(12), settings, device="cpu",
                            unet=fitted.networks.unet)
    assert official.threshold is None and official.ranges is None
    together, some = official.predict(images), official.predict(images[:4])
    assert (together.score[:4] - some.score).abs().max() > 0.01
    # only the scaling does
    torch.testing.assert_close(together.latent_map[:4], some.latent_map, rtol=0,
                               atol=1e-5)


def test_a_posterior_sample_is_drawn_by_place_not_by_batch(images):
    settings = tiny(posterior="sample", noise=True, vae="given", tune_epochs=0)
    sampled = Detector.fit(good_images(12), settings, device="cpu", vae=tiny_vae())
    found = sampled.predict(images, 7)
    close(sampled.predict(images, 2), found)
    other = sampled.under(settings.change(seed=1)).predict(images)
    assert (other.latent_map - found.latent_map).abs().max() > 1e-3


# --- precision and shape --------------------------------------------------------------

def test_bfloat16_is_close_and_stays_float32_outside(fitted, images, found):
    networks = fitted.networks
    settings = tiny(precision="bfloat16", tune_epochs=0)
    low = Detector.fit(good_images(16), settings, device="cpu", unet=networks.unet,
                       phi=networks.phi).predict(images)
    assert low.score.dtype == low.reconstruction.dtype == torch.float32
    difference = (low.latent_map - found.latent_map).abs().max()
    assert 0 < difference < 0.1 * found.latent_map.abs().max()
    # the step is chosen at full precision
    assert torch.equal(low.distance, found.distance)
    assert torch.equal(low.T_hat, found.T_hat)


@pytest.mark.parametrize("given", [
    torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 32, 32)],
    ids=["one image", "grey", "small"])
def test_predict_says_what_shape_it_wants(fitted, given):
    wanted = r"images must be a tensor \(N, 3, 64, 64\) in \[-1, 1\].*, not "
    with pytest.raises(ValueError, match=wanted):
        fitted.predict(given)


def test_scores_on_another_scale_have_no_threshold(fitted):
    assert fitted.threshold is not None
    other = fitted.under(fitted.settings.change(map_range="test"))
    other.set_held_out_scores(good_images(4))
    assert other.held_out_scores is not None and other.threshold is None
