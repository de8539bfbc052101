"""Browses the gallery of the built site in headless Chromium.

    python book/tools/check_gallery.py [--pictures FOLDER]

Every filter, every image by the arrow key: what the page says of it has to be what the
record holds. Focus has to be seen, filters that leave nothing have to say so, addresses
have to lead to their image. Needs `make book` first, and Chromium with its driver.
"""
import sys
import time
from collections import Counter
from itertools import product

from check_pages import SITE
from check_site import (
    PHONE,
    SCHEMES,
    WIDE,
    WIDTHS,
    browser,
    complaints,
    options_of,
    screen,
    serve,
    strangers,
    whole_page,
)
from gallery import OUTCOMES, SETS, outcome, recorded_outcomes, result
from records import PRODUCTS, load
from selenium.webdriver import ActionChains, Keys

# what the page says of the image that it shows
STATE = r"""
const get = name => document.querySelector(`#gallery-${name}`);
const text = element => element?.textContent ?? "";
const facts = [...get("facts").children].map(row => [...row.children].map(text));
const focused = document.activeElement;
const outlined = focused.matches(":focus-visible")
  && parseFloat(getComputedStyle(focused).outlineWidth) > 1;
const canvas = name => {
  const one = get(name);
  if (!one.checkVisibility() || !one.width) return null;
  const copy = new OffscreenCanvas(one.width, one.height)
    .getContext("2d", {willReadFrequently: true});
  copy.drawImage(one, 0, 0);
  const levels = copy.getImageData(0, 0, one.width, one.height).data;
  return levels.reduce((sum, value, i) => (31 * sum + value * (i % 7 + 1)) % 1e9, 0);
};
return {
  state: get("list").closest("#gallery").dataset.state,
  error: text(document.querySelector(".gallery-error")),
  facts: Object.fromEntries(facts), verdict: text(get("verdict")),
  position: text(get("position")), shown: get("list").checkVisibility(),
  options: get("list").children.length, hash: location.hash,
  outcomes: [...get("outcomes").children].map(label => text(label)),
  kinds: [...get("kind").options].map(option => [option.value, text(option)]),
  focus: focused.getAttribute("aria-label"), outlined,
  width: document.documentElement.scrollWidth,
  pictures: Object.fromEntries(
    ["input", "repainting", "map", "mask", "steps"].map(name => [name, canvas(name)])),
};
"""


class Page:
    """The gallery in a browser."""

    def __init__(self, driver, host: str, width: int, scheme: str):
        self.driver, self.address = driver, f"{host}/book/gallery.html"
        screen(driver, width, scheme)
        self.open()

    def open(self, hash: str = "") -> dict:
        self.driver.get("about:blank")
        self.driver.get(self.address + hash)
        return self.state()

    def state(self) -> dict:
        """What the page shows, once it rests."""
        before = None
        for _ in range(200):
            found = self.driver.execute_script(STATE)
            if found["state"] == "ready" and found == before:
                return found
            if found["state"] == "failed":
                raise RuntimeError(found["error"])
            before = found
            time.sleep(0.02)
        raise RuntimeError(f"the gallery does not come to rest: {before}")

    def choose(self, name: str, value: str) -> dict:
        """Takes a radio button, or an option of the list of kinds."""
        if name == "kind":
            script = ("const one = document.querySelector('#gallery-kind');"
                      "one.value = arguments[0];"
                      "one.dispatchEvent(new Event('change', {bubbles: true}))")
            self.driver.execute_script(script, value)
        else:
            place = f"#gallery input[name='{name}'][value='{value}']"
            self.driver.execute_script(
                "document.querySelector(arguments[0]).click()", place)
        return self.state()

    def press(self, *keys: str) -> dict:
        ActionChains(self.driver).send_keys(*keys).perform()
        return self.state()

    def click(self, place: str) -> dict:
        self.driver.execute_script(
            "document.querySelector(arguments[0]).click()", place)
        return self.state()

    def focus_list(self) -> dict:
        """By the tabulator, from the field before the list."""
        self.driver.execute_script("document.querySelector('#gallery-ring').focus()")
        return self.press(Keys.TAB)


# --- numbers

def rows(detector: str) -> list[dict]:
    """What the record holds of each image; nothing where there is none of each."""
    if detector not in PRODUCTS:
        return []
    record = load(detector)
    images, bound = record["images"], record["result"]["threshold"]
    columns = zip(*(images[name] for name in ("image", "kind", "score", "T_hat")))
    return [{"image": image, "kind": kind, "outcome": outcome(kind, score, bound),
             "score": score, "step": str(T), "threshold": bound}
            for image, kind, score, T in columns]


def counted(page: Page, detector: str) -> list[str]:
    """Whether the filters count what was recorded."""
    found, counts = page.choose("detector", detector), recorded_outcomes(detector)
    said, total = [], result(detector)["images"]
    for label, wanted in zip(found["outcomes"], (total, *counts.values())):
        if not label.endswith(f"({wanted})"):
            said.append(f"{detector}: {label}, recorded are {wanted}")
    kinds = Counter(row["kind"] for row in rows(detector))
    if kinds and dict(found["kinds"][1:]) != {
            kind: f"{kind.replace('_', ' ')} ({n})" for kind, n in kinds.items()}:
        said.append(f"{detector}: other kinds than recorded: {found['kinds']}")
    return said


def browsed(page: Page, detector: str) -> list[str]:
    """Every image in turn by the arrow key, beside its record."""
    said, pictures, total = [], set(), result(detector)["images"]
    page.choose("detector", detector)
    page.focus_list()
    found, of = page.press(Keys.HOME), rows(detector) or [None] * total
    for n, row in enumerate(of, 1):
        if not found["position"].startswith(f"{n} of {total}: "):
            said.append(f"{detector}: at image {n} stands {found['position']}")
        if row:
            said += [f"{detector}, {row['image']}: {one}" for one in wrong(found, row)]
        pictures.add(tuple(found["pictures"][name] for name in ("input", "map")))
        found = page.press(Keys.ARROW_RIGHT)
    if len(pictures) != total:
        said.append(f"{detector}: {len(pictures)} pictures of {total} images")
    print(f"{detector}: {total} images browsed, last {found['position']}", flush=True)
    return said


def wrong(found: dict, row: dict) -> list[str]:
    """What the page says of an image, and its record does not."""
    facts, said = found["facts"], []
    for name in ("score", "threshold"):
        if abs(float(facts[name]) - row[name]) > 1.5e-3:
            said.append(f"{name} {facts[name]}, not {row[name]:.4f}")
    said += [f"{name} {facts[name]}, not {row[of]}"
             for name, of in (("step", "step"), ("file", "image"))
             if facts[name] != row[of]]
    if not found["verdict"].lower().startswith(row["outcome"]):
        said.append(f"{found['verdict']} It is a {row['outcome']}")
    return said


def filtered(page: Page) -> list[str]:
    """Every outcome of every kind: as many images as recorded, or a word of none."""
    said, empty = [], 0
    for detector in PRODUCTS:
        page.choose("detector", detector)
        counts = Counter((row["kind"], row["outcome"]) for row in rows(detector))
        for kind, one in product({kind for kind, _ in counts}, OUTCOMES):
            page.choose("kind", kind)
            found, wanted = page.choose("outcome", one), counts[kind, one]
            place = f"{detector}, {kind}, {one}"
            if found["options"] != wanted:
                said.append(f"{place}: {found['options']} images, not {wanted}")
            if not wanted:
                empty += 1
                if found["shown"] or not found["position"].startswith("Nothing here: "):
                    said.append(f"{place}: nothing is said of there being none")
        page.choose("kind", "all")
        page.choose("outcome", "all")
    print(f"every filter of {', '.join(PRODUCTS)}; {empty} leave nothing")
    return said


# --- use

def by_keyboard(page: Page) -> list[str]:
    """Keys move where they should, focus follows and is seen."""
    said, total = [], result("board")["images"]
    page.choose("detector", "board")
    found = page.focus_list()
    for key, wanted in ((Keys.HOME, 1), (Keys.ARROW_LEFT, 1), (Keys.ARROW_RIGHT, 2),
                        (Keys.ARROW_RIGHT, 3), (Keys.ARROW_LEFT, 2), (Keys.END, total),
                        (Keys.ARROW_RIGHT, total), (Keys.HOME, 1)):
        found = page.press(key)
        if not found["position"].startswith(f"{wanted} of {total}: "):
            said.append(f"not at {wanted} by the key, but {found['position']}")
        if not found["outlined"] or found["focus"] not in found["position"]:
            said.append(f"focus is not seen on the image: {found['focus']}")
    down = page.press(Keys.ARROW_DOWN)["position"]
    up = page.press(Keys.ARROW_UP)["position"]
    if down.startswith("1 of") or not up.startswith("1 of"):
        said.append(f"down and up lead to {down} and {up}")
    page.press(Keys.TAB, Keys.ENTER)        # the button back is off at the first image
    if not page.state()["position"].startswith("2 of"):
        said.append(f"the button on leads to {page.state()['position']}")
    return said


def addressed(page: Page) -> list[str]:
    """An address leads to its image; an unknown one is survived."""
    said, detector = [], "fabric"
    row = next(row for row in rows(detector) if row["outcome"] == "miss")
    page.choose("detector", detector)
    page.choose("kind", row["kind"])
    hash = page.choose("outcome", "miss")["hash"]
    found = page.open(hash)
    said += [f"by its address: {one}" for one in wrong(found, row)]
    if found["hash"] != hash:
        said.append(f"the address {hash} becomes {found['hash']}")
    for unknown in ("#detector=none", "#detector=board&kind=x&outcome=y&image=z"):
        if not page.open(unknown)["position"].startswith("1 of 150: "):
            said.append(f"{unknown} does not lead to the first image")
    return said


def ringed(page: Page) -> list[str]:
    """The ring changes what is ringed, and nothing else."""
    page.open("#detector=board-regional&outcome=hit")
    before = page.state()["pictures"]
    after = page.click("#gallery-ring")["pictures"]
    changed = {name for name in before if before[name] != after[name]}
    page.click("#gallery-ring")
    said = [f"the region detector has no {name}" for name in before
            if before[name] is None]
    if changed != {"input", "repainting", "map"}:
        said.append(f"the ring changes {sorted(changed)}")
    return said


def on_screen(page: Page, width: int) -> list[str]:
    """The page is no wider than the screen; on a phone, keys work as well."""
    wide = page.state()["width"]
    return ([f"{wide} px wide on a screen of {width}"] * (wide > width)
            + (by_keyboard(page) if width == PHONE else []))


def main() -> int:
    given = options_of(__doc__, "folder for pictures of the gallery")
    host = serve(SITE)
    try:
        driver = browser()
    except RuntimeError as error:
        print(error)
        return 2
    said = []
    try:
        page = Page(driver, host, WIDE, "light")
        for detector in SETS:
            said += counted(page, detector)
            said += browsed(page, detector)
        for check in (filtered, by_keyboard, addressed, ringed):
            said += check(page)
        for width, scheme in product(WIDTHS, SCHEMES):
            said += on_screen(Page(driver, host, width, scheme), width)
            if given.pictures:
                given.pictures.mkdir(parents=True, exist_ok=True)
                shot = given.pictures / f"gallery_{width}_{scheme}.png"
                shot.write_bytes(whole_page(driver, width, scheme))
        said += complaints(driver) + strangers(driver, host)
    except RuntimeError as error:
        said.append(str(error))
    driver.quit()
    print("\n".join(said) or "the gallery: fine")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
