"""Settings: what each preset says, what is refused, and the round trip through JSON."""
import json
from dataclasses import fields

import pytest

from ddad.runtime.errors import SettingsError
from ddad.settings import (
    EPS_THETA,
    FAST,
    ONE_CALL,
    PHI,
    PRESETS,
    REGIONAL,
    Settings,
    preset,
    shaping,
)

SD_VAE = "stabilityai/sd-vae-ft-mse"
BIG = (192, 384, 384, 768, 768)
# what the presets clean, paper and official have to say: all three the same
ALIKE = {
    "neighbour_stage": 2, "neighbour_pool": 16, "neighbours": 20, "bins": 10,
    "smallest_bin": 2, "tune_stages": (1, 2, 3), "vae": SD_VAE,
    "beta_schedule": "linear", "beta_start": 0.0015, "beta_end": 0.0195,
    "timesteps": 1000, "T_max": 80, "ddim_steps": 10, "noise": False,
    "step_rule": "image", "train_timesteps": 1000, "masked_share": 0.0, "decode": True,
    "patch_share": 0.0, "threshold_share": 0.0, "false_alarms": 0.05,
    "map_stages": (2, 3), "lam": 0.85, "latent_blur": 0.0, "sigma": 4.0,
    "guidance": 4.0, "image_size": 256, "weight_decay": 0.01,
}
# and, row by row of the comparison of paper and code, where they differ
ROWS = {name: (value,) * 3 for name, value in ALIKE.items()} | {
    "level_rounding": ("floor", "floor", "half-up"),
    "edge_bin": ("upper", "upper", "lower"),
    "self_neighbour": (False, True, True),
    "first_call": ("latent", "latent", "below"),
    "static_first_step": ("same", "same", "zeroed"),
    "z0_from": ("e_hat", "e", "e_hat"),
    "tune_level": ("image", "batch", "batch"),
    "tune_cosine": ("position", "position", "flattened"),
    "tune_batch_norm": ("frozen", "training", "training"),
    "tune_gradient": ("reconstruction", "both", "both"),
    "tune_epochs": (1, 3, 1),
    "posterior": ("mode", "mode", "sample"),
    "train_vae": ("", "", "CompVis/stable-diffusion-v1-4/vae"),
    "map_range": ("held-out", "test", "test"),
    "pro": ("exact", "exact", "200-thresholds"),
    "mask_rule": ("area", "area", "bilinear"),
    "threshold": ("conformal", "youden", "youden"),
    "seed": (0, 42, 42),
    "unet_channels": ((64, 96, 160), BIG, BIG),
    "unet_layers": (1, 2, 2), "unet_heads": (0, 8, 8),
    "unet_blocks": ("diffusers", "guided-diffusion", "guided-diffusion"),
    "unet_attention_from": (1, 0, 0), "unet_attention_to": (9, 3, 3),
    "train_order": ("drawn", "epochs", "epochs"),
    "learning_rate_schedule": ("one-cycle", "constant", "constant"),
    "gradient_clip": (1.0, 0.0, 0.0), "ema": (0.999, 0.0, 0.0),
    "learning_rate": (5e-4, 1e-4, 1e-4),
    "train_batch": (16, 30, 30),
    "train_length": ("3000 steps", "300 epochs", "300 epochs"),
    "features": ("efficientnet-lite0", "microsoft/resnet-34", "microsoft/resnet-34"),
}
REFUSED = {
    "image_size": (8, "256", 100), "held_out": (1.0,), "vae": (3,),
    "posterior": ("mean",), "timesteps": (1000.5,), "beta_schedule": ("cosine",),
    "beta_start": (0,), "beta_end": (float("nan"),), "unet_channels": ((20,), (), 64),
    "unet_heads": (-1, 7), "unet_blocks": ("guided",), "unet_attention_to": (1.5,),
    "train_order": ("epoch",), "train_length": ("10", "ten steps", "-1 steps"),
    "train_batch": (0,), "ema": (1,), "neighbours": (0,),
    "step_rule": ("dynamic", True), "patch_bank": (1,), "masked_share": (1.01,),
    "train_timesteps": (1001, 9), "patch_share": (-0.1,), "threshold_share": (1,),
    "decode": (0,),
    "neighbour_stage": (0,), "bins": (0,), "smallest_bin": (11,), "edge_bin": ("left",),
    "T_max": (1000, 9), "level_rounding": ("ceil",), "ddim_steps": (0,),
    "first_call": ("above",), "z0_from": ("z",), "call_every": (0,), "guidance": (-1,),
    "tune_stages": ((0, 1),), "map_stages": ((5,), (-1,), "23"), "lam": (1.01,),
    "sigma": (0,), "false_alarms": (0, 1), "seed": (-1, True), "preset": ("mine",),
    "mask_rule": ("nearest",), "threshold": ("best",), "pro": ("100",),
    "latent_blur": (-1,),
}


@pytest.mark.parametrize("name", ROWS)
def test_presets_have_the_values_of_paper_and_code(name):
    three = [PRESETS[one] for one in ("clean", "paper", "official")]
    assert tuple(getattr(settings, name) for settings in three) == ROWS[name]


def test_the_default_is_clean():
    assert Settings() == PRESETS["clean"] == preset()


@pytest.mark.parametrize(
    "name, value", [(name, value) for name in REFUSED for value in REFUSED[name]])
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=f"setting {name}: "):
        preset("clean", **{name: value})


@pytest.mark.parametrize("preset_name", ["regional", "one-call", "fast"])
def test_the_other_presets_are_clean_but_for_what_they_say(preset_name):
    own = {"regional": REGIONAL, "one-call": ONE_CALL, "fast": FAST}[preset_name]
    one, clean = PRESETS[preset_name].as_dict(), PRESETS["clean"].as_dict()
    assert {name for name in one if one[name] != clean[name]} == {"preset", *own}
    assert {name: one[name] for name in own} == own


def test_the_extensions_are_a_step_a_region_and_one_call():
    region, one_call = PRESETS["regional"], PRESETS["one-call"]
    assert region.step_rule == "region" and region.by_patch and region.decode
    assert one_call.step_rule == "static" and one_call.ddim_steps == 1
    # without decoder and features there is nothing to tune
    assert not one_call.decode and one_call.lam == 1 and one_call.tune_epochs == 0
    # one training serves all three
    for name in shaping(EPS_THETA):
        assert len({getattr(one, name) for one in (region, one_call, preset())}) == 1
    assert preset(patch_share=0.5).by_patch and not preset().by_patch


@pytest.mark.parametrize("one, changes, name", [
    (preset("clean"), {"held_out": 0.0}, "held_out"),
    (preset("paper"), {"map_range": "held-out"}, "held_out"),
    (preset("paper"), {"threshold": "conformal"}, "held_out"),
    (preset("paper"), {"step_rule": "region"}, "held_out"),
    (preset("paper"), {"patch_share": 0.5}, "held_out"),
    (preset("regional"), {"noise": True}, "noise"),
    (preset("one-call"), {"step_rule": "image"}, "decode"),
    (preset("one-call"), {"lam": 0.99}, "decode"),
    (preset("one-call"), {"patch_share": 0.01}, "decode"),
    (preset("clean"), {"decode": False}, "decode"),
    (preset("clean"), {"timesteps": 80, "train_timesteps": 80}, "T_max"),
    (preset("clean"), {"timesteps": 500}, "train_timesteps")])
def test_settings_that_do_not_fit_one_another(one, changes, name):
    with pytest.raises(SettingsError, match=f"setting {name}: "):
        one.change(**changes)


def test_settings_at_the_edge_of_what_fits():
    assert preset("clean", timesteps=81, train_timesteps=81).T_max == 80
    assert preset("paper", step_rule="static").held_out == 0


def test_settings_are_parsed_as_json_or_text():
    one = preset("paper").parse([
        "lam=0.5", "unet_channels=[32, 64]", "vae=owner/name/sub",
        "self_neighbour=false", "train_length=5 steps", "T_max=160", "guidance=2"])
    assert (one.lam, one.unet_channels, one.T_max) == (0.5, (32, 64), 160)
    assert (one.vae, one.self_neighbour) == ("owner/name/sub", False)
    assert one.guidance == 2.0 and type(one.guidance) is float
    assert one.train_length == "5 steps" and one.z0_from == "e"
    with pytest.raises(SettingsError, match="nothing"):
        one.parse(["nothing=1"])
    with pytest.raises(SettingsError, match="name=value"):
        one.parse(["lam"])


@pytest.mark.parametrize("one", [
    *PRESETS.values(), preset("paper", unet_channels=(32, 64), lam=0.5)])
def test_settings_are_written_as_json(one):
    again = json.loads(json.dumps(one.as_dict()))
    assert preset(again["preset"], **again) == one


def test_settings_cannot_be_altered():
    with pytest.raises(AttributeError):
        preset().lam = 0.1


def test_what_does_not_exist_is_refused_by_name():
    with pytest.raises(SettingsError, match="lambda_"):
        preset().change(lambda_=0.5)
    with pytest.raises(SettingsError, match="mine"):
        preset("mine")


def test_a_misspelt_setting_is_answered_with_the_nearest():
    nearest = "no setting is called guidanc; did you mean guidance?"
    with pytest.raises(SettingsError, match=nearest):
        preset().change(guidanc=3.0)


def test_training_length_in_steps_and_epochs():
    assert preset(train_length="7 steps").steps_for(1000) == 7
    epochs = preset(train_length="3 epochs", train_batch=30)
    assert epochs.steps_for(100) == 9 and epochs.steps_for(5) == 3


def test_each_setting_says_what_it_is_and_what_it_shapes():
    names = {one.name for one in fields(Settings)}
    assert all(one.metadata["meaning"] for one in fields(Settings))
    eps_theta, phi = set(shaping(EPS_THETA)), set(shaping(PHI))
    # phi is tuned on reconstructions by eps_theta
    assert eps_theta < phi < names
    assert {"unet_channels", "masked_share", "train_timesteps"} <= eps_theta
    assert "tune_epochs" in phi - eps_theta
    assert not {"T_max", "lam", "guidance", "preset", "call_every", "step_rule",
                "patch_share", "decode", "false_alarms"} & phi
