"""What detection, training and metrics cost beside the networks themselves: `ddad
bench`.

Two things are compared by a ratio of times taken in turns, in one run; the rest are
seconds, bytes and, for fewer U-Net calls, metrics. There the detectors are trained,
elsewhere untrained: a cost does not depend on weights. At the scale "laptop" the
networks are those of the preset "clean" with an AutoencoderTiny; at "paper" they have
the sizes of the preset "paper", with Stable Diffusion's autoencoder.
"""
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..detector import Detector
from ..runtime.devices import pick_device
from ..runtime.files import write_json
from ..runtime.manifest import versions
from ..settings import FAST, Settings
from ..synthetic.products import PRODUCTS, make
from ..synthetic.weights import WEIGHTS
from .overheads import memory, metric, scaling, start_up, together
from .rivals import candidates, rivals
from .speed import calls, detection, layouts, training
from .timing import SCALES

SECTIONS = dict(detection=detection, rivals=rivals, candidates=candidates,
                layouts=layouts, training=training, metric=metric, scaling=scaling,
                memory=memory, together=together, start_up=start_up)


def bench(out: Path, device: str = "auto", scale: str = "laptop",
          only: list[str] | None = None,
          curves: list[tuple[Detector, Path]] = ()) -> dict:
    """Measure and write out/bench.json, section by section as each is done; sections
    not asked for are kept. Returns its content.

    only: names of SECTIONS, or "calls", which is the curves of the embedded products.
    curves: trained detectors with the folders of their data; without `only` these are
    measured and nothing else. Raises ValueError for an unknown section or scale.
    """
    known = [*SECTIONS, "calls"]
    names = only or ([] if curves else known)
    if unknown := set(names) - set(known):
        raise ValueError(f"no section is called {', '.join(sorted(unknown))}; "
                         f"there are {', '.join(known)}")
    if scale not in SCALES:
        raise ValueError(f"no scale is called {scale!r}; there are {', '.join(SCALES)}")
    title = lambda name: name if scale == "laptop" else f"{name}, {scale}"
    measures = {title(name): partial(SECTIONS[name], out / "images", device, scale)
                for name in names if name != "calls"}
    if "calls" in names:
        curves = [*_embedded(out / "products", device), *curves]
    measures |= {f"calls, {data.name}": partial(calls, detector, data)
                 for detector, data in curves}
    path, made = out / "bench.json", _made_on(device, scale)
    found = {"sections": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    for name, measure in tqdm(measures.items(), "bench"):
        found["sections"][name] = measure() | {"made": made}
        found |= headline(found["sections"])
        write_json(path, found)
    return found


def _embedded(folder: Path, device: str) -> list[tuple[Detector, Path]]:
    """The shipped detectors, each with the data of its product."""
    make(folder)
    return [(Detector.from_pretrained(WEIGHTS / product, device=device),
             folder / product) for product in PRODUCTS]


def _made_on(device: str, scale: str) -> dict:
    where = pick_device(device)
    gpu = torch.cuda.get_device_name() if where.type == "cuda" else None
    return {"device": str(where), "gpu": gpu, "scale": scale,
            "threads": torch.get_num_threads(), "versions": versions()}


def headline(sections: dict) -> dict:
    """The figures asked about most, of the sections that are there."""
    calls_made = len(range(0, Settings.ddim_steps, FAST["call_every"]))
    figures = {"unet_calls_saved": Settings.ddim_steps / calls_made}
    detection = sections.get("detection", sections.get("detection, paper"))
    if detection:
        rows, where = detection["rows"], "gpu" if detection["made"]["gpu"] else "cpu"
        fastest = rows.get("fast, bfloat16, compiled", rows["fast, bfloat16"])
        figures |= {"detect_over_networks": rows["float32"]["over_networks"],
                    f"official_over_ours_{where}": fastest["official_over_ours"]}
    if "metric" in sections:
        figures["pro200_over_exact"] = sections["metric"]["pro200_over_exact"]
    return figures
