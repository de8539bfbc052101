"""Opens the live page in headless Chromium and breaks a board: does the detector find it there, and compute what PyTorch computes?

    python book/check_live.py [--pictures FOLDER]

Needs `make book` first, and Chromium with its driver. Fails unless

- on 20 pictures the page's detector gives the bin, the score (within 1%) and the map (within 0.01) of `Detector.predict`, by its own
  settings, and on 4 of them by others;
- a part taken away, by mouse, by keyboard and by finger, raises the score above the threshold and the map is largest inside it; the reset
  brings the score back;
- every other tool changes the score and Undo brings it back; each setting is obeyed and the button for the detector's own undoes it; a
  picture of the reader's own scores what `Detector.predict` gives its file;
- a detection takes less than 4 s, during which the page goes on drawing; less than 25 MB are loaded; nothing is asked of another host
  (the pages are served with a policy that forbids and reports it); the console stays clean; a phone's page is no wider than the phone.
"""
import argparse
import base64
import functools
import http.server
import json
import sys
import threading
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from check_site import SCHEMES, WIDTHS, browser
from make_live import LIMIT, PRODUCT, SITE, SIZE, as_x0, seed_of
from PIL import Image

from ddad.detector import Detector
from ddad.embedded import WEIGHTS
from ddad.products import plan, render

MAP, SCORE, SECONDS, GAP = 1e-2, 0.01, 4.0, 250      # the last one in milliseconds
VARIANTS = ({"T_max": 160, "guidance": 1.5, "lam": 0.3}, {"call_every": 4, "latent_blur": 1.0},
            {"dynamic": False, "static_first_step": "zeroed", "first_call": "below"},
            {"z0_from": "e", "align_corners": True, "edge_bin": "lower", "level_rounding": "half-up"})

# Speaks to a worker as the page does, and keeps what it answers.
WORKER = """
const [files, done] = [await (await fetch('/book/live/files.json')).json(), arguments[arguments.length - 1]];
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
const [pixels, settings, done] = arguments;
const levels = Uint8Array.from(atob(pixels), c => c.charCodeAt(0)), x0 = Float32Array.from(levels, v => v / 127.5 - 1);
const found = await window.ask({type: 'detect', id: 0, x0, settings});
const text = array => { let s = ''; for (const byte of new Uint8Array(array.buffer)) s += String.fromCharCode(byte); return btoa(s); };
done({score: found.score, b: found.b, T_hat: found.T_hat, d: found.d, seconds: found.seconds, A: text(found.A), x0_hat: text(found.x0_hat)});
"""


def asynchronous(driver, script: str, *arguments):
    """The value that an async script hands to its last argument; RuntimeError with what it throws instead."""
    caught = f"(async function () {{ {script} }}).apply(null, arguments).catch(error => arguments[arguments.length - 1]({{failed: String(error)}}))"
    value = driver.execute_async_script(caught, *arguments)
    if isinstance(value, dict) and "failed" in value:
        raise RuntimeError(value["failed"])
    return value


def fixtures() -> np.ndarray:
    """Ten good and ten defective test pictures of the board, (20, SIZE, SIZE, 3) uint8."""
    good = [render(PRODUCT, SIZE, seed_of(n))[0] for n in range(10)]
    return np.stack(good + [render(PRODUCT, SIZE, seed_of(n, 2), *plan(PRODUCT, n, 0))[0] for n in range(10)])


def parity(driver, detector: Detector) -> list[str]:
    """Where the page's detector and Detector.predict part, over all pictures and settings."""
    pictures, said = fixtures(), []
    x0 = torch.cat([as_x0(pixels) for pixels in pictures])
    print("networks run by", asynchronous(driver, WORKER))
    for changes in ({}, *VARIANTS):
        chosen = range(20) if not changes else range(8, 12)
        expected = detector.under(detector.settings.change(**changes)).predict(x0[list(chosen)])
        maps, scores, repainted, bins, seconds = [], [], [], 0, []
        for row, n in enumerate(chosen):
            flat = base64.b64encode(pictures[n].transpose(2, 0, 1).tobytes()).decode()
            found = asynchronous(driver, DETECT, flat, changes)
            A, x0_hat = (np.frombuffer(base64.b64decode(found[name]), np.float32) for name in ("A", "x0_hat"))
            maps.append(np.abs(A.reshape(SIZE, SIZE) - expected.map[row].numpy()).max())
            repainted.append(np.abs(x0_hat.reshape(3, SIZE, SIZE) - expected.reconstruction[row].numpy()).max())
            scores.append(abs(found["score"] / expected.score[row].item() - 1))
            bins += found["b"] == expected.bin[row].item() and found["T_hat"] == expected.T_hat[row].item()
            seconds.append(found["seconds"])
        name = json.dumps(changes) if changes else "own settings"
        print(f"{name}: {len(chosen)} pictures, same bin and step on {bins}; largest difference of a map {max(maps):.1e}, "
              f"of a score {max(scores):.4%}, of a repainted pixel {max(repainted):.1e}; median {np.median(seconds):.2f} s")
        if bins < len(chosen) or max(maps) >= MAP or max(scores) >= SCORE:
            said.append(f"{name}: differs from PyTorch")
    return said


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves the site with a policy that allows this host only; counts bytes, and keeps what the browser reports."""

    sent, paths, reports = 0, [], []

    def log_message(self, *_):
        pass

    def end_headers(self):
        self.send_header("Content-Security-Policy", "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
                         "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; report-uri /report")
        super().end_headers()

    def do_POST(self):
        Server.reports.append(self.rfile.read(int(self.headers["Content-Length"])).decode()[:300])
        self.send_response(204)
        self.end_headers()

    def copyfile(self, source, outputfile):
        content = source.read()
        Server.sent += len(content)
        Server.paths.append(self.path)
        outputfile.write(content)


# Notes, for each press, the longest time between two frames until its answer is drawn, and the seconds to its answer.
WATCH = """
const root = document.querySelector('#live');
window.watched = {gaps: [], seconds: []};
let before = performance.now(), was = false, pressed = null, gap = 0;
const frame = () => {
  const now = performance.now();                                        // a frame's own time stamp may lie before what delayed it
  const working = root.dataset.state === 'working';
  if (working || was) gap = Math.max(gap, now - before);                // the frame after the answer, too, which it may delay
  if (was && !working) { watched.gaps.push(gap); gap = 0; }
  [before, was] = [now, working];
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
new MutationObserver(() => {
  if (root.dataset.state === 'working') pressed ??= performance.now();
  else if (pressed) { watched.seconds.push((performance.now() - pressed) / 1000); pressed = null; }
}).observe(root, {attributeFilter: ['data-state']});
"""
PLACE = """
const surface = document.querySelector('#live-surface');
surface.scrollIntoView({block: 'center', behavior: 'instant'});
const {left, top, width} = surface.getBoundingClientRect();
return [left, top, width];
"""
SET = """
const input = document.querySelector(`[data-setting=${arguments[0]}]`);
input.value = arguments[1];
input.dispatchEvent(new Event('input'));
"""


class Page:
    """The live page in a browser, started."""

    def __init__(self, driver, host: str, width: int, scheme: str):
        self.driver, self.width = driver, width
        self.resize(900)
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        driver.get(f"{host}/book/live.html")
        self.wait("return !document.querySelector('.live-start').hidden")
        self.early = [path for path in Server.paths if "/ort/" in path or "/model/" in path]
        driver.execute_script(WATCH)
        driver.find_element("id", "live-start").click()
        self.answer()

    def resize(self, height: int) -> None:
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": self.width, "height": height, "deviceScaleFactor": 1, "mobile": self.width < 600})

    def wait(self, script: str) -> None:
        for _ in range(1200):
            if self.driver.execute_script(script):
                return
            time.sleep(0.05)
        raise RuntimeError(f"waited for a minute for: {script}")

    def answer(self) -> dict:
        """What the page says once it has detected: state, score, threshold, peak."""
        self.wait("return ['ready', 'failed'].includes(document.querySelector('#live').dataset.state)")
        said = self.driver.execute_script("return {...document.querySelector('#live').dataset}")
        if said["state"] == "failed":
            raise RuntimeError(self.driver.find_element("css selector", ".live-error").text)
        return {"score": float(said["score"]), "threshold": float(said["threshold"]), "peak": [int(v) for v in said["peak"].split(",")]}

    def press(self, x: float, y: float) -> dict:
        """A press on a pixel of the picture, by mouse or by finger; the answer to it."""
        left, top, side = self.driver.execute_script(PLACE)
        at = {"x": left + (x + 0.5) / SIZE * side, "y": top + (y + 0.5) / SIZE * side}
        if self.width < 600:
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            for kind in ("mousePressed", "mouseReleased"):
                self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **at, "button": "left", "clickCount": 1})
        return self.answer()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> dict:
        """A stroke on the picture with the mouse; the answer to it."""
        left, top, side = self.driver.execute_script(PLACE)
        points = [{"x": left + x / SIZE * side, "y": top + y / SIZE * side} for x, y in np.linspace(start, end, 8).tolist()]
        for n, at in enumerate([points[0], *points, points[-1]]):
            kind = "mousePressed" if n == 0 else "mouseReleased" if n == 9 else "mouseMoved"
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **at, "button": "left", "buttons": 1, "clickCount": 1})
        return self.answer()

    def click(self, selector: str) -> dict:
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)
        return self.answer()

    def type(self, x: float, y: float) -> dict:
        """The same by keyboard: from the middle, where the mark begins, two pixels an arrow; then Space."""
        from selenium.webdriver.common.keys import Keys
        surface = self.driver.find_element("id", "live-surface")
        dx, dy = round((x - SIZE / 2) / 2), round((y - SIZE / 2) / 2)
        surface.send_keys((Keys.ARROW_RIGHT if dx > 0 else Keys.ARROW_LEFT) * abs(dx) + (Keys.ARROW_DOWN if dy > 0 else Keys.ARROW_UP) * abs(dy))
        surface.send_keys(Keys.SPACE)
        surface.send_keys(Keys.SPACE)
        return self.answer()

    def shoot(self, path: Path) -> None:
        """A picture of the whole page."""
        self.wait("return [...document.querySelectorAll('.live-steps canvas')].every(c => c.width === 128)")
        self.resize(int(self.driver.execute_script("scrollTo(0, 0); return document.querySelector('article').scrollHeight")) + 250)
        time.sleep(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.driver.get_screenshot_as_png())
        self.resize(900)


def breaking(page: Page, shown: dict, expected: float, named: tuple[str, ...], by: str) -> list[str]:
    """Takes parts of a board away, one at a time, and resets it; what went wrong. expected: the score of the whole board."""
    said, owner, whole = [], np.asarray(Image.open(SITE / shown["parts"])), page.answer()
    if not abs(whole["score"] / expected - 1) < SCORE or whole["score"] > whole["threshold"]:
        said.append(f"the whole board scores {whole['score']:.4f}, not {expected:.4f} below the threshold {whole['threshold']:.4f}")
    for name in named:
        number = 1 + [part["name"] for part in shown["list"]].index(name)
        x0, y0, x1, y1 = shown["list"][number - 1]["box"]
        broken = getattr(page, by)((x0 + x1) // 2, (y0 + y1) // 2)
        x, y = broken["peak"]
        back = page.click("#live-reset")
        print(f"{page.width} px, {by}: without its {name} the board scores {broken['score']:.2f} (threshold {broken['threshold']:.2f}), the map is "
              f"largest at {x}, {y}, {'inside' if owner[y, x] == number else 'OUTSIDE'} the part; reset, {back['score']:.2f}")
        said += [f"{by}: the board without its {name} passes"] * (broken["score"] <= broken["threshold"])
        said += [f"{by}: the map of the board without its {name} is largest elsewhere"] * bool(owner[y, x] != number)
        said += [f"{by}: reset, the board scores {back['score']:.4f}, not {whole['score']:.4f}"] * (abs(back["score"] - whole["score"]) > 1e-6)
    return said


def controls(page: Page, shown: dict, detector: Detector) -> list[str]:
    """Uses every other tool and setting, and opens a file; what went wrong."""
    said, whole, x0 = [], page.answer()["score"], as_x0(np.asarray(Image.open(SITE / shown["good"])))
    for tool, stroke in (("brush", ((20, 90), (60, 40))), ("scratch", ((20, 110), (110, 60))), ("stain", ((100, 100), (100, 100)))):
        page.driver.execute_script("document.querySelector(`[name=live-tool][value=${arguments[0]}]`).click()", tool)
        scored, back = page.drag(*stroke)["score"], page.click("#live-undo")["score"]
        print(f"{tool}: score {scored:.2f}, undone {back:.2f}")
        said += [f"{tool}: score {scored:.4f}, undone {back:.4f}, whole {whole:.4f}"] * (scored <= whole or abs(back - whole) > 1e-6)
    page.driver.execute_script("document.querySelector('[name=live-tool][value=copy]').click()")
    left, top, right, bottom = next(part["box"] for part in shown["list"] if part["name"] == "film")
    page.drag((left, top), (right, bottom))
    scored = page.press(30, 100)["score"]
    print(f"a part pasted elsewhere: score {scored:.2f}")
    said += [f"pasting a part changes the score from {whole:.4f} to {scored:.4f}"] * (scored <= whole)
    page.click("#live-reset")
    for name, value in (("T_max", 160), ("guidance", 0), ("lam", 0.2), ("dynamic", False)):
        page.driver.execute_script(SET, name, json.dumps(value))
        scored, expected = page.answer()["score"], detector.under(detector.settings.change(**{name: value})).predict(x0).score.item()
        said += [f"{name} = {value}: score {scored:.4f}, not {expected:.4f}"] * (not abs(scored / expected - 1) < SCORE)
        said += [f"{name}: not undone"] * (abs(page.click("#live-own")["score"] - whole) > 1e-6)
    page.driver.execute_script(SET, "noise", "true")
    said += ["noise changes nothing"] * (page.answer()["score"] == whole)
    page.click("#live-own")
    page.driver.find_element("id", "live-file").send_keys(str(SITE / shown["bare"]))
    page.wait("return document.querySelector('#live').dataset.verdict === 'anomalous'")
    scored, expected = page.answer()["score"], detector.predict(as_x0(np.asarray(Image.open(SITE / shown["bare"])))).score.item()
    print(f"a file of the reader's own: score {scored:.4f}, by the package {expected:.4f}")
    said += [f"a file scores {scored:.4f}, not {expected:.4f}"] * (not abs(scored / expected - 1) < SCORE)
    return said


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=Path, help="folder for a picture of the page, wide and as on a phone, light and dark")
    given = options.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(SITE.parent.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    try:
        driver = browser()
    except RuntimeError as error:
        print(error)
        return 2
    driver.set_script_timeout(120)
    try:
        shown = json.loads((SITE / "files.json").read_text(encoding="utf-8"))["gallery"][0]
        detector = Detector.from_pretrained(WEIGHTS / PRODUCT, device="cpu")
        expected = detector.predict(as_x0(np.asarray(Image.open(SITE / shown["good"])))).score.item()
        page = Page(driver, host, 1280, "light")
        loaded = Server.sent
        said = [f"loaded before the start: {path}" for path in page.early]
        said += breaking(page, shown, expected, ("chip", "ic", "connector"), "press") + breaking(page, shown, expected, ("chip",), "type")
        said += controls(page, shown, detector)
        gaps, seconds = driver.execute_script("return [watched.gaps, watched.seconds]")
        said += breaking(Page(driver, host, 390, "dark"), shown, expected, ("chip",), "press")
        width = driver.execute_script("return document.documentElement.scrollWidth")
        said += [f"on a phone of 390 px the page is {width} px wide"] * (width > 390)
        median, gap = float(np.median(seconds)), float(np.median(gaps))  # the longest say more about what else the machine does
        print(f"{len(seconds)} detections, from the press to the answer: median {median:.2f} s, longest {max(seconds):.2f} s; longest time between "
              f"two frames in each: median {gap:.0f} ms, longest {max(gaps):.0f} ms; {loaded / 1e6:.1f} MB loaded, the site's own scripts included")
        said += [f"a detection took {median:.2f} s"] * (not median < SECONDS) + [f"the page did not draw for {gap:.0f} ms"] * (gap > GAP)
        said += [f"{loaded / 1e6:.1f} MB were loaded"] * (loaded > LIMIT) + [f"asked another host: {report}" for report in Server.reports]
        said += parity(driver, detector)
        # Chromium itself notes that this machine has no graphics card, which is why WebAssembly computes
        said += [f"console: {entry['message'][:200]}" for entry in driver.get_log("browser")
                 if entry["level"] in ("SEVERE", "WARNING") and "No available adapters" not in entry["message"]]
        for width, scheme in product(WIDTHS, SCHEMES) if given.pictures else ():
            page = Page(driver, host, width, scheme)
            x0, y0, x1, y1 = next(part["box"] for part in shown["list"] if part["name"] == "chip")
            page.press((x0 + x1) // 2, (y0 + y1) // 2)
            page.shoot(given.pictures / f"live_{width}_{scheme}.png")
    except RuntimeError as error:
        said = [str(error)]
    driver.quit()
    print("\n".join(said) or "the live page: fine")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
