"""`ddad data make`, `fetch` and `check`: the images themselves."""
from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from .options import DATA, command


def add_data(commands) -> None:
    text = "Make, fetch or check a data set."
    group = commands.add_parser("data", help=text, description=text)
    actions = group.add_subparsers(required=True, metavar="ACTION")
    for add in (add_make, add_fetch, add_check):
        add(actions)


def add_make(actions) -> None:
    one = command(actions, "make", run_make,
                  "Make the embedded products: images, masks, tables, and Croissant "
                  "metadata that tell other programs what lies there.",
                  ("out", "folder to make"))
    one.add_argument("--size", type=int,
                     help="pixels a side (default 128, of a surface 96)")
    one.add_argument("--seed", type=int, default=0,
                     help="another one draws other images (default 0)")
    one.add_argument("--surface",
                     help="instead, crops of a photograph of brick, grass or gravel, "
                          "with synthetic defects; needs scikit-image, which ships it")


def run_make(options: Namespace) -> None:
    if options.surface:
        from ..synthetic.surface import make_surface
        make_surface(options.out, options.surface, options.size or 96,
                     seed=options.seed)
        print(f"made {options.out / options.surface}")
        return
    from ..synthetic.croissant import describe
    from ..synthetic.products import make
    make(options.out, size=options.size or 128, seed=options.seed)
    metadata = describe(options.out)
    names = sorted(path.name for path in options.out.iterdir() if path.is_dir())
    print(f"made {options.out}: {', '.join(names)}; described in {metadata}")


def add_fetch(actions) -> None:
    one = command(actions, "fetch", run_fetch,
                  "Download a published data set: size, licence and terms first; "
                  "checksummed; resumes.")
    one.add_argument("name",
                     help="mvtec_ad, visa, btad, mvtec_loco, mtd_by_tile or mtd_random")
    one.add_argument("out", type=Path, help="folder for all data sets")
    one.add_argument("--url", help="another address of the same archive")
    one.add_argument("--accept", action="store_true",
                     help="you accept the licence and terms that are shown")


def run_fetch(options: Namespace) -> None:
    from ..data.fetch import fetch
    print(fetch(options.name, options.out, consent=options.accept, url=options.url))


def add_check(actions) -> None:
    one = command(actions, "check", run_check,
                  "Read every image and mask of a data set and report what is off.",
                  DATA)
    one.add_argument("--name",
                     help="compare with the published counts of mvtec_ad, visa, ..: "
                          "DATA is then the folder it was fetched into")
    one.add_argument("--size", type=int, default=256,
                     help="pixels a side it will be used at (default 256)")
    one.add_argument("--report", type=Path, metavar="FILE",
                     help="also write what was found as a page of HTML, with pictures")


def run_check(options: Namespace) -> int:
    from ..data.check import check
    from ..data.fetch import check_dataset
    from ..runtime.files import replaceable_file
    alone = False
    if options.name:
        if options.report:
            raise ValueError("--report is of one product's folder; leave out --name")
        report = check_dataset(options.name, options.data, options.size)
    else:
        if options.report:                          # rather now than after the reading
            from ..deploy.report import CHECK, is_page
            replaceable_file(options.report, lambda path: is_page(path, CHECK),
                             "ddad data check")
        report = check(options.data, options.size)
        # images as they lie in one folder are to learn from, and nothing else
        alone = (report["usable_for"] == ["train"]
                 and not (options.data / "train").exists())
    if options.report:
        from ..deploy.report import write_check
        write_check(report, options.data, options.report)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0 if report["usable"] or alone else 1
