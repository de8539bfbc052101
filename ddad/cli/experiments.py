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
                  "Switch each claim of the method off in turn, for several seeds.",
                  DATA, ("out", "folder for the results"))
    settings_options(one)
    network_options(one)
    seeds_option(one)


def run_ablate(options: Namespace) -> None:
    from ..reproduction.ablation import ablate
    rows = ablate(options.data, chosen_settings(options), options.seeds, options.out,
                  vae=chosen_vae(options), device=options.device)
    of = {}
    for row in rows:
        of.setdefault(row["variant"], []).append(row)
    metrics = ("i_auroc", "p_auroc", "pro", "p_ap")
    print(table({variant: {name: fmean(row[name] for row in seeds) for name in metrics}
                 for variant, seeds in of.items()}))


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
                     help="let the preset clean choose its constants without test data")
    changes_option(one, "settings to change, for all runs")
    one.add_argument("--maps", action="store_true",
                     help="keep the anomaly maps (maps.npy in each run)")
    one.add_argument("--single", action="store_true",
                     help="runs only, no receipt and no tables: for a job of a "
                          "scheduler")
    network_options(one)


def run_reproduce(options: Namespace) -> None:
    from ..reproduction.runs import (
        Run,
        by_category,
        categories_in,
        reproduce,
        settings_of,
    )
    from ..reproduction.tables import against_paper, write_report
    from ..synthetic.products import PRODUCTS, make
    embedded = options.name == "embedded"
    if embedded:
        make(options.data)
    categories = options.categories or (
        PRODUCTS if embedded else categories_in(options.data))
    vae_name = options.vae or ("embedded" if embedded else None)
    by, vae = by_category(options.by_category), chosen_vae(options)
    runs = [Run(*cell) for cell in product(categories, options.presets, options.seeds)]
    # a wrong setting is told of before the first run
    settings = [settings_of(run, options.scale, by, options.set, vae_name)
                for run in runs]
    for n, (run, its) in enumerate(zip(runs, settings), 1):
        print(f"run {n} of {len(runs)}: {run.category}, {run.preset}, seed {run.seed}",
              file=sys.stderr)
        reproduce(run, options.name, options.data / run.category, options.out, its,
                  table=by, vae=vae, device=options.device,
                  calibrate=options.calibrate, maps=options.maps)
    if not options.single:
        print(against_paper(write_report(options.out)))
        print(f"receipt.json, tables.md and figures.csv in {options.out}")


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
