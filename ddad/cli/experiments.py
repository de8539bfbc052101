"""`ddad ablate`, `reproduce`, `compare` and `bench`: experiments on the method."""
from __future__ import annotations

import sys
from argparse import Namespace
from itertools import product
from pathlib import Path
from statistics import fmean

from .options import (
    DATA,
    changes_option,
    chosen_settings,
    chosen_vae,
    command,
    network_options,
    seeds_option,
    settings_options,
)
from .printing import table


def add_ablate(commands) -> None:
    one = command(commands, "ablate", run_ablate,
                  "Switch each claim of the method off in turn, for several seeds; "
                  "each variant chooses its constants for itself. Resumes.",
                  DATA, ("out", "folder for the runs and receipt.json, of one product"))
    settings_options(one)
    network_options(one)
    seeds_option(one)
    one.add_argument("--variants", nargs="+", metavar="V",
                     help="default: all; such as 'full method' 'static steps'")


def run_ablate(options: Namespace) -> None:
    from ..reproduction.ablation import ablate
    only = {"variants": options.variants} if options.variants else {}
    rows = ablate(options.data, chosen_settings(options), options.seeds, options.out,
                  vae=chosen_vae(options), device=options.device, **only)
    of = {}
    for row in rows:
        of.setdefault(row["variant"], []).append(row)
    metrics = ("i_auroc", "p_auroc", "pro", "p_ap")
    print(table({variant: {name: fmean(row[name] for row in seeds) for name in metrics}
                 for variant, seeds in of.items()}))
    print(f"means over the seeds; all of it in {options.out / 'receipt.json'}")


def add_reproduce(commands) -> None:
    one = command(commands, "reproduce", run_reproduce,
                  "Rerun the paper, categories x presets x seeds: its tables with our "
                  "figures; resumes.")
    one.add_argument("name", help="data set: embedded, visa, btad, mvtec_ad, .., or "
                                  "any name of yours")
    one.add_argument("data", type=Path,
                     help="folder that holds the categories' folders (embedded: made, "
                          "if it is not there)")
    one.add_argument("out", type=Path,
                     help="folder for runs, receipt.json, tables.md and figures.csv")
    one.add_argument("--categories", nargs="+", metavar="C",
                     help="default: all that lie in DATA")
    one.add_argument("--presets", nargs="+", default=["clean"], metavar="P",
                     help="clean (default), fast, paper, official")
    seeds_option(one)
    one.add_argument("--scale", default="paper",
                     help="paper (default), or laptop: 128 pixels, a small U-Net, "
                          "300 steps")
    one.add_argument("--by-category", metavar="TABLE",
                     help="settings that differ by category: visa_readers, embedded, "
                          "or a JSON file")
    one.add_argument("--calibrate", action="store_true",
                     help="choose the constants without test data, but not those of "
                          "the presets paper and official")
    changes_option(one, "settings to change, for all runs")
    one.add_argument("--maps", action="store_true",
                     help="keep the anomaly maps (maps.npy in each run)")
    one.add_argument("--plan", type=int, nargs="?", const=0, metavar="N",
                     help="make nothing: print what each run takes (images, steps, "
                          "work, memory, disk), DATA there or not yet, and write "
                          "plan.json into OUT; with N also time N training steps here, "
                          "for the hours")
    one.add_argument("--single", action="store_true",
                     help="runs only, no receipt and no tables: for a job of a "
                          "scheduler")
    network_options(one)


def run_reproduce(options: Namespace) -> None:
    from ..reproduction.published import beside, missing
    from ..reproduction.runs import by_category, reproduce
    from ..reproduction.tables import against_paper, write_report
    from ..synthetic.products import make
    if options.plan is not None:
        return _print_plan(options)
    if options.name == "embedded":
        make(options.data)
    # a wrong setting is told of before the first run
    matrix = _matrix(options)
    by, vae = by_category(options.by_category), chosen_vae(options)
    for n, (run, settings) in enumerate(matrix, 1):
        print(f"run {n} of {len(matrix)}: {run.category}, {run.preset}, seed "
              f"{run.seed}", file=sys.stderr)
        made = reproduce(run, options.name, options.data / run.category, options.out,
                         settings, table=by, vae=vae, device=options.device,
                         calibrate=options.calibrate, maps=options.maps)
        print(beside(made))
    if not options.single:
        receipt = write_report(options.out)
        print(against_paper(receipt))
        if lacks := missing(receipt):
            print(lacks)
        print(f"receipt.json, tables.md and figures.csv in {options.out}")


def _matrix(options: Namespace) -> list[tuple]:
    """Each run with its settings, in the order they are made: seed by seed, the
    smallest categories first.
    """
    from ..reproduction.plan import categories
    from ..reproduction.runs import Run, by_category, settings_of
    chosen = options.categories or categories(options.name, options.data,
                                              published=options.plan is not None)
    vae = options.vae or ("embedded" if options.name == "embedded" else None)
    by = by_category(options.by_category)
    runs = [Run(category, preset, seed) for seed, preset, category
            in product(options.seeds, options.presets, chosen)]
    return [(run, settings_of(run, options.scale, by, options.set, vae))
            for run in runs]


def _print_plan(options: Namespace) -> None:
    from ..reproduction.plan import plan, told
    from ..runtime.files import write_json
    found = plan(options.name, options.data, options.out, _matrix(options),
                 options.plan, options.device)
    write_json(options.out / "plan.json", found)
    print(told(found))
    print(f"all of it in {options.out / 'plan.json'}")


def add_compare(commands) -> None:
    command(commands, "compare", run_compare,
            "Set two receipts side by side: same, within tolerance, different, or not "
            "comparable, and why.",
            ("first", "a receipt.json, or the folder that holds it"),
            ("second", "another, which somebody else may have made"))


def run_compare(options: Namespace) -> int:
    from ..reproduction.receipts import compare, read_receipt
    rows = compare(read_receipt(options.first), read_receipt(options.second))
    for row in rows:
        print(f"{row['run']}: {row['verdict']}")
        differences = (f"  {name} {by:+.4f}" for name, by in row["difference"].items())
        print(*differences, *(f"  {text}" for text in row["differs"]), sep="\n")
    agreed = all(row["verdict"] in ("same", "within tolerance") for row in rows)
    return 0 if agreed else 1


def add_bench(commands) -> None:
    one = command(commands, "bench", run_bench,
                  "Measure what detection, training and metrics cost beside the "
                  "networks.", ("out", "folder for bench.json"))
    one.add_argument("--scale", default="laptop",
                     help="laptop (default), or paper: its networks, for a GPU")
    one.add_argument("--only", nargs="+", metavar="SECTION",
                     help="sections to measure again; the others are kept")
    one.add_argument("--curve", nargs=2, action="append", default=[], type=Path,
                     metavar=("MODEL", "DATA"),
                     help="time against metrics of a detector of yours by number of "
                          "U-Net calls")
    network_options(one)


def run_bench(options: Namespace) -> None:
    from ..detector import Detector
    from ..reproduction.benchmark import bench
    load = lambda model: Detector.from_pretrained(model, vae=chosen_vae(options),
                                                  device=options.device)
    curves = [(load(model), data) for model, data in options.curve]
    found = bench(options.out, options.device, options.scale, options.only, curves)
    print(*(f"{name:<24}{value:>10.2f}" for name, value in found.items()
            if name != "sections"), sep="\n")
    for _, data in options.curve:
        _print_curve(data.name, found["sections"][f"calls, {data.name}"]["rows"])
    print(f"all sections in {options.out / 'bench.json'}")


def _print_curve(name: str, rows: list[dict]) -> None:
    print(f"{name}: {'steps':>6}{'calls':>7}{'ms':>7}  {'I-AUROC':>9}{'PRO':>7}"
          f"  held-out:{'I-AUROC':>9}{'PRO':>7}  precision")
    for row in rows:
        held_out = row["held_out"]
        print(f"{'':{len(name)}}  {row['steps']:>6}{row['calls']:>7}"
              f"{1000 * row['seconds']:>7.0f}  {row['i_auroc']:>9.4f}{row['pro']:>7.4f}"
              f"  {'':>9}{held_out['i_auroc']:>9.4f}{held_out['pro']:>7.4f}"
              f"  {row['precision']}")
