"""The live page in a browser: served, opened, used by mouse, keyboard and finger."""
import http.server
import time
from pathlib import Path

import numpy as np
from check_site import screen
from make_live import SIZE

POLICY = ("default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
          "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; report-uri /report")


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves the site with a policy that allows this host only.

    Counts bytes, and keeps what the browser reports.
    """

    sent, paths, reports = 0, [], []

    def log_message(self, *_):
        pass

    def end_headers(self):
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        Server.reports.append(self.rfile.read(length).decode()[:300])
        self.send_response(204)
        self.end_headers()

    def copyfile(self, source, outputfile):
        content = source.read()
        Server.sent += len(content)
        Server.paths.append(self.path)
        outputfile.write(content)


# Notes, for each press, the longest time between two frames until its answer is drawn,
# and the seconds to its answer.
WATCH = """
const root = document.querySelector('#live');
window.watched = {gaps: [], seconds: []};
let before = performance.now(), was = false, pressed = null, gap = 0;
const frame = () => {
  // a frame's own time stamp may lie before what delayed it
  const now = performance.now();
  const working = root.dataset.state === 'working';
  // the frame after the answer, too, which it may delay
  if (working || was) gap = Math.max(gap, now - before);
  if (was && !working) { watched.gaps.push(gap); gap = 0; }
  [before, was] = [now, working];
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
new MutationObserver(() => {
  if (root.dataset.state === 'working') pressed ??= performance.now();
  else if (pressed) {
    watched.seconds.push((performance.now() - pressed) / 1000);
    pressed = null;
  }
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
# the steps that the legend says are there, and the picture above it
STEP_MAP = """
const there = document.querySelectorAll('#live-legend span:not(.live-absent)');
return [[...there].map(e => Number(e.textContent)),
        document.querySelector('#live-stepmap').toDataURL()];
"""
CHOOSE = ("document.querySelector(`[name=live-${arguments[0]}]"
          "[value=${arguments[1]}]`).click()")
STARTS = "return !document.querySelector('.live-start').hidden"
ANSWERED = ("return ['ready', 'failed']"
            ".includes(document.querySelector('#live').dataset.state)")
SAID = "return {...document.querySelector('#live').dataset}"
TILE = """
const canvas = document.querySelectorAll('.live-steps canvas')[arguments[0]];
const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
return [...data];
"""
DRAWN = ("return [...document.querySelectorAll('.live-steps canvas')]"
         ".every(c => c.width === 128)")
HEIGHT = "scrollTo(0, 0); return document.querySelector('article').scrollHeight"


class Page:
    """The live page in a browser, started."""

    def __init__(self, driver, host: str, width: int, scheme: str):
        self.driver, self.width, self.scheme = driver, width, scheme
        self.resize(900)
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=self.is_phone)
        driver.get(f"{host}/book/live.html")
        self.wait(STARTS)
        self.early = [path for path in Server.paths
                      if "/ort/" in path or "/model/" in path]
        driver.execute_script(WATCH)
        driver.find_element("id", "live-start").click()
        self.answer()

    @property
    def is_phone(self) -> bool:
        return self.width < 600

    def cdp(self, command: str, **arguments) -> None:
        self.driver.execute_cdp_cmd(command, arguments)

    def resize(self, height: int) -> None:
        screen(self.driver, self.width, self.scheme, height)

    def wait(self, script: str) -> None:
        for _ in range(1200):
            if self.driver.execute_script(script):
                return
            time.sleep(0.05)
        raise RuntimeError(f"waited for a minute for: {script}")

    def answer(self) -> dict:
        """What the page says once it has detected: score, threshold, peak."""
        self.wait(ANSWERED)
        said = self.driver.execute_script(SAID)
        if said["state"] == "failed":
            error = self.driver.find_element("css selector", ".live-error")
            raise RuntimeError(error.text)
        return {"score": float(said["score"]), "threshold": float(said["threshold"]),
                "peak": [int(v) for v in said["peak"].split(",")]}

    def press(self, x: float, y: float) -> dict:
        """A press on a pixel of the image, by mouse or by finger; the answer to it."""
        left, top, side = self.driver.execute_script(PLACE)
        at = {"x": left + (x + 0.5) / SIZE * side, "y": top + (y + 0.5) / SIZE * side}
        if self.is_phone:
            touch = "Input.dispatchTouchEvent"
            self.cdp(touch, type="touchStart", touchPoints=[at])
            self.cdp(touch, type="touchEnd", touchPoints=[])
        else:
            for kind in ("mousePressed", "mouseReleased"):
                self.mouse(kind, at)
        return self.answer()

    def mouse(self, kind: str, at: dict, **more) -> None:
        self.cdp("Input.dispatchMouseEvent", type=kind, **at, button="left",
                 clickCount=1, **more)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> dict:
        """A stroke on the image with the mouse; the answer to it."""
        left, top, side = self.driver.execute_script(PLACE)
        points = [{"x": left + x / SIZE * side, "y": top + y / SIZE * side}
                  for x, y in np.linspace(start, end, 8).tolist()]
        self.mouse("mousePressed", points[0], buttons=1)
        for at in points:
            self.mouse("mouseMoved", at, buttons=1)
        self.mouse("mouseReleased", points[-1], buttons=1)
        return self.answer()

    def choose(self, tool: str) -> None:
        self.driver.execute_script(CHOOSE, "tool", tool)

    def rule(self, name: str) -> dict:
        """A step rule; the answer by its own settings."""
        self.driver.execute_script(CHOOSE, "rule", name)
        return self.click("#live-own")

    def set(self, name: str, value: str) -> dict:
        """Another value of a setting, as JSON; the answer to it."""
        self.driver.execute_script(SET, name, value)
        return self.answer()

    def click(self, selector: str) -> dict:
        script = "document.querySelector(arguments[0]).click()"
        self.driver.execute_script(script, selector)
        return self.answer()

    def step_map(self) -> tuple[list[int], str]:
        """The steps that the map has, and its picture as text."""
        return tuple(self.driver.execute_script(STEP_MAP))

    def type(self, x: float, y: float) -> dict:
        """A press by keyboard: from the middle, where the mark begins, two pixels an
        arrow; then Space.
        """
        from selenium.webdriver.common.keys import Keys
        surface = self.driver.find_element("id", "live-surface")
        dx, dy = round((x - SIZE / 2) / 2), round((y - SIZE / 2) / 2)
        across = (Keys.ARROW_RIGHT if dx > 0 else Keys.ARROW_LEFT) * abs(dx)
        down = (Keys.ARROW_DOWN if dy > 0 else Keys.ARROW_UP) * abs(dy)
        surface.send_keys(across + down)
        surface.send_keys(Keys.SPACE)
        surface.send_keys(Keys.SPACE)
        return self.answer()

    def tile(self, n: int) -> np.ndarray:
        """What frame n of the repainting shows, counted from the input; (SIZE, SIZE, 3)
        levels.
        """
        self.wait(DRAWN)
        levels = np.array(self.driver.execute_script(TILE, n))
        return levels.reshape(SIZE, SIZE, 4)[..., :3]

    def shoot(self, path: Path) -> None:
        """A picture of the whole page."""
        self.wait(DRAWN)
        self.resize(int(self.driver.execute_script(HEIGHT)) + 250)
        time.sleep(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.driver.get_screenshot_as_png())
        self.resize(900)
