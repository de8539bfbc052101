"""What a detector's promise holds for: whether new images are like the good ones that
it is of, and how rare p can call an image.
"""
from __future__ import annotations

import math

FEWEST = 8                  # images, before anything is said of them
WHAT = {
    "farther": "lie farther from the training images than nine of ten held-out good "
               "ones did: another place, light, camera or product, or most are "
               "defective",
    "darker": "are darker than nine of ten held-out good ones were: other light raises "
              "misses, not alarms",
    "brighter": "are brighter than nine of ten held-out good ones were: other light "
                "may raise misses as well as alarms",
}


def doubts(record: dict, lines: list[dict]) -> list[str]:
    """A sentence for each way in which the images are unlike the held-out good ones:
    half of them or more, at least FEWEST, lie beyond nine of ten of those.

    record: the detector's; lines: of `folder.inspect`. Of a detector that did not keep
    the limits, or has fewer than 9 held-out images, nothing is said. By chance, of good
    images drawn as the held-out ones were, each way is said of 8 images in at most 3%
    of cases, of 12 in at most 2%, of 24 in 1%: any order of new and held-out ones is
    as likely.
    """
    found = record.get("held_out_distances")
    found = found if isinstance(found, dict) else {}
    far, dark, bright = (found.get(name) for name in ("far", "dark", "bright"))
    beyond = {"farther": ("distance", lambda value: value > far, far),
              "darker": ("level", lambda value: value < dark, dark),
              "brighter": ("level", lambda value: value > bright, bright)}
    said = []
    for way, (key, is_beyond, limit) in beyond.items():
        values = [line[key] for line in lines if line.get(key) is not None]
        if not isinstance(limit, float) or math.isnan(limit) or len(values) < FEWEST:
            continue
        n = sum(map(is_beyond, values))
        if 2 * n >= len(values):
            said.append(f"{n} of {len(values)} images {WHAT[way]}; what the threshold "
                        "promises does not hold for them")
    return said


def limits(detector, lines: list[dict]) -> str:
    """The smallest p that there can be, and the promised rate; "" where lines have no
    p. Beyond the highest held-out score, the score alone tells images apart.
    """
    rates = [line["rate"] for line in lines if line.get("p") is not None]
    if not rates:
        return ""
    M = len(detector.held_out_scores)
    return (f"p cannot be smaller than {1 / (M + 1):.3g}, one in {M + 1}, as {M} "
            f"images were held out; {rates[0]:.1%} false alarms are promised")
