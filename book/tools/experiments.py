"""Every record in book/results, and the command that makes it.

    python book/tools/experiments.py                     the list
    python book/tools/experiments.py check               fresh or stale, and why
    python book/tools/experiments.py run [NAME ..]       makes them, through Snakemake
    python book/tools/experiments.py make NAME ..        makes some, here
    python book/tools/experiments.py keep NAME FILE      takes what its commands made
    python book/tools/experiments.py compare NAME FILE   each figure beside another's

`make experiments ONLY="NAME .." DATA=FOLDER TAEF2=FILE.py:CALLABLE` is `run`.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from chapters import ROOT
from made import (
    RUNS,
    Experiment,
    Kind,
    compare,
    keep,
    make,
    present,
    stale,
)
from records import PRODUCTS, compact, table

from ddad.reproduction.variants import PIXELS, VARIANTS
from ddad.reproduction.worth import OTHER_LATENTS

# trained on the drawn products, in the embedded latent space
DRAWN = ("drawn", "decoded")
DEMO = Kind(("synthetic.demo",), ("train", "drawn", "shipped"), 0.005)
EVALUATE = Kind(("data.product", "evaluation.baselines", "evaluation.regret",
                 "evaluation.scoring"), ("train", "drawn", "shipped"), 0.005)
REPRODUCE = Kind(("reproduction.runs", "reproduction.tables"), ("reproduce",), 0.03)
ABLATE = Kind(("reproduction.ablation",), ("ablate",), 0.03)
BENCH = Kind(("reproduction.benchmark",), ("counted", "drawn", "shipped"), 0.3,
             relative=True, alone=True)
PLAN = Kind(("reproduction.plan",), ("counted",), 0.001, relative=True)
CHAPTERS = Kind(watch="tests/book/test_chapters.py")
ROBUST = Kind(watch="tests/test_robust.py")
REGRET = Kind(("evaluation.regret", "reproduction.runs"), ("train", "reproduce"), 0.03)
TRAINING = Kind(("training", "evaluation.scoring"), ("train", *DRAWN), 0.03)
FURTHER = Kind(("training", "evaluation.baselines"), ("train", *DRAWN, "shipped"), 0.03)
WHITENING = Kind(("calibration", "evaluation.scoring"), ("train", *DRAWN), 0.03)
BEYOND = Kind(watch="tests/book/test_beyond.py")
FALSE_ALARMS = Kind(("conformal", "detector", "synthetic.products"),
                    ("drawn", "shipped"), 0.01)
# real sets: their receipts, and their folder within that of the user, see `--data`
REAL = ("loco_juice_bottle", "mtd_by_tile", "hazelnut", "deeppcb")
FOLDERS = {"juice bottle": "loco_juice_bottle", "tiles": "mtd_by_tile/mtd",
           "hazelnut": "hazelnut", "deeppcb": "deeppcb"}

# of the real sets and the ablations: what two cores can make again
FLOAT32 = '--set image_size=128 neighbour_pool=4 unet_channels=[32,64,96] ' \
          '"train_length=1500 steps" learning_rate=0.001'
AT_128 = FLOAT32 + " precision=bfloat16 train_precision=bfloat16"
SIZE = "128 pixels, 1500 steps"
FEW = " held_out=0.3 neighbours=10"         # where good images are few
OF_A_PRODUCT = ("overview", "baselines", "by_size", "at_threshold", "settings",
                "regret", "gallery", "gallery_kinds")


def _product(name: str) -> Experiment:
    return Experiment(
        name, f"the shipped detector of {name}, in full", EVALUATE,
        ("ddad data make {products}",
         f"ddad evaluate ddad/weights/{name} {{products}}/{name} --baselines "
         "--bootstrap 1000 --regret 3 --out {out}/results.json"),
        "results.json", 6, tables=OF_A_PRODUCT)


def _ablation(name: str, minutes: int, title: str = "", more: str = "") -> Experiment:
    """title: of a real set; empty: a drawn product."""
    first = () if title else ("ddad data make {products}",)
    data = f"{{data}}/{FOLDERS[title]}" if title else f"{{products}}/{name}"
    vae = "{taef2}" if title else "embedded"
    line = f"ddad ablate {data} {{out}} --vae {vae} --seeds 0 {AT_128}{more}"
    # the wide U-Net of pixels takes as long as all else: on one product
    if name != "board":
        line += " --variants " + " ".join(f'"{one}"' for one in VARIANTS
                                          if one != PIXELS)
    return Experiment(
        f"receipts/ablation_{name}", f"{name}, each claim switched off, {SIZE}", ABLATE,
        (*first, line), "receipt.json", minutes, tables=("ablation", "ledger"),
        needs=(title, "taef2") if title else (), also=() if title else DRAWN)


def _real(record: str, title: str, category: str, seeds: str, minutes: int,
          more: str = "", vae: str = "taef2") -> Experiment:
    """A real set, constants calibrated."""
    folder = Path("{data}", FOLDERS[title]).parent.as_posix()
    line = f"ddad reproduce {record} {folder} {{out}} --categories {category} " \
           f"--presets clean regional --seeds {seeds} --calibrate --vae {{{vae}}} " \
           f"{FLOAT32 if vae == 'taesd' else AT_128}{more}"
    shown = ("autoencoders",)
    if vae == "taef2":
        shown += ("overview", "real", "at_threshold", "settings")
        name, needs = record, (title, vae)
    else:
        name, needs = f"{record}_{vae}", (title,)
    return Experiment(
        f"receipts/{name}", f"{title}, {vae.upper()}, {SIZE}", REPRODUCE, (line,),
        "receipt.json", minutes, seeds.replace(" ", ", "), needs, tables=shown)


def _plan(record: str, data: str, title: str, more: str = "") -> Experiment:
    return Experiment(
        record, f"what {title} takes at the paper's size", PLAN,
        (f"ddad reproduce {data} {{out}}/data {{out}} --presets paper --plan{more}",),
        "plan.json", 1, "0, 1, 2",
        tables=("plan_answer", "plan_categories", "plan_parts", "plan_autoencoders",
                "plan_cpu"))


OF = " --of {{runs}}/receipts/{0} {{data}} {{taef2}}"
RULED = ("hazelnut", "deeppcb", "loco_juice_bottle")     # small enough for every path
CURVE = " --curve {runs}/receipts/%s/%s/clean-0/detector {data}/%s"
EXPERIMENTS = [
    Experiment("demo", "the products with the shipped weights", DEMO,
               ("ddad demo {out}",), "results.json", 6, tables=("demo",)),
    *map(_product, PRODUCTS),
    Experiment(
        "false_alarms", "false alarms on fresh good images, beside the promise",
        FALSE_ALARMS,
        ("python book/tools/false_alarms.py --out {out}/false_alarms.json",),
        "false_alarms.json", 8, "1",
        tables=("false_alarms", "false_alarms_within", "false_alarms_training")),
    Experiment(
        "presets", "the paper's text, its code, and neither's faults, none calibrated",
        REPRODUCE,
        ("ddad data make {products}",
         "ddad reproduce presets {products} {out} --categories blister board "
         "--presets clean official paper --seeds 0 --scale laptop --vae embedded --set "
         "\"train_length=1500 steps\" precision=bfloat16 train_precision=bfloat16"),
        "receipt.json", 45, also=DRAWN, tables=("presets",)),
    _real("loco_juice_bottle", "juice bottle", "loco_juice_bottle", "0 1", 60),
    _real("mtd_by_tile", "tiles", "mtd", "0 1", 80),
    _real("hazelnut", "hazelnut", "hazelnut", "0 1 2", 30, FEW),
    _real("hazelnut", "hazelnut", "hazelnut", "0 1", 40, FEW, "taesd"),
    _real("deeppcb", "deeppcb", "deeppcb", "0 1 2", 40),
    _real("deeppcb", "deeppcb", "deeppcb", "0 1", 80, vae="taesd"),
    Experiment(
        "receipts/products", f"the products, method and extension, {SIZE}",
        REPRODUCE,
        ("ddad data make {products}",
         "ddad reproduce products {products} {out} --presets clean regional --seeds "
         f"0 1 2 --calibrate --vae embedded {AT_128}"),
        "receipt.json", 150, "0, 1, 2", also=DRAWN),
    Experiment(
        "receipts/step_rules", "step rules and trainings, nothing chosen, 128 pixels",
        REPRODUCE,
        ("python book/tools/step_rules.py {out}" + "".join(map(OF.format, RULED)),),
        "receipt.json", 110, "0, 1, 2; 0, 1 of the juice bottle",
        ("hazelnut", "deeppcb", "juice bottle", "taef2"),
        tuple(f"receipts/{name}" for name in RULED),
        tables=("own_claims", "step_rules", "step_rules_masked", "guidance",
                "guidance_answer")),
    Experiment(
        "further", "other forms of the map, and networks trained otherwise",
        FURTHER,
        ("python book/tools/further.py {out} --of {runs}/receipts/hazelnut_taesd "
         "{data} {taesd} --of {runs}/receipts/deeppcb_taesd {data} {taesd}",
         "ddad data make {products}",
         "python book/tools/further.py {out} --shipped {products}"),
        "further.json", 100, "0, 1", ("hazelnut", "deeppcb"),
        ("receipts/hazelnut_taesd", "receipts/deeppcb_taesd"),
        tables=("further_forms", "further_networks", "further_one_call")),
    Experiment(
        "whitening", "the latent map as it is, and whitened", WHITENING,
        ("ddad data make {products}",
         "python book/tools/whitening.py {out} --seeds 0"
         + "".join(map(OF.format, RULED))
         + " --of {runs}/receipts/mtd_by_tile {data}/mtd_by_tile {taef2}"
           " --of {runs}/receipts/products {products} embedded"
           " --of {runs}/receipts/hazelnut_taesd {data} {taesd}"
           " --of {runs}/receipts/deeppcb_taesd {data} {taesd}",),
        "whitening.json", 30, needs=(*FOLDERS, "taef2"),
        after=("receipts/mtd_by_tile", "receipts/products", "receipts/hazelnut_taesd",
               "receipts/deeppcb_taesd", *(f"receipts/{name}" for name in RULED)),
        tables=("whitening", "whitening_held_out")),
    Experiment(
        "regret", "what the choice of constants gave away on real sets", REGRET,
        ("python book/tools/regrets.py {out}" + "".join(map(OF.format, RULED)),),
        "regret.json", 35, "0, 1, 2; 0, 1 of the juice bottle",
        ("hazelnut", "deeppcb", "juice bottle", "taef2"),
        tuple(f"receipts/{name}" for name in RULED),
        tables=("regret_real", "regret_answer")),
    Experiment(
        "beyond", "the extension beside what it has to beat", BEYOND,
        ("python book/tools/beyond.py",), "", 1, "0, 1, 2",
        tables=("beyond", "beyond_short", "beyond_surely", "beyond_sets",
                "beyond_differences", "overview")),
    *(_ablation(name, 60 if name == "board" else 25) for name in PRODUCTS),
    _ablation("loco_juice_bottle", 35, "juice bottle"),
    _ablation("hazelnut", 30, "hazelnut", FEW),
    _ablation("deeppcb", 30, "deeppcb"),
    _ablation("mtd", 60, "tiles"),
    Experiment(
        "training_time", "shorter trainings, and other ones, judged", TRAINING,
        ("ddad data make {products}",
         "python book/tools/training_time.py {out} --of {products}/board embedded "
         "--of {data}/loco_juice_bottle {taef2} --seeds 0 " + AT_128,
         "python book/tools/training_time.py {out} --of {products}/board embedded "
         "--of {data}/loco_juice_bottle {taef2} --seeds 1 --combined " + AT_128,
         "python book/tools/training_time.py {out} --of {data}/hazelnut {taef2} "
         "--seeds 0 --combined " + AT_128 + FEW),
        "training_time.json", 125, "0, 1; 0 of hazelnut",
        ("juice bottle", "hazelnut", "taef2"),
        tables=("training_time", "training_time_answer", "training_time_combined",
                "training_time_same")),
    Experiment(
        "bench", "what detection, training and metrics cost, CPU", BENCH,
        ("ddad bench {out}", "ddad bench {out} --scale paper --only training",
         "ddad bench {out} --vae {taef2}"
         + CURVE % ("loco_juice_bottle", "loco_juice_bottle", "loco_juice_bottle")
         + CURVE % ("mtd_by_tile", "mtd", "mtd_by_tile/mtd")),
        "bench.json", 30, needs=("juice bottle", "tiles", "taef2"),
        after=("receipts/loco_juice_bottle", "receipts/mtd_by_tile"),
        tables=("speed_answer", "speed_rivals", "speed_candidates", "speed_detection",
                "speed_layouts", "speed_training", "speed_calls", "speed_alone",
                "speed_gpu_metrics", "speed_metric", "speed_scaling", "speed_memory",
                "speed_together", "speed_start_up", "plan_cpu")),
    Experiment(
        "bench_gpu", "the same, GPU", BENCH,
        ("ddad bench {out} --device cuda --only detection layouts training memory "
         "calls",
         "ddad bench {out} --device cuda --scale paper --only detection training"),
        "bench.json", 15, needs=("a GPU",),
        tables=("speed_detection", "speed_layouts_gpu", "speed_training",
                "speed_gpu_metrics", "speed_memory_measured", "plan_answer",
                "plan_categories", "plan_parts")),
    _plan("plan_visa", "visa", "VisA"),
    _plan("plan_visa_taesd", "visa", "VisA, with TAESD,", " --vae madebyollin/taesd"),
    _plan("plan_btad", "btad", "BTAD"),
    _plan("plan_mvtec_ad", "mvtec_ad", "MVTec AD"),
    Experiment("paper_size", "the paper's size, tried for two steps", PLAN,
               ("python tests/reproduction/paper_size.py {out} {taesd}",),
               "paper_size.json", 10, tables=("plan_trial",)),
    Experiment("notebooks", "when and on what the chapters were run", CHAPTERS,
               ("make notebooks",), "", 40, tables=("notebooks",)),
    Experiment("robustness", "the long checks", ROBUST, ("make test-robust",), "",
               120, tables=("robustness", "speed_learned")),
    Experiment("robustness_broken", "what each long check says of a broken line",
               ROBUST, ("python tests/robust/sabotage.py",), "", 60,
               tables=("broken",)),
]
BY_NAME = {one.name: one for one in EXPERIMENTS}

OLDER = "of an older package, and not made anew yet"
# records that are stale or missing today, and may be
TO_REMAKE = {
    "bench_gpu": OLDER,
}


# --- what is here, and what is asked

def described() -> str:
    """The list as a table."""
    rows = []
    for one in EXPERIMENTS:
        lines = "<br>".join(f"`{line}`" for line in one.commands)
        state = ("fresh" if one.name not in TO_REMAKE else
                 "stale" if one.path.exists() else "not run")
        rows.append([f"`{one.name}`<br>{one.shows}", lines, ", ".join(one.needs) or "–",
                     one.minutes, one.seeds, state])
    return compact(table(["record", "made by", "needs", "minutes of one core, about",
                          "seeds", "state"], rows))


def note(title: str) -> str:
    """Which stale records a table of this name shows, and why; empty without any."""
    why = {}
    for one in EXPERIMENTS:
        if one.path.exists() and one.name in TO_REMAKE and shows(one, title):
            why.setdefault(TO_REMAKE[one.name], []).append(one.name)
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in why.items())
    return f"*{told}.*".replace("_", r"\_") if told else ""


def shows(one: Experiment, title: str) -> bool:
    """Whether the table shows this record."""
    name = Path(one.name).name
    data = name.removesuffix(OTHER_LATENTS)
    together = "real_sets" + name.removeprefix(data)
    own = one.name.startswith("receipts/") and (
        title in ("receipts", "ledger", "autoencoders")
        or title.startswith(f"{name}.")
        or data in REAL and title.startswith(f"{together}."))
    return own or title in one.tables


def lacking(one: Experiment, given: dict[str, str]) -> str:
    """What an experiment needs and this machine does not give; empty where it can run.
    """
    for need in one.needs:
        if need in FOLDERS:
            if "data" not in given:
                return f"the {need}: DATA=FOLDER names the folder that holds real sets"
            if not (folder := Path(given["data"], FOLDERS[need])).is_dir():
                return f"the {need}: {folder} is not there"
        elif need == "a GPU":
            import torch
            if not torch.cuda.is_available():
                return "a GPU"
        elif need not in given:
            return f"an autoencoder: {need.upper()}=FILE.py:CALLABLE, a folder or an id"
    return ""


def run(names: list[str], given: dict[str, str], cores: int) -> int:
    """The experiments, through Snakemake, those left out that cannot run here; without
    names all that are stale.
    """
    chosen = [BY_NAME[name] for name in names] or [
        one for one in EXPERIMENTS if stale(one)]
    able = []
    for one in chosen:
        if why := lacking(one, given):
            print(f"{one.name} is skipped: it needs {why}")
        else:
            able.append(one.name)
            (RUNS / f"{one.name}.made").unlink(missing_ok=True)
    if not able:
        return 0
    options = " ".join(f"--{name} {value}" for name, value in given.items())
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", Path(__file__).with_suffix(".smk"),
         "--cores", str(cores), "--keep-going", "--config", f"names={','.join(able)}",
         f"options={options}"], cwd=ROOT).returncode


def parsed(arguments: list[str]) -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = options.add_subparsers(dest="action", metavar="ACTION")
    one = {name: actions.add_parser(name, help=text) for name, text in (
        ("check", "fresh or stale, and why"), ("run", "make them, through Snakemake"),
        ("make", "make them here, one after the other"),
        ("keep", "take what the experiment's commands have made"),
        ("compare", "each figure beside that of another file"))}
    for name, number in (("run", "*"), ("make", "+")):
        one[name].add_argument("names", nargs=number, metavar="NAME")
        one[name].add_argument("--data", help="folder that holds "
                               + ", ".join(FOLDERS.values()))
        one[name].add_argument("--taef2", help="FILE.py:CALLABLE, with the 32 channels")
        one[name].add_argument("--taesd", default="madebyollin/taesd",
                               help="default: madebyollin/taesd")
    one["run"].add_argument("--cores", type=int, default=2, help="jobs at a time")
    for name in ("keep", "compare"):
        one[name].add_argument("names", nargs=1, metavar="NAME")
        one[name].add_argument("file", type=Path)
    found = options.parse_args(arguments)
    if unknown := set(getattr(found, "names", ())) - BY_NAME.keys():
        options.error(f"no experiment is called {', '.join(sorted(unknown))}; there "
                      f"are {', '.join(BY_NAME)}")
    return found


def main(arguments: list[str]) -> int:
    asked = parsed(arguments)
    names = getattr(asked, "names", [])
    given = {name: value for name in ("data", "taef2", "taesd")
             if (value := getattr(asked, name, None))}
    if asked.action == "run":
        return run(names, given, asked.cores)
    if asked.action == "make":
        for name in names:
            make(BY_NAME[name], given)
    elif asked.action == "keep":
        keep(BY_NAME[names[0]], asked.file, present(BY_NAME[names[0]]))
    elif asked.action == "compare":
        rows = compare(BY_NAME[names[0]], asked.file)
        print(*map("{}: {} {} {}".format, *zip(*rows)), sep="\n")
        return int(any(row[-1] not in ("same", "within tolerance") for row in rows))
    elif asked.action == "check":
        why = {one.name: stale(one) for one in EXPERIMENTS}
        print(*(f"{name}: {text or 'fresh'}" for name, text in why.items()), sep="\n")
        return int({name for name, text in why.items() if text} != TO_REMAKE.keys())
    else:
        print(described())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
