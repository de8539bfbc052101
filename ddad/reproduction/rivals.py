"""The benchmark's sections on the shipped board: time beside metrics of the method by
its presets, of one call of its network, and of PatchCore, which has no network but the
features; and the candidates of a calibration, together and one by one.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from ..calibration import PATH, further, paths, sweep, weighings
from ..data.product import load_good, load_held_out, load_test, load_train
from ..detector import Detector
from ..evaluation import patches
from ..evaluation.baselines import METRICS, as_map, single
from ..evaluation.scoring import summary
from ..networks.features import load_features
from ..settings import FAST
from ..synthetic.defects import Trial
from ..synthetic.products import make
from ..synthetic.weights import WEIGHTS
from ..training import adapt, hold_out
from .timing import by_threads, seconds

BATCH, TRIED = 16, 12               # images of a batch; held-out ones of a calibration


def rivals(drawn: Path, device: str, scale: str) -> dict:
    """On the board: i_auroc and pro of each; seconds an image of a batch, all in turns,
    and of one image alone, by threads. scale: the shipped detectors have one.

    "one call" and "fast" are the shipped detector's networks with other constants;
    "regional" is shipped; PatchCore has all good images and the published features.
    """
    data = _board(drawn)
    clean, regional = (Detector.from_pretrained(WEIGHTS / name, device=device)
                       for name in ("board", "board-regional"))
    s = clean.settings
    train, test = load_train(data, s), load_test(data, s)
    held_out = load_held_out(data, s)
    detectors = {
        "one call": single(clean, hold_out(train, s, held_out)[1]),
        "fast": adapt(clean, train, s.change(**FAST), held_out),
        "clean": clean, "regional": regional}
    runs = {name: partial(_predict, one) for name, one in detectors.items()}
    runs["PatchCore"] = patchcore(clean, train)
    rows = {name: {key: found[key] for key in METRICS}
            for name, run in runs.items()
            if (found := summary(*run(test.images), test))}
    x0 = test.images[:BATCH]
    taken = seconds(*(partial(run, x0) for run in runs.values()), repeats=3)
    for (name, run), whole in zip(runs.items(), taken):
        rows[name] |= {"seconds": whole / len(x0),
                       "alone": by_threads(partial(run, x0[:1]))}
    return {"images": len(test.images), "size": s.image_size, "rows": rows}


def candidates(drawn: Path, device: str, scale: str) -> dict:
    """Seconds that a calibration's candidates take together, and one by one, in turns:
    they share what they have in common, and make the same table.
    """
    shipped, rows = Detector.from_pretrained(WEIGHTS / "board", device=device), {}
    s = shipped.settings
    trial = Trial.of(load_good(_board(drawn), s)[1][:TRIED], s.seed)
    own = {name: getattr(s, name) for name in PATH}
    tried = paths(s) + further(own, shipped)
    for precision in ("float32", "bfloat16"):
        detector = shipped.under(s.change(precision=precision))
        asked = lambda some, one=detector: sweep(one, trial.images, trial.masks, some,
                                                 weighings(s)).table
        apart = lambda asked=asked: [row for path in tried for row in asked([path])]
        together = asked(tried)
        taken = seconds(partial(asked, tried), apart, repeats=1)
        rows[precision] = {"together": taken[0], "one_by_one": taken[1],
                           "same": together == apart()}
    return {"candidates": len(together), "images": len(trial.images), "rows": rows}


def _board(drawn: Path) -> Path:
    """The board's folder, beside that of the benchmark's images."""
    data = drawn.parent / "products" / "board"
    make(data.parent)
    return data


def _predict(detector: Detector, x0: Tensor) -> tuple[Tensor, Tensor]:
    found = detector.predict(x0)
    return found.score, found.map


def patchcore(detector: Detector, train: Tensor) -> Callable:
    """Scores and maps of images by a core set of the patches of `train`."""
    s = detector.settings
    phi = load_features(s).to(detector.device)
    core = patches.core(patches.patch_features(phi, train, s), s.seed)

    def run(x0: Tensor) -> tuple[Tensor, Tensor]:
        A, score = patches.patchcore(core, patches.patch_features(phi, x0, s))
        return score.cpu(), as_map(A, x0.shape[-1], s)
    return run
