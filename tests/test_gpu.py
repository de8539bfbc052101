"""What holds on a CUDA device; skipped where there is none, as in CI."""
import pytest
import torch
from conftest import bad_images, good_images, tiny, tiny_vae

from ddad import Detector
from ddad.noise_predictor import alpha_bar, build_unet, captured, epsilon, epsilon_loss
from ddad.training import optimise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def float32_in_full():
    """Convolutions in float32, not in TF32 with its ten bits, so that devices can be compared."""
    torch.backends.cudnn.allow_tf32, before = False, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32 = before


def fit(device="cuda", **changes):
    return Detector.fit(good_images(24), tiny(**changes), vae=tiny_vae(), device=device)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu") / "model"
    fit(vae="given", held_out=0.4).save_pretrained(folder)
    return folder


def test_a_detector_of_the_gpu_says_the_same_on_the_cpu(saved):
    images = torch.cat([good_images(3, seed=7), bad_images(4)[0]])
    here, there = (Detector.from_pretrained(saved, device=device, vae=tiny_vae()).predict(images) for device in ("cuda", "cpu"))
    assert here.map.device.type == "cpu" and here.T_hat.equal(there.T_hat)
    torch.testing.assert_close(here.map, there.map, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(here.score, there.score, rtol=1e-3, atol=1e-3)


def test_scores_do_not_depend_on_batch_or_order(saved):
    detector, images = Detector.from_pretrained(saved, device="cuda", vae=tiny_vae()), good_images(7, seed=8)
    whole = detector.predict(images, batch=7)
    for batch in (1, 3):
        torch.testing.assert_close(detector.predict(images, batch=batch).score, whole.score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(detector.predict(images.flip(0), batch=7).score.flip(0), whole.score, rtol=1e-4, atol=1e-4)


def test_a_graph_gives_what_its_network_gives(saved):
    detector, draws = Detector.from_pretrained(saved, device="cuda", vae=tiny_vae()), torch.Generator("cuda").manual_seed(0)
    for precision in ("float32", "bfloat16"):
        predict = epsilon(detector.unet, precision)
        z_t, t = torch.randn(5, 4, 8, 8, device="cuda", generator=draws), torch.tensor([10, 20, 30, 40, 50], device="cuda")
        graph = captured(predict, torch.zeros_like(z_t), torch.zeros_like(t))
        first = graph(z_t, t)
        torch.testing.assert_close(first, predict(z_t, t), rtol=1e-3, atol=1e-3)
        kept = first.clone()
        graph(2 * z_t, t + 5)
        assert first.equal(kept)                                       # an answer is not overwritten by the next
        torch.testing.assert_close(graph(z_t, t + 5), predict(z_t, t + 5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("path", [{}, {"call_every": 4}, {"precision": "bfloat16"}, {"dynamic": False}])
def test_nothing_is_waited_for_inside_the_sampling_loop(saved, path):
    detector = Detector.from_pretrained(saved, device="cuda", vae=tiny_vae())
    detector = detector.under(detector.settings.change(**path))
    z0, T_hat = torch.randn(4, 4, 8, 8, device="cuda"), torch.tensor([20, 40, 60, 80], device="cuda")
    detector.denoise(z0, T_hat)                                        # recording the graph waits, once
    torch.cuda.set_sync_debug_mode("error")
    try:
        detector.denoise(z0, T_hat)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_16_bits_stay_finite_and_near(saved):
    detector = Detector.from_pretrained(saved, device="cuda", vae=tiny_vae())
    images = torch.cat([torch.full((1, 3, 64, 64), -1.0), torch.zeros(1, 3, 64, 64), torch.rand(1, 3, 64, 64) * 2 - 1, good_images(3, seed=9)])
    exact, short = (detector.under(detector.settings.change(precision=precision)).predict(images) for precision in ("float32", "bfloat16"))
    assert short.map.isfinite().all() and short.T_hat.equal(exact.T_hat)
    torch.testing.assert_close(short.score, exact.score, rtol=0.05, atol=0.05)


def test_compiled_networks_give_what_they_gave(saved):
    images = torch.cat([good_images(3, seed=7), bad_images(4)[0]])
    plain, compiled = (Detector.from_pretrained(saved, device="cuda", vae=tiny_vae()) for _ in range(2))
    compiled.compile(batch=4)
    for precision, near in (("float32", 1e-3), ("bfloat16", 0.05)):
        here, there = (one.under(one.settings.change(precision=precision)).predict(images, batch=4) for one in (compiled, plain))
        assert here.T_hat.equal(there.T_hat)
        torch.testing.assert_close(here.score, there.score, rtol=near, atol=near)


def test_a_recorded_step_has_the_gradients_of_its_own_batch():
    torch.manual_seed(0)
    unet, abar = build_unet(tiny(), 4, 8).cuda(), alpha_bar(tiny(), "cuda")

    def step(*batch):
        unet.zero_grad(set_to_none=False)
        loss = epsilon_loss(unet, *batch, abar)
        loss.backward()
        return loss.detach()

    draws = torch.Generator("cuda").manual_seed(0)
    batches = [(torch.randn(4, 4, 8, 8, device="cuda", generator=draws), torch.randint(1000, (4,), device="cuda", generator=draws),
                torch.randn(4, 4, 8, 8, device="cuda", generator=draws)) for _ in range(3)]
    recorded = captured(step, *batches[0])
    for batch in batches:
        loss, found = recorded(*batch), [w.grad.clone() for w in unet.parameters()]
        torch.testing.assert_close(loss, step(*batch), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found, [w.grad for w in unet.parameters()], rtol=1e-2, atol=1e-3)


def test_an_interrupted_training_ends_like_an_undisturbed_one(tmp_path):
    settings, abar, z0 = tiny(), alpha_bar(tiny(), "cuda"), torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def train(path, stop_at=None):
        torch.manual_seed(0)
        unet, calls = build_unet(settings, 4, 8).cuda(), []

        def batch_at(draws):
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            calls.append(1)
            eps, t = torch.randn(z0.shape, generator=draws), torch.randint(1000, (6,), generator=draws)
            return z0.cuda(), t.cuda(), eps.cuda()

        optimise(unet, batch_at, lambda *batch: epsilon_loss(unet, *batch, abar), 7, "test", settings, path, every=3)
        return torch.cat([w.flatten() for w in unet.parameters()])

    torch.manual_seed(0)
    start = torch.cat([w.detach().flatten() for w in build_unet(settings, 4, 8).cuda().parameters()])
    whole, path = train(None), tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(path, stop_at=5)
    # A GPU adds in an order of its own, and AdamW makes much of a small gradient's rounding: near beside the way the weights went.
    assert (train(path) - whole).abs().mean() < 0.05 * (whole - start).abs().mean()


def test_training_goes_on_from_its_checkpoint(tmp_path):
    path = tmp_path / "state.safetensors"
    once, again = (Detector.fit(good_images(24), tiny(train_length="6 steps"), vae=tiny_vae(), device="cuda", checkpoint=path) for _ in range(2))
    assert once.record["peak_memory"]["train"] > 0
    assert all(a.equal(b) for a, b in zip(once.unet.parameters(), again.unet.parameters()))
