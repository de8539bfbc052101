"""The tables and the curve of book/speed.md, from the recorded benchmarks.

book/results/bench.json is of a CPU, bench_gpu.json of a GPU.
"""
import re
from collections.abc import Callable
from pathlib import Path

from records import BOOK, PRODUCTS, load, table

CPU, GPU = "bench", "bench_gpu"
MEGA, GIGA = 1e6, 1e9
METRICS = {"i_auroc": "I-AUROC", "pro": "PRO"}


def sections(record: str) -> dict[str, dict]:
    return load(record)["sections"]


def section(name: str, record: str = CPU) -> dict:
    return sections(record)[name]


def machine(made: dict) -> str:
    return made["gpu"] or f"CPU, {made['threads']} threads"


def on(made: dict) -> str:
    """Machine and networks in a few letters: "CPU, small"."""
    device = (made["gpu"] or "CPU").removeprefix("NVIDIA ")
    return f"{device}, {'small' if made['scale'] == 'laptop' else 'paper'}"


# detection beside its networks

def speed_detection() -> str:
    rows = []
    for record, name in ((CPU, "detection"), (GPU, "detection"),
                         (GPU, "detection, paper")):
        found, digits = section(name, record), 0 if record == CPU else 1
        for path, r in found["rows"].items():
            ours, times = 1000 * r["seconds"], r["official_over_ours"]
            rows.append([on(found["made"]), path, f"{ours:.{digits}f} ms",
                         f"{r['over_networks']:.2f}", f"{ours * times:.0f} ms",
                         f"{times:.1f}"])
    head = ["on", "path", "an image", "over its calls", "official, an image",
            "over ours"]
    return table(head, rows)


def speed_layouts(record: str = CPU) -> str:
    found = section("layouts", record)
    networks = found["time_over_float32"]
    rows = []
    for name in next(iter(networks.values())):
        times = [f"{one[name]:.2f}" if name in one else "" for one in networks.values()]
        rows.append([name, *times])
    spent = {name: f"{one:.0f} s" if isinstance(one, float) else one
             for name, one in found["compiling"].items()}
    compiling = ", ".join(f"{text} ({name})" for name, text in spent.items())
    return (table(["16 pictures, time over float32", *networks], rows)
            + f"\n\nOn {machine(found['made'])}. Compiling took {compiling}.")


def speed_layouts_gpu() -> str:
    return speed_layouts(GPU)


# the methods side by side

def speed_rivals() -> str:
    """Metrics and time of each, times over those of `clean`."""
    found = section("rivals")
    rows, clean = [], found["rows"]["clean"]
    threads = list(clean["alone"])
    for name, r in found["rows"].items():
        rows.append([name, f"{r['i_auroc']:.3f}", f"{r['pro']:.3f}",
                     f"{1000 * r['seconds']:.0f} ms",
                     f"{r['seconds'] / clean['seconds']:.2f}",
                     *(f"{1000 * r['alone'][n]:.0f} ms" for n in threads)])
    return table(["board", "I-AUROC", "PRO", "an image of 16", "over clean",
                  *(f"one alone, {n} thread{'s' * (n != '1')}" for n in threads)], rows)


def speed_answer() -> str:
    """What a user waits for, in a few sentences."""
    found = section("rivals")["rows"]
    clean, one = found["clean"], found["one call"]
    detect = section("detection")["rows"]
    best, train = detect["bfloat16"], section("training")["rows"]["float32"]
    side, threads = section("rivals")["size"], section("rivals")["made"]["threads"]
    return (
        f"- **An image of {side} x {side}**, of many in a batch, takes the method "
        f"{1000 * clean['seconds']:.0f} ms on {threads} cores, one alone "
        f"{1000 * clean['alone'][str(threads)]:.0f} ms; a step for each region "
        f"{found['regional']['seconds'] / clean['seconds']:.2f} times that, one call "
        f"of the network {one['seconds'] / clean['seconds']:.2f} times and PatchCore "
        f"{found['PatchCore']['seconds'] / clean['seconds']:.2f} times.\n"
        f"- **Beside the official evaluation**, at 256 x 256, detection is "
        f"{detect['float32']['official_over_ours']:.1f} times as fast in float32 and "
        f"{best['official_over_ours']:.1f} times in bfloat16.\n"
        f"- **Training** sees {train['images_a_second']:.0f} images a second: latents "
        f"are encoded once. Encoding in every epoch takes "
        f"{train['every_epoch_over_once']:.1f} times as long.")


def speed_candidates() -> str:
    """What candidates that share their work take, over each by itself."""
    found = section("candidates")
    rows = [[precision, f"{r['together'] / r['one_by_one']:.2f}",
             "yes" if r["same"] else "no"] for precision, r in found["rows"].items()]
    return table([f"{found['candidates']} candidates, {found['images']} images",
                  "together, over one by one", "the same table"], rows)


# training

def speed_training() -> str:
    rows = []
    for record, name in ((CPU, "training"), (CPU, "training, paper"),
                         (GPU, "training"), (GPU, "training, paper")):
        found, digits = section(name, record), 2 if record == CPU else 0
        latents = f"{found['bytes_an_image'] / 1024:.0f} KB"
        for precision, r in found["rows"].items():
            rows.append([on(found["made"]), precision, found["batch"], latents,
                         f"{r['images_a_second']:.{digits}f}",
                         f"{r['every_epoch_over_once']:.2f}",
                         f"{r['through_encoder_over_once']:.2f}"])
    head = ["on", "precision", "batch", "latents an image", "images a second",
            "every epoch", "and gradient"]
    return table(head, rows)


# fewer calls for the same answer

def _path(name: str, record: str, precision: str, calls: int) -> dict:
    wanted = (precision, calls, 10)
    return next(r for r in section(name, record)["rows"]
                if (r["precision"], r["calls"], r["steps"]) == wanted)


def speed_gpu_metrics() -> str:
    """The largest difference, over the products, of a metric on the GPU to the same
    number of calls in float32 on the CPU. KeyError where these are of other detectors.
    """
    rows = []
    if any(section(f"calls, {product}", GPU)["settings"]
           != section(f"calls, {product}")["settings"] for product in PRODUCTS):
        raise KeyError("the detectors of the CPU's record on a GPU")
    for precision in ("float32", "bfloat16"):
        for calls in (10, 5):
            pairs = [(_path(f"calls, {product}", GPU, precision, calls),
                      _path(f"calls, {product}", CPU, "float32", calls))
                     for product in PRODUCTS]
            differ = [max(abs(gpu[metric] - cpu[metric]) for gpu, cpu in pairs)
                      for metric in ("i_auroc", "pro")]
            rows.append([precision, calls, *(f"{one:.4f}" for one in differ)])
    head = ["on the GPU", "calls", "I-AUROC differs by", "PRO differs by"]
    return table(head, rows)


def _title(name: str) -> str:
    name = name.removeprefix("calls, ").removeprefix("loco_")
    return name.replace("_bottle", " bottle")


def _curves() -> dict[str, list[dict]]:
    """The paths of each test set."""
    return {_title(name): part["rows"] for name, part in sections(CPU).items()
            if name.startswith("calls, ")}


def speed_calls() -> str:
    rows, metrics = [], ("i_auroc", "pro")
    for data, paths in _curves().items():
        ten = paths[0]
        for r in paths:
            took = f"{r['seconds'] / ten['seconds']:.2f}"
            held_out = [f"{r['held_out'][m] - ten['held_out'][m]:+.4f}"
                        for m in metrics]
            test = [f"{r[m]:.4f}" if r is ten else f"{r[m] - ten[m]:+.4f}"
                    for m in metrics]
            rows.append([data, r["calls"], r["steps"], r["precision"][-2:], took,
                         *held_out, *test])
    head = ["data", "calls", "steps", "bits", "time", "held-out: I-AUROC", "PRO",
            "test: I-AUROC", "PRO"]
    return table(head, rows)


def speed_alone() -> str:
    """One image alone: its time, and how much faster it is with more threads."""
    rows, threads = [], ["1", "2", "4"]
    for data, paths in _curves().items():
        for r in paths:
            if r["calls"] != 3 and r is not paths[0]:
                continue
            one = r["alone"]
            by = [f"{one['1'] / one[n]:.2f}" if n in one else "" for n in threads[1:]]
            rows.append([data, r["calls"], r["steps"], r["precision"][-2:],
                         f"{1000 * one['1']:.0f} ms", *by])
    return table(["data", "calls", "steps", "bits", "one image, one thread",
                  "2 threads: faster by", "4 threads"], rows)


def draw(folder: Path = BOOK) -> None:
    """The page's figures, of what has been measured."""
    import matplotlib
    matplotlib.use("Agg")
    for name, make in (("speed_curve", draw_curves), ("speed_rivals", draw_rivals)):
        try:
            make(folder / f"{name}.png")
        except KeyError:
            continue                    # the page says that it is not recorded


def draw_rivals(path: Path) -> None:
    """Time of an image against either metric, a dot for each method."""
    from figure_text import save
    from matplotlib import pyplot as plt
    rows = section("rivals")["rows"]
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 3), constrained_layout=True)
    for panel, (metric, title) in zip(panels, METRICS.items()):
        for n, (name, r) in enumerate(rows.items()):
            at = 1000 * r["seconds"], r[metric]
            panel.plot(*at, "o", color=f"C{n}")
            panel.annotate(name, at, (0, 7 if n % 2 else -13), ha="center", fontsize=8,
                           textcoords="offset points")
        panel.set(xlabel="ms an image, of a batch of 16", ylabel=title, xscale="log")
        panel.margins(0.25)
        panel.set_xticks(ticks := [10, 20, 50], map(str, ticks))
        panel.minorticks_off()
        panel.grid(lw=0.3)
    save(figure, path, dpi=150)


def draw_curves(path: Path) -> None:
    """Time against PRO, a panel a test set: a line for fewer steps, one for fewer
    calls.
    """
    from figure_text import save
    from matplotlib import pyplot as plt
    curves = _curves()
    figure, panels = plt.subplots(2, 3, figsize=(7.2, 5.4), constrained_layout=True)
    for panel, (data, rows) in zip(panels.flat, curves.items()):
        _draw_curves(panel, rows)
        far = max(0.02, *(1.2 * abs(r["pro"] - rows[0]["pro"]) for r in rows))
        panel.set(title=data, xlabel="time over ten calls", ylabel="PRO",
                  xlim=(0.55, 1.06), ylim=(rows[0]["pro"] - far, rows[0]["pro"] + far))
    panels.flat[-1].legend(*panel.get_legend_handles_labels(), loc="center")
    panels.flat[-1].axis("off")
    save(figure, path, dpi=150)


def _draw_curves(panel, rows: list[dict]) -> None:
    """Both lines of a test set, each beginning at ten calls; and that, +- 0.005 PRO."""
    ten = rows[0]
    for fewer_calls, mark, above, title in (
            (False, "o-", 5, "fewer steps"),
            (True, "s--", -11, "fewer calls in ten steps")):
        own = [r for r in rows[1:] if (r["calls"] < r["steps"]) == fewer_calls
               and r["precision"] == ten["precision"]]
        points = [(r["seconds"] / ten["seconds"], r["pro"]) for r in (ten, *own)]
        panel.plot(*zip(*points), mark, label=title, markersize=4)
        for r, at in zip((ten, *own), points):
            panel.annotate(r["calls"], at, (0, above), textcoords="offset points",
                           ha="center", fontsize=7)
    panel.axhspan(ten["pro"] - 0.005, ten["pro"] + 0.005, color="0.9", zorder=0)


# everything else

def speed_metric() -> str:
    r = section("metric")
    near = r["neighbours"]
    rows = [
        ["exact PRO of 100 maps of 256 x 256", f"{r['pro_seconds']:.2f} s"],
        ["200 thresholds, times as long", f"{r['pro200_over_exact']:.0f}"],
        ["over one sort of the same pixels", f"{r['pro_over_sort']:.2f}"],
        ["over one sort that also gives their order (argsort)",
         f"{r['pro_over_argsort']:.2f}"],
        [f"neighbours of {near['images']} images among {near['bank']}, "
         f"{near['features']} features each", f"{near['seconds']:.2f} s"],
        ["as a share of their detection", f"{100 * near['share_of_detection']:.1f}%"],
    ]
    return table(["", "measured"], rows)


def speed_scaling() -> str:
    rows = [[f"{r['size']} x {r['size']}", r["images"],
             f"{1000 * r['seconds_an_image']:.0f} ms",
             f"{r['peak_memory'] / GIGA:.2f} GB"] for r in section("scaling")["rows"]]
    head = ["size", "images", "time an image", "peak memory of the process"]
    return table(head, rows)


def speed_learned() -> str:
    """What trainings held, by the number of images: a long check's own counts."""
    found = load("robustness")["many-trained"]["counts"]
    peaks = re.findall(r"(\d+) images (\d+)", found["MB in memory at the most"])
    rows = [[n, f"{int(mb) / 1000:.2f} GB"] for n, mb in peaks]
    more = found["kB that an image adds"] / found["kB of an image in float32"]
    return (table(["images to learn from", "peak memory of the process"], rows)
            + f"\n\nBetween the last two rows an image adds "
            f"{found['kB that an image adds']} kB, {more:.0%} of what it takes in "
            "float32.")


def speed_memory() -> str:
    rows = []
    for found in section("memory").values():
        for what in ("detect", "train") if "parameters" in found else ():
            r = found[what]
            rows.append([f"{found['parameters'] / MEGA:.0f} M", what,
                         f"{r['fixed'] / GIGA:.2f} GB",
                         f"{r['an_image'] / MEGA:.0f} MB",
                         *r["largest_batch"].values()])
    head = ["U-Net", "", "whatever the batch", "each image", "batch on 8 GB", "16 GB",
            "24 GB"]
    return table(head, rows)


def speed_memory_measured() -> str:
    found = section("memory", GPU)
    rows = [[what, f"{r['reckoned'] / GIGA:.2f} GB", f"{r['measured'] / GIGA:.2f} GB",
             f"{r['measured'] / r['reckoned']:.2f}"]
            for what, r in found["of_16"].items()]
    head = [f"16 pictures, {found['paper']['parameters'] / MEGA:.0f} M", "reckoned",
            f"held on {machine(found['made'])}", "ratio"]
    return table(head, rows)


def speed_together() -> str:
    found = section("together")
    least = found["rows"]["one thread each, passive"]
    rows = [[name, f"{r / least:.2f}"] for name, r in found["rows"].items()]
    return table([f"{found['processes']} trainings at once", "a step's time, over that "
                  "of the last row"], rows)


def speed_start_up() -> str:
    r = section("start_up")
    names = {"import_torch": "`import torch`",
             "import_ddad_beyond_torch": "`import ddad` beyond it",
             "help": "`ddad --help`",
             "detector_class": "`from ddad import Detector`, torch and diffusers "
                               "included"}
    # a difference of two times may come out below zero
    rows = [[title, f"{max(0.0, r[name]):.2f} s"] for name, title in names.items()]
    return table(["", "measured"], rows)


def or_say_so(make: Callable[[], str]) -> Callable[[], str]:
    """The same for a section that has been measured; one that has not says so."""
    def table_of() -> str:
        try:
            return make()
        except KeyError as missing:
            return f"Not recorded: {missing.args[0]}."
    return table_of


MADE = (speed_answer, speed_rivals, speed_candidates, speed_detection, speed_layouts,
        speed_layouts_gpu, speed_training, speed_calls, speed_alone, speed_gpu_metrics,
        speed_metric, speed_scaling, speed_learned, speed_memory, speed_memory_measured,
        speed_together, speed_start_up)
TABLES = {make.__name__: or_say_so(make) for make in MADE}
