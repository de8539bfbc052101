"""Opens the live page in headless Chromium and breaks a board.

    python book/tools/check_live.py [--pictures FOLDER]

Does the detector find it there, and compute what PyTorch computes? Needs `make book`
first, and Chromium with its driver. Fails unless

- on 20 images the page's detector gives by each step rule (a region, an image, static)
  the bin, the steps, the score (within 1%) and the map (within 0.01) of
  `Detector.predict`, by the rule's own settings, and on 4 of them by others; the page
  shows the steps and moves them with T_max;
- a part taken away, by mouse, by keyboard and by finger, raises the score above the
  threshold and the map is largest inside it; the reset brings the score back;
- every other tool changes the score and Undo brings it back; each setting and step
  rule is obeyed, and the button for the rule's own settings undoes them; an image of
  the reader's own scores what `Detector.predict` gives its file;
- a detection takes less than 4 s, during which the page goes on drawing; less than 25
  MB are loaded; nothing is asked of another host (the pages are served with a policy
  that forbids and reports it); the console stays clean; a phone's page is no wider than
  the phone.
"""
import base64
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from check_site import SCHEMES, WIDTHS, browser, complaints, options_of, serve
from live_page import Page, Server
from make_live import LIMIT, PRODUCT, SITE, SIZE, Rules, as_x0, by_rule, shipped
from PIL import Image

from ddad.deploy.overlays import pixels
from ddad.synthetic.products import image_seed, plan, render

WIDE, PHONE = WIDTHS
MAP, SCORE, SECONDS = 1e-2, 0.01, 4.0
GAP = 250                    # milliseconds
# of each rule, on some images
VARIANTS = {
    "region": ({"T_max": 320, "smallest_bin": 4, "edge_bin": "lower", "guidance": 1.5,
                "patch_share": 0.6, "call_every": 4},),
    "image": ({"T_max": 160, "guidance": 1.5, "lam": 0.3},
              {"call_every": 4, "latent_blur": 1.0},
              {"z0_from": "e", "align_corners": True, "edge_bin": "lower",
               "level_rounding": "half-up"}),
    "static": ({"static_first_step": "zeroed", "first_call": "below"},)}

# Speaks to a worker as the page does, and keeps what it answers.
WORKER = """
const done = arguments[arguments.length - 1];
const files = await (await fetch('/book/live/files.json')).json();
window.ask = message => new Promise((resolve, reject) => {
  window.worker.onmessage = ({data}) => {
    if (data.type === 'error') reject(new Error(data.message));
    if (data.type === 'ready' || data.type === 'found') resolve(data);
  };
  window.worker.postMessage(message);
});
window.worker = new Worker('/book/live/worker.js', {type: 'module'});
const {device} = await window.ask({type: 'start', files});
done(device);
"""
DETECT = """
const [pixels, settings, ranges, done] = arguments;
const levels = Uint8Array.from(atob(pixels), c => c.charCodeAt(0));
const x0 = Float32Array.from(levels, v => v / 127.5 - 1);
const found = await window.ask({type: 'detect', id: 0, x0, settings, ranges});
const text = array => btoa(
  new Uint8Array(array.buffer).reduce((s, byte) => s + String.fromCharCode(byte), ''));
const {score, b, T_hat, T, seconds, A, x0_hat} = found;
done({score, b, T_hat, T, seconds, A: text(A), x0_hat: text(x0_hat)});
"""
# a script whose last argument is told its value, or what it throws instead
CAUGHT = """
const done = arguments[arguments.length - 1];
(async function () { %s }).apply(null, arguments)
  .catch(error => done({failed: String(error)}));
"""


def asynchronous(driver, script: str, *arguments):
    """The value of an async script; RuntimeError with what it throws instead."""
    value = driver.execute_async_script(CAUGHT % script, *arguments)
    if isinstance(value, dict) and "failed" in value:
        raise RuntimeError(value["failed"])
    return value


def opened(path: Path) -> torch.Tensor:
    """An image of the page, (1, 3, SIZE, SIZE) in [-1, 1]."""
    return as_x0(np.asarray(Image.open(path)))


def first_board(site: Path) -> dict:
    """The board that the page opens with: its images' paths, and the list of parts."""
    shown = json.loads((site / "files.json").read_text(encoding="utf-8"))["gallery"][0]
    return shown | {name: site / shown[name] for name in ("good", "bare", "parts")}


def off(value: float, expected: float) -> bool:
    """Whether a score is further than SCORE from what it should be, or no number."""
    return not abs(value / expected - 1) < SCORE


# as PyTorch computes

def fixtures() -> np.ndarray:
    """Ten good and ten defective images of the board, (20, SIZE, SIZE, 3) uint8."""
    good = [render(PRODUCT, SIZE, image_seed(PRODUCT, "test_good", n))[0]
            for n in range(10)]
    bad = [render(PRODUCT, SIZE, image_seed(PRODUCT, "test_defect", n),
                  *plan(PRODUCT, n, 0))[0] for n in range(10)]
    return np.stack(good + bad)


def by_page(driver, levels: np.ndarray, changes: dict, ranges: dict) -> dict:
    """What the page's detector finds in an image; map and reconstruction as arrays."""
    flat = base64.b64encode(levels.transpose(2, 0, 1).tobytes()).decode()
    found = asynchronous(driver, DETECT, flat, changes, ranges)
    for name, shape in (("A", (SIZE, SIZE)), ("x0_hat", (3, SIZE, SIZE))):
        array = np.frombuffer(base64.b64decode(found[name]), np.float32)
        found[name] = array.reshape(shape)
    return found


def parity(driver, rules: Rules) -> list[str]:
    """Where the page's detector and Detector.predict part: by each rule, on all images
    by its own settings, on some by its variants.
    """
    images, said = fixtures(), []
    x0 = torch.cat([as_x0(levels) for levels in images])
    print("networks run by", asynchronous(driver, WORKER))
    listed = json.loads((SITE / "files.json").read_text(encoding="utf-8"))["rules"]
    for (rule, detector), of_page in zip(rules.items(), listed):
        for changes in ({}, *VARIANTS[rule]):
            chosen = list(range(20) if not changes else range(8, 12))
            other = detector.under(detector.settings.change(**changes))
            expected = other.predict(x0[chosen])
            found = [by_page(driver, images[n], of_page["changes"] | changes,
                             of_page["ranges"]) for n in chosen]
            name = f"{rule}, {json.dumps(changes) if changes else 'own settings'}"
            if not same(found, expected, name):
                said.append(f"{name}: differs from PyTorch")
    return said


def same(found: list[dict], expected, name: str) -> bool:
    """Whether what the page found is what a Prediction holds; prints how far off."""
    rows = list(enumerate(found))
    largest = lambda differ: max(differ(one, n) for n, one in rows)
    maps = largest(lambda one, n: np.abs(one["A"] - expected.map[n].numpy()).max())
    pixels = largest(lambda one, n: np.abs(
        one["x0_hat"] - expected.reconstruction[n].numpy()).max())
    scores = largest(lambda one, n: abs(one["score"] / expected.score[n].item() - 1))
    bins = sum(one["b"] == expected.bin[n].item()
               and one["T_hat"] == expected.T_hat[n].item()
               and (expected.step_map is None
                    or one["T"] == expected.step_map[n].flatten().tolist())
               for n, one in rows)
    seconds = np.median([one["seconds"] for one in found])
    print(f"{name}: {len(found)} images, same bin and steps on {bins}; largest "
          f"difference of a map {maps:.1e}, of a score {scores:.4%}, of a "
          f"reconstructed pixel {pixels:.1e}; median {seconds:.2f} s")
    return bins == len(found) and maps < MAP and scores < SCORE


# as a reader uses it

def breaking(page: Page, shown: dict, expected: float, named: tuple[str, ...],
             by: str) -> list[str]:
    """Takes parts of a board away, one at a time, and resets it; what went wrong.

    expected: the score of the whole board.
    """
    said, whole = [], page.answer()
    if off(whole["score"], expected) or whole["score"] > whole["threshold"]:
        said.append(f"the whole board scores {whole['score']:.4f}, not {expected:.4f} "
                    f"below the threshold {whole['threshold']:.4f}")
    owner = np.asarray(Image.open(shown["parts"]))
    for name in named:
        number = 1 + [part["name"] for part in shown["list"]].index(name)
        x0, y0, x1, y1 = shown["list"][number - 1]["box"]
        broken = getattr(page, by)((x0 + x1) // 2, (y0 + y1) // 2)
        x, y = broken["peak"]
        inside, back = owner[y, x] == number, page.click("#live-reset")["score"]
        print(f"{page.width} px, {by}: without its {name} the board scores "
              f"{broken['score']:.2f} (threshold {broken['threshold']:.2f}), the map "
              f"is largest at {x}, {y}, {'inside' if inside else 'OUTSIDE'} the part; "
              f"reset, {back:.2f}")
        if broken["score"] <= broken["threshold"]:
            said.append(f"{by}: the board without its {name} passes")
        if not inside:
            said.append(f"{by}: the map without its {name} is largest elsewhere")
        if abs(back - whole["score"]) > 1e-6:
            said.append(f"{by}: reset, the board scores {back:.4f}, "
                        f"not {whole['score']:.4f}")
    return said


STROKES = {"brush": ((20, 90), (60, 40)), "scratch": ((20, 110), (110, 60)),
           "stain": ((100, 100), (100, 100))}


def tools(page: Page, shown: dict) -> list[str]:
    """Uses every other tool; what went wrong."""
    said, whole = [], page.answer()["score"]
    for tool, stroke in STROKES.items():
        page.choose(tool)
        scored = page.drag(*stroke)["score"]
        back = page.click("#live-undo")["score"]
        print(f"{tool}: score {scored:.2f}, undone {back:.2f}")
        if scored <= whole or abs(back - whole) > 1e-6:
            said.append(f"{tool}: score {scored:.4f}, undone {back:.4f}, "
                        f"whole {whole:.4f}")
    page.choose("copy")
    left, top, right, bottom = next(part["box"] for part in shown["list"]
                                    if part["name"] == "film")
    page.drag((left, top), (right, bottom))
    scored = page.press(30, 100)["score"]
    print(f"a part pasted elsewhere: score {scored:.2f}")
    if scored <= whole:
        said.append(f"a pasted part takes the score from {whole:.4f} to {scored:.4f}")
    page.click("#live-reset")
    return said


def controls(page: Page, shown: dict, rules: Rules) -> list[str]:
    """Uses every setting and step rule, and opens a file; what went wrong."""
    said, whole, x0 = [], page.answer()["score"], opened(shown["good"])
    detector = rules["region"]
    decoded = detector.projection.decode(detector.projection.encode(x0))
    if (off_by := np.abs(page.tile(1) - pixels(decoded[0]).astype(int)).max()) > 2:
        said.append(f"the frame that is decoded only is {off_by} levels off")
    changes = {"T_max": 160, "guidance": 2.5, "lam": 0.2, "patch_share": 0.6}
    for name, value in changes.items():
        scored = page.set(name, json.dumps(value))["score"]
        other = detector.under(detector.settings.change(**{name: value}))
        expected = other.predict(x0).score.item()
        if off(scored, expected):
            said.append(f"{name} = {value}: score {scored:.4f}, not {expected:.4f}")
        if abs(page.click("#live-own")["score"] - whole) > 1e-6:
            said.append(f"{name}: not undone")
    said += step_rules(page, x0, rules)
    scored = page.rule("image")["score"]                    # a region has no noise
    if page.set("noise", "true")["score"] == scored:
        said.append("noise changes nothing")
    page.rule("region")
    file = page.driver.find_element("id", "live-file")
    file.send_keys(str(shown["bare"]))
    page.wait("return document.querySelector('#live').dataset.verdict === 'anomalous'")
    scored = page.answer()["score"]
    expected = detector.predict(opened(shown["bare"])).score.item()
    print(f"a file of the reader's own: score {scored:.4f}, by the package "
          f"{expected:.4f}")
    if off(scored, expected):
        said.append(f"a file scores {scored:.4f}, not {expected:.4f}")
    return said


def step_rules(page: Page, x0: torch.Tensor, rules: Rules) -> list[str]:
    """Chooses each rule, and another T_max; what went wrong with scores, thresholds and
    the step map.
    """
    said, pictures = [], {}
    for rule, detector in rules.items():
        for changes in ({}, {"T_max": 160}):
            answer = page.rule(rule)
            for name, value in changes.items():
                answer = page.set(name, json.dumps(value))
            found = detector.under(detector.settings.change(**changes)).predict(x0)
            steps, pictures[rule, len(changes)] = page.step_map()
            T = found.T_hat if found.step_map is None else found.step_map
            if steps != T.unique().tolist():
                said.append(f"{rule}, {changes}: the legend has steps {steps}")
            if off(answer["score"], found.score.item()):
                said.append(f"{rule}, {changes}: score {answer['score']:.4f}, not "
                            f"{found.score.item():.4f}")
            if off(answer["threshold"], detector.threshold):
                said.append(f"{rule}: threshold {answer['threshold']:.4f}, not "
                            f"{detector.threshold:.4f}")
        print(f"{rule}: steps {steps}, threshold {answer['threshold']:.2f}")
    if len({*pictures.values()}) < len(pictures) - 1:       # two may have one step
        said.append("step maps of other rules or of another T_max are alike")
    page.rule("region")
    return said


def costs(driver, loaded: int) -> list[str]:
    """How long detections took, how long the page stood still, what was loaded."""
    script = "return [watched.gaps, watched.seconds]"
    gaps, seconds = driver.execute_script(script)
    # the longest say more about what else the machine does
    median, gap = float(np.median(seconds)), float(np.median(gaps))
    print(f"{len(seconds)} detections, from the press to the answer: median "
          f"{median:.2f} s, longest {max(seconds):.2f} s; longest time between two "
          f"frames in each: median {gap:.0f} ms, longest {max(gaps):.0f} ms; "
          f"{loaded / 1e6:.1f} MB loaded, the site's own scripts included")
    return ([f"a detection took {median:.2f} s"] * (not median < SECONDS)
            + [f"the page did not draw for {gap:.0f} ms"] * (gap > GAP)
            + [f"{loaded / 1e6:.1f} MB were loaded"] * (loaded > LIMIT))


def everything(driver, host: str, rules: Rules) -> list[str]:
    """All checks in turn; what went wrong."""
    shown = first_board(SITE)
    expected = rules["region"].predict(opened(shown["good"])).score.item()
    page = Page(driver, host, WIDE, "light")
    loaded = Server.sent
    said = [f"loaded before the start: {path}" for path in page.early]
    said += breaking(page, shown, expected, ("chip", "ic", "connector"), "press")
    said += breaking(page, shown, expected, ("chip",), "type")
    said += tools(page, shown) + controls(page, shown, rules)
    said += costs(driver, loaded)
    phone = Page(driver, host, PHONE, "dark")
    said += breaking(phone, shown, expected, ("chip",), "press")
    width = driver.execute_script("return document.documentElement.scrollWidth")
    if width > PHONE:
        said.append(f"on a phone of {PHONE} px the page is {width} px wide")
    said += [f"asked another host: {report}" for report in Server.reports]
    said += parity(driver, rules)
    # Chromium itself notes that this machine has no graphics card, which is why
    # WebAssembly computes
    return said + [one for one in complaints(driver)
                   if "No available adapters" not in one]


def shoot(driver, host: str, folder: Path) -> None:
    """Pictures of the page with its chip missing, wide and narrow, light and dark."""
    x0, y0, x1, y1 = next(part["box"] for part in first_board(SITE)["list"]
                          if part["name"] == "chip")
    for width, scheme in product(WIDTHS, SCHEMES):
        page = Page(driver, host, width, scheme)
        page.press((x0 + x1) // 2, (y0 + y1) // 2)
        page.shoot(folder / f"live_{width}_{scheme}.png")


def main() -> int:
    given = options_of(__doc__, "folder for a picture of the page, wide and as on a "
                       "phone, light and dark")
    host = serve(SITE.parent.parent, Server)
    try:
        driver = browser()
    except RuntimeError as error:
        print(error)
        return 2
    driver.set_script_timeout(120)
    try:
        if given.pictures:
            shoot(driver, host, given.pictures)
        said = everything(driver, host, by_rule(shipped()))
    except RuntimeError as error:
        said = [str(error)]
    driver.quit()
    print("\n".join(said) or "the live page: fine")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
