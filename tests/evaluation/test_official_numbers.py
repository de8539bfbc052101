"""The official code's own numbers, recorded by record_official.py: both the
transcription that detection is timed against and the method under the preset "official"
must give them, on the same inputs.
"""

import json
from types import SimpleNamespace as Names

import numpy as np
import pytest
import torch
from record_official import (
    LEVELS,
    LOOKED_UP,
    NUMBERS,
    SIZE,
    STEPS,
    STRIDE,
    TRAINED,
    Eps,
    K,
    Phi,
    Vae,
    images,
    latents,
    masks,
    pairs,
    pro_maps,
)

from ddad import anomaly_map as maps
from ddad import dynamic_noise, scaled_denoising
from ddad.evaluation import metrics, official
from ddad.latent_projection import LatentProjection
from ddad.networks.features import IMAGENET_MEAN, IMAGENET_STD
from ddad.noise_predictor import alpha_bar
from ddad.settings import preset

THEIRS = json.loads(NUMBERS.read_text(encoding="utf-8"))
# Their Gaussian is of 4 pixels at every size, ours of 4 in 256.
SETTINGS = preset("official", image_size=SIZE, sigma=4.0 * 256 / SIZE, neighbours=K)
RULE = {True: "image", False: "static"}
BOTH = pytest.mark.parametrize("side", ["transcription", "method"])


class NormalisedPhi(Phi):
    """Their code normalises before its network, ours in it."""

    def forward(self, x):
        mean, std = (torch.tensor(one).view(3, 1, 1)
                     for one in (IMAGENET_MEAN, IMAGENET_STD))
        return super().forward(((x + 1) / 2 - mean) / std)


class SampleEps(Eps):
    """The transcription takes a network of diffusers."""

    def forward(self, z, t):
        return Names(sample=super().forward(z, t))


class ScaledVae(Vae):
    config = Names(scaling_factor=0.18215)


def same(found, recorded, tolerance=1e-5):
    """Within rounding of float32; maps of ours (B, H, H) or (B, 1, H, H)."""
    found, recorded = torch.as_tensor(found).double(), torch.tensor(recorded).double()
    if found.shape[-1] == SIZE:
        found = found[..., ::STRIDE, ::STRIDE].reshape(recorded.shape)
    assert found.shape == recorded.shape
    assert (found - recorded).abs().max() < tolerance


def denoised(side, z0, T_hat, s):
    with torch.no_grad():
        if side == "transcription":
            return official.sample(SampleEps(), z0, T_hat, s)
        zeroed = s.step_rule == "static" and s.static_first_step == "zeroed"
        path = scaled_denoising.timesteps(T_hat, s.ddim_steps, s.first_call)
        return scaled_denoising.scaled_denoising(
            Eps(), z0, T_hat, alpha_bar(s), s.guidance, path=path, z0_from=s.z0_from,
            zero_first=zeroed)


def levels(side, b, s):
    if side == "transcription":
        return official.level(b, s).tolist()
    return dynamic_noise.select_step(
        torch.as_tensor(b), s.T_max, s.bins, s.smallest_bin, s.level_rounding).tolist()


def test_the_numbers_are_of_one_commit_and_of_these_inputs():
    assert THEIRS["repository"] == "JustinTebbe/Dynamic-noise-AD"
    assert THEIRS["commit"] == "08b12718e9d8647c1e9425886a5f31bc6aaad509"
    same(latents(), THEIRS["z0"], 1e-7)


@BOTH
def test_recorded_alpha_bar(side):
    abar = alpha_bar(SETTINGS)
    if side == "transcription":
        abar = official.schedule(SETTINGS)[:-1]
    for recorded in THEIRS["abar"]:                 # of both samplers; -1 comes first
        same(torch.cat([torch.ones(1), abar[STEPS]]), recorded, 2e-6)
    for values, recorded in zip((abar, 1 - abar), THEIRS["coefficients"]):
        same(values[STEPS].sqrt(), recorded)
    # Late steps divide by the root of a small abar.
    assert abar[999].item() == pytest.approx(THEIRS["abar"][0][-1], rel=1e-4)


@BOTH
@pytest.mark.parametrize("row", THEIRS["sampled"], ids=lambda row: (
    f"{'dynamic' if row['dynamic'] else 'static'}-w{row['w']:g}-{row['T_hat']}"))
def test_recorded_samplers(side, row):
    s = SETTINGS.change(step_rule=RULE[row["dynamic"]], guidance=row["w"])
    same(denoised(side, latents(), torch.tensor(row["T_hat"]), s), row["z0_hat"])


@BOTH
def test_recorded_edges_and_bins(side):
    d = torch.from_numpy(LOOKED_UP)
    if side == "transcription":
        b = official.bins_of(TRAINED, LOOKED_UP, 10)
    else:
        edges = dynamic_noise.bin_edges(torch.from_numpy(TRAINED), 10)
        same(edges, THEIRS["edges"])
        b = dynamic_noise.choose_bin(d, edges, SETTINGS.edge_bin)
    # Up to the lowest edge they have bin 0, ours is 1: the smallest bin is above both.
    assert min(THEIRS["bins"]) == 0
    assert b.tolist() == np.maximum(THEIRS["bins"], 1).tolist()
    stepped = levels(side, b, SETTINGS)
    assert stepped == levels(side, np.array(THEIRS["bins"]), SETTINGS)


@BOTH
@pytest.mark.parametrize("T_max", LEVELS)
def test_recorded_levels(side, T_max):
    b = np.arange(2, 11)
    found = levels(side, b, SETTINGS.change(T_max=T_max))
    # Bin 7 of 350 and 650 is almost a tie: 0.7 T_max falls below it by rounding.
    for recorded in THEIRS["levels"][str(T_max)]:           # detection's, fine-tuning's
        assert found == recorded


@BOTH
def test_recorded_maps(side):
    s, ((z0, z0_hat), (x0, x0_hat), (A_l, A_f)) = SETTINGS, pairs()
    phi, align = NormalisedPhi(), SETTINGS.align_corners
    with torch.no_grad():
        if side == "transcription":
            latent = official.latent_distance(z0, z0_hat, SIZE)
            feature = official.feature_distance(phi, x0, x0_hat, s)
            blur = lambda A: official.blurred(A, 4.0)
            scaled = official.scaled(list(A_l.split(1)))
            A = s.lam * scaled + (1 - s.lam) * official.scaled(list(A_f.split(1)))
            A = blur(A)
        else:
            latent = maps.latent_map(z0, z0_hat, SIZE, s.latent_blur, align)
            feature = maps.feature_map(phi(x0), phi(x0_hat), SIZE, s.map_stages, align)
            blur = lambda A: maps.smooth(A, 4.0)
            ranges = maps.Ranges.of(A_l, A_f)
            scaled = maps.normalise(A_l, ranges.latent)
            A = maps.combine(A_l[:, 0], A_f[:, 0], ranges, s.lam, s.sigma)
        same(latent, THEIRS["latent"])
        same(feature, THEIRS["feature"])
        same(blur(latent), THEIRS["latent blurred"])
        same(blur(feature), THEIRS["feature blurred"])
        same(scaled, THEIRS["scaled"])
        same(A, THEIRS["map"])


@BOTH
@pytest.mark.parametrize("n", [0, 1])
def test_recorded_pro(side, n):
    pro = official.pro if side == "transcription" else metrics.pro_200
    found = pro(pro_maps(n).numpy(), masks().numpy())
    assert found == pytest.approx(THEIRS["pro"][n], abs=1e-5)


def evaluated(s):
    """The method's functions one after the other, and their distances to be binned."""
    (train, x0), phi, vae = images(), NormalisedPhi(), ScaledVae()
    projection = LatentProjection(
        lambda x: (vae.encode(x).latent_dist.mean, None),
        lambda z: vae.decode(z).sample, vae.config.scaling_factor)
    y = lambda x: dynamic_noise.feature(phi(x)[s.neighbour_stage - 1], s.neighbour_pool)
    bank = dynamic_noise.MemoryBank.fit(y(train), s.neighbours, s.self_neighbour)
    edges = dynamic_noise.bin_edges(bank.distances, s.bins)
    b = dynamic_noise.choose_bin(bank.distance(y(x0), s.neighbours), edges, s.edge_bin)
    T_hat = torch.tensor(levels("method", b, s) if s.step_rule == "image"
                         else [s.T_max] * len(x0))
    z0 = projection.encode(x0)
    z0_hat = denoised("method", z0, T_hat, s)
    x0_hat = projection.decode(z0_hat, s.clamp)
    A_l = maps.latent_map(z0, z0_hat, SIZE, s.latent_blur, s.align_corners)
    A_f = maps.feature_map(phi(x0), phi(x0_hat), SIZE, s.map_stages, s.align_corners)
    A = maps.combine(A_l, A_f, maps.Ranges.of(A_l, A_f), s.lam, s.sigma)
    return {"T_hat": T_hat, "z0_hat": z0_hat[..., ::4, ::4], "latent": A_l,
            "feature": A_f, "map": A, "score": maps.score(A)}


@BOTH
@pytest.mark.parametrize("row", THEIRS["evaluations"], ids=lambda row: (
    f"{'dynamic' if row['dynamic'] else 'static'}-{row['T_max']}"))
def test_recorded_evaluations(side, row):
    s = SETTINGS.change(T_max=row["T_max"], step_rule=RULE[row["dynamic"]])
    if side == "transcription":
        train, x0 = images()
        phi, vae, pro = NormalisedPhi(), ScaledVae(), official.pro
        found = official.official_evaluation(
            SampleEps(), vae, phi, vae.config.scaling_factor,
            official.remember(phi, train, s), x0, s, batch=4)
    else:
        pro = metrics.pro_200
        with torch.no_grad():
            found = evaluated(s)
    # They visit 0, k .. 9 k: the level is ten strides.
    visited = torch.tensor(row["visited"])
    assert found["T_hat"].tolist() == (10 * visited[:, 1]).tolist()
    path = scaled_denoising.timesteps(torch.as_tensor(found["T_hat"]), 10, s.first_call)
    assert torch.equal(path[:-1].T.flip(1), visited)
    for name in ("z0_hat", "latent", "feature", "map", "score"):
        if name in found:
            same(found[name], row[name])
    A = torch.as_tensor(found["map"]).numpy()
    # Of 24,576 pixels about one lies within rounding, 1e-7, of one of 200 thresholds
    # and may fall on its other side; on identical maps, above, PRO is held to 1e-5.
    assert pro(A, masks().numpy()) == pytest.approx(row["pro"], abs=1e-4)
