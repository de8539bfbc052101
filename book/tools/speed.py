"""The tables and the curve of book/speed.md, from the recorded benchmarks book/results/bench.json (a CPU) and bench_gpu.json."""
import json
from pathlib import Path

BOOK = Path(__file__).parent
CPU, GPU = "bench", "bench_gpu"
MEGA, GIGA = 1e6, 1e9
PRODUCTS = ("blister", "board", "fabric")


def load(record: str) -> dict:
    return json.loads((BOOK / "results" / f"{record}.json").read_text(encoding="utf-8"))


def sections(record: str) -> dict[str, dict]:
    return load(record)["sections"]


def section(name: str, record: str = CPU) -> dict:
    return sections(record)[name]


def machine(made: dict) -> str:
    return made["gpu"] or f"CPU, {made['threads']} threads"


def on(made: dict) -> str:
    """Machine and networks in a few letters: "CPU, small"."""
    return f"{(made['gpu'] or 'CPU').removeprefix('NVIDIA ')}, {'small' if made['scale'] == 'laptop' else 'paper'}"


def table(head: list[str], rows: list[list]) -> str:
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows])


def speed_detection() -> str:
    rows = []
    for record, name in ((CPU, "detection"), (GPU, "detection"), (GPU, "detection, paper")):
        found = section(name, record)
        rows += [[on(found["made"]), path, f"{1000 * r['seconds']:.{0 if record == CPU else 1}f} ms", f"{r['over_networks']:.2f}",
                  f"{1000 * r['seconds'] * r['official_over_ours']:.0f} ms", f"{r['official_over_ours']:.1f}"] for path, r in found["rows"].items()]
    return table(["on", "path", "an image", "over its calls", "official, an image", "over ours"], rows)


def speed_layouts(record: str = CPU) -> str:
    found = section("layouts", record)
    networks = found["time_over_float32"]
    rows = [[name, *(f"{one[name]:.2f}" if name in one else "" for one in networks.values())] for name in next(iter(networks.values()))]
    spent = {name: f"{one:.0f} s" if isinstance(one, float) else one for name, one in found["compiling"].items()}
    compiling = ", ".join(f"{text} ({name})" for name, text in spent.items())
    return table(["16 pictures, time over float32", *networks], rows) + f"\n\nOn {machine(found['made'])}. Compiling took {compiling}."


def speed_layouts_gpu() -> str:
    return speed_layouts(GPU)


def speed_gpu_networks() -> str:
    """Each network recorded as one CUDA graph, in four forms; what they take off the time of a detection, by subtraction."""
    found, rows = load("gpu_networks"), []
    forms = ("autocast", "weights in 16 bits", "the same, NCHW", "compiled")
    for scale, title in (("laptop", "small"), ("paper", "paper")):
        took = found["seconds"][scale]
        for key, name in (("encode", "encoder"), ("unet", "U-Net, a call"), ("decode", "decoder"), ("phi", "features")):
            rows.append([f"{title}: {name}", *(f"{1000 * took[key][form]:.1f} ms" for form in forms), f"{took[key]['compiling']:.0f} s"])
        calls = {form: sum(took[key][form] for key in ("encode", "decode", "phi")) + found["calls"] * took["unet"][form] for form in forms}
        whole = {form: took["predict"] - calls["autocast"] + calls[form] for form in forms}
        rows.append([f"{title}: official over ours", *(f"{took['official'] / whole[form]:.1f}" for form in forms), ""])
    head = [f"{found['images']} pictures, {found['gpu'].removeprefix('NVIDIA ')}, bfloat16", *forms, "compiling"]
    return table(head, rows)


def speed_gpu_step() -> str:
    """A training step of the paper's U-Net on a GPU: as training took it, with a fused AdamW, and with that recorded or compiled."""
    found = load("gpu_networks")
    steps = found["train_step"]
    forms = {"as it was": "as training took it", "AdamW fused": "AdamW fused", "recorded": "that, recorded: as it does now",
             "compiled": "that, compiled"}
    rows = [[precision, *(f"{1000 * steps[precision][form]:.0f} ms" if form in steps[precision] else "" for form in forms)]
            for precision in ("float32", "bfloat16")]
    return table([f"a step of {found['train_batch']}", *forms.values()], rows) + f"\n\nCompiling took {steps['compiling']:.0f} s."


def speed_training() -> str:
    rows = []
    for record, name in ((CPU, "training"), (CPU, "training, paper"), (GPU, "training"), (GPU, "training, paper")):
        found = section(name, record)
        rows += [[on(found["made"]), precision, found["batch"], f"{found['bytes_an_image'] / 1024:.0f} KB",
                  f"{r['images_a_second']:.{2 if record == CPU else 0}f}", f"{r['every_epoch_over_once']:.2f}",
                  f"{r['through_encoder_over_once']:.2f}"] for precision, r in found["rows"].items()]
    return table(["on", "precision", "batch", "latents an image", "images a second", "every epoch", "and gradient"], rows)


def _path(name: str, record: str, precision: str, calls: int) -> dict:
    return next(r for r in section(name, record)["rows"] if (r["precision"], r["calls"], r["steps"]) == (precision, calls, 10))


def speed_gpu_metrics() -> str:
    """The largest difference, over the products, of a metric on the GPU to the same number of calls in float32 on the CPU."""
    rows = []
    for precision, calls in (("float32", 10), ("float32", 5), ("bfloat16", 10), ("bfloat16", 5)):
        differ = [max(abs(_path(f"calls, {p}", GPU, precision, calls)[m] - _path(f"calls, {p}", CPU, "float32", calls)[m]) for p in PRODUCTS)
                  for m in ("i_auroc", "pro")]
        rows.append([precision, calls, *(f"{one:.4f}" for one in differ)])
    return table(["on the GPU", "calls", "I-AUROC differs by", "PRO differs by"], rows)


SHORT = ("juice bottle, 1500 steps of training", "mtd, 500 steps of training, T_max 650")      # measured with other work running beside it


def _curves() -> dict[str, list[dict]]:
    title = lambda name: name.removeprefix("calls, ").removeprefix("loco_").replace("_bottle", " bottle")
    curves = {title(name): part["rows"] for name, part in sections(CPU).items() if name.startswith("calls, ")}
    return dict(sorted(curves.items(), key=lambda curve: curve[0] in SHORT))                   # those last


def speed_calls() -> str:
    rows = []
    for data, paths in _curves().items():
        ten = paths[0]
        for r in paths:
            time = f"{r['seconds'] / ten['seconds']:.2f}" if data not in SHORT else ""
            held_out = [f"{r['held_out'][m] - ten['held_out'][m]:+.4f}" for m in ("i_auroc", "pro")]
            test = [f"{r[m]:.4f}" if r is ten else f"{r[m] - ten[m]:+.4f}" for m in ("i_auroc", "pro")]
            rows.append([data, r["calls"], r["steps"], r["precision"][-2:], time, *held_out, *test])
    return table(["data", "calls", "steps", "bits", "time", "held-out: I-AUROC", "PRO", "test: I-AUROC", "PRO"], rows)


def speed_metric() -> str:
    r = section("metric")
    near = r["neighbours"]
    rows = [["exact PRO of 100 maps of 256 x 256", f"{r['pro_seconds']:.2f} s"], ["200 thresholds, times as long", f"{r['pro200_over_exact']:.0f}"],
            ["over one sort of the same pixels", f"{r['pro_over_sort']:.2f}"],
            ["over one sort that also gives their order (argsort)", f"{r['pro_over_argsort']:.2f}"],
            [f"neighbours of {near['images']} images among {near['bank']}, {near['features']} features each", f"{near['seconds']:.2f} s"],
            ["as a share of their detection", f"{100 * near['share_of_detection']:.1f}%"]]
    return table(["", "measured"], rows)


def speed_scaling() -> str:
    rows = [[f"{r['size']} x {r['size']}", r["images"], f"{1000 * r['seconds_an_image']:.0f} ms", f"{r['peak_memory'] / GIGA:.2f} GB"]
            for r in section("scaling")["rows"]]
    return table(["size", "images", "time an image", "peak memory of the process"], rows)


def speed_memory() -> str:
    rows = []
    for found in section("memory").values():
        for what in ("detect", "train") if "parameters" in found else ():
            r = found[what]
            rows.append([f"{found['parameters'] / MEGA:.0f} M", what, f"{r['fixed'] / GIGA:.2f} GB", f"{r['an_image'] / MEGA:.0f} MB",
                         *r["largest_batch"].values()])
    return table(["U-Net", "", "whatever the batch", "each image", "batch on 8 GB", "16 GB", "24 GB"], rows)


def speed_memory_measured() -> str:
    found = section("memory", GPU)
    rows = [[what, f"{r['reckoned'] / GIGA:.2f} GB", f"{r['measured'] / GIGA:.2f} GB", f"{r['measured'] / r['reckoned']:.2f}"]
            for what, r in found["of_16"].items()]
    return table([f"16 pictures, {found['paper']['parameters'] / MEGA:.0f} M", "reckoned", f"held on {machine(found['made'])}", "ratio"], rows)


def speed_start_up() -> str:
    r = section("start_up")
    rows = [["`import torch`", f"{r['import_torch']:.2f} s"], ["`import ddad` beyond it", f"{r['import_ddad_beyond_torch']:.2f} s"],
            ["`ddad --help`", f"{r['help']:.2f} s"], ["`from ddad import Detector`, torch and diffusers included", f"{r['detector_class']:.2f} s"]]
    return table(["", "measured"], rows)


def draw(path: Path = BOOK / "speed_curve.png") -> None:
    """Time against PRO, one line for fewer steps, one for fewer calls, and one panel a test set."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    curves = {data: rows for data, rows in _curves().items() if data not in SHORT}
    figure, panels = plt.subplots(2, 3, figsize=(9.0, 6.0), constrained_layout=True)
    for panel, (data, rows) in zip(panels.flat, curves.items()):
        for fewer_calls, mark, above, title in ((False, "o-", 5, "fewer steps"), (True, "s--", -11, "fewer calls in ten steps")):
            own = [rows[0]] + [r for r in rows[1:] if (r["calls"] < r["steps"]) == fewer_calls and r["precision"] == rows[0]["precision"]]
            panel.plot([r["seconds"] / rows[0]["seconds"] for r in own], [r["pro"] for r in own], mark, label=title, markersize=4)
            for r in own:
                at = (r["seconds"] / rows[0]["seconds"], r["pro"])
                panel.annotate(r["calls"], at, (0, above), textcoords="offset points", ha="center", fontsize=7)
        centre = rows[0]["pro"]
        panel.axhspan(centre - 0.005, centre + 0.005, color="0.9", zorder=0)
        panel.set(title=data, xlabel="time over ten calls", ylabel="PRO", xlim=(0.6, 1.06), ylim=(centre - 0.02, centre + 0.02))
    panels.flat[-1].legend(*panel.get_legend_handles_labels(), loc="center")
    panels.flat[-1].axis("off")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def recorded(make):
    """A section that has not been measured says so."""
    def table_of() -> str:
        try:
            return make()
        except KeyError as missing:
            return f"Not recorded: {missing.args[0]}."
    return table_of


TABLES = {f.__name__: recorded(f) for f in (speed_detection, speed_layouts, speed_layouts_gpu, speed_gpu_networks, speed_training, speed_gpu_step,
                                            speed_calls, speed_gpu_metrics, speed_metric, speed_scaling, speed_memory, speed_memory_measured,
                                            speed_start_up)}
