"""Opens every page of the built site in headless Chromium, wide and as on a phone, light and dark: figures and their captions' contrast, mathematics,
console, requests, sliders.

    python book/check_site.py [--pictures FOLDER]

Needs `make book` first, and Chromium with its driver (Debian and Ubuntu: apt-get install chromium chromium-driver).
"""
import argparse
import base64
import functools
import http.server
import json
import shutil
import sys
import threading
import time
from itertools import product
from pathlib import Path

from check_pages import SITE, contents

WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
LOOK = """
const broken = [...document.images].filter(i => i.currentSrc && (!i.complete || i.naturalWidth == 0)).map(i => i.currentSrc.slice(0, 80));
const raw = [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container')).length;
const article = document.querySelector('article') || document.body;
const wide = [...article.querySelectorAll('img, figure, table, pre, mjx-container')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
  && ![...ancestors(e)].some(a => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(a).overflowX))).map(e => e.outerHTML.slice(0, 80));
function* ancestors(e) { while (e && e !== document.body) { yield e; e = e.parentElement; } }
const still = [...document.querySelectorAll('figure.ddad-frames')].filter(figure => {
  const input = figure.querySelector('input'), before = figure.querySelector('img').style.transform;
  if (input.max == 0) return false;
  input.value = input.value == 0 ? 1 : 0;
  input.dispatchEvent(new Event('input'));
  return figure.querySelector('img').style.transform == before;
}).length;
const luminance = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255).map(v => v > 0.04045 ? ((v + 0.055) / 1.055) ** 2.4 : v / 12.92)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
const ground = e => [...ancestors(e), document.body].map(a => getComputedStyle(a).backgroundColor).find(c => !/, 0\\)$/.test(c))
  || 'rgb(255, 255, 255)';
const faint = [...article.querySelectorAll('figcaption')].filter(e => {
  const pair = [luminance(getComputedStyle(e).color), luminance(ground(e))];
  return Math.max(...pair) / Math.min(...pair) < 4.5;                // WCAG 2.1, contrast (minimum)
}).length;
return {broken, raw, wide, still, faint};
"""


def browser():
    """Headless Chromium that logs its console and its requests; RuntimeError that says what to install."""
    from selenium import webdriver
    driver = shutil.which("chromedriver")
    if driver is None:
        raise RuntimeError("no chromedriver here: install Chromium and its driver (Debian, Ubuntu: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def visit(driver, address: str, host: str) -> list[str]:
    """What is wrong with one page."""
    driver.get(address)
    for _ in range(50):                                                # mathematics is set after the page has loaded
        found = driver.execute_script(LOOK)
        if not found["raw"] and not found["broken"]:
            break
        time.sleep(0.1)
    said = [f"picture does not load: {source}" for source in found["broken"]] + [f"too wide: {element}" for element in found["wide"]]
    said += [f"{found['faint']} captions hard to read"] * bool(found["faint"])
    said += [f"{found['raw']} formulas not set"] * bool(found["raw"]) + [f"{found['still']} sliders do nothing"] * bool(found["still"])
    said += [f"console: {entry['message'][:200]}" for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith((host, "data:", "blob:", "chrome", "about:")):
                said.append(f"asks {url[:80]}")
    return said


def whole_page(driver, width: int) -> bytes:
    """A PNG of the page from its top to its end, at most 16000 pixels high."""
    height = min(16000, driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]["height"])
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})["data"])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=Path, help="folder for a picture of every page")
    given = options.parse_args()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, failed = f"http://127.0.0.1:{server.server_port}", False
    try:
        driver = browser()
    except RuntimeError as error:
        print(error)
        return 2
    for name in contents():
        for width, scheme in product(WIDTHS, SCHEMES):
            screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
            said = visit(driver, f"{host}/{name}.html", host)
            print(f"{name}, {width} px, {scheme}: " + ("; ".join(said) or "fine"), flush=True)
            failed |= bool(said)
            if given.pictures:
                given.pictures.mkdir(parents=True, exist_ok=True)
                (given.pictures / f"{Path(name).name}_{width}_{scheme}.png").write_bytes(whole_page(driver, width))
    driver.quit()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
