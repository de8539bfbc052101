"""The method's own modules, each against its formulas written out a second time, by hand."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from conftest import good_images, tiny, tiny_vae
from scipy.ndimage import binary_dilation, gaussian_filter
from torch import nn

from ddad import anomaly_map as maps
from ddad import calibration, training
from ddad.dynamic_noise import DynamicNoise, feature, mean_distance, select_step
from ddad.features import EfficientNetLite0, ResNetFeatures, empty_features, load_features
from ddad.fine_tuning import feature_loss, fine_tune, random_level
from ddad.latent_projection import BackboneError, LatentProjection, load_vae
from ddad.noise_predictor import alpha_bar, build_unet, epsilon, epsilon_loss, q_sample
from ddad.scaled_denoising import scaled_denoising, timesteps
from ddad.settings import FAST, PRESETS, Settings, SettingsError, preset

LEVELS = [20, 20, 30, 40, 50, 60, 60, 70, 80]  # of bins 2 .. 10 at T_max 80


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def abar_by_hand(schedule="linear", T=1000, low=0.0015, high=0.0195):
    product, out = 1.0, []
    for s in range(T):
        if schedule == "linear":
            beta = low + (high - low) * s / (T - 1)
        else:
            beta = (math.sqrt(low) + (math.sqrt(high) - math.sqrt(low)) * s / (T - 1)) ** 2
        product *= 1 - beta
        out.append(product)
    return out


# --- settings

# what each preset has to say, row by row of the comparison of paper and code: (clean, paper, official)
ROWS = {
    "level_rounding": ("floor", "floor", "half-up"),
    "edge_bin": ("upper", "upper", "lower"),
    "self_neighbour": (False, True, True),
    "neighbour_stage": (2, 2, 2),
    "neighbour_pool": (16, 16, 16),
    "neighbours": (20, 20, 20),
    "bins": (10, 10, 10),
    "smallest_bin": (2, 2, 2),
    "first_call": ("latent", "latent", "below"),
    "static_first_step": ("same", "same", "zeroed"),
    "z0_from": ("e_hat", "e", "e_hat"),
    "tune_level": ("image", "batch", "batch"),
    "tune_cosine": ("position", "position", "flattened"),
    "tune_batch_norm": ("frozen", "training", "training"),
    "tune_gradient": ("reconstruction", "both", "both"),
    "tune_stages": ((1, 2, 3),) * 3,
    "posterior": ("mode", "mode", "sample"),
    "train_vae": ("", "", "CompVis/stable-diffusion-v1-4/vae"),
    "vae": ("stabilityai/sd-vae-ft-mse",) * 3,
    "beta_schedule": ("linear",) * 3,
    "beta_start": (0.0015,) * 3,
    "beta_end": (0.0195,) * 3,
    "timesteps": (1000,) * 3,
    "T_max": (80,) * 3,
    "ddim_steps": (10,) * 3,
    "noise": (False,) * 3,
    "dynamic": (True,) * 3,
    "map_range": ("held-out", "test", "test"),
    "map_stages": ((2, 3),) * 3,
    "lam": (0.85,) * 3,
    "latent_blur": (0.0,) * 3,
    "sigma": (4.0,) * 3,
    "guidance": (4.0,) * 3,
    "tune_epochs": (1, 3, 1),
    "pro": ("exact", "exact", "200-thresholds"),
    "mask_rule": ("area", "area", "bilinear"),
    "threshold": ("quantile", "youden", "youden"),
    "seed": (0, 42, 42),
    "image_size": (256,) * 3,
    "unet_channels": ((64, 96, 160), (192, 384, 384, 768, 768), (192, 384, 384, 768, 768)),
    "learning_rate": (5e-4, 1e-4, 1e-4),
    "weight_decay": (0.01,) * 3,
    "train_batch": (16, 30, 30),
    "train_length": ("3000 steps", "300 epochs", "300 epochs"),
    "features": ("efficientnet-lite0", "microsoft/resnet-34", "microsoft/resnet-34"),
}


@pytest.mark.parametrize("name", ROWS)
def test_presets_have_the_values_of_paper_and_code(name):
    assert tuple(getattr(PRESETS[p], name) for p in ("clean", "paper", "official")) == ROWS[name]
    assert Settings() == PRESETS["clean"]


@pytest.mark.parametrize(
    "name, value",
    [("image_size", 8), ("image_size", "256"), ("image_size", 100), ("held_out", 1.0), ("vae", 3), ("posterior", "mean"),
     ("timesteps", 1000.5), ("beta_schedule", "cosine"), ("beta_start", 0), ("beta_end", float("nan")), ("unet_channels", (20,)),
     ("unet_channels", ()), ("unet_channels", 64), ("unet_heads", -1), ("unet_heads", 7), ("train_length", "10"), ("train_length", "ten steps"),
     ("train_length", "-1 steps"), ("train_batch", 0), ("ema", 1), ("dynamic", 1), ("neighbours", 0), ("neighbour_stage", 0), ("bins", 0),
     ("smallest_bin", 11), ("edge_bin", "left"), ("T_max", 1000), ("T_max", 9), ("level_rounding", "ceil"), ("ddim_steps", 0),
     ("first_call", "above"), ("z0_from", "z"), ("call_every", 0), ("guidance", -1), ("tune_stages", (0, 1)), ("map_stages", (5,)),
     ("map_stages", (-1,)), ("map_stages", "23"), ("lam", 1.01), ("sigma", 0), ("quantile", 2), ("seed", -1), ("seed", True), ("preset", "mine"),
     ("mask_rule", "nearest"), ("threshold", "best"), ("pro", "100"), ("latent_blur", -1)],
)  # fmt: skip
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=f"setting {name}: "):
        preset("clean", **{name: value})


def test_settings_are_changed_parsed_and_written_as_json():
    changes = ["lam=0.5", "unet_channels=[32, 64]", "vae=owner/name/sub", "dynamic=false", "train_length=5 steps", "T_max=160", "guidance=2"]
    settings = preset("paper").parse(changes)
    assert (settings.lam, settings.unet_channels, settings.vae, settings.dynamic) == (0.5, (32, 64), "owner/name/sub", False)
    assert settings.T_max == 160 and settings.guidance == 2.0 and type(settings.guidance) is float and settings.z0_from == "e"
    for one in (*PRESETS.values(), settings):
        again = json.loads(json.dumps(one.as_dict()))
        assert preset(again["preset"], **again) == one
    with pytest.raises(SettingsError, match="lambda_"):
        settings.change(lambda_=0.5)
    with pytest.raises(SettingsError, match="nothing"):
        settings.parse(["nothing=1"])
    with pytest.raises(SettingsError, match="name=value"):
        settings.parse(["lam"])
    with pytest.raises(SettingsError, match="mine"):
        preset("mine")
    with pytest.raises(AttributeError):
        settings.lam = 0.1


def test_training_length_in_steps_and_epochs():
    assert preset(train_length="7 steps").steps_for(1000) == 7
    assert preset(train_length="3 epochs", train_batch=30).steps_for(100) == 9
    assert preset(train_length="3 epochs", train_batch=30).steps_for(5) == 3


# --- schedule and objective


@pytest.mark.parametrize("schedule, at_80", [("linear", 0.835), ("scaled_linear", 0.862)])
def test_schedule(schedule, at_80):
    abar = alpha_bar(preset(beta_schedule=schedule))
    assert abar.shape == (1000,) and abar.dtype == torch.float32
    torch.testing.assert_close(abar.double(), torch.tensor(abar_by_hand(schedule), dtype=torch.float64), rtol=1e-4, atol=1e-7)
    assert abs(abar[80].item() - at_80) < 1e-3
    assert (abar.diff() < 0).all() and 0.998 < abar[0] < 1 and 0 < abar[-1] < 1e-3


def test_q_sample_keeps_mean_and_variance():
    abar, z0 = alpha_bar(preset()), torch.full((50_000, 1, 1, 1), 3.0)
    for t in (0, 80, 500, 999):
        z_t = q_sample(z0, abar[t].view(1, 1, 1, 1), torch.randn(z0.shape, generator=seeded(t)))
        assert abs(z_t.mean().item() - 3 * abar[t].sqrt().item()) < 0.02
        assert abs(z_t.var().item() - (1 - abar[t].item())) < 0.02


def test_epsilon_loss_is_the_mean_square_at_each_images_own_step():
    class Output:
        def __init__(self, sample):
            self.sample = sample

    calls = []

    def network(z_t, t):
        calls.append((z_t, t))
        return Output(0.5 * z_t)

    abar, z0, eps = alpha_bar(preset()), torch.randn(3, 2, 4, 4, generator=seeded()), torch.randn(3, 2, 4, 4, generator=seeded(1))
    t = torch.tensor([0, 80, 999])
    loss = epsilon_loss(network, z0, t, eps, abar)
    by_hand = abar_by_hand()
    expected = 0.0
    for n, step in enumerate([0, 80, 999]):
        z_t = math.sqrt(by_hand[step]) * z0[n] + math.sqrt(1 - by_hand[step]) * eps[n]
        expected += (0.5 * z_t - eps[n]).square().mean().item() / 3
    assert loss.item() == pytest.approx(expected, rel=1e-4) and torch.equal(calls[0][1], t)


def test_unet_keeps_shape_and_needs_a_fitting_side():
    unet = build_unet(tiny(unet_channels=(32, 64), unet_heads=4), 5, 8).eval()
    assert unet(torch.zeros(2, 5, 8, 8), torch.tensor([0, 999])).sample.shape == (2, 5, 8, 8)
    assert {layer.heads for layer in unet.modules() if hasattr(layer, "heads")} == {4}
    e = epsilon(unet)(torch.zeros(1, 5, 8, 8), torch.tensor([3]))
    assert not e.requires_grad and e.dtype == torch.float32
    with pytest.raises(ValueError, match="unet_channels"):
        build_unet(tiny(unet_channels=(32, 64, 64)), 4, 6)


# --- scaled denoising


def made_up(z_t, t):
    """A nonlinear "noise" that depends on the step and on neighbouring values, so that a wrong step or latent shows."""
    return torch.tanh(1.3 * z_t + 0.4 * z_t.roll(1, -1)) * (0.6 + t.view(-1, 1, 1, 1) / 150) + 0.05


def denoise_by_hand(z0, T_hat, w, z0_from, first_call, drop_first=False, start=None, eps=None, every=1):
    """The formulas, one image, in float64; (result, the steps called)."""
    abar, called, known = abar_by_hand(), [], []
    steps = [T_hat * (10 - i - (first_call == "below")) // 10 for i in range(10)]
    a = abar[T_hat if start is None else start]
    z = math.sqrt(a) * z0 + (0 if eps is None else math.sqrt(1 - a) * eps)
    for i, t in enumerate(steps):
        a, a_prev = abar[t], abar[steps[i + 1]] if i + 1 < len(steps) else 1.0
        sigma = math.sqrt(1 - a) / math.sqrt(a)
        if i % every == 0:
            e = made_up(z, torch.tensor([t], dtype=z.dtype))
            called.append(t)
            known.append((sigma, e))
        elif len(known) > 1:
            (sigma_0, e_0), (sigma_1, e_1) = known[-2:]
            e = e_1 + (e_1 - e_0) / (sigma_1 - sigma_0) * (sigma - sigma_1)
        target = math.sqrt(a) * z0 + math.sqrt(1 - a) * e
        e_hat = e - w * math.sqrt(1 - a) * (target - z)
        z0_hat = (z - math.sqrt(1 - a) * (e if z0_from == "e" else e_hat)) / math.sqrt(a)
        z = math.sqrt(a_prev) * z0_hat + math.sqrt(1 - a_prev) * (0 if drop_first and i == 0 else 1) * e_hat
    return z, called


@pytest.mark.parametrize("name", ["clean", "paper", "official", "fast"])
@pytest.mark.parametrize("T_hat", [10, 30, 80, 400])
@pytest.mark.parametrize("drop_first", [False, True])
def test_sampler_against_the_formulas(name, T_hat, drop_first):
    settings, z0 = tiny(name, guidance=2.5), torch.randn(1, 2, 3, 3, generator=seeded(T_hat))
    seen, asked = [], []
    counted = lambda z_t, t: asked.append(t.item()) or made_up(z_t, t)
    found = scaled_denoising(counted, z0, torch.tensor([T_hat]), alpha_bar(settings), settings, zero_first=drop_first, callback=seen.append)
    expected, called = denoise_by_hand(z0.double(), T_hat, 2.5, settings.z0_from, settings.first_call, drop_first, every=settings.call_every)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert asked == called and len(called) == (3 if name == "fast" else 10) and [step["i"] for step in seen] == list(range(10))
    assert called[0] == (T_hat * 9 // 10 if name == "official" else T_hat)
    assert seen[-1]["t"].item() == (0 if name == "official" else T_hat // 10)
    assert torch.equal(found, seen[-1]["z0_hat"]) or drop_first  # the last step goes to abar 1: no e_hat is left
    scaled = math.sqrt(abar_by_hand()[T_hat]) * z0
    torch.testing.assert_close(seen[0]["z_t"], scaled, rtol=1e-5, atol=1e-6)


def test_sampler_starts_from_noise_or_from_another_step_when_told():
    settings, z0, eps = tiny("official"), torch.randn(1, 2, 3, 3, generator=seeded(5)), torch.randn(1, 2, 3, 3, generator=seeded(6))
    T_hat, abar = torch.tensor([50]), alpha_bar(settings)
    for start, noise in ((None, eps), (47, None), (47, eps)):
        found = scaled_denoising(made_up, z0, T_hat, abar, settings, start=None if start is None else torch.tensor([start]), eps=noise)
        expected, _ = denoise_by_hand(z0.double(), 50, 4.0, "e_hat", "below", start=start, eps=None if noise is None else noise.double())
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("w", [0.0, 4.0])
def test_nothing_predicted_gives_the_latent_back(w):
    """With e = 0: z_t = target_t at the start, so e_hat = 0 and z0_hat = z0, at every step and for every guidance."""
    settings, z0 = tiny(guidance=w), torch.randn(4, 2, 3, 3, generator=seeded())
    found = scaled_denoising(lambda z, t: torch.zeros_like(z), z0, torch.tensor([10, 20, 80, 500]), alpha_bar(settings), settings)
    torch.testing.assert_close(found, z0, rtol=1e-5, atol=1e-5)


def test_without_guidance_it_is_plain_ddim():
    """DDIM in its other form: z_prev = sqrt(a_prev / a) z + (sqrt(1 - a_prev) - sqrt(a_prev (1 - a) / a)) e."""
    settings, z0, abar = tiny(guidance=0), torch.randn(1, 2, 3, 3, generator=seeded()), abar_by_hand()
    found = scaled_denoising(made_up, z0, torch.tensor([60]), alpha_bar(settings), settings)
    z = math.sqrt(abar[60]) * z0.double()
    for t in range(60, 0, -6):
        a, a_prev = abar[t], abar[t - 6] if t > 6 else 1.0
        z = math.sqrt(a_prev / a) * z + (math.sqrt(1 - a_prev) - math.sqrt(a_prev * (1 - a) / a)) * made_up(z, torch.tensor([t]))
    torch.testing.assert_close(found.double(), z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("w", [0.0, 1.0, 4.0])
def test_three_calls_of_the_whole_path_end_nearer_to_it_than_three_steps(w):
    z0, T_hat = torch.randn(8, 2, 4, 4, generator=seeded()), torch.tensor([20, 40, 60, 80, 100, 120, 140, 160])
    end = lambda **changes: scaled_denoising(made_up, z0, T_hat, alpha_bar(tiny()), tiny(guidance=w, **changes))
    path = end()
    near, far = ((end(**changes) - path).abs().flatten(1).mean(1) for changes in (FAST, {"ddim_steps": 3}))
    assert (near < 0.7 * far).all()


def test_two_calls_at_one_step_have_no_slope():
    """25 steps below T_hat = 10 visit some of them twice. Here e grows by one a call: only a slope over a real distance may carry it on."""
    settings, made, used = tiny(ddim_steps=25, call_every=2), [], []

    def counting(z_t, t):
        made.append(torch.full_like(z_t, len(made)))
        return made[-1]

    scaled_denoising(counting, torch.randn(1, 2, 4, 4, generator=seeded()), torch.tensor([10]), alpha_bar(settings), settings,
                     callback=lambda step: used.append(step["e"].max().item()))
    assert max(used) < len(made) + 2


def test_sampling_never_waits_for_a_value():
    """No step of the loop reads a value back or copies to the CPU: on a GPU nothing is waited for before the last call is queued."""
    from torch.utils._python_dispatch import TorchDispatchMode
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.add(function.overloadpacket._qualified_op_name)
            return function(*args, **(kwargs or {}))

    T_hat, abar = select_step(torch.arange(1, 11), tiny()), alpha_bar(tiny())
    with Watch():
        scaled_denoising(made_up, torch.randn(10, 2, 4, 4), T_hat, abar, tiny("fast"))
    assert "aten::tanh" in seen and not seen & {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::_to_copy", "aten::equal"}


def test_guidance_pulls_towards_the_input():
    """Where e is wrong by the same amount each step, more guidance leaves less of the change, until it would turn it round."""
    settings, z0, T_hat = tiny(), torch.randn(2, 2, 4, 4, generator=seeded()), torch.tensor([80, 80])
    found = [scaled_denoising(made_up, z0, T_hat, alpha_bar(settings), settings.change(guidance=w)) for w in (0, 1, 2, 4)]
    change = [(z0_hat - z0).abs().mean().item() for z0_hat in found]
    assert change == sorted(change, reverse=True)


@pytest.mark.parametrize("path", [{"first_call": "latent"}, {"first_call": "below"}, FAST])
def test_a_mixed_batch_equals_each_image_alone_in_any_order(path):
    torch.manual_seed(0)
    settings = tiny(**path)
    predict, abar = epsilon(build_unet(settings, 4, 4).eval()), alpha_bar(settings)
    T_hat = select_step(torch.arange(1, 11), settings)
    z0 = torch.randn(10, 4, 4, 4, generator=seeded(3))
    together = scaled_denoising(predict, z0, T_hat, abar, settings)
    alone = torch.cat([scaled_denoising(predict, z0[n : n + 1], T_hat[n : n + 1], abar, settings) for n in range(10)])
    order = torch.randperm(10, generator=seeded(4))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled_denoising(predict, z0[order], T_hat[order], abar, settings), together[order], rtol=0, atol=1e-5)
    assert (together - z0).abs().max() > 1e-3


def test_path_of_steps():
    T_hat = torch.tensor([10, 80, 200])
    latent, below = timesteps(T_hat, tiny()), timesteps(T_hat, tiny(first_call="below"))
    assert latent.shape == below.shape == (11, 3)
    assert latent[:, 1].tolist() == [80, 72, 64, 56, 48, 40, 32, 24, 16, 8, -1] and below[:, 1].tolist() == [72, 64, 56, 48, 40, 32, 24, 16, 8, 0, -1]
    assert latent[:, 0].tolist() == [*range(10, 0, -1), -1] and below[:, 2].tolist() == [*range(180, -1, -20), -1]


# --- dynamic noise


@pytest.mark.parametrize("rounding", ["floor", "half-up"])
def test_steps_of_every_bin(rounding):
    b = torch.arange(1, 11)
    assert select_step(b, tiny(level_rounding=rounding)).tolist() == [20, *LEVELS]
    assert select_step(b, tiny(level_rounding=rounding, T_max=400)).tolist() == [80, *range(80, 401, 40)]
    assert select_step(b, tiny(level_rounding=rounding, T_max=10)).tolist() == [10] * 10  # never below ten: ten DDIM steps need as many


@pytest.mark.parametrize("T_max", [25, 45, 50, 80, 89, 127, 160, 250, 333, 505])
@pytest.mark.parametrize("bins", [7, 10])
def test_rounding_by_whole_numbers(T_max, bins):
    """floor(b T_max / bins), then the nearest ten, ties to the even one; or halves up at once: both in exact arithmetic."""
    for b in range(1, bins + 1):
        n = max(b, 2) * T_max
        tens, ones = divmod(n // bins, 10)
        floored = max(10, 10 * (tens + (ones > 5 or ones == 5 and tens % 2)))
        direct = max(10, (n + 5 * bins) // (10 * bins) * 10)
        assert select_step(torch.tensor([b]), tiny(T_max=T_max, bins=bins)).item() == floored
        assert select_step(torch.tensor([b]), tiny(T_max=T_max, bins=bins, level_rounding="half-up")).item() == direct


def test_the_two_roundings_differ_at_ties_only():
    b = torch.arange(1, 11)
    assert select_step(b, tiny(T_max=50)).tolist() == [10, 10, 20, 20, 20, 30, 40, 40, 40, 50]
    assert select_step(b, tiny(T_max=50, level_rounding="half-up")).tolist() == [10, 10, 20, 20, 30, 30, 40, 40, 50, 50]
    # the floor itself changes nothing: it never crosses a tie, which is a whole number
    for T_max in range(20, 500, 7):
        no_tie = (b * T_max // 10).clamp(min=2 * T_max // 10) % 10 != 5
        one, other = select_step(b, tiny(T_max=T_max)), select_step(b, tiny(T_max=T_max, level_rounding="half-up"))
        assert torch.equal(one[no_tie], other[no_tie])


# distances 0, 1, .., 10 make the edges 0, 1, .., 10
def bins_0_to_10(**changes):
    return DynamicNoise(torch.zeros(4, 1), torch.arange(11.0), tiny(**changes))


@pytest.mark.parametrize("edge_bin", ["upper", "lower"])
def test_bins_at_every_edge_and_beyond(edge_bin):
    noise = bins_0_to_10(edge_bin=edge_bin)
    assert noise.edges.tolist() == list(range(11))
    at_edges = noise.bin(torch.arange(11.0)).tolist()
    assert at_edges == ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10] if edge_bin == "upper" else [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert noise.bin(torch.arange(10) + 0.5).tolist() == list(range(1, 11))
    assert noise.bin(torch.tensor([-5.0, -1e-6, 10.001, 1e9])).tolist() == [1, 1, 10, 10]


def test_lower_bins_are_those_of_numpy_histogram_and_digitize():
    distances = np.random.default_rng(0).gamma(4.0, 1.0, 60).astype(np.float32)
    noise = DynamicNoise(torch.zeros(4, 1), torch.from_numpy(distances), tiny(edge_bin="lower"))
    edges = np.histogram(distances, 10)[1]
    torch.testing.assert_close(noise.edges.double(), torch.from_numpy(edges.astype(np.float64)), rtol=1e-6, atol=1e-6)
    tested = np.concatenate([distances, noise.edges.numpy(), np.random.default_rng(1).uniform(-1, 15, 300).astype(np.float32)])
    official = np.minimum(np.digitize(tested, noise.edges.numpy(), right=True) - 1, 9) + 1
    assert noise.bin(torch.from_numpy(tested)).tolist() == np.maximum(official, 1).tolist()  # bin 0 there: raised to 2 in the end, like bin 1


def test_features_are_pooled_to_the_grid():
    stage = torch.randn(2, 3, 32, 32, generator=seeded())
    y = feature(stage, 16)
    assert y.shape == (2, 3 * 16 * 16)
    assert y[1, 16 * 16 + 16 + 2].item() == pytest.approx(stage[1, 1, 2:4, 4:6].mean().item(), abs=1e-6)
    assert torch.equal(feature(stage, 64), stage.flatten(1))  # never enlarged


def test_mean_distance_by_hand():
    bank, y = torch.tensor([[0.0, 0], [1, 0], [0, 4], [9, 9]]), torch.tensor([[0.0, 1], [8, 9]])
    # L1 distances: 1, 2, 3, 17 and 17, 16, 13, 1; divided by two features
    assert mean_distance(y, bank, 2).tolist() == [0.75, 3.5]
    assert mean_distance(y, bank, 3).tolist() == [1.0, 5.0]
    # rows of the bank itself: 0 1 4 18, 1 0 5 17, 4 5 0 14, 18 17 14 0
    assert mean_distance(bank, bank, 2, skip_self=True).tolist() == [1.25, 1.5, 2.25, 7.75]
    assert mean_distance(bank, bank, 2, skip_self=False).tolist() == [0.25, 0.25, 1.0, 3.5]


@pytest.mark.parametrize("self_neighbour", [False, True])
def test_a_training_image_is_or_is_not_its_own_neighbour(self_neighbour):
    y = torch.randn(9, 5, generator=seeded())
    noise = DynamicNoise.fit(y, tiny(neighbours=3, self_neighbour=self_neighbour))
    for n in range(9):
        others = sorted((y[n] - y[m]).abs().mean().item() for m in range(9) if m != n)
        nearest = [0.0, *others[:2]] if self_neighbour else others[:3]
        assert noise.distances[n].item() == pytest.approx(sum(nearest) / 3, abs=1e-6)
    assert noise.edges[0] == noise.distances.min() and noise.edges[-1] == noise.distances.max()
    new = torch.randn(1, 5, generator=seeded(1))
    assert noise.distance(new).item() == pytest.approx(sum(sorted((new - y).abs().mean(1).tolist())[:3]) / 3, abs=1e-6)


def test_too_few_images_for_the_neighbours():
    y = torch.randn(5, 4, generator=seeded())
    DynamicNoise.fit(y, tiny(neighbours=4))
    with pytest.raises(ValueError, match="neighbours.*at least 6.*there are 5"):
        DynamicNoise.fit(y, tiny(neighbours=5))


def test_static_steps_are_T_max():
    b = torch.arange(1, 11)
    assert bins_0_to_10(dynamic=False, T_max=120).step(b).tolist() == [120] * 10
    assert bins_0_to_10().step(b).tolist() == [20, *LEVELS]


# --- fine-tuning


class Phi(nn.Module):
    """Three blocks with batch norm; notes for every call whether gradients were wanted."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(n, n + 1, 3, 2, 1), nn.BatchNorm2d(n + 1), nn.Tanh()) for n in (3, 4, 5))
        self.with_gradient = []
        self.eval().requires_grad_(False)

    def forward(self, x):
        self.with_gradient.append(torch.is_grad_enabled())
        out = []
        for block in self.blocks:
            x = block(x)
            out.append(x)
        return out


def blurred(images):
    """A stand-in for the method's reconstruction."""
    def reconstruct(rows, T_hat, start):
        return nn.functional.avg_pool2d(images[rows], 3, 1, 1)
    return reconstruct


def test_feature_loss():
    a = [torch.randn(2, c, 4, 4, generator=seeded(c)) for c in (3, 4, 5)]
    b = [torch.randn(2, c, 4, 4, generator=seeded(c + 9)) for c in (3, 4, 5)]
    for cosine in ("position", "flattened"):
        settings = tiny(tune_cosine=cosine)
        assert feature_loss(a, a, settings).item() == pytest.approx(0, abs=1e-5)
        assert feature_loss(a, [-x for x in a], settings).item() == pytest.approx(6, abs=1e-5)
        assert feature_loss(a, [3 * x for x in a], settings).item() == pytest.approx(0, abs=1e-5)
        expected = 0.0
        for j in (0, 2):
            if cosine == "flattened":
                pairs = [(a[j][n].ravel(), b[j][n].ravel()) for n in range(2)]
            else:
                pairs = [(a[j][n, :, y, x], b[j][n, :, y, x]) for n in range(2) for y in range(4) for x in range(4)]
            expected += sum(1 - (p @ q / p.norm() / q.norm()).item() for p, q in pairs) / len(pairs)
        assert feature_loss(a, b, settings.change(tune_stages=(1, 3))).item() == pytest.approx(expected, abs=1e-5)


def test_random_levels():
    levels, start = random_level(500, tiny(), seeded())
    assert set(levels.tolist()) == {10, *LEVELS} and torch.equal(levels, start)
    assert abs((levels == 20).float().mean().item() - 0.2) < 0.06  # two of ten draws round to 20
    firsts = set()
    for seed in range(60):
        levels, start = random_level(7, tiny(tune_level="batch"), seeded(seed))
        assert levels.shape == start.shape == (7,) and len(set(levels.tolist())) == len(set(start.tolist())) == 1
        firsts.add((start[0].item(), levels[0].item()))
    assert firsts == {(8 * n, level) for n, level in zip(range(1, 11), [10, *LEVELS], strict=True)}
    assert set(random_level(200, tiny(T_max=30), seeded())[0].tolist()) == {10, 20, 30}


@pytest.mark.parametrize("gradient", ["reconstruction", "both"])
def test_gradient_flows_where_it_is_wanted(gradient):
    """One step of AdamW against the same step taken by hand."""
    images = torch.randn(6, 3, 16, 16, generator=seeded())
    settings, phi, by_hand = tiny(tune_gradient=gradient, tune_batch=6, tune_learning_rate=0.01), Phi(), Phi().requires_grad_(True)
    history = fine_tune(phi, images, blurred(images), settings)
    assert phi.with_gradient == [gradient == "both", True]
    target = by_hand(images)
    loss = feature_loss([t if gradient == "both" else t.detach() for t in target], by_hand(nn.functional.avg_pool2d(images, 3, 1, 1)), settings)
    optimiser = torch.optim.AdamW(by_hand.parameters(), lr=0.01)
    loss.backward()
    optimiser.step()
    assert history == [pytest.approx(loss.item(), rel=1e-5)]
    start = Phi().state_dict()
    for name, weight in by_hand.named_parameters():
        # a bias right before a norm in evaluation mode has a gradient; Adam's first step has its sign, so tiny ones are left out
        clear = weight.grad.abs() > 1e-6
        torch.testing.assert_close(phi.state_dict()[name][clear], weight.detach()[clear], rtol=0, atol=1e-4)
        assert not torch.equal(phi.state_dict()[name], start[name])


@pytest.mark.parametrize("mode", ["frozen", "training"])
def test_batch_norm_in_fine_tuning(mode):
    images, phi = torch.randn(8, 3, 16, 16, generator=seeded()) * 3 + 1, Phi()
    before = {k: v.clone() for k, v in phi.state_dict().items()}
    history = fine_tune(phi, images, blurred(images), tiny(tune_batch_norm=mode, tune_epochs=2, tune_batch=3))
    after = phi.state_dict()
    running = [name for name in before if "running" in name or "num_batches" in name]
    assert running and all(torch.equal(before[name], after[name]) == (mode == "frozen") for name in running)
    assert not torch.equal(before["blocks.0.0.weight"], after["blocks.0.0.weight"])
    assert not phi.training and not any(module.training for module in phi.modules()) and not any(p.requires_grad for p in phi.parameters())
    assert len(history) == 2 and all(math.isfinite(loss) for loss in history)


def test_fine_tuning_lowers_its_loss_and_repeats():
    images = good_images(12, 32)
    runs = []
    for seed in (0, 0, 1):
        phi = Phi()
        settings = tiny(tune_epochs=6, tune_batch=4, tune_learning_rate=0.003, seed=seed)
        runs.append((fine_tune(phi, images, blurred(images), settings), phi.state_dict()))
    assert runs[0][0][-1] < 0.8 * runs[0][0][0]
    assert runs[0][0] == runs[1][0] and all(torch.equal(v, runs[1][1][k]) for k, v in runs[0][1].items())
    assert runs[0][0] != runs[2][0]


def test_no_epochs_leave_the_features_alone():
    images, phi = good_images(4, 32), Phi()
    before = copy.deepcopy(phi.state_dict())
    assert fine_tune(phi, images, blurred(images), tiny(tune_epochs=0)) == []
    assert all(torch.equal(v, before[k]) for k, v in phi.state_dict().items()) and not phi.training


# --- anomaly map


def test_latent_map_is_the_mean_over_channels_upsampled():
    z0, z0_hat = torch.randn(2, 3, 4, 4, generator=seeded()), torch.randn(2, 3, 4, 4, generator=seeded(1))
    difference = (z0 - z0_hat).abs().mean(1)
    for align in (False, True):
        A = maps.latent_map(z0, z0_hat, 32, tiny(align_corners=align))
        assert A.shape == (2, 32, 32) and A.min() >= 0 and A.max() <= difference.max() + 1e-6
        corner = A[:, 0, 0]
        torch.testing.assert_close(corner, difference[:, 0, 0])
        # by hand, between the first two positions: half a cell in from the border, or from the corner itself
        at = (10 * 3 / 31) if align else (10.5 / 8 - 0.5)
        row = difference[:, 0, 0] * (1 - at) + difference[:, 0, 1] * at
        torch.testing.assert_close(A[:, 0, 10], row, rtol=1e-5, atol=1e-5)
    assert maps.latent_map(z0, z0, 32, tiny()).abs().max() == 0
    assert torch.equal(maps.upsample(difference, 4, tiny()), difference)


def test_blurred_latent_map_lets_signs_cancel():
    z0, z0_hat = torch.randn(2, 3, 8, 8, generator=seeded()), torch.randn(2, 3, 8, 8, generator=seeded(1))
    by_hand = np.stack([gaussian_filter(x, 1.0, mode="mirror", truncate=4.0) for x in (z0 - z0_hat).flatten(0, 1).numpy()])
    expected = torch.from_numpy(np.abs(by_hand)).unflatten(0, (2, 3)).mean(1)
    torch.testing.assert_close(maps.latent_map(z0, z0_hat, 8, tiny(latent_blur=1.0)), expected, rtol=1e-5, atol=1e-5)
    checks = (torch.arange(8).view(8, 1) + torch.arange(8)) % 2 * 2.0 - 1                         # +1 and -1 in turn: a texture
    for difference, plain, blurred in ((checks, 1.0, 0.02), (torch.ones(8, 8), 1.0, 1.0)):
        z0 = difference.expand(1, 3, 8, 8)
        assert maps.latent_map(z0, 0 * z0, 8, tiny()).mean() == pytest.approx(plain)
        assert maps.latent_map(z0, 0 * z0, 8, tiny(latent_blur=1.0)).mean() == pytest.approx(blurred, abs=0.02)


def test_feature_map_sums_the_chosen_blocks():
    a = [torch.randn(2, c, s, s, generator=seeded(c)) for c, s in ((3, 8), (4, 4), (5, 2))]
    b = [torch.randn(2, c, s, s, generator=seeded(c + 9)) for c, s in ((3, 8), (4, 4), (5, 2))]
    def cosine(j):
        return 1 - (a[j] * b[j]).sum(1) / a[j].norm(dim=1) / b[j].norm(dim=1)
    found = maps.feature_map(a, b, 16, tiny())
    torch.testing.assert_close(found, maps.upsample(cosine(1), 16, tiny()) + maps.upsample(cosine(2), 16, tiny()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(maps.feature_map(a, b, 16, tiny(map_stages=(1,))), maps.upsample(cosine(0), 16, tiny()), rtol=1e-5, atol=1e-5)
    assert maps.feature_map(a, a, 16, tiny()).abs().max() < 1e-6


def test_normalise_and_lambda():
    A_l, A_f = torch.rand(3, 32, 32, generator=seeded()) * 5 + 2, torch.rand(3, 32, 32, generator=seeded(1)) * 0.1
    ranges = maps.Ranges.of(A_l, A_f)
    assert ranges == maps.Ranges((A_l.min().item(), A_l.max().item()), (A_f.min().item(), A_f.max().item()))
    for A, low_high in ((A_l, ranges.latent), (A_f, ranges.feature)):
        scaled = maps.normalise(A, low_high)
        assert scaled.min() == 0 and scaled.max().item() == pytest.approx(1, abs=1e-6)
        assert maps.normalise(A + 10, low_high).max() > 1  # no clamp
    assert torch.isfinite(maps.normalise(torch.ones(1, 4, 4), (1.0, 1.0))).all()
    sigma = 4 * 32 / 256
    for lam in (0.0, 1.0, 0.85):
        expected = maps.smooth(lam * maps.normalise(A_l, ranges.latent) + (1 - lam) * maps.normalise(A_f, ranges.feature), sigma)
        torch.testing.assert_close(maps.combine(A_l, A_f, ranges, tiny(lam=lam)), expected)
    assert torch.equal(maps.combine(A_l, A_f, ranges, tiny(lam=1.0)), maps.combine(A_l, A_f * 7, ranges, tiny(lam=1.0)))
    assert torch.equal(maps.combine(A_l, A_f, ranges, tiny(lam=0.0)), maps.combine(A_l * 7, A_f, ranges, tiny(lam=0.0)))


@pytest.mark.parametrize("sigma, size", [(4.0, 64), (1.3, 32), (0.5, 32), (2.0, 48)])
def test_gaussian_is_that_of_scipy(sigma, size):
    A = torch.rand(2, size, size, generator=seeded(), dtype=torch.float64)
    expected = np.stack([gaussian_filter(a, sigma, mode="mirror", truncate=4) for a in A.numpy()])
    np.testing.assert_allclose(maps.smooth(A, sigma).numpy(), expected, atol=1e-10)


def test_gaussian_keeps_a_constant_and_the_sum_inside():
    torch.testing.assert_close(maps.smooth(torch.full((1, 64, 64), 0.7), 4.0), torch.full((1, 64, 64), 0.7))
    point = torch.zeros(1, 64, 64)
    point[0, 30, 33] = 5.0
    smoothed = maps.smooth(point, 4.0)
    assert smoothed.sum().item() == pytest.approx(5, abs=1e-4) and smoothed.argmax() == point.argmax()
    assert smoothed.max().item() == pytest.approx(5 / (2 * math.pi * 16), rel=0.02)
    assert torch.isfinite(maps.smooth(torch.rand(1, 8, 8), 4.0)).all()  # the kernel is wider than the map


def test_score_and_threshold():
    A = torch.rand(5, 8, 8, generator=seeded())
    assert maps.score(A).tolist() == [a.max().item() for a in A]
    scores = torch.arange(101.0)
    assert maps.quantile_threshold(scores, 0.95) == pytest.approx(95) and maps.quantile_threshold(scores, 1.0) == 100


# --- latent projection


def test_pixel_space_loses_nothing():
    x0, space = torch.rand(2, 3, 32, 32, generator=seeded()) * 2 - 1, LatentProjection(load_vae("pixels"))
    z0 = space.encode(x0)
    assert z0.shape == (2, 192, 4, 4) and space.s == 1 and torch.equal(space.decode(z0), x0)
    assert torch.equal(space.encode(x0, "sample", seeded()), z0)  # it has no variance to draw from


class Plain:
    """Any object with encode and decode on tensors."""

    def encode(self, x0):
        return nn.functional.avg_pool2d(x0, 8)

    def decode(self, z):
        self.decoded = z
        return nn.functional.interpolate(z, scale_factor=8)


def test_the_scale_is_applied_once_each_way():
    x0, vae = torch.rand(1, 3, 32, 32, generator=seeded()) - 0.5, Plain()
    projection = LatentProjection(vae, scale=0.25)
    z0 = projection.encode(x0)
    torch.testing.assert_close(z0, vae.encode(x0) * 0.25)
    assert projection.decode(z0).shape == x0.shape
    torch.testing.assert_close(vae.decoded, vae.encode(x0))
    assert LatentProjection(Plain()).s == 1
    nines = torch.full((1, 3, 4, 4), 9.0)
    assert projection.decode(nines).max() == 1 < projection.decode(nines, clamp=False).max()


def test_autoencoder_kl_from_a_folder(tmp_path):
    vae = tiny_vae()
    vae.save_pretrained(tmp_path / "kl")
    projection, x0 = LatentProjection(load_vae(str(tmp_path / "kl"))), good_images(3, 32)
    assert projection.s == 0.5 and not projection.vae.training and not any(p.requires_grad for p in projection.vae.parameters())
    with torch.no_grad():
        posterior = vae.encode(x0).latent_dist
    mode = projection.encode(x0)
    torch.testing.assert_close(mode, posterior.mean * 0.5)
    sample = projection.encode(x0, "sample", seeded(7))
    torch.testing.assert_close(sample, (posterior.mean + posterior.std * torch.randn(mode.shape, generator=seeded(7))) * 0.5)
    assert torch.equal(sample, projection.encode(x0, "sample", seeded(7))) and not torch.equal(sample, projection.encode(x0, "sample", seeded(8)))
    with torch.no_grad():
        torch.testing.assert_close(projection.decode(mode), vae.decode(posterior.mean).sample.clamp(-1, 1))
    mean, std = projection.encode_all(x0, batch=2)
    torch.testing.assert_close(mean, mode, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, posterior.std * 0.5, rtol=1e-4, atol=1e-5)


def test_autoencoder_tiny_from_a_folder(tmp_path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    blocks = dict(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4)
    AutoencoderTiny(**blocks).save_pretrained(tmp_path / "taesd")
    projection, x0 = LatentProjection(load_vae(str(tmp_path / "taesd"))), good_images(2, 32)
    z0 = projection.encode(x0, "sample", seeded())
    assert type(projection.vae) is AutoencoderTiny and z0.shape == (2, 4, 4, 4) and torch.equal(z0, projection.encode(x0))
    assert projection.decode(z0).shape == x0.shape and projection.encode_all(x0)[1] is None


def test_autoencoders_that_cannot_be_had(tmp_path):
    for name in ("nobody/nothing", "nobody/nothing/vae", "/no/such/folder", "nothing"):
        with pytest.raises(BackboneError, match=f"{name}.*pass a folder that holds one, FILE.py:CALLABLE, or 'embedded'") as error:
            load_vae(name)
        assert "\n" not in str(error.value)
    build_unet(tiny(), 4, 8).save_pretrained(tmp_path / "unet")
    with pytest.raises(BackboneError, match="holds a UNet2DModel; give an AutoencoderKL"):
        load_vae(str(tmp_path / "unet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match="empty"):
        load_vae(str(tmp_path / "empty"))
    tiny_vae().save_pretrained(tmp_path / "kl")
    weights = tmp_path / "kl" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BackboneError, match="kl"):
        load_vae(str(tmp_path / "kl"))


def test_autoencoder_of_ones_own_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    def encode(self, x0): return x0[..., ::8, ::8]\n    def decode(self, z): return z\n"
                    "class group:\n    make = staticmethod(lambda: Mine())\n")  # fmt: skip
    x0 = good_images(1, 32)
    for name in ("Mine", "group.make"):
        assert torch.equal(LatentProjection(load_vae(f"{file}:{name}")).encode(x0), x0[..., ::8, ::8])
    for name in (f"{file}:Other", f"{tmp_path}/none.py:Mine"):
        with pytest.raises(BackboneError, match="FILE.py:CALLABLE, and the call must return an object with encode and decode"):
            load_vae(name)


# --- features


def test_efficientnet_has_the_stages_it_says():
    phi = load_features(preset())
    assert type(phi) is EfficientNetLite0 and not phi.training and not any(p.requires_grad for p in phi.parameters())
    assert [tuple(f.shape[1:]) for f in phi(torch.zeros(1, 3, 64, 64))] == [(24, 16, 16), (40, 8, 8), (112, 4, 4)]
    assert len(load_features(preset(map_stages=(2, 4)))(torch.zeros(1, 3, 64, 64))) == 4
    assert all(norm.eps == 1e-3 for norm in phi.modules() if isinstance(norm, nn.BatchNorm2d))  # as its weights were trained
    empty = empty_features(preset(), None)
    empty.load_state_dict(phi.state_dict())
    x0 = good_images(1)
    assert all(torch.equal(a, b) for a, b in zip(phi(x0), empty(x0), strict=True))


def test_efficientnet_knows_pictures():
    """Its weights are in the right places: two pictures of one thing look more alike than a third of another."""
    phi, x0 = load_features(preset()), good_images(2)
    strange = torch.rand(1, 3, 64, 64, generator=seeded()) * 2 - 1
    for a in phi(torch.cat([x0, strange])):
        assert 0.05 < a.std() < 20
        assert (a[0] - a[1]).abs().mean() < 0.9 * (a[0] - a[2]).abs().mean()


def test_resnet_from_a_folder(tmp_path):
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic")
    torch.manual_seed(0)
    model = ResNetModel(config).eval()
    model.save_pretrained(tmp_path / "resnet")
    phi, x0 = load_features(preset(features=str(tmp_path / "resnet"))), good_images(2)
    assert type(phi) is ResNetFeatures and not phi.training and not any(p.requires_grad for p in phi.parameters())
    stages = phi(x0)
    assert [tuple(f.shape[1:]) for f in stages] == [(8, 16, 16), (12, 8, 8), (16, 4, 4)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = model(((x0 + 1) / 2 - mean) / std, output_hidden_states=True).hidden_states
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(stages, expected[1:], strict=False))
    empty = empty_features(preset(), phi.config.to_dict())
    empty.load_state_dict(phi.state_dict())
    assert torch.equal(empty(x0)[2], stages[2])


def test_features_that_cannot_be_had(tmp_path):
    (tmp_path / "empty").mkdir()
    build_unet(tiny(), 4, 8).save_pretrained(tmp_path / "unet")
    for name in ("nobody/nothing", str(tmp_path / "empty"), str(tmp_path / "unet")):
        with pytest.raises(BackboneError, match=f"{name}.*efficientnet-lite0"):
            load_features(preset(features=name))


def test_features_of_another_class_are_refused(tmp_path):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    with pytest.raises(BackboneError, match="model of type vit"):
        load_features(preset(features=str(tmp_path / "vit")))


# --- training


def run_training(path=None, stop_at=None, seed=0, steps=7, **changes):
    """A tiny U-Net, trained `steps` steps with a checkpoint every 3; stop_at interrupts that step. The weights, or None."""
    settings = tiny(train_length=f"{steps} steps", seed=seed, **changes)
    torch.manual_seed(seed)
    unet, abar, z0 = build_unet(settings, 4, 4), alpha_bar(settings), torch.randn(6, 4, 4, 4, generator=seeded())
    calls = []

    def batch_at(draws):
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        calls.append(1)
        rows = torch.randint(6, (4,), generator=draws)
        return z0[rows], torch.randint(1000, (4,), generator=draws), torch.randn(4, 4, 4, 4, generator=draws)

    record = training.optimise(unet, batch_at, lambda *batch: epsilon_loss(unet, *batch, abar), steps, "test", settings, path, every=3)
    return unet.state_dict(), record, len(calls)


def same(a, b):
    return all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.mark.parametrize("ema", [0.0, 0.999])
def test_an_interrupted_training_ends_like_an_undisturbed_one(tmp_path, ema):
    path = tmp_path / "new folder" / "state.safetensors"
    weights, record, calls = run_training(ema=ema)
    assert calls == 7
    with pytest.raises(KeyboardInterrupt):
        run_training(path, stop_at=5, ema=ema)
    assert path.exists() and [p.name for p in path.parent.iterdir()] == [path.name]
    resumed, record_resumed, calls = run_training(path, ema=ema)
    assert calls == 4  # steps 3 .. 6
    assert same(weights, resumed) and record == record_resumed
    finished, record_again, calls = run_training(path, ema=ema)
    assert calls == 0 and same(weights, finished) and record_again == record


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    run_training(path)
    before = path.read_bytes()
    for changes in ({"seed": 1}, {"learning_rate": 1e-4}, {"steps": 8}):
        with pytest.raises(SettingsError, match="other settings"):
            run_training(path, **changes)
    assert path.read_bytes() == before


def test_a_checkpoint_serves_where_only_later_stages_differ(tmp_path):
    path = tmp_path / "state.safetensors"
    weights, _, _ = run_training(path)
    again, _, calls = run_training(path, lam=0.1, T_max=160, tune_epochs=0)
    assert calls == 0 and same(weights, again)


def test_seed_decides_the_weights():
    settings, mean = tiny(), torch.randn(8, 4, 4, 4, generator=seeded())
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        unet = build_unet(settings, 4, 4)
        record = training.train_noise_predictor(unet, mean, None, settings.change(seed=seed), torch.device("cpu"))
        runs.append(unet.state_dict())
        assert record["steps"] == 3 and math.isfinite(record["loss"]) and record["parameters"] == sum(p.numel() for p in unet.parameters())
        assert not unet.training and not any(p.requires_grad for p in unet.parameters())
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_posterior_samples_reach_the_training():
    settings, mean = tiny(), torch.zeros(8, 4, 4, 4)
    runs = []
    for posterior in ("mode", "sample"):
        torch.manual_seed(5)
        unet = build_unet(settings, 4, 4)
        training.train_noise_predictor(unet, mean, torch.ones(8, 4, 4, 4), settings.change(posterior=posterior), torch.device("cpu"))
        runs.append(unet.state_dict())
    assert not same(*runs)


def test_learning_rates():
    rates = [training.learning_rate(i, 200, 0.1, "one-cycle") for i in range(200)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(0.1) and rates.index(max(rates)) in (9, 10) and 0 < rates[-1] < 1e-4
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert {training.learning_rate(i, 200, 0.1, "constant") for i in range(200)} == {0.1}
    assert training.learning_rate(0, 1, 0.1, "one-cycle") == 0.1


def test_training_learns():
    """A network that can only scale learns the best scale: E[eps z_t] / E[z_t^2] = sqrt(1 - abar_t) for unit latents."""
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(1))

    model, settings, abar = Scale(), tiny(learning_rate=0.05, ema=0.9), alpha_bar(preset())

    def batch_at(draws):
        return torch.randn(512, generator=draws), torch.randn(512, generator=draws)

    def loss_of(z0, eps):
        return (model.a * q_sample(z0, abar[300], eps) - eps).square().mean()

    training.optimise(model, batch_at, loss_of, 150, "test", settings)
    assert model.a.item() == pytest.approx((1 - abar[300]).sqrt().item(), abs=0.05)


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_gradients_are_clipped_where_it_is_set(limit):
    """Against the same steps of AdamW by hand, with gradients of norm 6 and 0.2 in turn."""
    model, settings = nn.Linear(2, 1, bias=False), tiny(gradient_clip=limit, learning_rate=0.1, learning_rate_schedule="constant", ema=0.0)
    by_hand = nn.Linear(2, 1, bias=False)
    by_hand.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(by_hand.parameters(), lr=0.1, weight_decay=settings.weight_decay)
    slopes = [torch.tensor([[6.0, 0.0]]), torch.tensor([[-0.12, 0.16]])] * 2
    for slope in slopes:
        by_hand.weight.grad = slope / max(1, slope.norm().item()) if limit else slope.clone()
        optimiser.step()
    left = iter(slopes)
    training.optimise(model, lambda draws: (next(left),), lambda slope: (model.weight * slope).sum(), 4, "test", settings)
    torch.testing.assert_close(model.weight, by_hand.weight, rtol=0, atol=1e-5)


def test_autoencoder_training_sets_its_scale():
    vae, images = tiny_vae(), good_images(6, 32)
    record = training.train_vae(vae, images, tiny(train_length="2 steps"))
    with torch.no_grad():
        z = vae.encode(images).latent_dist.mean
    assert vae.config.scaling_factor == pytest.approx(1 / z.std().item(), rel=1e-4)
    assert math.isfinite(record["psnr"]) and record["steps"] == 2


def test_patches_come_from_the_neighbour():
    x0 = torch.stack([torch.full((3, 32, 32), v) for v in (0.1, 0.2, 0.3, 0.4)])
    kept = x0.clone()
    patched = training.patched(x0, seeded())
    assert torch.equal(x0, kept) and torch.equal(patched[1::2], x0[1::2]) and torch.equal(patched, training.patched(x0, seeded()))
    for n, other in ((0, 0.4), (2, 0.2)):
        assert set(patched[n].unique().tolist()) == set(torch.tensor([x0[n, 0, 0, 0].item(), other]).tolist())


# --- calibration


def test_synthetic_defects():
    good = good_images(24)
    damaged, masks = calibration.synthetic_defects(good, seed=3)
    again, masks_again = calibration.synthetic_defects(good, seed=3)
    assert torch.equal(damaged, again) and (masks == masks_again).all()
    assert not torch.equal(damaged, calibration.synthetic_defects(good, seed=4)[0])
    assert damaged.shape == good.shape and damaged.dtype == torch.float32 and masks.dtype == bool and masks.any((1, 2)).all()
    assert damaged.min() >= -1.001 and damaged.max() <= 1.001
    change = (damaged - good).abs().amax(1).numpy() / 2
    for n in range(24):
        assert change[n][masks[n]].mean() > 0.1  # it can be seen
        assert change[n][masks[n]].min() > 0.03 - 1e-6
        near = binary_dilation(masks[n], np.ones((3, 3)), iterations=3)
        assert change[n][~near].max() <= 0.03 + 1e-6  # its soft edge apart, nothing else changed
    areas = np.sort(masks.mean((1, 2)))
    assert areas[0] < 0.005 and areas[-1] > 0.1 and areas[3] < 0.01 < areas[12] * 3 and areas[18] > 0.01


@pytest.mark.parametrize("area", [0.001, 0.01, 0.1, 0.2])
def test_regions_have_about_the_area_asked_for(area):
    picture = np.random.default_rng(0).random((4, 4, 3)).repeat(16, 0).repeat(16, 1)
    shares = [calibration.region(picture, area, np.random.default_rng(seed)).mean() for seed in range(40)]
    assert 0.4 * area < np.median(shares) < 2 * area and min(shares) >= 0 and max(shares) < 3 * area + 0.01


def test_best_takes_the_largest_mean_over_products():
    def row(T_max, auroc, pro):
        return {"T_max": T_max, "smallest_bin": 2, "guidance": 1.0, "latent_blur": 0.0, "lam": 0.5, "i_auroc": auroc, "pro": pro}

    one, two = [row(80, 0.9, 0.9), row(160, 0.8, 0.8), row(240, 0.7, 1.0)], [row(80, 0.5, 0.5), row(160, 0.8, 0.8), row(240, 0.6, 0.6)]
    assert calibration.best(one) == {"T_max": 80, "smallest_bin": 2, "guidance": 1.0, "latent_blur": 0.0, "lam": 0.5}
    assert calibration.best(one, two)["T_max"] == 160
    assert calibration.best([row(80, 0.2, 0.9), row(160, 0.9, 0.3)])["T_max"] == 160


def test_a_misspelt_setting_is_answered_with_the_nearest():
    with pytest.raises(SettingsError, match="no setting is called guidanc; did you mean guidance?"):
        tiny().change(guidanc=3.0)
