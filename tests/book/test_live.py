"""What the live page computes between its networks is what the package computes.

Node.js runs the page's own files; `make check-live` compares the whole page.
"""
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from ddad import anomaly_map as maps
from ddad.dynamic_noise import bin_edges, choose_bin, select_step
from ddad.evaluation.patches import stacked
from ddad.noise_predictor import alpha_bar
from ddad.scaled_denoising import scaled_denoising, timesteps
from ddad.settings import preset
from ddad.step_map import PatchBank, widened

LIVE = Path(__file__).parents[2] / "book/live"
pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="no Node.js here")


@pytest.fixture
def javascript(tmp_path):
    """(module, body, **given) -> what the body returns; it sees the module's exports as
    `m`, and what is given, tensors as {data, shape}.
    """
    for path in LIVE.glob("*.js"):
        shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')

    def run(module: str, body: str, **given):
        script = tmp_path / "script.js"
        script.write_text(
            "import {readFileSync} from 'node:fs';\n"
            f"import * as m from './{module}';\n"
            "const given = JSON.parse(readFileSync(0), (_, value) => value?.shape\n"
            "  ? {...value, data: Float32Array.from(value.data)} : value);\n"
            f"const body = async ({{{', '.join(given)}}}) => {{ {body} }};\n"
            "const plain = (_, value) => ArrayBuffer.isView(value)\n"
            "  ? Array.from(value) : value;\n"
            "console.log(JSON.stringify(await body(given), plain));\n")
        ran = subprocess.run(["node", script], input=json.dumps(given, default=_as_js),
                             capture_output=True, text=True)
        assert not ran.returncode, ran.stderr
        return json.loads(ran.stdout)
    return run


def _as_js(value):
    if isinstance(value, torch.Tensor):
        return {"data": value.flatten().tolist(), "shape": list(value.shape)}
    raise TypeError(type(value))


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("h", (8, 4, 12))
def test_step_map(javascript, h):
    """Latents as fine as the patches, coarser and finer."""
    s = preset("regional", edge_bin="lower", smallest_bin=3)
    phi = {2: drawn(5, 8, 8, seed=1), 3: drawn(7, 4, 4, seed=2)}
    bank = PatchBank(drawn(50, 12, seed=3) / 2, torch.tensor([0.9, 1.3]))
    f = stacked([None, *(stage[None] for stage in phi.values())], (2, 3))
    d = bank.distance(f, h)
    edges = bin_edges(bank.low_high, s.bins)
    b = choose_bin(d, edges, s.edge_bin)
    T = widened(select_step(b, s.T_max, s.bins, s.smallest_bin))
    found = javascript(
        "step_map.js",
        "const d = m.patchDistance(m.stacked(phi, [2, 3]), bank, h);"
        "return {d, ...m.stepMap(d, h, edges.data, settings)};",
        phi=phi, bank=bank.f, h=h, edges=edges, settings=s.as_dict())
    torch.testing.assert_close(torch.tensor(found["d"]), d.flatten())
    assert found["T"] == T.flatten().tolist() and len(set(found["T"])) > 3
    assert found["b"] == b.max()


@pytest.mark.parametrize("first_call", ("latent", "below"))
def test_regions_wait_for_their_turn(javascript, first_call):
    s = preset("regional", guidance=1.5, first_call=first_call)
    z0, abar = drawn(1, 3, 4, 4), alpha_bar(s)
    T = 10 * torch.randint(2, 33, (1, 4, 4), generator=torch.Generator().manual_seed(1))
    T_hat = T.flatten(1).amax(1)
    expected = scaled_denoising(
        lambda z_t, t: 0.3 * z_t + 0.001 * t, z0, T_hat, abar, s.guidance, step_map=T,
        path=timesteps(T_hat, s.ddim_steps, first_call))
    found = javascript(
        "scaled_denoising.js",
        "const e = async (z_t, t) => z_t.map(z => 0.3 * z + 0.001 * t);"
        "return m.scaledDenoising(e, z0.data, T_hat, abar.data, settings,"
        " {stepMap: T.data});",
        z0=z0, T_hat=T_hat.item(), abar=abar, settings=s.as_dict(), T=T)
    torch.testing.assert_close(torch.tensor(found), expected.flatten())


@pytest.mark.parametrize("patch_share", (0.0, 0.25))
def test_map_of_three(javascript, patch_share):
    s = preset("regional", patch_share=patch_share)
    A = [drawn(1, 32, 32, seed=n).abs() for n in range(3)]
    ranges = maps.Ranges((0.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    expected = maps.combine(*A[:2], ranges, s.lam, s.sigma, A[2], patch_share)
    found = javascript(
        "anomaly_map.js",
        "const single = {latent: l.data, feature: f.data, patch: p.data};"
        "return m.combine(single, 32, settings);",
        l=A[0], f=A[1], p=A[2], settings=s.as_dict())
    torch.testing.assert_close(torch.tensor(found), expected.flatten())
