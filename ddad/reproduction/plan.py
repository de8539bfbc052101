"""What a matrix of runs takes, told before it is run: `ddad reproduce .. --plan`.

A run costs what its stages cost: the images that pass through a stage, times what one
image costs there in calls of the networks:

    encode      E
    train       eps_theta, forward and backward
    fine-tune   eps_theta at each step, D, phi of input and reconstruction, backward
    detect      E, eps_theta at each step, D, phi of input and reconstruction

A call is counted (operations, on the meta device), reckoned (memory, from shapes) or
timed (seconds, on the device at hand), on untrained networks of the true size: a cost
does not depend on weights. Not in it: reading, scoring, baselines, calibration.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ..data.datasets import DATASETS
from ..data.fetch import DISK
from ..data.images import held_out_items, test_items, train_items
from ..networks.autoencoders import PixelSpace, load_vae
from ..networks.features import empty_features, load_features
from ..noise_predictor import build_unet
from ..runtime.adapter import Networks
from ..runtime.checkpoints import EVERY
from ..runtime.devices import peak_memory, pick_device
from ..runtime.errors import BackboneError, DataError
from ..runtime.manifest import versions
from ..settings import Settings
from ..training import train_noise_predictor
from .memory import Alive
from .questions import PATHS, constants
from .runs import RUN, Run, categories_in, commit
from .timing import RESNET_34, _stable_diffusion, seconds

# networks of the hub whose shapes are known without it
AUTOENCODERS = {"stabilityai/sd-vae-ft-mse": _stable_diffusion,
                "CompVis/stable-diffusion-v1-4/vae": _stable_diffusion,
                "madebyollin/taesd": AutoencoderTiny}
FEATURES = {"microsoft/resnet-34": RESNET_34, "efficientnet-lite0": None}
AT_ONCE, ON_CPU = 16, 2         # images in a call; in a call or a step timed on a CPU
# settings that shape what an image costs, beside those of the U-Net
SHAPES = ("image_size", "vae", "train_batch", "train_precision", "precision",
          "features", "tune_batch", "neighbour_stage", "neighbour_pool", "map_stages",
          "tune_stages", "ddim_steps", "call_every")
Build = Callable[[], tuple[nn.Module, nn.Module, nn.Module]]


def plan(dataset: str, data: Path, out: Path, matrix: list[tuple[Run, Settings]],
         steps: int = 0, device: str = "auto") -> dict:
    """What each run of the matrix takes, in the order given, and whether `out` holds it
    already; JSON-ready.

    data: the folder of the categories; where a data set known by name is not there, its
    published counts are taken. steps: training steps to time on `device`, from which
    each run has its seconds; 0: none. Raises DataError for a data set that is neither
    there nor known, BackboneError for a network whose shape cannot be had.
    """
    networks, rows, fetch = {}, [], {}
    for run, s in matrix:
        key = str({name: value for name, value in s.as_dict().items()
                   if name in SHAPES or name.startswith("unet_")})
        if key not in networks:
            networks[key] = {"presets": []} | _costs(s, steps, device)
        costs = networks[key]
        fetch |= _fetched(s, costs["files"])
        if run.preset not in costs["presets"]:
            costs["presets"].append(run.preset)
        row = {"category": run.category, "preset": run.preset, "seed": run.seed,
               "done": (run.folder(out) / RUN).exists(),
               "networks": list(networks).index(key)}
        rows.append(row | _takes(s, counts(dataset, data, run.category), costs))
    known = DATASETS.get(dataset)
    missing = known if known and not data.is_dir() else None
    if missing:
        fetch = {missing.title: missing.size} | fetch
    return {"dataset": dataset, "counts": "published" if missing else "of the folder",
            "fetch": fetch,
            "disk": {"data": DISK * missing.size if missing else 0,
                     "runs": sum(row["disk"] for row in rows),
                     "training": max(row["training_disk"] for row in rows)},
            "runs": rows, "networks": list(networks.values()),
            "versions": versions(), "commit": commit()}


# --- images

def categories(dataset: str, data: Path, published: bool = False) -> list[str]:
    """The categories in the data set's folder, those with the fewest good images first;
    with `published`, its published ones where the folder is not there. DataError.
    """
    published = published and dataset in DATASETS and not data.is_dir()
    found = DATASETS[dataset].categories if published else categories_in(data)
    return sorted(found, key=lambda category: counts(dataset, data, category)[0])


def counts(dataset: str, data: Path, category: str) -> tuple[int, int, int]:
    """Images of a category to train on, for validation, and to test on. DataError."""
    root, published = data / category, DATASETS.get(dataset)
    if not data.is_dir() and published and category in published.counts:
        train, validation, good, defective = published.counts[category]
        return train, validation, good + defective
    if not root.is_dir():
        raise DataError(f"{root} is not there: give the folder of the categories, or "
                        "the name of a published data set and one of its categories")
    return tuple(len(items(root)) for items in (train_items, held_out_items,
                                                test_items))


def _fetched(s: Settings, files: dict[str, int]) -> dict[str, int]:
    """Bytes of each network that comes from the hub, unless its cache has it."""
    sizes = {s.vae: files["vae"], s.train_vae: files["vae"],
             s.features: files["features"]}
    return {name: size for name, size in sizes.items()
            if "/" in name and ".py:" not in name and not Path(name).is_dir()}


def _takes(s: Settings, count: tuple[int, int, int], costs: dict) -> dict:
    """What one run takes, from its images and from what an image costs."""
    images, held_out, test = count
    if not held_out:
        held_out = round(images * s.held_out)
        images -= held_out
    detections = 1 + (_asked(s) if s.preset == "clean" else 0)
    steps = s.steps_for(images)
    passes = {"encode": images * (2 if s.train_vae else 1),
              "train": steps * s.train_batch, "fine-tune": s.tune_epochs * images,
              "detect": detections * (test + held_out)}
    total = lambda each: {stage: n * each[stage] for stage, n in passes.items()}
    unet, phi = costs["parameters"]["unet"], costs["parameters"]["features"]
    spent = total(costs["seconds"]) if costs["seconds"] else None
    return {"images": images, "held_out": held_out, "test": test, "steps": steps,
            "batch": s.train_batch, "passes": passes,
            "operations": total(costs["operations"]), "seconds": spent,
            "disk": 4 * (unet + phi + images * costs["feature"]),
            # weights, their average and both moments, the file written anew beside
            # the old one; mean and deviation of the latents
            "training_disk": 4 * (2 * 4 * unet + 2 * images * costs["latent"])}


def _asked(s: Settings) -> int:
    """How often `questions.ask` detects on the test images."""
    paths = sum(s.change(**change) != s for change in PATHS.values())
    again = [change for change in constants(s) if "lam" not in change]
    return paths + (2 + len(again) if s.seed == 0 else 0)


# --- what an image costs

def _costs(s: Settings, steps: int, device: str) -> dict:
    timed = _timed(s, steps, device) if steps else None
    return {"settings": s.as_dict()} | counted(s) | {
        "memory": _memory(s), "seconds": timed and _by_stage(timed.pop("seconds"), s),
        "timed": timed}


def counted(s: Settings) -> dict:
    """Weights of each network, operations of an image in each stage, bytes of the
    networks' files, and numbers that an image's feature and latent have.
    """
    build = _builder(s)
    with torch.device("meta"):
        vae, unet, phi = build()
        phi.to("meta")                              # its buffers name their device
        calls = _calls(vae, unet, phi, s, 1)
        operations = {name: _operations(call) for name, call in calls.items()}
        stages = phi(torch.zeros(1, 3, s.image_size, s.image_size))
        whole = empty_features(s.change(map_stages=(4,)), FEATURES.get(s.features))
    stage = stages[s.neighbour_stage - 1]
    return {"parameters": {"unet": _weights(unet), "vae": _weights(vae),
                           "features": _weights(phi)},
            "operations": _by_stage(operations, s),
            "files": {"vae": 4 * _weights(vae), "features": 4 * _weights(whole)},
            "feature": stage.shape[1] * min(s.neighbour_pool, stage.shape[-1]) ** 2,
            "latent": unet.config.in_channels * unet.config.sample_size ** 2}


def _builder(s: Settings) -> Build:
    """Makes autoencoder, U-Net and features, untrained. BackboneError."""
    if s.vae in AUTOENCODERS:
        make_vae = AUTOENCODERS[s.vae]
    else:
        vae = load_vae(s.vae)
        if not hasattr(vae, "from_config") and not isinstance(vae, PixelSpace):
            raise BackboneError(f"autoencoder {s.vae!r}: --plan reckons only those of "
                                "diffusers; leave --plan out")
        make_vae = (PixelSpace if isinstance(vae, PixelSpace)
                    else partial(type(vae).from_config, vae.config))
    shape = (FEATURES[s.features] if s.features in FEATURES
             else load_features(s).config.to_dict())

    def build() -> tuple[nn.Module, nn.Module, nn.Module]:
        vae = make_vae()
        channels = 3 * 64 if isinstance(vae, PixelSpace) else vae.config.latent_channels
        return (vae, build_unet(s, channels, s.image_size // 8),
                empty_features(s, shape))
    return build


def _calls(vae, unet: nn.Module, phi: nn.Module, s: Settings,
           B: int) -> dict[str, Callable[[], object]]:
    """Each call of a network, on B images, on torch's current device."""
    x0 = torch.zeros(B, 3, s.image_size, s.image_size)
    h, t = s.image_size // 8, torch.zeros(B, dtype=torch.long)
    z0 = torch.zeros(B, unet.config.in_channels, h, h)
    no_grad = torch.no_grad()
    return {"encode": no_grad(lambda: vae.encode(x0)),
            "eps_theta": no_grad(lambda: unet(z0, t)),
            "decode": no_grad(lambda: vae.decode(z0)),
            "phi": no_grad(lambda: phi(x0)),
            "train": lambda: unet(z0, t).sample.square().mean().backward(),
            "tune": lambda: _tune(phi, x0)}


def _tune(phi: nn.Module, x0_hat: Tensor) -> None:
    phi.requires_grad_(True)
    sum(one.square().mean() for one in phi(x0_hat)).backward()


def _by_stage(of: dict[str, float], s: Settings) -> dict[str, float]:
    """What an image costs in each stage, from what a call of each network costs."""
    steps = len(range(0, s.ddim_steps, s.call_every))
    reconstruct = steps * of["eps_theta"] + of["decode"]
    return {"encode": of["encode"], "train": of["train"],
            "fine-tune": reconstruct + of["phi"] + of["tune"],
            "detect": of["encode"] + (reconstruct + 2 * of["phi"] if s.decode
                                      else steps * of["eps_theta"])}


def _operations(call: Callable[[], object]) -> int:
    """Multiplications and additions of the convolutions and products in a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _memory(s: Settings) -> dict[str, dict[str, int]]:
    """Bytes that a GPU holds in tensors at the worst moment of each stage, in float32;
    the allocator's reserve and the libraries' workspaces come on top.
    """
    def peak(B: int, *names: str) -> int:
        calls = _calls(vae, unet, phi, s, B)
        with Alive() as alive:
            for name in names:
                calls[name]()
        return alive.peak

    build = _builder(s)
    with FakeTensorMode():
        vae, unet, phi = build()
        frozen = 4 * (_weights(vae) + _weights(phi))
        weights = 4 * _weights(unet)
        return {
            "train": {"weights": weights, "averaged weights": weights,
                      "Adam's moments": 2 * weights, "frozen networks": frozen,
                      "gradients and activations": peak(s.train_batch, "train")},
            "fine-tune": {"weights": weights + frozen,
                          "Adam's moments": 8 * _weights(phi),
                          "gradients and activations":
                              peak(s.tune_batch, "decode", "tune")},
            "detect": {"weights": weights + frozen,
                       "activations": peak(AT_ONCE, "encode", "eps_theta", "decode",
                                           "phi")}}


def _timed(s: Settings, steps: int, device: str) -> dict:
    """Seconds of each call for an image, from `steps` real steps of training and a
    batch of each other call, and the most memory held meanwhile.
    """
    where = pick_device(device)
    on_cpu, h = where.type == "cpu", s.image_size // 8
    B, batch = (ON_CPU, min(s.train_batch, ON_CPU)) if on_cpu else (AT_ONCE,
                                                                    s.train_batch)
    vae, unet, phi = _builder(s)()
    own, C = Networks(vae, unet, phi, where, s.precision), unet.config.in_channels
    x0 = torch.rand(B, 3, s.image_size, s.image_size, device=where) * 2 - 1
    z0, t = torch.randn(B, C, h, h, device=where), torch.full((B,), 40, device=where)
    latents = torch.randn(batch, C, h, h)

    def train(n: int) -> None:
        short = s.change(train_batch=batch, train_length=f"{n} steps")
        train_noise_predictor(unet.requires_grad_(True), latents, None, short, where)

    # the first step pays for what is made once
    first, longer = seconds(partial(train, 1), partial(train, 1 + steps), repeats=1)
    held = {"train": peak_memory(where)}
    gpu = None
    if where.type == "cuda":
        gpu = torch.cuda.get_device_name(where)
        torch.cuda.reset_peak_memory_stats(where)
    # a value read back waits for the device
    calls = {"encode": lambda: float(own.E(x0)[0].mean()),
             "eps_theta": lambda: float(own.eps_theta(z0, t).mean()),
             "decode": lambda: float(own.D(z0).mean()),
             "phi": torch.no_grad()(lambda: float(own.features(x0)[0].mean())),
             "tune": lambda: _tune(own.phi, x0)}
    spent = {name: one / B for name, one in
             zip(calls, seconds(*calls.values(), repeats=1))}
    held["detect"] = peak_memory(where)
    return {"seconds": spent | {"train": (longer - first) / steps / batch},
            "device": str(where), "gpu": gpu, "threads": torch.get_num_threads(),
            "steps": steps, "batch": batch, "peak_memory": held}


def _weights(network) -> int:
    modules = isinstance(network, nn.Module)
    return sum(w.numel() for w in network.parameters()) if modules else 0


# --- in words

def told(found: dict) -> str:
    """A plan as `ddad reproduce --plan` prints it."""
    giga = lambda size: f"{size / 1e9:.2f} GB"
    disk, rows = found["disk"], found["runs"]
    left = [row for row in rows if not row["done"]]
    lines = [f"{found['dataset']}: runs {len(rows)}, to be made {len(left)}; numbers "
             f"of images: {found['counts']}"]
    lines += [f"to fetch: {giga(size)}, {name}"
              for name, size in found["fetch"].items()]
    data, runs, training = (giga(disk[name]) for name in ("data", "runs", "training"))
    lines.append(f"disk: data {data}, finished runs {runs}, while one trains "
                 f"{training} more")
    for one in found["networks"]:
        lines += _told_networks(one)
    lines += ["", *_told_runs(rows), ""]
    if left and left[0]["seconds"]:
        hours = sum(left[0]["seconds"].values()) / 3600
        lines.append(f"the first run takes {hours:.1f} hours: "
                     f"{'less' if hours < 24 else 'MORE'} than a day")
    elif left:
        lines.append("no hours: give --plan a number, and it times so many steps here")
    if left:
        first = left[0]
        lines.append(f"the first alone: --categories {first['category']} --presets "
                     f"{first['preset']} --seeds {first['seed']};")
        lines.append("then the same command without these: a finished run is kept")
    lines.append("killed, the same command goes on from a checkpoint at most "
                 f"{EVERY} steps old")
    return "\n".join(lines)


def _told_networks(one: dict) -> list[str]:
    million = {name: f"{n / 1e6:.1f} M" for name, n in one["parameters"].items()}
    memory = ", ".join(f"{stage} {sum(parts.values()) / 1e9:.1f} GB"
                       for stage, parts in one["memory"].items())
    lines = [f"{', '.join(one['presets'])}: U-Net of {million['unet']} parameters, "
             f"autoencoder {million['vae']}, features {million['features']}",
             f"  operations an image: train {one['operations']['train'] / 1e9:.0f} G, "
             f"detect {one['operations']['detect'] / 1e9:.0f} G",
             f"  GPU memory, reckoned, without libraries: {memory}"]
    if timed := one["timed"]:
        where = timed["gpu"] or f"{timed['device']}, {timed['threads']} threads"
        held = max(timed["peak_memory"].values()) / 1e9
        each = one["seconds"]
        lines.append(f"  timed on {where}: an image {each['train']:.2g} s in training, "
                     f"{each['detect']:.2g} s in detection; {held:.1f} GB held")
    if timed and timed["device"] == "cpu":
        lines.append("  hours below are EXTRAPOLATED from "
                     f"{timed['steps']} steps of {timed['batch']} images on a CPU")
    return lines


def _told_runs(rows: list[dict]) -> list[str]:
    """A line a run, with the hours until it is done, and a line of totals."""
    wide = max(len(row["category"]) for row in rows) + 2
    lines = [f"{'category':<{max(wide, 10)}}{'preset':<10}{'seed':>4}{'images':>8}"
             f"{'steps':>8}{'batch':>7}{'PFLOP':>9}"]
    if rows[0]["seconds"]:
        lines[0] += f"{'hours':>9}{'done after':>12}"
    since = 0.0
    for row in rows:
        work = sum(row["operations"].values()) / 1e15
        hours = row["seconds"] and sum(row["seconds"].values()) / 3600
        since += hours if hours and not row["done"] else 0
        times = f"{hours:>9.1f}{since:>10.1f} h" if hours else ""
        lines.append(f"{row['category']:<{max(wide, 10)}}{row['preset']:<10}"
                     f"{row['seed']:>4}{row['images']:>8}{row['steps']:>8}"
                     f"{row['batch']:>7}{work:>9.1f}"
                     f"{'  done already' if row['done'] else times}")
    return lines
