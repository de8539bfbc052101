"""The first page: film and diagram are those of the code, the plan is an hour."""
import re
from dataclasses import asdict
from pathlib import Path

import data_flow
import front_door
import make_live
import nbformat
import numpy as np
import pytest
import torch
from test_chapters import found

from ddad.anomaly_map import Ranges
from ddad.deploy.overlays import pixels
from ddad.detector import Detector
from ddad.synthetic.products import image_seed
from ddad.synthetic.weights import WEIGHTS

ROOT = Path(__file__).parents[2]
INTRO = (ROOT / "book/intro.md").read_text(encoding="utf-8")
PLAN = re.findall(r"^- \*\*(\d+) minutes:\*\* (.*(?:\n  .*)*)", INTRO, re.M)


@pytest.fixture(scope="module")
def detector():
    return Detector.from_pretrained(WEIGHTS / make_live.PRODUCT, device="cpu")


@pytest.fixture(scope="module")
def live():
    return make_live.shipped()


@pytest.fixture(scope="module")
def frames(detector):
    return front_door.film(detector)


def test_the_film_is_what_the_detector_does(frames):
    assert front_door.apart(frames, front_door.FILM) < front_door.APART


def test_another_film_is_noticed(frames):
    whole, fewer = frames.copy(), frames.copy()
    whole[-1, :, :128] = frames[0, :, :128]                 # the part is not missing
    fewer[2] = frames[1]                                    # not decoded
    for other in (whole, fewer, frames[:-1]):
        assert front_door.apart(other, front_door.FILM) > front_door.APART


def test_the_page_shows_every_frame(frames):
    number, height, width, _ = frames.shape
    assert f"--frames: {number}" in INTRO
    assert f'width="{width}" height="{number * height}"' in INTRO
    style = (ROOT / "book/static/front_door.css").read_text(encoding="utf-8")
    assert f"steps({number - 3}, jump-none)" in style
    assert front_door.FILM.stat().st_size < 150_000


def test_the_diagram_is_current():
    assert front_door.FLOW.read_text(encoding="utf-8") == data_flow.page_of_both()


@pytest.mark.parametrize("name", data_flow.BOXES)
def test_a_box_leads_to_what_is_there(name):
    box = data_flow.BOXES[name]
    path = ROOT / f"notebooks/{data_flow.CHAPTERS[box.chapter]}.ipynb"
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
    own = [box.equation] * bool(box.equation)
    own += [label for *_, label in data_flow.ROUND] * (name == "loop")
    assert all(f"$$ ({label})" in text for label in own)
    assert not box.function or callable(found(box.function))


@pytest.mark.parametrize("layout", (data_flow.WIDE, data_flow.NARROW),
                         ids=lambda layout: layout.name)
def test_boxes_do_not_overlap(layout):
    width, height = layout.size
    assert layout.at.keys() == data_flow.BOXES.keys()
    taken = np.zeros((height, width), int)
    for name, (x, y) in layout.at.items():
        w, h = ((layout.loop, 112) if name == "loop"
                else (data_flow.WIDTH, data_flow.HEIGHT))
        assert x + w <= width and y + h <= height
        taken[y : y + h, x : x + w] += 1
    assert taken.max() == 1


def test_the_hurried_need_an_hour():
    assert sum(int(minutes) for minutes, _ in PLAN) == 60


@pytest.mark.parametrize("part", [part for _, part in PLAN if "notebooks/" in part])
def test_the_sections_of_the_plan_are_there(part):
    path = ROOT / re.search(r"notebooks/\w+\.ipynb", part)[0]
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
    named = re.findall(r'"([^"]+)"', " ".join(part.split()))
    assert [name for name in named if f"## {name}" not in text] == []


def put_back(detector, index, **changes) -> float:
    """Of a missing connector, the share that a repainting of a board puts back: 0 for
    bare board, 1 for all of it.
    """
    good, bare, owner, parts = make_live.with_and_without(
        image_seed(make_live.PRODUCT, "test_good", index))
    place = owner == 1 + [part["name"] for part in parts].index("connector")
    x0 = make_live.as_x0(np.where(place[..., None], bare, good))
    if changes:
        other = detector.under(detector.settings.change(**changes))
        x0_hat = other.predict(x0).reconstruction
    else:
        x0_hat = detector.projection.decode(detector.projection.encode(x0))
    missing, made = (one[place].astype(float) - bare[place]
                     for one in (good, pixels(x0_hat[0])))
    return (made * missing).sum() / (missing ** 2).sum()


@pytest.mark.parametrize("index", (1, 2, 3, 4))
def test_the_live_page_shows_a_ghost_and_then_the_part(live, index):
    """As its second thing to try says, on the boards that its gallery can hold."""
    decoded, ghost = put_back(live, index), put_back(live, index, T_max=10)
    back = put_back(live, index, T_max=160)
    assert abs(decoded) < 0.05 < 0.1 < ghost < 0.2 and back > 0.5


def test_the_live_page_is_told_each_rule_by_what_differs(live):
    other = live.under(live.settings.change(step_rule="image", guidance=4.0))
    other.ranges, other.held_out_scores = Ranges((0, 1), (0, 2)), torch.ones(20)
    own, paper = make_live.told({"region": live, "image": other})
    assert own == {"changes": {}, "ranges": asdict(live.ranges),
                   "threshold": live.threshold}
    assert paper["changes"] == {"step_rule": "image", "guidance": 4.0}
    assert paper["ranges"] == {"latent": (0, 1), "feature": (0, 2),
                               "patch": live.ranges.patch}
    assert paper["threshold"] == 1.0
