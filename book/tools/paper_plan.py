"""The tables of book/paper_data.md: what the paper's own data take.

A plan holds what can be counted without a GPU: images, steps, operations, memory, disk.
Seconds come from book/results/bench_gpu.json, as measured there.
"""
from functools import cache

from records import load, recorded, table
from speed import CPU, GPU, machine, section

from ddad.reproduction import plan
from ddad.settings import preset

# record -> its title and what is planned, beside --presets paper and three seeds
PLANS = {"plan_visa": ("VisA", "visa", []),
         "plan_visa_taesd": ("VisA, `--vae madebyollin/taesd`", "visa",
                             ["--vae", "madebyollin/taesd"]),
         "plan_btad": ("BTAD", "btad", []),
         "plan_mvtec_ad": ("MVTec AD", "mvtec_ad", [])}
TRIAL = "paper_size"
GIGA, HOUR = 1e9, 3600


@cache
def grown(record: str) -> dict[str, float]:
    """By stage, the operations of the preset's network over those of the network that a
    benchmark was recorded with, which may be today's or the one before it.
    """
    paper = preset("paper")
    before = paper.change(unet_blocks="diffusers", unet_attention_to=9)
    measured = section("memory", record)["paper"]["parameters"]
    now = plan.counted(paper)
    for then in (now, plan.counted(before)):
        if then["parameters"]["unet"] == measured:
            return {stage: work / then["operations"][stage]
                    for stage, work in now["operations"].items()}
    raise ValueError(f"{record}.json is of a U-Net of {measured} parameters, which is "
                     "none of the package's: run `ddad bench OUT --scale paper` anew")


@cache
def rates() -> dict[str, float]:
    """Seconds of an image in each stage on the recorded GPU, with today's network."""
    training = section("training, paper", GPU)["rows"]["float32"]
    detect = section("detection, paper", GPU)["rows"]["float32"]["seconds"]
    step = 1 / training["images_a_second"]
    seconds = {"encode": (training["every_epoch_over_once"] - 1) * step, "train": step,
               # no more than a detection: it encodes nothing, and adjusts phi
               "fine-tune": detect, "detect": detect}
    return {stage: one * grown(GPU)[stage] for stage, one in seconds.items()}


def hours(row: dict) -> float:
    return sum(n * rates()[stage] for stage, n in row["passes"].items()) / HOUR


def spell(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"


def giga(size: float) -> str:
    return f"{size / GIGA:.1f} GB"


def held(found: dict) -> str:
    """The most that a stage holds in tensors, as reckoned, times what the recorded GPU
    held over the reckoning.
    """
    of_16 = section("memory", GPU)["of_16"]
    more = max(one["measured"] / one["reckoned"] for one in of_16.values())
    memory = found["networks"][0]["memory"].values()
    return giga(more * max(sum(parts.values()) for parts in memory))


def plan_answer() -> str:
    rows = []
    for name in recorded(*PLANS):
        found, own = load(name), PLANS[name][2]
        runs = found["runs"]
        seed = [row for row in runs if row["seed"] == runs[0]["seed"]]
        # seconds were measured with the preset's autoencoder alone
        spent = [hours(runs[0]), sum(map(hours, seed)), sum(map(hours, runs))]
        spent = [spell(one) if not own else "not measured" for one in spent]
        disk = sum(found["disk"].values())
        rows.append([PLANS[name][0], runs[0]["category"], spent[0],
                     f"{spent[1]} ({len(seed)} runs)", f"{spent[2]} ({len(runs)} runs)",
                     held(found),
                     f"{giga(sum(found['fetch'].values()))}, {giga(disk)}"])
    head = ["data", "first category", "it takes", "all, one seed", "all, three seeds",
            "GPU memory", "download, disk"]
    return table(head, rows) + f"\n\nHours on one {machine(_made())}."


def _made() -> dict:
    return section("training, paper", GPU)["made"]


def plan_categories() -> str:
    """Seed 0 of VisA, in the order of the runs."""
    rows, since = [], 0.0
    for row in load("plan_visa")["runs"]:
        if row["seed"]:
            continue
        since += hours(row)
        work = sum(row["operations"].values()) / 1e15
        rows.append([row["category"], row["images"], row["test"], row["steps"],
                     row["batch"], f"{work:.0f}", f"{hours(row):.2f}", f"{since:.1f}"])
    head = ["category", "good images", "test images", "steps", "batch", "PFLOP",
            "hours", "done after, h"]
    return table(head, rows)


def plan_parts() -> str:
    """What an image costs in each stage of the preset's run, and what that rests on."""
    found = load("plan_visa")["networks"][0]
    rows = []
    for stage, work in found["operations"].items():
        memory = found["memory"].get(stage)
        rows.append([stage, f"{work / GIGA:.0f}", f"{1000 * rates()[stage]:.1f} ms",
                     giga(sum(memory.values())) if memory else "as to detect"])
    sizes = {name: f"{n / 1e6:.1f} M" for name, n in found["parameters"].items()}
    head = ["stage", "GFLOP an image", f"an image, {machine(_made())}",
            "GPU memory, reckoned"]
    return (table(head, rows) + f"\n\nParameters: U-Net {sizes['unet']}, autoencoder "
            f"{sizes['vae']}, features {sizes['features']}.")


def plan_autoencoders() -> str:
    rows = []
    for name in ("plan_visa", "plan_visa_taesd"):
        one = load(name)["networks"][0]
        work, memory = one["operations"], one["memory"]["detect"]
        file = f"{one['files']['vae'] / 1e6:.0f} MB"
        rows.append([f"`{one['settings']['vae']}`", file,
                     f"{one['parameters']['vae'] / 1e6:.1f} M",
                     f"{work['encode'] / GIGA:.0f}", f"{work['detect'] / GIGA:.0f}",
                     giga(sum(memory.values()))])
    head = ["autoencoder", "file", "parameters", "GFLOP to encode an image",
            "to detect", "GPU memory to detect"]
    return table(head, rows)


def plan_cpu() -> str:
    """The first category on a CPU, from its recorded rate of training alone."""
    found, first = section("training, paper"), load("plan_visa")["runs"][0]
    rate = found["rows"]["float32"]["images_a_second"]
    days = grown(CPU)["train"] * first["passes"]["train"] / rate / 24 / HOUR
    return (f"On {machine(found['made'])}, from steps of {found['batch']} images: "
            f"{days:.0f} days of training for {first['category']}, one seed.")


def plan_trial() -> str:
    found = load(TRIAL)
    reckoned, seen = found["reckoned"], found["found"]
    rows = [["parameters of the U-Net", f"{reckoned['unet']:,}", f"{seen['unet']:,}"],
            ["steps of training", reckoned["steps"], seen["steps"]]]
    rows += [[f"{name} on disk", *(f"{part[name] / GIGA:.2f} GB"
                                   for part in (reckoned, seen))]
             for name in ("checkpoint", "detector")]
    seconds = ", ".join(f"{what} {one:.0f} s" for what, one in found["seconds"].items())
    changed = ", ".join(f"`{name}={here}` ({there})"
                        for name, (there, here) in found["deviations"].items())
    memory = (f"; {giga(found['peak_memory'])} of main memory"
              if "peak_memory" in found else "")
    return (table(["", "by `--plan`", "found"], rows)
            + f"\n\nOn a {found['device'].upper()}, {found['threads']} thread, with "
            f"other work beside it: {seconds}{memory}. What deviates from the preset, "
            f"whose value follows in brackets: {changed}.")


TABLES = {make.__name__: make for make in (
    plan_answer, plan_categories, plan_parts, plan_cpu, plan_autoencoders, plan_trial)}
