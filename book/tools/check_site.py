"""Opens every page of the built site in headless Chromium, wide and as on a phone.

    python book/tools/check_site.py [--pictures FOLDER]

Light and dark, each page must load all it shows and ask no other host, set its
mathematics, keep its console clean, move its sliders, stay within the screen, and break
no rule of axe-core that is serious or critical. At 1280 px no code, printed output or
table may scroll sideways; at 390 px no text in a figure may be under 9 px, and the
equations of the first page fit. Needs `make book` first, npm once, and Chromium with
its driver (Debian and Ubuntu: apt-get install chromium chromium-driver).
"""
import argparse
import base64
import functools
import gzip
import http.server
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from axe import script as axe_script
from axe import violations
from check_pages import SITE, Page, contents

WIDE, PHONE = 1280, 390
FIRST, LOADED = 300_000, (".css", ".js", ".png", ".svg", ".webp")
WIDTHS, SCHEMES = (WIDE, PHONE), ("light", "dark")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars")
LOOK = r"""
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const article = document.querySelector('article') || document.body;
function* ancestors(e) {
  while (e && e !== document.body) { yield e; e = e.parentElement; }
}
const broken = [...document.images]
  .filter(i => i.currentSrc && (!i.complete || i.naturalWidth == 0))
  .map(i => i.currentSrc.slice(0, 80));
const raw = all('.math').filter(m => !m.querySelector('mjx-container')).length;

const held = e => [...ancestors(e)].some(
  a => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(a).overflowX));
const wide = all('img, figure, table, pre, mjx-container', article)
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !held(e))
  .map(e => e.outerHTML.slice(0, 80));

// Code and outputs that scroll sideways: wider than the space that they are given, or
// than that of an element that holds them.
const scrolls = e => e.scrollWidth > e.clientWidth + 1
  && getComputedStyle(e).overflowX !== 'visible';
const longest = e => e.textContent.split('\n')
  .reduce((a, b) => b.length > a.length ? b : a, '').slice(0, 100);
const shown = 'div.cell_input pre, div.cell_output pre, div.highlight pre, '
  + 'table';
const folded = all('details:not([open])', article);
folded.forEach(e => { e.open = true; });
const hidden = all('.toggle-hidden', article);      // solutions of exercises
hidden.forEach(e => e.classList.remove('toggle-hidden'));
const sideways = all(shown, article)
  .filter(e => e.scrollWidth > e.clientWidth + 1 || [...ancestors(e)].some(scrolls))
  .map(longest);
folded.forEach(e => { e.open = false; });
hidden.forEach(e => e.classList.add('toggle-hidden'));

const still = all('figure.ddad-frames').filter(figure => {
  const input = figure.querySelector('input'), image = figure.querySelector('img');
  const before = image.style.transform;
  if (input.max == 0) return false;
  input.value = input.value == 0 ? 1 : 0;
  input.dispatchEvent(new Event('input'));
  return image.style.transform == before;
}).length;

// The smallest text of each figure, as it is shown; null where no run has measured it.
const size = image => {
  const told = (image.closest('[class*=smallest-text-]')?.className ?? '')
    .match(/smallest-text-([\d.]+|none)/);
  if (!told) return null;
  return told[1] === 'none' ? Infinity
    : told[1] * image.getBoundingClientRect().width / image.naturalWidth;
};
// Drawings in SVG are measured where they are made (tests/book/test_results.py).
const figures = all('.cell_output img, img[src*="_images/"]:not([src$=svg])', article);
const sizes = figures.map(size);
const unmeasured = figures.filter((_, n) => sizes[n] === null).length;
const small = sizes.filter(s => s !== null && s < 9).map(s => s.toFixed(1));
const cut = all('div.math mjx-container', article).filter(e =>
  Math.max(...[...e.children].map(c => c.getBoundingClientRect().right))
    > e.closest('div.math').getBoundingClientRect().right + 1).length;
return {broken, raw, wide, sideways, still, unmeasured, small, cut};
"""


def browser():
    """Headless Chromium that logs its console and requests; RuntimeError without it."""
    from selenium import webdriver
    driver = shutil.which("chromedriver")
    if driver is None:
        raise RuntimeError("no chromedriver here: install Chromium and its driver "
                           "(Debian, Ubuntu: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    logged = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logged)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def screen(driver, width: int, scheme: str, height: int = 900) -> None:
    """Pages are shown on a screen of this width from now on, light or dark."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           size | {"mobile": width < 600})
    wanted = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})


def look(driver) -> dict:
    """What LOOK finds on the page, once all of it is there."""
    for _ in range(50):                      # mathematics is set after the page loads
        found = driver.execute_script(LOOK)
        if not found["raw"] and not found["broken"]:
            break
        time.sleep(0.1)
    return found


def visit(driver, name: str, host: str, width: int) -> list[str]:
    """What is wrong with one page, colours apart."""
    driver.get(f"{host}/{name}.html")
    found = look(driver)
    said = [f"picture does not load: {source}" for source in found["broken"]]
    said += [f"too wide: {element}" for element in found["wide"]]
    if width == WIDE:
        said += [f"scrolls sideways: {line}" for line in found["sideways"]]
    else:
        said += [f"text of {size} px in a figure" for size in found["small"]]
        if name == contents()[0]:
            said += [f"{found['cut']} equations cut off"] * bool(found["cut"])
    for what, words in (("raw", "formulas not set"), ("still", "sliders do nothing"),
                        ("unmeasured", "figures whose text no run has measured")):
        said += [f"{found[what]} {words}"] * bool(found[what])
    return said


def complaints(driver) -> list[str]:
    """What the console says since it was last read."""
    return [f"console: {entry['message'][:200]}" for entry in driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")]


def strangers(driver, host: str) -> list[str]:
    """The requests to other hosts since they were last read."""
    said, own = [], (host, "data:", "blob:", "chrome", "about:")
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            said += [f"asks {url[:80]}"] * (not url.startswith(own))
    return said


def whole_page(driver, width: int, scheme: str) -> bytes:
    """A PNG of the page from its top to its end, at most 16000 pixels high: on a screen
    as high as that, since what is captured beyond a screen may be laid out for another.
    """
    metrics = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})
    screen(driver, width, scheme, min(16000, metrics["cssContentSize"]["height"]))
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {})
    screen(driver, width, scheme)
    return base64.b64decode(shot["data"])


def first_page() -> list[str]:
    """What is wrong with the weight of the first page: what has to be there before one
    can read it. Mathematics and the fonts of icons may come later.
    """
    page = SITE / f"{contents()[0]}.html"
    files = {link.partition("?")[0] for link in Page(page).links}
    held = [page, *(page.parent / one for one in files
                    if one.endswith(LOADED) and "mathjax" not in one)]
    content = [path.read_bytes() for path in held]
    packed = sum(len(gzip.compress(one)) for one in content)
    said = (f"{page.stem}: {len(held)} files, {sum(map(len, content)) / 1000:.0f} kB, "
            f"compressed {packed / 1000:.0f} kB")
    print(said)
    return [f"{said}, more than {FIRST / 1000:.0f}"] * (packed > FIRST)


def shoot(driver, width: int, to: Path) -> None:
    """Pictures of the page that is shown, TO_WIDTH_SCHEME.png; light, at the end."""
    to.parent.mkdir(parents=True, exist_ok=True)
    for scheme in reversed(SCHEMES):
        screen(driver, width, scheme)
        shot = Path(f"{to}_{width}_{scheme}.png")
        shot.write_bytes(whole_page(driver, width, scheme))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(folder: Path, handler=Quiet) -> str:
    """Serves the folder until the program ends; the address."""
    made = functools.partial(handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), made)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def options_of(doc: str, pictures: str) -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=Path, help=pictures)
    return options.parse_args()


def fails(driver, name: str, width: int, host: str, axe: str, pictures: Path | None,
          opened: Callable[[], list[str]]) -> bool:
    """Whether something is wrong with a page on a screen of this width; prints it.

    opened: opens the page, and tells what is wrong with it, colours apart. pictures:
    folder for a picture of it.
    """
    failed = False
    for scheme in SCHEMES:
        screen(driver, width, scheme)
        first = scheme == SCHEMES[0]
        said = opened() if first else []        # another scheme needs no other page
        if pictures and first:                  # axe leaves less of it
            shoot(driver, width, pictures / Path(name).name)
        said += violations(driver, axe, every_rule=first)
        said += complaints(driver) + strangers(driver, host)
        print(f"{name}, {width} px, {scheme}: " + ("; ".join(said) or "fine"),
              flush=True)
        failed |= bool(said)
    return failed


def every_page(host: str, axe: str, pictures: Path | None, width: int) -> bool:
    """Whether something is wrong with a page of the site at this width."""
    driver = browser()
    failed = [fails(driver, name, width, host, axe, pictures,
                    functools.partial(visit, driver, name, host, width))
              for name in contents()]
    driver.quit()
    return any(failed)


def main() -> int:
    given = options_of(__doc__, "folder for a picture of every page")
    host, failed = serve(SITE), bool(first_page())
    try:
        look_at = functools.partial(every_page, host, axe_script(), given.pictures)
        with ThreadPoolExecutor() as pool:              # a browser for each width
            return int(any([failed, *pool.map(look_at, WIDTHS)]))
    except RuntimeError as error:
        print(error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
