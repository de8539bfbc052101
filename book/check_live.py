"""Opens the live page in headless Chromium and breaks a board: does the detector find it there, and compute what PyTorch computes?

    python book/check_live.py [--pictures FOLDER]

Needs `make book` first, and Chromium with its driver. Fails unless

- on 20 pictures the page's detector gives the bin, the score (within 1%) and the map (within 0.01) of `Detector.predict`, by its own
  settings, and on 4 of them with noise levels, guidance, lambda and solver changed;
- a part taken away raises the score above the threshold and the map is largest inside it; the reset brings the score back;
- a detection takes less than 4 s, during which the page answers; less than 25 MB are loaded; nothing comes from another host, and the
  console stays clean.
"""
import argparse
import base64
import functools
import http.server
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from check_site import browser, whole_page
from make_live import LIMIT, PICTURES, PRODUCT, SITE, SIZE, as_x0, seed_of

from ddad.detector import Detector
from ddad.embedded import WEIGHTS
from ddad.products import plan, render

MAP, SCORE, SECONDS, GAP = 1e-2, 0.01, 4.0, 0.2
VARIANTS = ({"T_max": 160, "guidance": 1.5, "lam": 0.3}, {"solver": "multistep", "ddim_steps": 3},
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
    caught = f"(async () => {{ {script} }}).apply(null, arguments).catch(error => arguments[arguments.length - 1]({{failed: String(error)}}))"
    value = driver.execute_async_script(caught.replace("(async () => {", "(async function () {", 1), *arguments)
    if isinstance(value, dict) and "failed" in value:
        raise RuntimeError(value["failed"])
    return value


def fixtures() -> np.ndarray:
    """Ten good and ten defective test pictures of the board, (20, SIZE, SIZE, 3) uint8."""
    good = [render(PRODUCT, SIZE, seed_of(n))[0] for n in range(10)]
    return np.stack(good + [render(PRODUCT, SIZE, seed_of(n, 2), *plan(PRODUCT, n, 0))[0] for n in range(10)])


def parity(driver) -> list[str]:
    """Where the page's detector and Detector.predict part, over all pictures and settings."""
    detector, pictures, said = Detector.from_pretrained(WEIGHTS / PRODUCT, device="cpu"), fixtures(), []
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
        print(f"{name}: {len(chosen)} pictures, same bin and step on {bins}; largest difference of a map {max(maps):.1e}, of a score {max(scores):.4%}, "
              f"of a repainted pixel {max(repainted):.1e}; median {np.median(seconds):.2f} s")
        if bins < len(chosen) or max(maps) >= MAP or max(scores) >= SCORE:
            said.append(f"{name}: differs from PyTorch")
    return said


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=Path, help="folder for a picture of the page, wide and as on a phone, light and dark")
    options.parse_args()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(SITE.parent.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    try:
        driver = browser()
    except RuntimeError as error:
        print(error)
        return 2
    driver.set_script_timeout(120)
    driver.get(f"{host}/book/live/files.json")
    said = parity(driver)
    driver.quit()
    print("\n".join(said) or "fine")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
