"""Opens the reports that the commands write in headless Chromium, from their files.

    python book/tools/check_reports.py [--pictures FOLDER]

Makes those of `ddad data check`, `ddad inspect` and `ddad detect`, with warnings and
files that cannot be read. Wide and as on a phone, light and dark, each must load all it
shows, ask no host, keep its console clean, stay within the screen, tear no word of a
table, and break no rule of axe-core that is serious or critical; the filter of what was
detected has to do what it says. Needs npm once, and Chromium with its driver.
"""
import contextlib
import io
import shutil
import sys
import tempfile
import time
import warnings
from functools import partial
from itertools import product
from pathlib import Path

from axe import script as axe_script
from check_site import WIDTHS, browser, fails, options_of
from PIL import Image, ImageOps

from ddad.cli import main as ddad

BOARD = Path(__file__).resolve().parents[2] / "ddad" / "weights" / "board"
GOOD = 44                       # of the drawn board's images, to learn from
SHORT = ('train_length="3 steps"', "image_size=64", "unet_channels=[32]",
         "unet_layers=1", "tune_epochs=0", "patch_bank=200", "ddim_steps=2")
LOOK = r"""
document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; });
const broken = [...document.images].filter(i => !i.complete || i.naturalWidth == 0)
  .map(i => i.alt.slice(0, 60));
const page = document.documentElement;
const torn = [...document.querySelectorAll('th, td')].map(e => [e, e.textContent])
  .filter(([e, text]) => /^\S+$/.test(text) && e.offsetHeight > 48)
  .map(([_, text]) => text);
return {broken, torn, pictures: document.images.length,
        beyond: page.scrollWidth - page.clientWidth};
"""
FILTERED = r"""
const choose = document.querySelector('#show'), said = [];
for (const option of choose.options) {
  choose.value = option.value;
  choose.dispatchEvent(new Event('change'));
  const all = [...document.querySelectorAll('article')];
  const wanted = all.filter(
    e => option.value === 'all' || e.className === option.value);
  const shown = all.filter(e => e.offsetHeight > 0);
  const told = `${wanted.length} of ${all.length} shown`;
  if (shown.length !== wanted.length || wanted.some(e => !shown.includes(e))
      || document.querySelector('#told').textContent !== told) {
    said.push(`the filter ${option.value} shows ${shown.length}, not ${told}`);
  }
}
choose.value = 'all';
choose.dispatchEvent(new Event('change'));
return said;
"""


def run(*arguments: str, ends: int = 0) -> None:
    """A command that ends so, whose output is kept back; else RuntimeError."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(
            io.StringIO()) as said, warnings.catch_warnings(action="ignore"):
        code = ddad([*map(str, arguments)])
    if code != ends:
        raise RuntimeError(f"{arguments} ended with {code}: {said.getvalue()[-500:]}")


def spoil(board: Path) -> None:
    """Something to be warned of, and something that cannot be read."""
    good, mask = board / "train" / "good", next(board.glob("ground_truth/*/*.png"))
    for path in sorted(good.iterdir())[GOOD:]:
        path.unlink()
    for path in sorted((board / "test" / "good").iterdir())[8:]:
        path.unlink()
    first = sorted(good.iterdir())[0]
    shutil.copy(first, good / "copy.png")
    Image.new("RGB", (128, 128), (40, 40, 40)).save(good / f"{'wide ' * 20}.png")
    ImageOps.invert(Image.open(mask)).save(mask)
    (board / "test" / "good" / "torn.png").write_bytes(b"x")
    (board / "test" / "good" / "link.png").symlink_to("/mnt/gone.png")
    (board / "test" / "good" / "notes.txt").touch()


def reports(folder: Path) -> dict[str, Path]:
    """The three, made in `folder`."""
    run("data", "make", folder / "data", "--size", "64")
    board, device = folder / "data" / "board", ("--device", "cpu")
    spoil(board)
    run("data", "check", board, "--size", "64", "--report", folder / "check.html",
        ends=1)
    run("inspect", board / "train" / "good", folder / "made", *device, "--vae",
        "embedded", "--set", *SHORT)
    found = folder / "found", *device
    run("detect", BOARD, board / "test" / "reversed", *found)
    # the last one: what cannot be read belongs to one run alone
    run("detect", BOARD, board / "test" / "good", *found, ends=2)
    return {"data check": folder / "check.html", "inspect": folder / "made/report.html",
            "detect": folder / "found/report.html"}


def look(driver, name: str, path: Path) -> list[str]:
    """What is wrong with a report, colours apart."""
    driver.get(path.as_uri())
    for _ in range(50):                         # pictures load as they are asked for
        found = driver.execute_script(LOOK)
        if not found["broken"]:
            break
        time.sleep(0.1)
    said = [f"picture does not load: {alt}" for alt in found["broken"]]
    said += [f"{found['beyond']} px beyond the screen"] * (found["beyond"] > 0)
    said += [f"torn in a table: {word}" for word in found["torn"]]
    said += ["no picture"] * (not found["pictures"])
    return said + (driver.execute_script(FILTERED) if name == "detect" else [])


def main() -> int:
    given, failed = options_of(__doc__, "folder for a picture of every report"), False
    try:
        axe, driver = axe_script(), browser()
    except RuntimeError as error:
        print(error)
        return 2
    with tempfile.TemporaryDirectory() as made:
        for (name, path), width in product(reports(Path(made)).items(), WIDTHS):
            failed |= fails(driver, f"report of {name}", width, "file://", axe,
                            given.pictures, partial(look, driver, name, path))
    driver.quit()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
