"""What a training is refused for before its time is spent."""
from __future__ import annotations

from collections.abc import Iterable

from .errors import SettingsError


def as_trained(detector, settings, shaping: Iterable[str], *own) -> None:
    """SettingsError for other `shaping` settings than the detector was trained with,
    ValueError for `own` networks.
    """
    if any(one is not None for one in own):
        raise ValueError("a vae or unet beside like, which has both: give one of them")
    trained = [name for name in shaping
               if getattr(settings, name) != getattr(detector.settings, name)]
    if trained:
        raise SettingsError(f"setting {', '.join(trained)}: the networks were trained "
                            "with another value; train anew instead")


def enough_images(train, good, settings) -> None:
    """ValueError for too few images to train on, or none held out that has to be."""
    if len(train) < (needed := settings.neighbours + 1):
        raise ValueError(f"{len(train)} training images are fewer than neighbours + 1 "
                         f"= {needed}; add images, or lower neighbours or held_out")
    if not len(good) and (settings.map_range == "held-out" or settings.by_patch):
        raise ValueError(f"setting held_out: {settings.held_out:g} of {len(train)} "
                         "images is none of them; raise it, or add images")
