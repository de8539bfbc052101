"""The command line, `ddad ...`. Torch and the rest are imported by the command that needs them, so that --help is quick."""
from __future__ import annotations

import argparse
import hashlib
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from . import distributed


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("ddad", description="Anomaly detection with dynamic noise in a latent diffusion model.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, text: str, *positionals: tuple[str, str], group=commands) -> argparse.ArgumentParser:
        one = group.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        for positional, explained in positionals:
            one.add_argument(positional, type=Path, help=explained)
        return one

    def chosen(one: argparse.ArgumentParser) -> None:
        one.add_argument("--preset", help="clean (default), fast, paper or official")
        one.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings to change; `ddad settings` lists them")

    def compiling(one: argparse.ArgumentParser) -> None:
        one.add_argument("--compile", action="store_true", help="compile the networks first: a minute or more, for thousands of pictures on a GPU")

    def networks(one: argparse.ArgumentParser) -> None:
        one.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
        one.add_argument("--vae", help="autoencoder: Hugging Face id, folder, embedded, pixels, or FILE.py:CALLABLE")

    data = ("data", "a product's folder in the layout of MVTec AD (train/good, test/<kind>, ground_truth/<kind>), MVTec LOCO, BTAD or VisA")
    within = commands.add_parser("data", help="Make, fetch or check a data set.").add_subparsers(required=True, metavar="ACTION")
    one = command("make", make_data, "Make the embedded products: images, masks and a table of defects.", ("out", "folder to make"), group=within)
    one.add_argument("--size", type=int, default=128, help="pixels a side (default 128)")
    one.add_argument("--seed", type=int, default=0, help="another one draws other pictures (default 0)")
    one = command("fetch", fetch_data, "Download a published data set: size, licence and terms first; checksummed; resumes.", group=within)
    one.add_argument("name", help="mvtec_ad, visa, btad, mvtec_loco, mtd_by_tile or mtd_random")
    one.add_argument("out", type=Path, help="folder for all data sets")
    one.add_argument("--url", help="another address of the same archive")
    one.add_argument("--accept", action="store_true", help="you accept the licence and terms that are shown")
    one = command("check", check_data, "Read every picture and mask of a data set and report what is off.", data, group=within)
    one.add_argument("--name", help="compare with the published counts of mvtec_ad, visa, ..: DATA is then the folder it was fetched into")
    one.add_argument("--size", type=int, default=256, help="pixels a side it will be used at (default 256)")
    one = command("train", train, "Learn one product from its good images; resumes where it stopped.", data, ("out", "folder for the detector"))
    chosen(one), networks(one)
    one.add_argument("--calibrate", action="store_true", help="choose T_max, smallest bin, guidance, latent_blur and lambda without test data")
    one.add_argument("--from", dest="model", type=Path, metavar="MODEL",
                     help="a detector of the same product: nothing is trained; its networks serve the settings of --set, or --preset fast")
    one.add_argument("--overwrite", action="store_true", help="replace a detector that OUT holds already")
    model = ("model", "folder of a detector")
    one = command("detect", detect, "Score pictures: overlays, maps, and a JSON line for each.", model,
                  ("images", "a picture or a folder of pictures"), ("out", "folder for the results"))
    networks(one), compiling(one)
    one.add_argument("--maps", choices=("png16", "npy"), default="png16", help="16-bit pictures (65535 = twice the threshold) or float32 arrays")
    one.add_argument("--skip-bad", action="store_true", help="exit with 0 although pictures that cannot be read were left out; they are still named")
    one = command("evaluate", evaluate, "Detect on the test images and score the result; writes results.json.", model, data)
    networks(one), compiling(one)
    one.add_argument("--bootstrap", type=int, default=0, metavar="N", help="intervals over N resamples of the images")
    one.add_argument("--floors", action="store_true", help="also simpler methods: nearest neighbours alone, PatchCore, the autoencoder alone")
    one.add_argument("--regret", type=int, nargs="?", const=1, metavar="N",
                     help="also the calibration's sweep on the test set, on each N-th image of it: shown, never used")
    one.add_argument("--out", type=Path, help="where to write (default: results.json in the model's folder)")
    one = command("export", export, "Write the detector as ONNX, JSON and a binary file, checked against PyTorch.", model, ("out", "folder to make"))
    one.add_argument("--images", type=Path, help="a picture or a folder of pictures to compare on (default: nine of the embedded products)")
    one.add_argument("--vae", help="autoencoder, where the detector was made with one that is not loaded from a manifest")
    one = command("ablate", ablate, "Switch each claim of the method off in turn, for several seeds.", data, ("out", "folder for the results"))
    chosen(one), networks(one)
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="a training each (default 0 1 2)")
    one = command("reproduce", reproduce, "Rerun the paper, categories x presets x seeds: its tables with our figures; resumes.")
    one.add_argument("name", help="data set: embedded, visa, btad, mvtec_ad, .., or any name of yours")
    one.add_argument("data", type=Path, help="folder that holds the categories' folders (embedded: made, if it is not there)")
    one.add_argument("out", type=Path, help="folder for runs, receipt.json, tables.md and figures.csv")
    one.add_argument("--categories", nargs="+", metavar="C", help="default: all that lie in DATA")
    one.add_argument("--presets", nargs="+", default=["clean"], metavar="P", help="clean (default), fast, paper, official")
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="a training each (default 0 1 2)")
    one.add_argument("--scale", default="paper", help="paper (default), or laptop: 128 pixels, a small U-Net, 300 steps")
    one.add_argument("--by-category", metavar="TABLE", help="settings that differ by category: visa_readers, embedded, or a JSON file")
    one.add_argument("--calibrate", action="store_true", help="let the preset clean choose its constants without test data")
    one.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings to change, for all runs")
    one.add_argument("--maps", action="store_true", help="keep the anomaly maps (maps.npy in each run)")
    one.add_argument("--single", action="store_true", help="runs only, no receipt and no tables: for a job of a scheduler")
    networks(one)
    one = command("compare", compare, "Set two receipts side by side: same, within tolerance, different, or not comparable, and why.")
    one.add_argument("first", type=Path, help="a receipt.json, or the folder that holds it")
    one.add_argument("second", type=Path, help="another, which somebody else may have made")
    command("show", show, "Print a detector's manifest: settings, record, versions.", model)
    chosen(command("settings", show_settings, "Print the settings of a preset."))
    one = command("demo", demo, "Inspect the embedded products with the shipped weights.", ("out", "folder for pictures and results.json"))
    one.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    one = command("bench", bench, "Measure what detection, training and metrics cost beside the networks.", ("out", "folder for bench.json"))
    one.add_argument("--scale", default="laptop", help="laptop (default), or paper: its networks, for a GPU")
    one.add_argument("--only", nargs="+", metavar="SECTION", help="sections to measure again; the others are kept")
    one.add_argument("--curve", nargs=2, action="append", default=[], type=Path, metavar=("MODEL", "DATA"),
                     help="time against metrics of a detector of yours by number of U-Net calls")
    networks(one)
    one = command("weights", weights, "Retrain the shipped weights from scratch; resumes where it stopped.", ("out", "folder for the weights"))
    one.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command: 0; 1 when `data check` finds problems or `compare` a difference; 2 with a sentence for each input that cannot be
    used; 130 when interrupted.
    """
    options = parser().parse_args(arguments)
    if distributed.processes() > 1 and options.command not in ("train", "evaluate"):
        print(f"ddad {options.command}: runs as one process; start it without the launcher (train and evaluate can share)", file=sys.stderr)
        return 2
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        kept = " (encoded images, and the training's last checkpoint)" if options.command == "train" else ""
        print(f"\ninterrupted; the same command goes on from what was kept{kept}", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if type(error).__name__ == "OutOfMemoryError":                   # torch's, which need not have been imported
            error = "the GPU's memory is full; stop what else uses it, lower train_batch or image_size, or pass --device cpu"
        elif isinstance(error, RuntimeError) and type(error).__name__ != "BackboneError":
            raise
        print(f"ddad {options.command}: {error}", file=sys.stderr)
        return 2


def table(results: dict[str, dict]) -> str:
    """One row a name, the metrics as columns."""
    columns = ("i_auroc", "p_auroc", "pro", "p_ap", "recall", "false_positive_rate")
    heads = ("I-AUROC", "P-AUROC", "PRO", "P-AP", "recall", "false alarms")
    width = max(map(len, results)) + 2
    lines = [" " * width + "".join(f"{head:>13}" for head in heads)]
    lines += [f"{name:<{width}}" + "".join(f"{r[c]:>13.4f}" if r.get(c) is not None else f"{'':>13}" for c in columns) for name, r in results.items()]
    return "\n".join(lines)


def make_data(options) -> None:
    from .products import make
    make(options.out, size=options.size, seed=options.seed)
    print(f"made {options.out}: {', '.join(sorted(p.name for p in options.out.iterdir() if p.is_dir()))}")


def fetch_data(options) -> None:
    from .fetch import fetch
    print(fetch(options.name, options.out, consent=options.accept, url=options.url))


def check_data(options) -> int:
    from .data import check
    from .fetch import check_dataset
    report = check_dataset(options.name, options.data, options.size) if options.name else check(options.data, options.size)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0 if report["usable"] else 1


def _settings(options):
    from .settings import preset
    settings = preset(options.preset or "clean").parse(options.set)
    return settings.change(vae=options.vae) if getattr(options, "vae", None) else settings


def _vae(options):
    from .latent_projection import load_vae
    return load_vae(options.vae) if options.vae else None


def train(options) -> None:
    from .calibration import CHOSEN
    from .detector import Detector
    from .evaluation import load_held_out, load_train
    from .manifest import MANIFEST, read_manifest, sha256
    from .saved_model import may_hold
    from .settings import FAST
    from .training import forget
    from .writing import sole_writer
    if options.model and (options.calibrate or options.preset not in (None, "fast")):
        raise ValueError("--from keeps the detector's own choices: give it --preset fast or --set NAME=VALUE, not another preset or --calibrate")
    given = Detector.from_pretrained(options.model, vae=_vae(options), device=options.device) if options.model else None
    settings = given.settings.change(**(FAST if options.preset == "fast" else {})).parse(options.set) if given else _settings(options)
    images, held_out = load_train(options.data, settings), load_held_out(options.data, settings)
    asked = {"settings": settings.as_dict(), "calibrate": options.calibrate, "from": given and sha256(options.model / MANIFEST),
             "images": [None if part is None else hashlib.sha256(part.numpy()).hexdigest() for part in (images, held_out)]}
    if (options.out / MANIFEST).exists() and not options.overwrite:
        if read_manifest(options.out)["record"].get("asked") != asked:
            raise FileExistsError(f"{options.out} holds another detector; choose another folder, or replace it with --overwrite")
        print(f"{options.out} holds this detector already, from the same images and settings; nothing to do")
        return
    may_hold(options.out)                                              # rather now than after the training
    checkpoint, lock = (options.out.with_name(options.out.name + end) for end in (".training.safetensors", ".lock"))
    with sole_writer(lock, options.out, checkpoint) if distributed.main() else nullcontext():
        if given:
            detector = given.adapt(images, settings, held_out)
        else:
            detector = Detector.fit(images, settings, held_out=held_out, device=options.device, calibrate=options.calibrate, checkpoint=checkpoint)
        detector.record["asked"] = asked
        detector.save_pretrained(options.out)
        forget(checkpoint)
    if not distributed.main():
        return
    print(f"saved {options.out}; threshold {detector.threshold}; " + ", ".join(f"{name} {getattr(detector.settings, name)}" for name in CHOSEN))


def detect(options) -> int:
    from .data import list_images
    from .detector import Detector
    from .inspection import inspect
    pictures = list_images(options.images)
    detector = Detector.from_pretrained(options.model, vae=_vae(options), device=options.device)
    if options.compile:
        detector.compile()
    lines = inspect(detector, pictures, options.out, options.maps)
    asked = set(map(str, pictures))
    these = [line for line in lines if line["image"] in asked]
    flagged, refused = sum(bool(line.get("anomalous")) for line in these), [line["error"] for line in these if "error" in line]
    earlier = f", with {len(lines) - len(these)} of earlier runs" if len(lines) > len(these) else ""
    print(f"{len(these) - len(refused)} pictures, {flagged} above the threshold; results in {options.out / 'results.jsonl'}{earlier}")
    print(*refused, sep="\n", end="\n" if refused else "", file=sys.stderr)
    return 2 if refused and not options.skip_bad else 0


def export(options) -> None:
    from .data import list_images, read_images
    from .detector import Detector
    from .export import export as run
    detector = Detector.from_pretrained(options.model, vae=_vae(options), device="cpu")
    images = read_images(list_images(options.images), detector.settings.image_size) if options.images else None
    made = run(detector, options.out, images)
    print(f"{made['bytes'] / 1e6:.1f} MB in {options.out}, weights in {made['weights']}: {', '.join(made['files'])}")
    print(f"against PyTorch on {made['pictures']} pictures: same bin on {made['same_bin']}, maps differ by up to {made['map']:.1e}, "
          f"scores by up to {made['score']:.4%}")


def evaluate(options) -> None:
    from . import evaluation, experiments
    from .detector import Detector
    from .floors import floors
    from .manifest import versions, write_json
    detector = Detector.from_pretrained(options.model, vae=_vae(options), device=options.device)
    test = evaluation.load_test(options.data, detector.settings)
    if options.compile:
        detector.compile()
    result, found = evaluation.evaluate(detector, test, options.bootstrap)
    if not distributed.main():                                         # the rest is one process's work
        return
    rows = {options.data.name: result}
    report = {"result": result, "settings": detector.settings.as_dict(), "record": detector.record, "versions": versions(),
              "device": str(detector.device), "compiled": detector.compiled}
    if options.floors:
        report["floors"] = floors(detector, evaluation.load_train(options.data, detector.settings), test)
        rows |= {"neighbours alone": report["floors"]["neighbours"], "PatchCore": report["floors"]["patchcore"]}
        rows |= {f"autoencoder alone, {k}": v for k, v in report["floors"]["vae"].items()}
    print(table(rows))
    if options.regret:
        report["regret"] = experiments.regret(detector, test, options.regret)
        print(json.dumps({k: report["regret"][k] for k in ("chosen", "best_on_test", "regret")}, indent=1))
    write_json(options.out or options.model / "results.json", report)


def ablate(options) -> None:
    from .experiments import ablate as run
    rows = run(options.data, _settings(options), options.seeds, options.out, vae=_vae(options), device=options.device)
    names = dict.fromkeys(row["variant"] for row in rows)
    of = {name: [row for row in rows if row["variant"] == name] for name in names}
    print(table({name: {k: sum(row[k] for row in of[name]) / len(of[name]) for k in ("i_auroc", "p_auroc", "pro", "p_ap")} for name in names}))


def reproduce(options) -> None:
    from itertools import product

    from .products import PRODUCTS, make
    from .report import against_paper, write_report
    from .reproduce import Run, by_category, categories_in, settings_of
    from .reproduce import reproduce as run_one
    if options.name == "embedded":
        make(options.data)
    categories = options.categories or (list(PRODUCTS) if options.name == "embedded" else categories_in(options.data))
    vae_name = options.vae or ("embedded" if options.name == "embedded" else None)
    table_of, vae = by_category(options.by_category), _vae(options)
    runs = [Run(*cell) for cell in product(categories, options.presets, options.seeds)]
    settings = [settings_of(run, options.scale, table_of, options.set, vae_name) for run in runs]      # a wrong one is said before the first run
    for n, (run, one) in enumerate(zip(runs, settings), 1):
        print(f"run {n} of {len(runs)}: {run.category}, {run.preset}, seed {run.seed}", file=sys.stderr)
        run_one(run, options.name, options.data / run.category, options.out, one, table=table_of, vae=vae, device=options.device,
                calibrate=options.calibrate, maps=options.maps)
    if not options.single:
        print(against_paper(write_report(options.out)))
        print(f"receipt.json, tables.md and figures.csv in {options.out}")


def compare(options) -> int:
    from .report import compare as run
    from .report import read_receipt
    rows = run(read_receipt(options.first), read_receipt(options.second))
    for row in rows:
        print(f"{row['run']}: {row['verdict']}")
        print(*(f"  {name} {value:+.4f}" for name, value in row["difference"].items()), *(f"  {text}" for text in row["differs"]), sep="\n")
    return 0 if all(row["verdict"] in ("same", "within tolerance") for row in rows) else 1


def show(options) -> None:
    from .manifest import MANIFEST, read_manifest
    manifest = read_manifest(options.model)
    table = manifest["record"].get("calibration")
    if table:
        manifest["record"]["calibration"] = f"{len(table)} candidates, listed in {MANIFEST}"
    print(json.dumps(manifest, indent=1))


def show_settings(options) -> None:
    print(json.dumps(_settings(options).as_dict(), indent=1))


def demo(options) -> None:
    from .embedded import demo as run
    from .products import PRODUCTS
    results = run(options.out, device=options.device)
    print(table({name: results[name] for name in (*PRODUCTS, "mean")}))
    print(f"{results['seconds']} s; pictures and results.json in {options.out}")


def bench(options) -> None:
    from .bench import bench as run
    from .detector import Detector
    curves = [(Detector.from_pretrained(model, vae=_vae(options), device=options.device), data) for model, data in options.curve]
    found = run(options.out, options.device, options.scale, options.only, curves)
    print(*(f"{name:<24}{value:>10.2f}" for name, value in found.items() if name != "sections"), sep="\n")
    for _, data in options.curve:
        print(f"{data.name}: {'steps':>6}{'calls':>7}{'ms':>7}  {'I-AUROC':>9}{'PRO':>7}  held-out:{'I-AUROC':>9}{'PRO':>7}  precision")
        for row in found["sections"][f"calls, {data.name}"]["rows"]:
            print(f"{'':{len(data.name)}}  {row['steps']:>6}{row['calls']:>7}{1000 * row['seconds']:>7.0f}  {row['i_auroc']:>9.4f}{row['pro']:>7.4f}"
                  f"  {'':>9}{row['held_out']['i_auroc']:>9.4f}{row['held_out']['pro']:>7.4f}  {row['precision']}")
    print(f"all sections in {options.out / 'bench.json'}")


def weights(options) -> None:
    from .embedded import TOLERANCE, agrees, train_weights
    results = train_weights(options.out, options.out / "data", device=options.device)
    print(table(results))
    for product, same in agrees(results).items():
        print(f"{product}: {'within' if same else 'NOT within'} {TOLERANCE} of the shipped weights' I-AUROC, P-AUROC and PRO")
