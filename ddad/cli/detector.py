"""`ddad train`, `detect`, `evaluate`, `export`, `show` and `settings`: one detector."""
from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from ..runtime.processes import is_main
from .options import (
    DATA,
    MODEL,
    chosen_detector,
    chosen_settings,
    chosen_vae,
    command,
    compile_option,
    network_options,
    settings_options,
)
from .printing import (
    best,
    counted,
    kept,
    left_out,
    no_threshold,
    promise,
    table,
    warn,
)

# --preset with --from: what keeps a detector as it is, and what keeps its U-Net alone
AS_IT_IS, ONE_UNET = (None, "fast"), ("clean", "regional", "one-call")


def add_train(commands) -> None:
    one = command(commands, "train", run_train,
                  "Learn one product from its good images; resumes where it stopped.",
                  DATA, ("out", "folder for the detector"))
    settings_options(one)
    network_options(one)
    one.add_argument("--calibrate", action="store_true",
                     help="choose step rule, T_max, smallest bin, guidance, "
                          "latent_blur and lambda without test data")
    one.add_argument("--from", dest="model", type=Path, metavar="MODEL",
                     help="a detector of the same images, whose U-Net is taken: with "
                          "--preset clean, regional or one-call all else is made anew; "
                          "with --set alone or --preset fast its features serve, too")
    one.add_argument("--overwrite", action="store_true",
                     help="replace a detector that OUT holds already")


def run_train(options: Namespace) -> None:
    from ..calibration import CHOSEN
    from ..data.images import held_out_items, train_items
    from ..data.plausible import said_of_copies
    from ..data.product import load_held_out, load_train
    from ..detector import Detector
    from ..runtime.checkpoints import fitted
    from ..runtime.files import sha256
    from ..runtime.manifest import MANIFEST
    from ..saved_model import may_hold
    from ..training import adapt
    given, settings = _start(options)
    images = load_train(options.data, settings)
    held_out = load_held_out(options.data, settings)
    good = [*train_items(options.data), *held_out_items(options.data)]
    left_out(options.data, {item.path for item in good}, ("train", "validation"))
    warn(*said_of_copies(options.data, ("train", "validation")))
    source = sha256(options.model / MANIFEST) if options.model else None
    asked = asked_of(settings, images, held_out, options.calibrate, source)
    if given:
        _of_its_images(given, asked)
    instead = ", or replace it with --overwrite"
    if not options.overwrite and holds(options.out, asked, instead):
        print(f"{options.out} holds this detector already, from the same images and "
              "settings; nothing to do")
        return
    may_hold(options.out)                           # rather now than after the training

    def train(checkpoint: Path) -> Detector:
        if given and options.preset in AS_IT_IS:
            detector = adapt(given, images, settings, held_out)
        else:
            detector = Detector.fit(images, settings, held_out=held_out, like=given,
                                    device=options.device, calibrate=options.calibrate,
                                    checkpoint=checkpoint)
        detector.record["asked"] = asked
        return detector

    detector = fitted(options.out, train)
    if is_main():
        chosen = (f"{name} {getattr(detector.settings, name)}" for name in CHOSEN)
        print(f"saved {options.out}; " + ", ".join(chosen))
        print(promise(detector))


def _start(options: Namespace) -> tuple:
    """The detector of --from, or None, and the settings to train or to adapt to."""
    from ..settings import FAST
    if not options.model:
        return None, chosen_settings(options)
    if options.preset not in (*AS_IT_IS, *ONE_UNET):
        raise ValueError(f"--from has no U-Net of the preset {options.preset}; it can "
                         f"be given fast, {', '.join(ONE_UNET)}")
    if options.calibrate and options.preset in AS_IT_IS:
        raise ValueError("--from with --set alone or --preset fast keeps the "
                         "detector's own choices; --calibrate needs --preset "
                         + " or ".join(ONE_UNET))
    given = chosen_detector(options)
    if options.preset in ONE_UNET:
        vae = {"vae": options.vae} if options.vae else {}
        changes = _anew(options.preset, given.settings.preset) | vae
    else:
        changes = FAST if options.preset else {}
    return given, given.settings.change(**changes).parse(options.set)


def _of_its_images(given, asked: dict) -> None:
    """ValueError where images that its U-Net was trained on could now be held out; a
    warning where it does not say which they were.
    """
    train, held_out = asked["images"]
    before = given.record.get("asked", {}).get("images")
    if not before:
        warn("MODEL does not say which images it was trained on: where these are "
             "others, some that it saw are held out, and the threshold is too low")
    elif train != before[0] or before[1] and not held_out:
        raise ValueError("--from needs the images that MODEL was trained on: among "
                         "others some that it saw would be held out, and the threshold "
                         "be too low; train anew, without --from")


def _anew(name: str, other: str) -> dict:
    """What a preset has in place of the choices of another one: all that a calibration
    can choose, and what either has of its own.
    """
    from ..calibration import CHOSEN
    from ..settings import FAST, ONE_CALL, REGIONAL, preset
    own = {"fast": FAST, "regional": REGIONAL, "one-call": ONE_CALL}
    changed = ("preset", *CHOSEN, *own.get(name, ()), *own.get(other, ()))
    return {one: getattr(preset(name), one) for one in changed}


def asked_of(settings, images, held_out, calibrate: bool, source: str | None = None
             ) -> dict:
    """What tells one training from another: two alike end with the same detector.
    source: the hash of a detector whose networks serve.
    """
    from ..data.images import fingerprint
    return {"settings": settings.as_dict(), "calibrate": calibrate, "from": source,
            "images": [None if part is None else fingerprint(part)
                       for part in (images, held_out)]}


def holds(folder: Path, asked: dict, remedy: str) -> bool:
    """Whether the detector asked for is there already. FileExistsError where another
    one is, ModelError where its autoencoder has changed.
    """
    from ..networks.autoencoders import load_vae
    from ..runtime.latent_cache import same_autoencoder
    from ..runtime.manifest import MANIFEST, read_manifest
    if not (folder / MANIFEST).exists():
        return False
    found = read_manifest(folder)
    if found["record"].get("asked") != asked:
        raise FileExistsError(f"{folder} holds another detector; choose another "
                              f"folder{remedy}")
    if hashed := found.get("autoencoder"):
        same_autoencoder(folder, hashed, load_vae(asked["settings"]["vae"]))
    return True


def add_detect(commands) -> None:
    one = command(commands, "detect", run_detect,
                  "Score images: overlays, maps, a JSON line for each, and a report.",
                  MODEL, ("images", "an image or a folder of images"),
                  ("out", "folder for the results"))
    network_options(one)
    compile_option(one)
    one.add_argument("--maps", choices=("png16", "npy"), default="png16",
                     help="16-bit images (65535 = twice the threshold) or float32 "
                          "arrays")
    one.add_argument("--skip-bad", action="store_true",
                     help="exit with 0 although images that cannot be read were left "
                          "out; they are still named")
    one.add_argument("--watch", type=float, metavar="SECONDS",
                     help="look again every so many seconds for new images, until it "
                          "is interrupted")


def run_detect(options: Namespace) -> int:
    from ..data.layouts import list_images
    from ..runtime.errors import DataError
    if options.watch is not None and not 0 < options.watch < 1e9:   # NaN fails, too
        raise ValueError(f"--watch {options.watch:g}: give a number of seconds above 0")
    detector, known = chosen_detector(options), set()
    if options.compile:
        detector.compile()
    while True:
        try:
            paths = list_images(options.images)
        except DataError:       # the first one may be yet to come
            if not options.watch or not options.images.is_dir():
                raise
            paths = []
        seen = set(map(_state, paths))
        if seen != known or not options.watch:
            refused = _detect_once(options, detector, paths)
        known = seen
        if not options.watch:
            return 2 if refused and not options.skip_bad else 0
        time.sleep(options.watch)


def _state(path: Path) -> tuple:
    """By which a file is told from what lay there before; it may be gone by now."""
    try:
        now = path.stat()
    except OSError:
        return path, None
    return path, now.st_mtime_ns, now.st_size


def _detect_once(options: Namespace, detector, paths: list[Path]) -> bool:
    """Whether any image could not be read."""
    from ..conformal import shortage
    from ..deploy.doubts import doubts, limits
    from ..deploy.folder import file_of, inspect
    from ..deploy.report import write_detection
    if options.images.is_dir():
        left_out(options.images, set(paths), ())
    lines = inspect(detector, paths, options.out, options.maps)
    write_detection(lines, options.out, doubts(detector.record, lines),
                    limits(detector, lines))
    asked = set(map(file_of, paths))
    these = [line for line in lines if line["file"] in asked]
    flagged = sum(bool(line.get("anomalous")) for line in these)
    refused = [line["error"] for line in these if "error" in line]
    others = len(lines) - len(these)
    earlier = f", with {others} of earlier runs" if others else ""
    above = (f"{flagged} above the threshold" if detector.threshold is not None else
             f"scored, with no threshold to be above: {no_threshold(detector)}")
    print(f"{counted(len(these) - len(refused), 'image')}, {above}; results in "
          f"{options.out / 'results.jsonl'} and report.html{earlier}", flush=True)
    if of_p := limits(detector, these):
        print(of_p, flush=True)
    scores, rate = detector.held_out_scores, detector.settings.false_alarms
    if detector.threshold is not None and (short := shortage(len(scores), rate)):
        warn(short)
    warn(*doubts(detector.record, these))
    for error in refused:
        print(error, file=sys.stderr)
    return bool(refused)


def add_evaluate(commands) -> None:
    one = command(commands, "evaluate", run_evaluate,
                  "Detect on the test images and score the result; writes "
                  "results.json.", MODEL, DATA)
    network_options(one)
    compile_option(one)
    one.add_argument("--bootstrap", type=int, default=0, metavar="N",
                     help="intervals over N resamples of the images")
    one.add_argument("--baselines", action="store_true",
                     help="also simpler methods: nearest neighbours, PatchCore, PaDiM, "
                          "one call of the U-Net, the autoencoder alone")
    one.add_argument("--regret", type=int, nargs="?", const=1, metavar="N",
                     help="also the calibration's sweep on the test set, on each N-th "
                          "image of it: shown, never used")
    one.add_argument("--out", type=Path,
                     help="where to write (default: results.json in the model's "
                          "folder)")


def run_evaluate(options: Namespace) -> None:
    from ..data.product import load_held_out, load_test, load_train
    from ..evaluation.baselines import baselines
    from ..evaluation.regret import regret
    from ..evaluation.scoring import evaluate, lacking
    from ..reproduction.runs import by_area, fingerprint, made_with, measured, portable
    from ..reproduction.tables import BASELINES
    from ..runtime.files import replaceable_file, table_in, write_json
    from ..runtime.manifest import RESULTS
    detector = chosen_detector(options)
    settings = detector.settings
    test = load_test(options.data, settings)
    out = options.out or options.model / RESULTS
    replaceable_file(out, lambda path: "result" in table_in(path), "ddad evaluate")
    reason, both = lacking(test), 0 < test.labels.sum() < len(test.labels)
    if reason and (options.regret or options.baselines and not both):
        left = "--baselines and --regret" if not both else "--regret"
        raise ValueError(f"{options.data}: {reason}; leave out {left}")
    _tell_of(options.data, test, settings)
    data = fingerprint(options.data)                # refused now, or not at all
    if options.compile:
        detector.compile()
    result, prediction = evaluate(detector, test, options.bootstrap)
    if not is_main():                               # the rest is one process's work
        return
    if reason:
        report = {"settings": portable(settings), "result": result, "images": {
            "image": [path.relative_to(options.data).as_posix() for path in test.paths],
            "kind": test.kinds, "score": prediction.score.tolist()}}
    else:
        same = by_area(test, options.data, settings)
        report = measured(detector, options.data, same, result, prediction)
    report |= made_with(detector, data, options.model)
    report |= {"record": detector.record, "compiled": bool(detector.networks.compiled)}
    # before what may fail, and before it is printed: a name may not be shown
    write_json(out, report)
    rows = {"this detector": result}
    if options.baselines:
        train = load_train(options.data, settings)
        held_out = load_held_out(options.data, settings)
        report["baselines"] = found = baselines(detector, train, test, held_out)
        rows |= {BASELINES[name]: row for name, row in found.items()}
        write_json(out, report)
    if options.regret:
        report["regret"] = regret(detector, test, options.regret)
        write_json(out, report)
    print(table(rows))
    scores, good = prediction.score[test.labels == 0], int((test.labels == 0).sum())
    if good and settings.threshold == "conformal" and detector.threshold is not None:
        print(kept(detector, int((scores > detector.threshold).sum()), good))
    if options.baselines:
        print(best(rows))
    if found := report.get("regret"):
        shown = {name: found[name] for name in ("chosen", "best_on_test", "regret")}
        print(json.dumps(shown, indent=1))


def _tell_of(root: Path, test, settings) -> None:
    """Before the work: what will not be measured, is left out, or is there twice."""
    from ..data.plausible import said_of_copies
    from ..evaluation.scoring import lacking
    warn(*said_of_copies(root))                     # DataError without train/good
    empty = int((test.labels == 1).sum() - test.masks.any((1, 2)).sum())
    if reason := lacking(test):
        warn(reason)
    elif empty:
        warn(f"{empty} of {counted(int(test.labels.sum()), 'defective image')} without "
             f"a mark in the mask, at {settings.image_size} pixels a side: their "
             "pixels count as good")
    left_out(root, set(test.paths), ("test",))


def add_export(commands) -> None:
    one = command(commands, "export", run_export,
                  "Write the detector as ONNX, JSON and a binary file, checked against "
                  "PyTorch.", MODEL, ("out", "folder to make"))
    one.add_argument("--images", type=Path,
                     help="an image or a folder of images to compare on (default: nine "
                          "of the embedded products)")
    one.add_argument("--vae", help="autoencoder, where the detector was made with one "
                                   "that is not loaded from a manifest")


def run_export(options: Namespace) -> None:
    from ..data.images import read_images
    from ..data.layouts import list_images
    from ..deploy.export import export
    from ..detector import Detector
    detector = Detector.from_pretrained(options.model, vae=chosen_vae(options),
                                        device="cpu")
    images = None
    if options.images:
        size = detector.settings.image_size
        images = read_images(list_images(options.images), size)
    made = export(detector, options.out, images)
    print(f"{made['bytes'] / 1e6:.1f} MB in {options.out}, weights in "
          f"{made['weights']}: {', '.join(made['files'])}")
    print(f"against PyTorch on {made['pictures']} images: same bin on "
          f"{made['same_bin']}, maps differ by up to {made['map']:.1e}, scores by up "
          f"to {made['score']:.4%}")


def add_show(commands) -> None:
    command(commands, "show", run_show,
            "Print a detector's manifest: settings, record, versions.", MODEL)


def run_show(options: Namespace) -> None:
    from ..runtime.manifest import MANIFEST, read_manifest
    manifest = read_manifest(options.model)
    record = manifest["record"]
    if candidates := record.get("calibration"):
        record["calibration"] = f"{len(candidates)} candidates, listed in {MANIFEST}"
    print(json.dumps(manifest, indent=1))


def add_settings(commands) -> None:
    settings_options(command(commands, "settings", run_settings,
                         "Print the settings of a preset."))


def run_settings(options: Namespace) -> None:
    print(json.dumps(chosen_settings(options).as_dict(), indent=1))
