"""`ddad inspect`: from a folder of good pictures to a detector and what to expect of
it, in one command.
"""
from __future__ import annotations

from argparse import Namespace
from itertools import count
from pathlib import Path

from .detector import asked_of, holds
from .options import chosen_vae, command, network_options, settings_options
from .printing import left_out, promise, warn

PRESET = "regional"
HELD_OUT, MOST = 40, 0.4        # images held out where there are enough, as a share
LAPTOP = dict(unet_channels=(32, 64, 96), neighbour_pool=4, train_batch=16,
              train_length="1500 steps", learning_rate=1e-3)


def add_inspect(commands) -> None:
    one = command(commands, "inspect", run_inspect,
                  "Learn a product from a folder of good pictures: check them, choose "
                  "settings, train, calibrate, and report what to expect. It holds 40 "
                  "pictures out, but at least a fifth and at most two fifths. Resumes.",
                  ("images", "a folder of good pictures, or a product's folder with "
                             "train/good"),
                  ("out", "folder for detector/ and report.html"))
    settings_options(one, PRESET)
    network_options(one)


def run_inspect(options: Namespace) -> None:
    from ..data.images import good_images, held_out_items, train_items
    from ..data.plausible import look
    from ..deploy.expectation import failing, remedies
    from ..runtime.devices import pick_device
    from ..training import hold_out, split
    _may_report(options.out)
    items, apart = train_items(options.images), held_out_items(options.images)
    left_out(options.images, {item.path for item in [*items, *apart]},
             ("train", "validation"))
    doubts, side = look([*items, *apart], options.images)
    warn(*(said for said, _ in doubts))
    gpu = pick_device(options.device).type != "cpu"
    settings = chosen(options, len(items), side, gpu)
    if settings.map_range == "test":
        raise ValueError('map_range "test", as of --preset paper, leaves no threshold, '
                         "and there is nothing to expect without one; use ddad train")
    _say(settings, len(items), len(apart))
    read = lambda some: good_images([item.path for item in some], settings.image_size)
    images, held_out = read(items), read(apart) if apart else None
    detector = _learned(options, images, held_out, settings)
    _, good = split(hold_out(images, settings, held_out)[1], settings)
    found = _report(options, detector, good, [*items, *apart], doubts)
    if fails := failing(found, detector):
        tried = (f"  {n}. {one}" for n, one in enumerate(remedies(detector), 1))
        print(f"{fails}. What to try, in this order, into another folder:", *tried,
              sep="\n")
    print(promise(detector))
    print(f"{found['all']['all'][0]:.0%} of {found['all']['all'][1]} synthetic defects "
          f"found; what to expect: {options.out / 'report.html'}")
    print(f"new pictures: ddad detect {options.out / 'detector'} PICTURES RESULTS")


def _may_report(out: Path) -> None:
    """FileExistsError where OUT holds a report or figures of something else."""
    from ..deploy.report import is_page
    from ..runtime.files import replaceable_file, table_in
    if (out / "results.jsonl").exists():
        raise FileExistsError(f"{out} holds results of `ddad detect`, whose report "
                              "would be replaced; choose another folder")
    for name, own in (("report.html", lambda path: is_page(path, "Detector of ")),
                      ("expected.json", lambda path: "found" in table_in(path))):
        replaceable_file(out / name, own, "ddad inspect")


def _say(settings, images: int, apart: int) -> None:
    """What will be trained on what; and, before the time is spent, a warning where the
    pictures are too few for the threshold. apart: how many are given as held out.
    """
    import torch

    from ..conformal import shortage
    from ..training import hold_out, split
    held_out = torch.arange(apart) if apart else None
    train, good = hold_out(torch.arange(images), settings, held_out)
    print(f"preset {settings.preset}, {settings.image_size} pixels a side, "
          f"{settings.train_length}, autoencoder {settings.vae}; {len(train)} pictures "
          f"to train on, {len(good)} held out", flush=True)
    lacks = lambda n: shortage(len(split(torch.arange(n), settings)[1]),
                               settings.false_alarms)
    if len(good) and (short := lacks(len(good))):
        by_hand = settings.held_out != share(images)
        held = lambda n: round(n * (settings.held_out if by_hand else share(n)))
        of = "" if apart else ", of {} good pictures in all".format(next(
            n for n in count(images) if not lacks(held(n))))
        warn(short + of)


def _learned(options: Namespace, images, held_out, settings):
    """The detector in OUT/detector, trained unless it is there."""
    from ..detector import Detector
    from ..runtime.checkpoints import fitted
    model, how = options.out / "detector", {"device": options.device}
    asked = asked_of(settings, images, held_out, calibrate=True)

    def train(checkpoint: Path) -> Detector:
        detector = Detector.fit(images, settings, held_out=held_out, calibrate=True,
                                checkpoint=checkpoint, **how)
        detector.record["asked"] = asked
        return detector

    def load(saved: Path) -> Detector:
        return Detector.from_pretrained(saved, vae=chosen_vae(options), **how)

    instead = f", or delete {options.out}"
    return fitted(model, train, load if holds(model, asked, instead) else None)


def _report(options: Namespace, detector, good, items: list, doubts: list) -> dict:
    """Writes OUT/expected.json and OUT/report.html; what was found of what. good: the
    held-out images that the threshold comes from.
    """
    from ..deploy.expectation import expect, failing, write_expectation
    from ..deploy.report import doubt, sheet
    from ..runtime.files import write_json
    root = options.images
    expected, parts = expect(detector, good)
    write_json(options.out / "expected.json", expected)
    shown = [doubt(said, names, root) for said, names in doubts] + [sheet(items)]
    write_expectation(options.out / "report.html", root.resolve().name,
                      promise(detector), detector, shown, parts, expected["seconds"],
                      failing(expected["found"], detector))
    return expected["found"]


def share(images: int) -> float:
    """The part of so many good pictures that is held out: HELD_OUT of them, but at
    least a fifth and at most MOST.
    """
    return round(min(MOST, max(0.2, HELD_OUT / images)), 3)


def chosen(options: Namespace, images: int, side: int, gpu: bool):
    """Settings by the number of images, their shorter side in pixels, and the device;
    --preset, --set and --vae have the last word. SettingsError.
    """
    from ..settings import preset
    size = min(256 if gpu else 128, side // 32 * 32)
    ours, trained = {} if gpu else LAPTOP, images - round(images * share(images))
    ours |= {"image_size": max(32, size), "held_out": share(images),
             "neighbours": max(1, min(20, trained // 2))}
    settings = preset(options.preset or PRESET, **ours)
    if options.vae:
        settings = settings.change(vae=options.vae)
    return settings.parse(options.set)
