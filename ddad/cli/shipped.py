"""`ddad demo` and `ddad weights`: the shipped weights, used and made again."""
from __future__ import annotations

from argparse import Namespace

from .options import command, device_option
from .printing import table


def add_demo(commands) -> None:
    one = command(commands, "demo", run_demo,
                  "Inspect the embedded products with the shipped weights, beside "
                  "simpler methods.",
                  ("out", "folder for images and results.json"))
    device_option(one)


def run_demo(options: Namespace) -> None:
    from ..reproduction.tables import BASELINES
    from ..synthetic.demo import demo
    from ..synthetic.products import PRODUCTS
    results, rows = demo(options.out, device=options.device), {}
    for name in (*PRODUCTS, "mean"):
        rows[f"{name}: the method"] = results[name]
        rows |= {f"{name}: {title}": results[name]["baselines"][key]
                 for key, title in BASELINES.items()}
    print(table(rows))
    print(f"{results['seconds']} s; images and results.json in {options.out}")


def add_weights(commands) -> None:
    one = command(commands, "weights", run_weights,
                  "Retrain the shipped weights from scratch; resumes where it stopped.",
                  ("out", "folder for the weights"))
    device_option(one)


def run_weights(options: Namespace) -> None:
    from ..synthetic.weights import TOLERANCE, agrees, train_weights
    results = train_weights(options.out, options.out / "data", device=options.device)
    print(table(results))
    for product, same in agrees(results).items():
        print(f"{product}: {'within' if same else 'NOT within'} {TOLERANCE} of the "
              "shipped weights' I-AUROC, P-AUROC and PRO")
