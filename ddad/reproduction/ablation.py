"""What the claims of the method are worth: each is switched off in turn.

The full method gets no favour. Every variant chooses its constants for itself, among
the same candidates, on held-out good images and synthetic defects (`calibration`); its
features are fine-tuned on its own reconstructions; its U-Net is trained as long.
"""
from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from ..calibration import CHOSEN, enough, grid, guided, sweep
from ..data.product import TestSet, load_held_out, load_test, load_train
from ..detector import Detector
from ..evaluation.scoring import evaluate
from ..fine_tuning import fine_tune
from ..networks.autoencoders import load_vae
from ..networks.features import load_features
from ..runtime.adapter import Networks
from ..runtime.checkpoints import fitted
from ..runtime.errors import SettingsError
from ..runtime.files import sole_writer, write_json
from ..runtime.latent_cache import encode_all, weights_hash
from ..runtime.stages import Stages
from ..settings import Settings
from ..synthetic.defects import synthetic_defects
from ..training import hold_out, reconstruct_rows
from .variants import (
    DRAWS,
    NOISE,
    VARIANTS,
    NoiseAveraged,
    ScaledPixels,
    Variant,
    wide_enough,
)

MADE_FROM = "made_from.json"
# for `questions`, which `runs` imports: so `runs` is imported where it is needed
OTHER_PATH = {NOISE: VARIANTS[NOISE].change}


def ablate(root: Path, settings: Settings, seeds: list[int], out: Path, *, vae=None,
           device: str = "auto", variants: Sequence[str] = tuple(VARIANTS)
           ) -> list[dict]:
    """The metrics of each variant and seed that was asked for; all finished runs of
    `out` are in out/receipt.json, where `preset` is the variant.

    Killed and started again, it goes on where it was. Raises SettingsError where `out`
    was made from other settings, images, masks or networks, and says which; DataError;
    ValueError for fewer than eight held-out images.
    """
    from .receipts import make_receipt
    if settings.bins < 2:
        raise SettingsError("setting bins: 1 gives every image the same step, and "
                            "leaves nothing to compare; take 2 or more")
    if unknown := set(variants) - VARIANTS.keys():
        raise SettingsError(f"no variant is called {', '.join(sorted(unknown))}; there "
                            f"are {', '.join(VARIANTS)}")
    vae = load_vae(settings.vae) if vae is None else vae
    _refuse_others(out, _made_from(root, settings, vae))
    for seed in seeds:
        one = OneSeed(root, settings.change(seed=seed), out, vae, device)
        for name in variants:
            one.run(name)
    made = {(run["preset"], run["seed"]): run["result"]
            for run in make_receipt(out)["runs"]}
    return [{"variant": name, "seed": seed} | made[name, seed]
            for name in variants for seed in seeds]


def _made_from(root: Path, settings: Settings, vae) -> dict:
    """All that the runs of one folder share: seeds aside, the settings; images, masks
    and split; the pretrained networks.
    """
    from .runs import _portable, fingerprint
    shared = {name: value for name, value in _portable(settings).items()
              if name != "seed"}
    return shared | {"images, masks and split": fingerprint(root)["sha256"],
                     "the autoencoder's weights": weights_hash(vae),
                     "the features' weights": weights_hash(load_features(settings))}


def _refuse_others(out: Path, made_from: dict) -> None:
    """Notes in `out` what its runs are made from; SettingsError where that is noted
    already, and was something else.
    """
    path, here = out / MADE_FROM, json.loads(json.dumps(made_from))
    if not path.exists():
        if any(out.glob("*/*")):
            raise SettingsError(f"{out} holds runs and no {MADE_FROM}, which says what "
                                "they were made from; choose another folder")
        write_json(path, here)
    there = json.loads(path.read_text(encoding="utf-8"))
    short = lambda value: value[:12] if isinstance(value, str) else value
    differs = [f"{name} ({short(there.get(name))}, now {short(here.get(name))})"
               for name in {**there, **here} if there.get(name) != here.get(name)]
    if differs:
        raise SettingsError(f"{out} was made from other: {', '.join(differs)}; choose "
                            "another folder, or delete it")


class OneSeed:
    """All variants of one seed. Images, U-Nets and what calibration tried are shared,
    and made when they are first needed.
    """

    def __init__(self, root: Path, settings: Settings, out: Path, vae, device: str):
        self.root, self.settings, self.out = root, settings, out
        self.vae, self.device = vae, device
        self.trained: dict[str, Detector] = {}
        self.tried: dict[tuple, list[dict]] = {}

    @cached_property
    def images(self) -> tuple[Tensor, Tensor | None]:
        """Good images, and those given as held out, if there are any."""
        return load_train(self.root, self.settings), load_held_out(self.root,
                                                                   self.settings)

    @cached_property
    def good(self) -> tuple[Tensor, Tensor]:
        """Good images to train on, and held out."""
        return hold_out(self.images[0], self.settings, self.images[1])

    @cached_property
    def trial(self) -> tuple[Tensor, np.ndarray]:
        """Held-out images as they are and with synthetic defects, and masks: what
        constants are chosen on.
        """
        good = self.good[1][: self.settings.calibration_images]
        defective, masks = synthetic_defects(good, self.settings.seed)
        images = torch.cat([good, defective])
        return images, np.concatenate([np.zeros_like(masks), masks])

    @cached_property
    def test(self) -> TestSet:
        return load_test(self.root, self.settings)

    def run(self, name: str) -> None:
        """Makes the run of one variant, unless it is there."""
        from .runs import RUN
        folder = self.out / re.sub(r"\W+", "-", name) / str(self.settings.seed)
        with sole_writer(folder / ".lock", folder / RUN):
            if not (folder / RUN).exists():
                detector = self.variant(VARIANTS[name])
                write_json(folder / RUN, self.record(name, detector))

    def base(self, space: str) -> Detector:
        """The detector with this latent space's U-Net, before anything is chosen or
        fine-tuned; trained once.
        """
        if space not in self.trained:
            enough(self.good[1])                    # before hours of training
            (images, held_out), vae = self.images, self.vae
            s = self.settings.change(tune_epochs=0)
            if space == "pixels":
                s, vae = wide_enough(s), ScaledPixels(self.good[0])
            self.trained[space] = fitted(
                self.out / "networks" / f"{space}-{s.seed}",
                lambda checkpoint: Detector.fit(
                    images, s, held_out=held_out, device=self.device, vae=vae,
                    checkpoint=checkpoint),
                lambda saved: Detector.from_pretrained(saved, device=self.device,
                                                       vae=vae))
        return self.trained[space]

    def variant(self, variant: Variant) -> Detector:
        """Its constants chosen, then its features fine-tuned, as `training.fit` does
        it.
        """
        base, (train, good) = self.base(variant.space), self.good
        stages, epochs = Stages(base.device), self.settings.tune_epochs
        s = base.settings.change(**{"tune_epochs": epochs} | variant.change)
        phi, shared = load_features(s), base.networks
        networks = Networks(shared.vae, shared.unet, phi, base.device, s.precision)
        detector = variant.path(s, networks, base.projection.s)
        detector.set_memory_bank(train)
        row = self.choose(detector, variant)
        detector.settings = s.change(**{name: row[name] for name in CHOSEN})
        stages.done("calibrate")
        z0 = encode_all(base.projection, shared, train)
        fine_tune(phi, train, reconstruct_rows(detector, *z0), detector.settings)
        stages.done("fine-tune")
        detector.set_memory_bank(train)
        detector.set_ranges(good)
        stages.done("bank, ranges, threshold")
        seconds = base.record["seconds"] | stages.seconds
        detector.record = base.record | {"calibration": row, "seconds": seconds}
        return detector

    def choose(self, detector: Detector, variant: Variant) -> dict:
        """As `calibration.choose`: step, then guidance, with blur and lambda, by the
        best mean of I-AUROC and PRO; among what the variant leaves. The full method has
        dynamic steps, so a static step is no candidate but of `dynamic` false.
        """
        s = detector.settings
        first = [one for one in grid(s) if (one["smallest_bin"] < s.bins) == s.dynamic]
        table = self.tries(detector, variant, first)
        good_for = lambda row: row["i_auroc"] + row["pro"]
        more = guided(max(table, key=good_for), detector)
        return max(table + self.tries(detector, variant, more), key=good_for)

    def tries(self, detector: Detector, variant: Variant, candidates: list[dict]
              ) -> list[dict]:
        """`calibration.sweep`, once for all variants of the same path."""
        s = detector.settings
        path = variant.space, variant.path, s.noise, s.dynamic, str(candidates)
        if path not in self.tried:
            self.tried[path] = sweep(detector, *self.trial, candidates)
        return [row for row in self.tried[path]
                if row["lam"] in variant.lam and row["latent_blur"] in variant.blur]

    def record(self, name: str, detector: Detector) -> dict:
        """The run, as `runs.reproduce` records it; beside it what calibration chose and
        on what figures, and the U-Net's calls for an image.
        """
        from . import runs
        root, s, started = self.root, detector.settings, time.perf_counter()
        result, found = evaluate(detector, self.test)
        seconds = round(time.perf_counter() - started, 2)
        test, category = runs.by_area(self.test, root, s), root.resolve().name
        record = {"dataset": category, "category": category, "preset": name,
                  "seed": s.seed, "calibrate": True, "by_category": None}
        record |= runs.measured(detector, root, test, result, found)
        with TemporaryDirectory() as folder:        # a manifest cannot name the path
            detector.save_pretrained(Path(folder) / "saved")
            record |= runs.made_with(detector, root, Path(folder) / "saved")
        draws = DRAWS if isinstance(detector, NoiseAveraged) else 1
        calls = draws * -(-s.ddim_steps // s.call_every)
        cost = runs._cost(detector, seconds, len(test.images)) | {"calls": calls}
        return record | {"calibration": detector.record["calibration"], "cost": cost}
