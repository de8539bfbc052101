"""Whether held-out images choose the whitened residual for the latent map, and what it
gives on test images.

    python book/tools/whitening.py OUT --seeds N .. --of RUNS DATA VAE [--of ..]

RUNS: folder of a finished `ddad reproduce --calibrate` with the preset regional; DATA:
the folder of its categories; VAE: as `ddad reproduce --vae`. Each detector keeps its
networks and its path. Blur and lambda are chosen again on the calibration's own trial
of held-out images, by its rule (`choose_row`; of candidates as good, that nearest to
the detector's lambda): for the latent map as it is, for the whitened one, and among
both, where the map as it is comes first. Leaves OUT/whitening.json, with a row for each
detector and choice; rows that are there are kept.
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from further import METRICS, Maps, compared, made_of, measured, whitened
from records import load, name_of, recorded
from step_rules import finished
from torch import Tensor

from ddad import anomaly_map as maps
from ddad import calibration, training
from ddad.data.images import Images
from ddad.data.product import TestSet, load_held_out, load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.scoring import summary
from ddad.runtime.files import write_json
from ddad.synthetic.defects import groups_of

NAME = "whitening"                      # of the record
PLAIN, WHITENED, EITHER = "plain", "whitened", "either"
OFFERED = {PLAIN: (PLAIN,), WHITENED: (WHITENED,), EITHER: (PLAIN, WHITENED)}
IDENTITY = ("category", "seed", "vae")


def latent_map(form: str, r: Tensor, good: Tensor, size: int, blur: float) -> Tensor:
    """A_l (N, size, size) from the residuals z0 - z0_hat of images and of good ones,
    (N, C, h, w) each. The blur comes first.
    """
    if form == PLAIN:
        return maps.latent_map(r, torch.zeros_like(r), size, blur)
    if blur:
        r, good = (maps.smooth(x.flatten(0, 1), blur).view(x.shape) for x in (r, good))
    return whitened(r, good, size)


def tried(detector: Detector, good: Images
          ) -> tuple[dict, tuple[np.ndarray, np.ndarray]]:
    """`Tried` of each form, with every blur and lambda, on the trial of a calibration;
    groups and images of its defects, as `choose_row` takes them.
    """
    s, found = detector.settings, {}
    one = calibration.Calibration([(detector, good)])
    (trial,), (shared,) = one.trials, one.observed()
    N = trial.kind.count("good")
    path = {name: getattr(s, name) for name in calibration.PATH}

    def white(z0: Tensor, z0_hat: Tensor, size: int, blur: float, *_) -> Tensor:
        r = z0 - z0_hat
        return latent_map(WHITENED, r, r[:N], size, blur)

    for form, made in ((PLAIN, maps.latent_map), (WHITENED, white)):
        with patch.object(maps, "latent_map", made):
            found[form] = calibration.sweep(
                detector, trial.images, trial.masks, [path], calibration.weighings(s),
                shared, form)
    return found, (groups_of(trial), np.arange(N).repeat(len(trial.kind) // N - 1))


def choices(detector: Detector, good: Images) -> Iterator[dict]:
    """offered; form, latent_blur, lam: what is chosen of it, with its metrics on
    held-out images.
    """
    found, of = tried(detector, good)
    for offered, forms in OFFERED.items():
        rows = [{"form": form} | row for form in forms for row in found[form].table]
        q = np.concatenate([found[form].q for form in forms])
        n = calibration.choose_row(calibration.Tried(rows, q), *of,
                                   detector.settings.seed)[0]
        yield {"offered": offered, "held_out": measured(rows[n]),
               **{name: rows[n][name] for name in ("form", *calibration.MAP)}}


def rows_of(detector: Detector, data: Path, test: TestSet) -> Iterator[dict]:
    """Each choice, with i_auroc and pro on test images. Ranges and covariance come from
    the held-out images that the detector's own ranges do.
    """
    s = detector.settings
    assert (s.patch_share, s.map_range, s.align_corners) == (0.0, "held-out", False)
    held_out = training.hold_out(load_train(data, s), s, load_held_out(data, s))[1]
    good = training.split(held_out, s)[0]
    of_test, of_good = (Maps.of(detector, images) for images in (test.images, good))
    for row in choices(detector, good):
        A_l, A_l_good = (latent_map(row["form"], of.r, of_good.r, s.image_size,
                                    row["latent_blur"]) for of in (of_test, of_good))
        ranges = maps.Ranges.of(A_l_good, of_good.A_f)
        A = maps.combine(A_l, of_test.A_f, ranges, row["lam"], s.sigma)
        yield row | measured(summary(maps.score(A), A, test))


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, metavar="OUT")
    options.add_argument("--of", nargs=3, action="append", required=True,
                         metavar=("RUNS", "DATA", "VAE"))
    options.add_argument("--seeds", nargs="+", type=int, required=True)
    asked = options.parse_args(arguments)
    path = asked.out / f"{NAME}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {tuple(row[name] for name in IDENTITY) for row in rows}
    for run, saved, data, vae in finished(asked.of, "regional"):
        # taef2.py:TinyAutoencoder.load, taesd, embedded
        mine = run["category"], run["seed"], run["asked"]["vae"].partition(".py:")[0]
        if run["seed"] in asked.seeds and mine not in done:
            print(*mine, flush=True)
            detector = Detector.from_pretrained(saved, vae=vae)
            with_it = dict(zip(IDENTITY, mine)) | made_of(detector, data)
            test = load_test(data, detector.settings)
            rows += [with_it | row for row in rows_of(detector, data, test)]
            asked.out.mkdir(parents=True, exist_ok=True)
            write_json(path, rows)


# --- the tables

def by_set(rows: list[dict]) -> str:
    """I-AUROC / PRO of each choice, a row a data set and its latents."""
    return compared(rows, "offered", (*OFFERED,), ("data", "latents"), lambda row:
                    (name_of(row["category"]), row["vae"]))


def taken(rows: list[dict]) -> str:
    """How often the whitened form is chosen, where either can be."""
    free = [row for row in rows if row["offered"] == EITHER]
    chose = sum(row["form"] == WHITENED for row in free)
    return (f"Where either could be chosen, {chose} of {len(free)} took the whitened "
            "map.")


def differences(rows: list[dict]) -> str:
    """Whitened minus plain on test images: the mean over the sets, and its range."""
    told = []
    for metric, title in zip(METRICS, ("I-AUROC", "PRO")):
        of = {name: {tuple(row[key] for key in IDENTITY): row[metric] for row in rows
                     if row["offered"] == name} for name in OFFERED}
        apart = [of[WHITENED][key] - of[PLAIN][key] for key in of[PLAIN]]
        told.append(f"{title} {np.mean(apart):+.3f} on the mean, {min(apart):+.3f} to "
                    f"{max(apart):+.3f}")
    return f"Whitened minus plain on test images: {'; '.join(told)}."


def _of(make) -> str:
    return make(load(NAME)) if recorded(NAME) else "Not run yet."


TABLES = {
    NAME: lambda: _of(lambda rows: f"{by_set(rows)}\n\n{differences(rows)}"),
    f"{NAME}_held_out": lambda: _of(lambda rows: by_set(
        [row | row["held_out"] for row in rows]) + "\n\n" + taken(rows))}


if __name__ == "__main__":
    main()
