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
from further import BATCH, METRICS, compared, made_of, measured, whitened
from records import load, name_of, recorded
from torch import Tensor

from ddad import anomaly_map as maps
from ddad import calibration, training
from ddad.data.images import Images
from ddad.data.product import TestSet, load_held_out, load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.scoring import summary
from ddad.networks.autoencoders import load_vae
from ddad.reproduction.runs import DETECTOR, RUN
from ddad.runtime.files import write_json
from ddad.synthetic.defects import groups_of

NAME = "whitening"                      # of the record
PLAIN, WHITENED, EITHER = "plain", "whitened", "either"
OFFERED = {PLAIN: (PLAIN,), WHITENED: (WHITENED,), EITHER: (PLAIN, WHITENED)}
IDENTITY = ("category", "seed", "vae")


def latent_maps(form: str, of: tuple, good: tuple, size: int, blur: float
                ) -> tuple[Tensor, Tensor]:
    """A_l (N, size, size) of images and of good ones; each a pair z0, z0_hat
    (N, C, h, w). The blur comes first.
    """
    if form == PLAIN:
        return tuple(maps.latent_map(*pair, size, blur) for pair in (of, good))
    r, r_good = (z0 - z0_hat for z0, z0_hat in (of, good))
    if blur:
        r, r_good = (maps.smooth(x.flatten(0, 1), blur).view(x.shape)
                     for x in (r, r_good))
    return whitened(r, r_good, size), whitened(r_good, r_good, size)


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
        of = z0, z0_hat
        return latent_maps(WHITENED, of, [x[:N] for x in of], size, blur)[0]

    for form, latent_map in ((PLAIN, maps.latent_map), (WHITENED, white)):
        with patch.object(maps, "latent_map", latent_map):
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


def observed(detector: Detector, images: Images) -> tuple[tuple, Tensor]:
    """(z0, z0_hat) (N, C, h, w) and A_f (N, H, H), on the CPU."""
    parts = []
    for x0 in images.split(BATCH):
        seen = detector.observe(x0)
        found = detector.respond(seen, detector.settings.image_size)
        parts.append((seen.z0, found.z0_hat, found.A_f))
    z0, z0_hat, A_f = (torch.cat(one).cpu() for one in zip(*parts))
    return (z0, z0_hat), A_f


def rows_of(detector: Detector, data: Path, test: TestSet) -> Iterator[dict]:
    """Each choice, with i_auroc and pro on test images. Ranges and covariance come from
    the held-out images that the detector's own ranges do.
    """
    s = detector.settings
    assert (s.patch_share, s.map_range, s.align_corners) == (0.0, "held-out", False)
    held_out = training.hold_out(load_train(data, s), s, load_held_out(data, s))[1]
    good = training.split(held_out, s)[0]
    (of_test, A_f), (of_good, A_f_good) = (observed(detector, images)
                                           for images in (test.images, good))
    for row in choices(detector, good):
        A_l, A_l_good = latent_maps(row["form"], of_test, of_good, s.image_size,
                                    row["latent_blur"])
        ranges = maps.Ranges.of(A_l_good, A_f_good)
        A = maps.combine(A_l, A_f, ranges, row["lam"], s.sigma)
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
    for runs, data, vae in asked.of:
        loaded, latents = load_vae(vae), Path(vae.rpartition(":")[0] or vae).stem
        for file in sorted(Path(runs).glob(f"*/regional-*/{RUN}")):
            run = json.loads(file.read_text(encoding="utf-8"))
            mine = run["category"], run["seed"], latents
            if run["seed"] in asked.seeds and mine not in done:
                print(*mine, flush=True)
                folder = Path(data, run["category"])
                detector = Detector.from_pretrained(file.parent / DETECTOR, vae=loaded)
                with_it = dict(zip(IDENTITY, mine)) | made_of(detector, folder)
                test = load_test(folder, detector.settings)
                rows += [with_it | row for row in rows_of(detector, folder, test)]
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
