"""What a saved detector's folder holds, and its record in JSON; read without torch."""
from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from .errors import ModelError
from .files import replaceable

MANIFEST, STATE, CARD = "manifest.json", "state.safetensors", "README.md"
RESULTS = "results.json"        # of an evaluation: gone with the detector it is of
FORMAT = 2
BOUND = ("settings", "scale", "ranges", "held_out_scores", "threshold")
UNET = "unet/diffusion_pytorch_model.safetensors"


def read_manifest(folder: str | Path) -> dict:
    """manifest.json of a saved detector. ModelError where there is none."""
    path = Path(folder) / MANIFEST
    if not os.path.isfile(path):
        if os.path.isfile(inner := Path(folder) / "detector" / MANIFEST):
            raise ModelError(f"{folder} is what `ddad inspect` wrote; its detector is "
                             f"{inner.parent}: give that")
        raise ModelError(f"{folder} holds no {MANIFEST}: give the folder of a detector "
                         "saved by `ddad train`")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is no JSON ({error}); copy the folder again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{path} is no manifest of format {FORMAT}; it was made by "
                         "another version of ddad, or by another program")
    return manifest


def bound(manifest: dict) -> str:
    """A hash of what belongs together: scores and ranges are of these settings."""
    text = json.dumps({name: manifest[name] for name in BOUND}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_bound(manifest: dict) -> None:
    """ValueError where one of them was changed after it was saved, as by hand; a
    manifest without the hash is of an older version.
    """
    if manifest["sha256"].get("bound") not in (None, bound(manifest)):
        raise ValueError(f"{MANIFEST}: {', '.join(BOUND)} belong together, and one was "
                         "changed by hand; `ddad train --from` makes them anew")


def may_hold(folder: Path) -> None:
    """FileExistsError when `folder` holds something else than a saved detector, which
    saving would delete.
    """
    own = {STATE, CARD, Path(UNET).parts[0], RESULTS}
    replaceable(folder, MANIFEST, own, "saved detector")


def versions() -> dict:
    """Versions that shape a result: Python, the packages that compute, and this one."""
    packages = ("ddad", "torch", "diffusers", "numpy")
    own = {"python": platform.python_version()}
    return own | {name: version(name) for name in packages}
