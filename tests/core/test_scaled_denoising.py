"""Algorithm 1 against its formulas, written out by hand."""
import math
from itertools import product

import pytest
import torch
from conftest import tiny
from formulas import abar_by_hand, denoise_by_hand, made_up, seeded

from ddad.dynamic_noise import select_step
from ddad.noise_predictor import alpha_bar, build_unet, q_sample
from ddad.scaled_denoising import call_every, scaled_denoising, timesteps

ABAR = alpha_bar(tiny())


def denoise(z0, T_hat, w=4.0, every=1, eps_theta=made_up, **path):
    """Algorithm 1 along the path of these `steps` and `first_call`."""
    own = {name: path.pop(name) for name in ("steps", "first_call") if name in path}
    eps_theta = call_every(eps_theta, every, ABAR)
    return scaled_denoising(eps_theta, z0, T_hat, ABAR, w,
                            path=timesteps(T_hat, **own), **path)


# every combination of what can be chosen: T_hat, steps, step of the first call, what
# z0_hat comes from, the dropped first e_hat, how often the network is called, the start
CHOICES = product((10, 30, 80, 400), (3, 10, 25), ("latent", "below"), ("e_hat", "e"),
                  (False, True), (1, 2, 3, 4), ("scaled", "noised", "unrounded"))


def test_every_combination_against_the_formulas():
    z0 = torch.randn(1, 2, 3, 3, generator=seeded(5))
    noise = torch.randn(1, 2, 3, 3, generator=seeded(6))
    count = 0
    for T_hat, steps, first_call, z0_from, drop, every, began in CHOICES:
        eps = noise if began == "noised" else None
        at = T_hat - 3 if began == "unrounded" else T_hat
        abar_start = ABAR[at].view(1, 1, 1, 1)
        start = (abar_start.sqrt() * z0 if eps is None
                 else q_sample(z0, abar_start, eps))
        asked, seen = [], []

        def counted(z_t, t, asked=asked):
            asked.append(t.item())
            return made_up(z_t, t)

        found = denoise(z0, torch.tensor([T_hat]), 2.5, every, counted, steps=steps,
                        first_call=first_call, z0_from=z0_from, zero_first=drop,
                        start=start, callback=seen.append)
        expected, called = denoise_by_hand(
            z0.double(), T_hat, 2.5, steps=steps, z0_from=z0_from,
            first_call=first_call, drop_first=drop, start=at,
            eps=None if eps is None else eps.double(), every=every)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
        assert asked == called and len(seen) == steps
        count += 1
    assert count == 4 * 3 * 2 * 2 * 2 * 4 * 3


@pytest.mark.parametrize("first_call", ["latent", "below"])
def test_what_the_callback_sees(first_call):
    z0, seen = torch.randn(1, 2, 3, 3, generator=seeded()), []
    found = denoise(z0, torch.tensor([80]), first_call=first_call, callback=seen.append)
    assert [step["i"] for step in seen] == list(range(10))
    assert seen[0]["t"].item() == (72 if first_call == "below" else 80)
    assert seen[-1]["t"].item() == (0 if first_call == "below" else 8)
    # the last step goes to abar 1: no e_hat is left
    assert torch.equal(found, seen[-1]["z0_hat"])
    scaled = math.sqrt(abar_by_hand()[80]) * z0
    torch.testing.assert_close(seen[0]["z_t"], scaled, rtol=1e-5, atol=1e-6)


def test_the_plain_call_is_the_paper_s():
    """Ten steps from T_hat, the scaled start, z0_hat from e_hat, nothing dropped."""
    z0, T_hat = torch.randn(1, 2, 3, 3, generator=seeded()), torch.tensor([80])
    found = scaled_denoising(made_up, z0, T_hat, ABAR, 4.0)
    assert torch.equal(found, denoise(z0, T_hat))


@pytest.mark.parametrize("w", [0.0, 4.0])
def test_nothing_predicted_gives_the_latent_back(w):
    """With e = 0: z_t = target_t at the start, so e_hat = 0 and z0_hat = z0, at every
    step and for every guidance.
    """
    z0 = torch.randn(4, 2, 3, 3, generator=seeded())
    found = scaled_denoising(lambda z, t: torch.zeros_like(z), z0,
                             torch.tensor([10, 20, 80, 500]), ABAR, w)
    torch.testing.assert_close(found, z0, rtol=1e-5, atol=1e-5)


def test_without_guidance_it_is_plain_ddim():
    """DDIM in its other form:
    z_prev = sqrt(a_prev / a) z + (sqrt(1 - a_prev) - sqrt(a_prev (1 - a) / a)) e.
    """
    z0, abar = torch.randn(1, 2, 3, 3, generator=seeded()), abar_by_hand()
    found = denoise(z0, torch.tensor([60]), w=0)
    z = math.sqrt(abar[60]) * z0.double()
    for t in range(60, 0, -6):
        a, a_prev = abar[t], abar[t - 6] if t > 6 else 1.0
        slope = math.sqrt(1 - a_prev) - math.sqrt(a_prev * (1 - a) / a)
        z = math.sqrt(a_prev / a) * z + slope * made_up(z, torch.tensor([t]))
    torch.testing.assert_close(found.double(), z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("w", [0.0, 1.0, 4.0])
def test_three_calls_of_the_whole_path_end_nearer_to_it_than_three_steps(w):
    z0 = torch.randn(8, 2, 4, 4, generator=seeded())
    T_hat = torch.arange(20, 161, 20)
    path = denoise(z0, T_hat, w)
    near = (denoise(z0, T_hat, w, every=4) - path).abs().flatten(1).mean(1)
    far = (denoise(z0, T_hat, w, steps=3) - path).abs().flatten(1).mean(1)
    assert (near < 0.7 * far).all()


def test_two_calls_at_one_step_have_no_slope():
    """25 steps below T_hat = 10 visit some of them twice. Here e grows by one a call:
    only a slope over a real distance may carry it on.
    """
    made, used = [], []

    def counting(z_t, t):
        made.append(torch.full_like(z_t, len(made)))
        return made[-1]

    denoise(torch.randn(1, 2, 4, 4, generator=seeded()), torch.tensor([10]), every=2,
            eps_theta=counting, steps=25,
            callback=lambda step: used.append(step["e"].max().item()))
    assert max(used) < len(made) + 2


def test_sampling_never_waits_for_a_value():
    """No step of the loop reads a value back or copies to the CPU: on a GPU nothing is
    waited for before the last call is queued.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.add(function.overloadpacket._qualified_op_name)
            return function(*args, **(kwargs or {}))

    T_hat = select_step(torch.arange(1, 11), 80)
    with Watch():
        denoise(torch.randn(10, 2, 4, 4), T_hat, every=4)
    waits = {"_local_scalar_dense", "item", "nonzero", "_to_copy", "equal"}
    assert "aten::tanh" in seen and not seen & {f"aten::{name}" for name in waits}


def test_guidance_pulls_towards_the_input():
    """Where e is wrong by the same amount each step, more guidance leaves less of the
    change, until it would turn it round.
    """
    z0 = torch.randn(2, 2, 4, 4, generator=seeded())
    found = [denoise(z0, torch.tensor([80, 80]), w) for w in (0, 1, 2, 4)]
    change = [(z0_hat - z0).abs().mean().item() for z0_hat in found]
    assert change == sorted(change, reverse=True)


@pytest.mark.parametrize(
    "path", [{"first_call": "latent"}, {"first_call": "below"}, {"every": 4}])
def test_a_mixed_batch_equals_each_image_alone_in_any_order(path):
    torch.manual_seed(0)
    unet = build_unet(tiny(), 4, 4).eval().requires_grad_(False)
    path = path | {"eps_theta": lambda z_t, t: unet(z_t, t).sample}
    T_hat = select_step(torch.arange(1, 11), 80)
    z0 = torch.randn(10, 4, 4, 4, generator=seeded(3))
    together = denoise(z0, T_hat, **path)
    alone = torch.cat([denoise(z0[n : n + 1], T_hat[n : n + 1], **path)
                       for n in range(10)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    order = torch.randperm(10, generator=seeded(4))
    torch.testing.assert_close(denoise(z0[order], T_hat[order], **path),
                               together[order], rtol=0, atol=1e-5)
    assert (together - z0).abs().max() > 1e-3


def test_path_of_steps():
    T_hat = torch.tensor([10, 80, 200])
    latent, below = timesteps(T_hat), timesteps(T_hat, first_call="below")
    assert latent.shape == below.shape == (11, 3)
    assert latent[:, 1].tolist() == [*range(80, 0, -8), -1]
    assert below[:, 1].tolist() == [*range(72, -1, -8), -1]
    assert latent[:, 0].tolist() == [*range(10, 0, -1), -1]
    assert below[:, 2].tolist() == [*range(180, -1, -20), -1]
