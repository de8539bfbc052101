"""What else the map and the network could be: other statistics of good images in the
map, the step map as an input of the network, and one call of a network that was trained
on noised patches.

    python book/tools/further.py OUT --of RUNS DATA VAE [--of RUNS DATA VAE ..]
    python book/tools/further.py OUT --shipped PRODUCTS

RUNS, DATA, VAE and the constants (SAME), none of them chosen: see `step_rules.py`,
which trains the masked network too. The mapped one is trained as that is, but for an
input more: 1 where a position has noise. In sampling it is 1 where a position's turn
has come. PRODUCTS: the drawn ones, for the forms of the map alone, by the shipped
detectors. Leaves OUT/further.json, with a row for each network, path and form of the
map; rows that are there are kept.
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import step_rules
import torch
from records import compact, load, name_of, recorded, table
from step_rules import MASKED, SAME, STEPS
from torch import Tensor, nn
from torch.nn import functional as F

from ddad import anomaly_map as maps
from ddad import training
from ddad.data.images import Images
from ddad.data.product import TestSet, load_held_out, load_test, load_train
from ddad.detector import Detector
from ddad.evaluation.baselines import one_call
from ddad.evaluation.scoring import summary
from ddad.noise_predictor import build_unet, q_sample
from ddad.reproduction.runs import commit, fingerprint
from ddad.runtime.adapter import Networks
from ddad.runtime.files import write_json
from ddad.runtime.latent_cache import encode_all, weights_hash
from ddad.runtime.manifest import versions
from ddad.settings import Settings
from ddad.synthetic.products import PRODUCTS
from ddad.synthetic.weights import WEIGHTS

NAME = "further"                        # of the record
PLAIN, ON_PATCHES, MAPPED = "plain", "masked", "mapped"
RULES, ONE_CALL = ("region", "image"), "one call"
RANGE = "range"                         # the method's own form of the map
BATCH, FEW = 16, 2000                   # images; pixels that a statistic needs
IDENTITY = ("category", "seed", "trained")
METRICS = ("i_auroc", "pro")


# --- the step map as an input

class Mapped(nn.Module):
    """eps_theta(z_t, t, m): a U-Net with one channel more, m (B, 1, h, w), 1 where a
    position has noise. Without the channel it is made of the step map: 1 where T(p) has
    come, everywhere if there is none.
    """

    def __init__(self, settings: Settings, channels: int, size: int):
        super().__init__()
        unet = build_unet(settings, channels, size)
        self.config, old = unet.config, unet.conv_in    # the config of what it replaces
        unet.conv_in = nn.Conv2d(channels + 1, old.out_channels, 3, padding=1)
        with torch.no_grad():               # it begins as the network without the input
            unet.conv_in.weight.zero_()[:, :channels] = old.weight
            unet.conv_in.bias.copy_(old.bias)
        self.unet, self.T = unet, None

    def forward(self, z_t: Tensor, t: Tensor):
        if z_t.shape[1] == self.config.in_channels:
            m = torch.ones_like(z_t[:, :1])
            if self.T is not None:
                m = (self.T >= t.view(-1, 1, 1)).unsqueeze(1).to(z_t)
            z_t = torch.cat([z_t, m], 1)
        return self.unet(z_t, t)


def mapped_loss(eps_theta, z0: Tensor, t: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """The objective (`epsilon_loss`) of a network that is told where the noise is."""
    m = (eps != 0).any(1, keepdim=True).to(z0)
    z_t = q_sample(z0, abar[t].view(-1, 1, 1, 1), eps)
    return F.mse_loss(eps_theta(torch.cat([z_t, m], 1), t), eps)


def mapped(plain: Detector, train: Images, good: Images) -> Detector:
    """Trained as the masked network is, with features fine-tuned on its own path."""
    s, networks = plain.settings.change(**MASKED), plain.networks
    bare = Detector(s, Networks(networks.vae, None, nn.Identity(), "cpu", s.precision))
    z0 = encode_all(bare.projection, bare.networks, train)
    torch.manual_seed(s.seed)
    unet = Mapped(s, z0[0].shape[1], z0[0].shape[-1])
    with patch.object(training, "epsilon_loss", mapped_loss):
        record = training.train_noise_predictor(unet, *z0, s, bare.device)
    found = Detector.fit(train, s, held_out=good, vae=networks.vae, unet=unet)
    found.record["training"] = record
    return found


# --- the forms of the map

@dataclass
class Maps:
    """Of N images of side H, on the CPU: A_l and A_f; r = z0 - z0_hat (N, C, h, w); T,
    the step of each pixel (N, H, H).
    """

    A_l: Tensor
    A_f: Tensor
    r: Tensor
    T: Tensor

    @classmethod
    def of(cls, detector: Detector, images: Images) -> Maps:
        parts, size = [], detector.settings.image_size
        for n in range(0, len(images), BATCH):
            seen = detector.observe(images[n : n + BATCH])
            if isinstance(unet := detector.networks.unet, Mapped):
                unet.T = detector.step_map(seen)[0]
            found = detector.respond(seen, size)
            if isinstance(unet, Mapped):
                unet.T = None
            T = found.T_hat.view(-1, 1, 1) if found.step_map is None else found.step_map
            T = F.interpolate(T.float().unsqueeze(1), (size, size)).squeeze(1)
            parts.append((found.A_l, found.A_f, seen.z0 - found.z0_hat, T))
        return cls(*(torch.cat(one).cpu() for one in zip(*parts)))


# of maps A (N, H, H) of test images, by those of good ones, (M, H, H)
def by_range(A: Tensor, good: Tensor) -> Tensor:
    """The method's own: smallest and largest value are 0 and 1."""
    return maps.normalise(A, (good.min().item(), good.max().item()))


def by_spread(A: Tensor, good: Tensor) -> Tensor:
    """Good images' mean and deviation in place of their range."""
    return (A - good.mean()) / good.std()


def by_position(A: Tensor, good: Tensor) -> Tensor:
    """Of each position: over the images and, since they are few, its surroundings."""
    sigma = 8 * A.shape[-1] / 256
    centre, square = (maps.smooth(x.mean(0, keepdim=True), sigma)
                      for x in (good, good**2))
    return (A - centre) / (square - centre**2).clamp(min=1e-12).sqrt()


def by_step(A: Tensor, good: Tensor, T: Tensor, T_good: Tensor) -> Tensor:
    """Of each step, over the pixels that have it; T, T_good as A and good. A step that
    few pixels of good images have takes the statistics of the next earlier one that
    enough have.
    """
    out, known = torch.empty_like(A), (good.mean(), good.std())
    for step in torch.cat([T_good, T]).unique():        # from the earliest
        at = good[T_good == step]
        if len(at) >= FEW:
            known = at.mean(), at.std()
        out[T == step] = (A[T == step] - known[0]) / known[1]
    return out


def whitened(r: Tensor, good: Tensor, size: int) -> Tensor:
    """|W (r - its mean)|, W^T W the inverse of good images' covariance over channels;
    r, good (N, C, h, w) -> (N, size, size).
    """
    rows = good.movedim(1, -1).flatten(0, -2).double()
    centre = rows.mean(0)
    root = torch.linalg.cholesky(torch.cov(rows.T).inverse())
    white = (r.movedim(1, -1).double() - centre) @ root
    return maps.upsample(white.norm(dim=-1).float(), size)


def forms(test: Maps, good: Maps) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each form's name, and both maps, made comparable."""
    pairs = (test.A_l, good.A_l), (test.A_f, good.A_f)
    size = test.A_l.shape[-1]
    A_w = [whitened(r, good.r, size) for r in (test.r, good.r)]
    yield RANGE, *(by_range(*pair) for pair in pairs)
    yield "one spread", *(by_spread(*pair) for pair in pairs)
    yield "a spread per step", *(by_step(*pair, test.T, good.T) for pair in pairs)
    yield "a spread per position", *(by_position(*pair) for pair in pairs)
    yield "whitened residual", by_range(*A_w), by_range(*pairs[1])


# --- all rows of a run

def networks_of(run: dict, saved: Path, data: Path, out: Path, vae
                ) -> Iterator[tuple[str, Callable[[], Detector]]]:
    """Each network's name, and what makes its detector, where it is asked for."""
    first = step_rules.detectors(run, saved, data, out, vae)
    plain = next(first)[2]
    s = plain.settings
    split = training.hold_out(load_train(data, s), s, load_held_out(data, s))
    yield PLAIN, lambda: plain
    yield ON_PATCHES, lambda: next(first)[2]
    yield MAPPED, lambda: mapped(plain, *split)


def rows_of(trained: str, detector: Detector, data: Path, test: TestSet
            ) -> Iterator[dict]:
    """rule, T_max, form, i_auroc, pro: of the paths and forms asked of this network."""
    s = detector.settings.change(**SAME)
    train, good = training.hold_out(load_train(data, s), s, load_held_out(data, s))
    banks = detector.under(s.change(step_rule="region"))
    banks.set_banks(train, good)
    for rule, T in product(RULES if trained == PLAIN else RULES[:1], STEPS):
        one = banks.under(s.change(step_rule=rule, T_max=T))
        of_test, of_good = Maps.of(one, test.images), Maps.of(one, good)
        for form, *pair in forms(of_test, of_good):
            if trained == PLAIN or form == RANGE:
                A = s.lam * pair[0] + (1 - s.lam) * pair[1]
                A = maps.smooth(A, s.sigma * s.image_size / 256)
                yield {"rule": rule, "T_max": T, "form": form,
                       **measured(summary(maps.score(A), A, test))}
    if trained != MAPPED:               # told nothing of regions, it has no one call
        found = one_call(banks, good, test)
        yield {"rule": ONE_CALL, "T_max": found["step"], "form": RANGE,
               **measured(found)}


def measured(found: dict) -> dict:
    return {name: found[name] for name in METRICS}


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, metavar="OUT")
    options.add_argument("--of", nargs=3, action="append", default=[],
                         metavar=("RUNS", "DATA", "VAE"))
    options.add_argument("--shipped", type=Path, metavar="PRODUCTS")
    asked = options.parse_args(arguments)
    path = asked.out / f"{NAME}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {tuple(row[name] for name in IDENTITY) for row in rows}
    for mine, folder, made in every(asked):
        if mine not in done:
            print(*mine, flush=True)
            detector = made()
            test = load_test(folder, detector.settings)
            with_it = dict(zip(IDENTITY, mine)) | made_of(detector, folder)
            rows += [with_it | row for row in
                     rows_of(mine[-1], detector, folder, test)]
            asked.out.mkdir(parents=True, exist_ok=True)
            write_json(path, rows)


def every(asked: argparse.Namespace
          ) -> Iterator[tuple[tuple, Path, Callable[[], Detector]]]:
    """Each network's IDENTITY, its data, and what makes its detector."""
    for run, saved, data, vae in step_rules.finished(asked.of, "clean"):
        for trained, made in networks_of(run, saved, data, asked.out, vae):
            yield (run["category"], run["seed"], trained), data, made
    for name in PRODUCTS if asked.shipped else ():
        made = partial(Detector.from_pretrained, WEIGHTS / name, device="cpu")
        yield (name, 0, PLAIN), asked.shipped / name, made


def made_of(detector: Detector, data: Path) -> dict:
    """Data, weights, training, versions and commit."""
    networks = detector.networks
    weights = {name: weights_hash(getattr(networks, name))
               for name in ("unet", "phi", "vae")}
    return {"data": fingerprint(data), "weights": weights,
            "training": detector.record.get("training"), "versions": versions(),
            "commit": commit()}


# --- the tables

def compared(rows: list[dict], by: str, names: tuple[str, ...], head: tuple[str, ...],
             cell_of: Callable[[dict], tuple]) -> str:
    """I-AUROC / PRO of each name of `by`, means over the seeds, a row a cell; below, in
    how many of the figures each is above the first.
    """
    found: dict[tuple, dict] = {}
    for row in rows:
        of = found.setdefault(cell_of(row), {}).setdefault(row[by], [])
        of.append([row[name] for name in METRICS])
    lines, above = [], dict.fromkeys(names[1:], 0)
    for cell, of in sorted(found.items()):
        if not {*names} <= {*of}:               # not all were asked of it
            continue
        means = {name: np.mean(of[name], 0) for name in names}
        lines.append([*map(str, cell), *(" / ".join(map("{:.3f}".format, means[name]))
                                         for name in names), len(of[names[0]])])
        for name in above:
            above[name] += int((means[name] > means[names[0]]).sum())
    told = ", ".join(f"*{name}* in {n}" for name, n in above.items())
    return (compact(table([*head, *names, "seeds"], lines))
            + f"\n\nOf {2 * len(lines)} figures, above *{names[0]}*: {told}.")


def by_form(rows: list[dict]) -> str:
    plain = [row for row in rows if row["trained"] == PLAIN and row["rule"] in RULES]
    forms = (*dict.fromkeys(row["form"] for row in plain),)
    return compared(plain, "form", forms, ("data", "steps by", "$T_{max}$"), lambda row:
                    (name_of(row["category"]), row["rule"], row["T_max"]))


def by_network(rows: list[dict]) -> str:
    region = [row for row in rows if (row["rule"], row["form"]) == (RULES[0], RANGE)]
    return compared(region, "trained", (PLAIN, ON_PATCHES, MAPPED),
                    ("data", "$T_{max}$"),
                    lambda row: (name_of(row["category"]), row["T_max"]))


def by_one_call(rows: list[dict]) -> str:
    return compared([row for row in rows if row["rule"] == ONE_CALL], "trained",
                    (PLAIN, ON_PATCHES), ("data",),
                    lambda row: (name_of(row["category"]),))


def _of(make: Callable[[list[dict]], str]) -> Callable[[], str]:
    return lambda: make(load(NAME)) if recorded(NAME) else "Not run yet."


TABLES = {f"{NAME}_{name}": _of(make) for name, make in (
    ("forms", by_form), ("networks", by_network), ("one_call", by_one_call))}


if __name__ == "__main__":
    main()
