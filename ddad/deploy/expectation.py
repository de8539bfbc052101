"""What to expect of a new detector before it has met a true defect: how it scores good
images held out of its training, and copies of them with synthetic defects.
"""
from __future__ import annotations

import time
from html import escape
from pathlib import Path

import numpy as np
from torch import Tensor

from ..calibration import drawn
from ..conformal import promised
from ..data.images import Images
from ..detector import Detector
from ..evaluation.scoring import of_images
from ..runtime.files import write_text
from ..synthetic.defects import KINDS, Trial
from .overlays import MAGENTA, heat, outline, pixels
from .report import answer, grid, page, picture

DEFECTS, SHOWN = 192, 12
BY_CHANCE = 0.1                 # found beyond the false alarms, and yet hardly found
FAILS = "This detector does not work yet"
CONTRASTS = {"faint": (0, 0.22), "middling": (0.22, 0.46), "clear": (0.46, 1.01)}
SIZES = {"small": (0, 0.014), "medium": (0.014, 0.065), "large": (0.065, 1.01)}


def expect(detector: Detector, good: Images) -> tuple[dict, list[str]]:
    """The share of synthetic defects that score above the threshold, by kind, contrast
    and area, ready for JSON, and the report's parts on it.

    good: held-out images (N, 3, H, W). The defects are others than those a calibration
    saw, on the same images. ValueError without images.
    """
    s, started = detector.settings, time.perf_counter()
    good = drawn(good, s)
    trial = Trial.of(good, s.seed + 1, -(-DEFECTS // len(good)))
    found = detector.predict(trial.images)
    seconds = (time.perf_counter() - started) / len(trial.images)
    bad = np.array(trial.kind) != "good"
    score, flagged = found.score.numpy(), found.score.numpy() > detector.threshold
    groups = {"all": bad} | {kind: np.array(trial.kind) == kind for kind in KINDS}
    within = lambda values, low, high: (values >= low) & (values < high)
    columns = {"all": bad}
    columns |= {name: within(trial.contrast, *ends) for name, ends in CONTRASTS.items()}
    columns |= {name: within(trial.area, *ends) for name, ends in SIZES.items()}
    share = {group: {name: _share(flagged, rows & inside & bad)
                     for name, inside in columns.items()}
             for group, rows in groups.items()}
    result = {"defects": int(bad.sum()), "found": share, "seconds": round(seconds, 4),
              "i_auroc": of_images(score, bad.astype(int), None)["i_auroc"]}
    missed = np.flatnonzero(bad & ~flagged)
    missed = missed[np.argsort(-trial.contrast[missed], kind="stable")][:SHOWN]
    return result, [*_said(result), *_missed(trial, found.map, missed, detector)]


def failing(found: dict, detector: Detector) -> str:
    """A sentence where synthetic defects are hardly flagged more often than good images
    are, else "". found: as `expect` returns it.
    """
    share, count = found["all"]["all"]
    rate = promised(len(detector.held_out_scores), detector.settings.false_alarms)
    if share > rate + BY_CHANCE:
        return ""
    return (f"{FAILS}: it flags {share:.0%} of {count} synthetic defects, and up to "
            f"{rate:.0%} of good images")


def remedies(detector: Detector) -> list[str]:
    """What to try where it fails, the likeliest first, with the options to type."""
    s = detector.settings
    count, unit = s.train_length.split()
    longer = f'--set "train_length={4 * int(count)} {unit}"'
    said = [f"train longer: {longer} (now {s.train_length})"]
    if s.vae in ("embedded", "pixels"):
        said.append(f"a real autoencoder: no --vae {s.vae}, for 335 MB from the hub, "
                    "or --vae madebyollin/taesd, 10 MB")
    images = detector.record["images"] - detector.record["held_out"]
    return [*said, f"more good pictures (now {images} to train on)",
            f"a larger image, where defects are small: --set image_size="
            f"{2 * s.image_size} (now {s.image_size}; four times as slow)",
            "else what is simpler: --set patch_share=1.0 compares patches alone; with "
            "a test folder, ddad evaluate --baselines measures PatchCore and others"]


def _share(flagged: np.ndarray, rows: np.ndarray) -> list:
    """[share, number] of these rows; the share None where there are none."""
    return [float(flagged[rows].mean()) if rows.any() else None, int(rows.sum())]


def _said(result: dict) -> list[str]:
    found = result["found"]
    cell = lambda share, n: "–" if share is None else f"{share:.0%} of {n}"
    rows = [[kind, *(cell(*one) for one in row.values())]
            for kind, row in found.items()]
    few = lambda one: one[0] is not None and one[0] < 0.5 and one[1] >= 4
    weak = []
    for kind, row in list(found.items())[1:]:
        # of a kind that is missed as a whole, no more is said
        names = ["all"] if few(row["all"]) else [name for name in row if few(row[name])]
        weak += [kind if name == "all" else f"{kind}, {name}" for name in names]
    not_found = (f"<p>Fewer than half were found of: {'; '.join(weak)}. Do not rely on "
                 "it for these.</p>" if weak else "")
    return ["<h2>Synthetic defects it would find</h2>",
            answer(f"{found['all']['all'][0]:.0%} of {result['defects']} synthetic "
                   "defects score above the threshold."),
            "<p>They are made on the held-out images, in full or blended in faintly, "
            "from a few pixels to a third of the image. True defects differ; these say "
            "what is surely too faint or too small.</p>", not_found,
            grid(["kind", "all", *CONTRASTS, *SIZES], rows)]


def _missed(trial: Trial, maps: Tensor, rows: np.ndarray, detector: Detector
            ) -> list[str]:
    """The clearest of the defects that were missed, outlined, with their maps."""
    shown = []
    for n in rows:
        image = pixels(trial.images[n])
        hot = heat(maps[n].numpy(), detector.threshold)
        image[outline(trial.masks[n])] = MAGENTA
        both, times = np.concatenate([image, hot], 1), -(-128 // len(image))
        shown.append(picture(
            both.repeat(times, 0).repeat(times, 1),
            f"{trial.kind[n]}, contrast {trial.contrast[n]:.0%}, {trial.area[n]:.1%} "
            "of the image"))
    if not shown:
        return ["<h2>Missed</h2><p>None.</p>"]
    return ["<h2>Missed, the clearest first</h2>",
            f'<div class="pairs">{"".join(shown)}</div>']


def histogram(detector: Detector) -> str:
    """Held-out scores and the threshold, as SVG."""
    scores = detector.held_out_scores.numpy()
    top = max(scores.max(), detector.threshold) * 1.1
    counts, edges = np.histogram(scores, bins=24, range=(0, top))
    bars = "".join(
        f'<rect x="{600 * low / top:.1f}" y="{120 - 110 * n / counts.max():.1f}" '
        f'width="{600 * (high - low) / top - 1:.1f}" '
        f'height="{110 * n / counts.max():.1f}"/>'
        for n, low, high in zip(counts, edges, edges[1:]) if n)
    x = 600 * detector.threshold / top
    side = f'x="{x - 6:.1f}" text-anchor="end"' if x > 450 else f'x="{x + 6:.1f}"'
    said = (f"Histogram of {len(scores)} held-out scores; the threshold is "
            f"{detector.threshold:.3g}")
    return (f'<svg viewBox="0 0 600 145" width="600" role="img" aria-label="{said}">'
            f'<g fill="#808080">{bars}</g><line x1="{x:.1f}" x2="{x:.1f}" y1="0" '
            'y2="120" stroke="var(--mark)" stroke-width="2"/>'
            f'<text {side} y="14" fill="currentColor">threshold '
            f'{detector.threshold:.3g}</text><text x="0" y="140" fill="currentColor">0'
            '</text><text x="600" y="140" text-anchor="end" fill="currentColor">score '
            f'{top:.2g}</text></svg>')


def write_expectation(path: Path, name: str, promise: str, detector: Detector,
                      shown: list[str], parts: list[str], seconds: float,
                      fails: str = "") -> None:
    """The report of a new detector; `shown`: what it learned from, HTML; fails: what
    `failing` said.
    """
    record, s = detector.record, detector.settings
    learned = (f"<p>{record['images'] - record['held_out']} images trained it, "
               f"{record['held_out']} were held out. An image takes {seconds:.2g} s, "
               f"{s.image_size} pixels a side.</p>")
    steps = "".join(f"<li>{escape(one)}</li>" for one in remedies(detector))
    first = [answer(f"{fails}. What to try, in this order:"), f"<ol>{steps}</ol>"]
    write_text(path, page(f"Detector of {name}", [
        *(first if fails else []), answer(promise), learned,
        "<h2>Scores of good images it had not seen</h2>",
        histogram(detector), *parts, "<h2>The images it was given</h2>", *shown]))
