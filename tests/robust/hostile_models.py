"""Point 2, second half: mutated settings, manifests, weight files and autoencoders
through Settings, `from_pretrained` and `predict`.
"""
import contextlib
import io
import json
import os
import shutil
import struct
import sys
import tempfile
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":
    import run  # noqa: F401  the paths
from conftest import good_images, tiny, tiny_vae
from run import Check
from safetensors.torch import load, save
from sandbox import one_alone, trials

from ddad.cli import main
from ddad.detector import Detector
from ddad.dynamic_noise import select_step
from ddad.networks.autoencoders import PixelSpace, load_vae
from ddad.noise_predictor import alpha_bar
from ddad.reproduction.runs import Run, by_category, settings_of
from ddad.runtime.files import sha256
from ddad.runtime.manifest import MANIFEST
from ddad.saved_model import STATE, UNET
from ddad.settings import PRESETS, Settings, preset
from ddad.training import adapt

VALUES = (
    None, True, False, 0, -1, 1, 2, 3, 7, 1.5, -0.0, 1e-30, 1e300, 10**400, 2**31,
    2**63, float("nan"), float("inf"), -float("inf"), "", " ", "²", "٣ steps",
    "9" * 5000 + " steps", "1e9 epochs", "nan", "\0", "\udcff", "ü" * 1000,
    "../../etc/passwd", "/dev/zero", "x.py:f", "x/y", "__class__", "<script>", [], {},
    [[]], [1], [0], [-1], [1, 2, 3, 4], [32] * 12, [4096] * 9, [10**9], [32, "64"],
    [None], [1.5], {"a": 1}, [1] * 100_000)
TEXTS = (
    "", "=", "=1", "seed", "seed=", "seed==1", "seed=1=2", "seed=[",
    "seed=" + "[" * 100_000, "seed=" + "9" * 5000, "lam=1e999", "lam=-Infinity",
    "lam=NaN", "\udcff=1", "preset=official", "seed=\0", "map_stages=[1,1,1,1]",
    "unet_channels=64", "é=1", "T_max=\n80")
NAMES = [field.name for field in fields(Settings)]


@cache
def saved() -> dict[str, Path]:
    """A detector on EfficientNet-Lite0, one on a small ResNet, one with a step for each
    region, one of a single call, and an autoencoder, in a folder that all trials copy
    from.
    """
    from transformers import ResNetConfig, ResNetModel

    from ddad.networks.features import ResNetFeatures, depth
    home, good = Path(tempfile.mkdtemp(prefix="ddad-hostile-models-")), good_images(16)
    plain = Detector.fit(good, tiny(), device="cpu")
    plain.save_pretrained(home / "lite0")
    region = plain.settings.change(step_rule="region", patch_share=0.25, patch_bank=50)
    adapt(plain, good, region).save_pretrained(home / "region")
    one_call = tiny("one-call", tune_epochs=0)
    Detector.fit(good, one_call, device="cpu", unet=plain.networks.unet
                 ).save_pretrained(home / "one-call")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 20],
                          depths=[1] * 4, layer_type="basic")
    settings = tiny(features="microsoft/resnet-34", tune_epochs=0)
    phi = ResNetFeatures(ResNetModel(config), depth(settings)).requires_grad_(False)
    phi.eval()
    detector = Detector.fit(good, settings, device="cpu", phi=phi)
    detector.save_pretrained(home / "resnet")
    tiny_vae().save_pretrained(home / "vae")
    return {path.name: path for path in home.iterdir()}


def value(rng):
    return VALUES[rng.integers(len(VALUES))]


def usable(settings: Settings) -> None:
    """A settings object that was accepted can be stored, read back, and drives the
    schedule.
    """
    stored = json.loads(json.dumps(settings.as_dict()))
    again = preset(settings.preset).change(**stored)
    assert again == settings, "another after a round trip through JSON"
    s = settings
    assert s.steps_for(100) >= 0 and alpha_bar(s).isfinite().all()
    T_hat = select_step(torch.arange(1, s.bins + 1), s.T_max, s.bins, s.smallest_bin,
                        s.level_rounding, s.timesteps)
    assert 10 <= T_hat.min() and T_hat.max() < s.timesteps


# --- what a trial does with a folder and a generator


def settings(folder: Path, rng) -> None:
    kind = rng.integers(5)
    base = PRESETS[str(rng.choice(list(PRESETS)))]
    names = [str(name) for name in rng.choice(NAMES, int(rng.integers(1, 4)))]
    texts = lambda: [f"{name}={json.dumps(value(rng))[:20_000]}" for name in names]
    if kind == 0:
        usable(base.change(**{name: value(rng) for name in names}))
    elif kind == 1:
        usable(base.parse(texts()))
    elif kind == 2:
        text = TEXTS[rng.integers(len(TEXTS))]
        if rng.random() >= 0.7:
            text = f"{names[0]}={rng.bytes(8).decode('latin-1')}"
        usable(base.parse([text]))
    elif kind == 3:
        _table(folder, names, rng)
    else:
        with contextlib.redirect_stderr(io.StringIO()) as said, \
                contextlib.redirect_stdout(io.StringIO()):
            code = main(["settings", "--set", *texts()])
        told = said.getvalue().startswith("ddad settings: ")
        assert code == 0 or code == 2 and told, said.getvalue()


def _table(folder: Path, names: list[str], rng) -> None:
    """A table of settings by category."""
    table = {"title": "t", "source": "s", "provenance": "p", "test_data": "t",
             "categories": {"a": {name: value(rng) for name in names}}}
    table = spoiled(table, rng) if rng.random() < 0.4 else table
    data = bytearray(json.dumps(table).encode())
    if rng.random() < 0.4:
        data[rng.integers(len(data))] = rng.integers(256)
    path = folder / "table.json"
    path.write_bytes(data)
    scale = str(rng.choice(["paper", "laptop"]))
    read = by_category(str(path))
    usable(settings_of(Run("a", "clean", 0), scale, read, [], None))


def manifest(folder: Path, rng) -> None:
    model = copied(folder, rng)
    path = model / MANIFEST
    if rng.random() < 0.25:
        whole = path.read_bytes()
        path.write_bytes(bent(whole, rng) if rng.random() < 0.8 else b"[" * 10**6)
    else:
        tree = json.loads(path.read_text())
        for _ in range(rng.integers(1, 4)):
            tree = spoiled(tree, rng)
        path.write_text(json.dumps(tree))
    loaded(model)


def weights(folder: Path, rng) -> None:
    model = copied(folder, rng)
    path = model / str(rng.choice([STATE, UNET]))
    kind = rng.integers(6)
    if kind < 3:
        path.write_bytes(save(changed_tensors(load(path.read_bytes()), rng)))
    elif kind == 3:
        path.write_bytes(bent(path.read_bytes(), rng))
    elif kind == 4:
        header = json.dumps({"bank": {"dtype": "F32", "shape": [2**40, 2**20],
                                      "data_offsets": [0, 2**62]}}).encode()
        length = (len(header), 2**63 - 1, 0, 99_000_000)[rng.integers(4)]
        path.write_bytes(struct.pack("<Q", length) + header + bytes(64))
    else:
        pickle = b"\x80\x04cposix\nsystem\n(X\x05\0\0\0touchtR."
        contents = (b"", pickle, b"PK\3\4", rng.bytes(5000))
        path.write_bytes(contents[rng.integers(4)])
    if rng.random() < 0.85:
        reseal(model)
    loaded(model)


def no_file(folder: Path, rng) -> None:
    """A file of the detector is a folder, a pipe, a device, a loop of links, or gone;
    or the folder itself is.
    """
    model = copied(folder, rng)
    path = model / str(rng.choice([MANIFEST, STATE, UNET]))
    path.unlink()
    kind = rng.integers(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(str(rng.choice(["/dev/zero", "/dev/null", "/dev/full"])))
    elif kind == 3:
        path.symlink_to(path.name)
    elif kind == 4:
        others = (model / "x", Path("\0"), Path("n" * 5000), Path("/dev/zero"), path)
        model = others[rng.integers(5)]
    loaded(model)


def autoencoder(folder: Path, rng) -> None:
    """A mutated autoencoder, or a sound one that does not fit the detector."""
    vae = Path(shutil.copytree(saved()["vae"], folder / "vae"))
    config, file = vae / "config.json", vae / "diffusion_pytorch_model.safetensors"
    kind = rng.integers(5)
    if kind == 0:
        config.write_text(json.dumps(spoiled(json.loads(config.read_text()), rng)))
    elif kind == 1:
        config.write_bytes(bent(config.read_bytes(), rng))
    elif kind == 2:
        file.write_bytes(bent(file.read_bytes(), rng))
    elif kind == 3:
        file.write_bytes(save(changed_tensors(load(file.read_bytes()), rng)))
    given = PixelSpace() if kind == 4 and rng.random() < 0.3 else load_vae(str(vae))
    loaded(copied(folder, rng), vae=given)


# --- their tools


def spoiled(tree, rng):
    """`tree`, with one value somewhere replaced, removed or wrapped."""
    inner = [key for key, one in tree.items() if isinstance(one, dict) and one]
    if inner and rng.random() < 0.6:
        key = inner[rng.integers(len(inner))]
        return tree | {key: spoiled(tree[key], rng)}
    key = list(tree)[rng.integers(len(tree))]
    if rng.random() < 0.15:
        return {name: one for name, one in tree.items() if name != key}
    return tree | {key: [tree[key]] if rng.random() < 0.1 else value(rng)}


def bent(data: bytes, rng) -> bytes:
    """Truncated, or with some bytes changed, most of them near the beginning."""
    if rng.random() < 0.3:
        return data[: int(rng.integers(0, len(data)))]
    out = bytearray(data)
    most = min(len(out), int(rng.choice([8, 300, 10**7])))
    for place in rng.integers(0, most, int(rng.integers(1, 6))):
        out[place] = rng.integers(256)
    return bytes(out)


def copied(folder: Path, rng) -> Path:
    model = saved()[str(rng.choice(["lite0", "resnet", "region", "one-call"]))]
    return Path(shutil.copytree(model, folder / "model"))


def reseal(model: Path) -> None:
    """The manifest states the hashes of the files that are there: as whoever made both
    would have it.
    """
    manifest = json.loads((model / MANIFEST).read_text())
    manifest["sha256"] = {name: sha256(model / name) for name in (STATE, UNET)}
    (model / MANIFEST).write_text(json.dumps(manifest))


def loaded(model: Path, **given) -> None:
    """The detector is refused, or gives finite scores; a setting too slow for the limit
    of time is not tried.
    """
    detector = Detector.from_pretrained(model, device="cpu", **given)
    s = detector.settings
    if s.image_size == 64 and s.ddim_steps <= 50 and s.timesteps <= 2000:
        found = detector.predict(good_images(1))
        finite = found.score.isfinite().all() and found.map.isfinite().all()
        assert finite, "a score that is no number"


def changed_tensors(tensors: dict, rng) -> dict:
    names = [name for name in ("bank", "distances", "patches", "patch_range")
             if name in tensors and rng.random() < 0.4] or list(tensors)
    name = str(rng.choice(names))
    one = tensors[name].flatten()
    kind = rng.integers(10)
    if kind == 0:
        return {n: t for n, t in tensors.items() if n != name}
    if kind == 1:
        added = str(rng.choice(["more", "", "phi/x", "../x"]))
        return tensors | {added: torch.zeros(3)}
    if kind in (2, 3):
        one = one.clone().float()
        bad = [float("nan"), float("inf"), 1e38, -1e38]
        one[rng.integers(len(one))] = bad[rng.integers(4)]
        return tensors | {name: one.reshape(tensors[name].shape)}
    other = (torch.zeros(0), torch.tensor(1.0), one[:1].clone(),
             one.reshape(-1, 1).clone(), one.to(torch.int64), one.to(torch.bool),
             one.double())
    return tensors | {name: other[rng.integers(len(other))]}


KINDS = (settings, manifest, weights, settings, manifest, weights, no_file, autoencoder)


def make(seed: int, number: int):
    saved()
    kind = KINDS[number % len(KINDS)]
    return kind.__name__, lambda folder: kind(folder,
                                              np.random.default_rng([seed, number]))


def models(count: int, seed: int):
    return trials(make, count, seed)


CHECKS = [
    Check("models", 2,
          "mutated settings, manifests, weight files and autoencoders end in a result "
          "or a documented error, within 5 s and 2 GiB",
          models, 2000),
]

if __name__ == "__main__":
    one_alone(make, sys.argv[1:])
