"""What the claims of the method are worth: each is switched off in turn.

The full method gets no favour. Every variant chooses its constants for itself, among
the same candidates, on held-out good images and synthetic defects (`calibration`); its
features are fine-tuned on its own reconstructions; its U-Net is trained as long.
"""
from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from ..calibration import Calibration, enough
from ..data.images import Images
from ..data.product import TestSet, load_held_out, load_test, load_train
from ..detector import Detector
from ..evaluation.scoring import evaluate, lacking
from ..fine_tuning import fine_tune
from ..networks.autoencoders import load_vae
from ..networks.features import load_features
from ..runtime.adapter import Networks
from ..runtime.checkpoints import fitted
from ..runtime.errors import DataError, SettingsError
from ..runtime.files import sole_writer, write_json
from ..runtime.latent_cache import encode_all
from ..runtime.stages import Stages
from ..settings import Settings
from ..training import hold_out, reconstruct_rows, split
from . import runs
from .receipts import make_receipt
from .variants import (
    DRAWS,
    VARIANTS,
    NoiseAveraged,
    ScaledPixels,
    Variant,
    wide_enough,
)


def ablate(root: Path, settings: Settings, seeds: list[int], out: Path, *, vae=None,
           device: str = "auto", variants: Sequence[str] = tuple(VARIANTS)
           ) -> list[dict]:
    """The metrics of each variant and seed that was asked for; all finished runs of
    `out` are in out/receipt.json, where `preset` is the variant.

    Killed and started again, it goes on where it was. Raises SettingsError where `out`
    was made from other settings, images, masks or networks, and says which; DataError;
    ValueError for fewer than eight held-out images.
    """
    if settings.bins < 2:
        raise SettingsError("setting bins: 1 gives every image the same step, and "
                            "leaves nothing to compare; take 2 or more")
    if not settings.decode:
        raise SettingsError("setting decode: false leaves no feature map to switch off")
    if unknown := set(variants) - VARIANTS.keys():
        raise SettingsError(f"no variant is called {', '.join(sorted(unknown))}; there "
                            f"are {', '.join(VARIANTS)}")
    for name in variants:
        settings.change(**VARIANTS[name].change)    # refused before hours of training
    vae = load_vae(settings.vae) if vae is None else vae
    # all that the runs of one folder share: the settings, seeds aside, and the sources
    shared = {name: value for name, value in runs.portable(settings).items()
              if name != "seed"}
    runs.refuse_others(out, shared | runs.sources(root, settings, vae),
                       out.glob("*/*"))
    if reason := lacking(load_test(root, settings)):
        raise DataError(f"{root}: {reason}; an ablation needs good and defective "
                        "images with masks")
    for seed in seeds:
        one = OneSeed(root, settings.change(seed=seed), out, vae, device)
        for name in variants:
            one.run(name)
    made = {(run["preset"], run["seed"]): run["result"]
            for run in make_receipt(out)["runs"]}
    return [{"variant": name, "seed": seed} | made[name, seed]
            for name in variants for seed in seeds]


class Within(Calibration):
    """A calibration within what a variant leaves: its step rule, lambda and blur.
    shared: trials and what was seen and reconstructed of them, by another variant with
    the same latents, noise and path.
    """

    def __init__(self, detector: Detector, good: Images, variant: Variant,
                 shared: tuple[list, list] | None = None):
        self.variant = variant
        if shared is None:
            super().__init__([(detector, good)])
        else:
            self.detectors, (self.trials, self.before) = [detector], shared

    def best(self, paths: list[dict], weighings: list[dict], *how
             ) -> tuple[dict, list]:
        rule, left = self.settings.step_rule, self.variant
        return super().best(
            [path for path in paths if path["step_rule"] == rule],
            [one for one in weighings
             if one["lam"] in left.lam and one["latent_blur"] in left.blur], *how)


class OneSeed:
    """All variants of one seed. Images and U-Nets are shared, and made when they are
    first needed.
    """

    def __init__(self, root: Path, settings: Settings, out: Path, vae, device: str):
        self.root, self.settings, self.out = root, settings, out
        self.vae, self.device = vae, device
        self.trained: dict[str, Detector] = {}
        self.shared: dict[tuple, tuple[list, list]] = {}    # of the calibrations

    @cached_property
    def images(self) -> tuple[Images, Images | None]:
        """Good images, and those given as held out, if there are any."""
        return load_train(self.root, self.settings), load_held_out(self.root,
                                                                   self.settings)

    @cached_property
    def good(self) -> tuple[Images, Images, Images]:
        """Good images to train on; held out, for constants and for the threshold."""
        train, held_out = hold_out(self.images[0], self.settings, self.images[1])
        return train, *split(held_out, self.settings)

    @cached_property
    def test(self) -> TestSet:
        return load_test(self.root, self.settings)

    def run(self, name: str) -> None:
        """Makes the run of one variant, unless it is there."""
        folder = self.out / re.sub(r"\W+", "-", name) / str(self.settings.seed)
        path = folder / runs.RUN
        with sole_writer(folder / ".lock", path):
            if not path.exists():
                detector = self.variant(VARIANTS[name])
                write_json(path, self.record(name, detector))

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
        """Its path chosen, its features fine-tuned, its maps weighed, as `training.fit`
        does it.
        """
        base, (train, good, for_threshold) = self.base(variant.space), self.good
        stages, epochs = Stages(base.device), self.settings.tune_epochs
        s = base.settings.change(**{"tune_epochs": epochs} | variant.change)
        phi, shared = load_features(s), base.networks
        networks = Networks(shared.vae, shared.unet, phi, base.device, s.precision)
        detector = variant.path(s, networks, base.projection.s)
        detector.set_banks(train, good)
        like = self.alike(variant)
        calibration = Within(detector, good, variant, self.shared.get(like))
        chosen, _ = calibration.path()
        # it is large, and most variants are alone with theirs
        if [*map(self.alike, VARIANTS.values())].count(like) > 1:
            self.shared[like] = calibration.trials, calibration.before
        detector.settings = s.change(**chosen)
        stages.done("calibrate path")
        z0 = encode_all(base.projection, shared, train)
        fine_tune(phi, train, reconstruct_rows(detector, *z0), detector.settings)
        stages.done("fine-tune")
        detector.set_banks(train, good)
        chosen, (table,) = calibration.map()
        detector.settings = detector.settings.change(**chosen)
        row = next(row for row in table if chosen.items() <= row.items())
        stages.done("calibrate map")
        detector.set_ranges(good, keep=False)
        detector.set_held_out_scores(for_threshold)
        stages.done("banks, ranges, threshold")
        seconds = base.record["seconds"] | stages.seconds
        detector.record = base.record | {"calibration": row, "seconds": seconds}
        return detector

    def alike(self, variant: Variant) -> tuple:
        """What variants have to share, for one's reconstructions to serve another's
        calibration.
        """
        s = self.settings.change(**variant.change)
        return variant.space, variant.path, s.noise, s.by_patch

    def record(self, name: str, detector: Detector) -> dict:
        """The run, as `runs.reproduce` records it; beside it what calibration chose and
        on what figures, and the U-Net's calls for an image.
        """
        root, s, started = self.root, detector.settings, time.perf_counter()
        result, found = evaluate(detector, self.test)
        seconds = round(time.perf_counter() - started, 2)
        test, category = runs.by_area(self.test, root, s), root.resolve().name
        record = {"dataset": category, "category": category, "preset": name,
                  "seed": s.seed, "calibrate": True, "by_category": None}
        record |= runs.measured(detector, root, test, result, found)
        with TemporaryDirectory() as folder:        # a manifest cannot name the path
            detector.save_pretrained(Path(folder) / "saved")
            record |= runs.made_with(detector, runs.fingerprint(root),
                                     Path(folder) / "saved")
        draws = DRAWS if isinstance(detector, NoiseAveraged) else 1
        calls = draws * -(-s.ddim_steps // s.call_every)
        cost = runs.cost(detector, seconds, len(test.images)) | {"calls": calls}
        return record | {"calibration": detector.record["calibration"], "cost": cost}
