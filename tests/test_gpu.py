"""What holds on a CUDA device; skipped where there is none, as in CI."""
import pytest
import torch
from conftest import bad_images, good_images, same_weights, tiny, tiny_vae

from ddad import Detector
from ddad.noise_predictor import alpha_bar, build_unet, epsilon_loss
from ddad.runtime import checkpoints
from ddad.runtime.graphs import captured
from ddad.training import optimise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(),
                                reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def float32_in_full():
    """Convolutions in float32, not in TF32 with its ten bits, so that devices can be
    compared.
    """
    cudnn = torch.backends.cudnn
    cudnn.allow_tf32, before = False, cudnn.allow_tf32
    yield
    cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def images():
    """Three good images and four defective ones."""
    return torch.cat([good_images(3, seed=7), bad_images(4)[0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A detector that was trained on the device."""
    folder = tmp_path_factory.mktemp("gpu") / "model"
    settings = tiny(vae="given", held_out=0.4)
    detector = Detector.fit(good_images(24), settings, vae=tiny_vae(), device="cuda")
    detector.save_pretrained(folder)
    return folder


@pytest.fixture
def load(folder):
    return lambda device="cuda": Detector.from_pretrained(
        folder, device=device, vae=tiny_vae())


@pytest.fixture
def draws():
    return torch.Generator("cuda").manual_seed(0)


def near(a, b, rtol, atol):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


# --- predictions ----------------------------------------------------------------------

def test_a_detector_of_the_gpu_says_the_same_on_the_cpu(load, images):
    here, there = (load(device).predict(images) for device in ("cuda", "cpu"))
    assert here.map.device.type == "cpu" and here.T_hat.equal(there.T_hat)
    near(here.map, there.map, 1e-3, 1e-3)
    near(here.score, there.score, 1e-3, 1e-3)


def test_scores_do_not_depend_on_batch_or_order(load):
    detector, images = load(), good_images(7, seed=8)
    score = lambda images, batch: detector.predict(images, batch=batch).score
    whole = score(images, 7)
    for batch in (1, 3):
        near(score(images, batch), whole, 1e-4, 1e-4)
    near(score(images.flip(0), 7).flip(0), whole, 1e-4, 1e-4)


def test_16_bits_stay_finite_and_near(load):
    detector, plain = load(), torch.zeros(1, 3, 64, 64)
    images = torch.cat([plain - 1, plain, torch.rand(1, 3, 64, 64) * 2 - 1,
                        good_images(3, seed=9)])
    exact, short = (
        detector.under(detector.settings.change(precision=precision)).predict(images)
        for precision in ("float32", "bfloat16"))
    assert short.map.isfinite().all() and short.T_hat.equal(exact.T_hat)
    near(short.score, exact.score, 0.05, 0.05)


def test_compiled_networks_give_what_they_gave(load, images):
    plain, compiled = load(), load()
    compiled.compile(batch=4)
    for precision, apart in (("float32", 1e-3), ("bfloat16", 0.05)):
        here, there = (one.under(one.settings.change(precision=precision))
                       .predict(images, batch=4) for one in (compiled, plain))
        assert here.T_hat.equal(there.T_hat)
        near(here.score, there.score, apart, apart)


# --- recorded calls -------------------------------------------------------------------

@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_gives_what_its_network_gives(load, draws, precision):
    predict = load().networks.at(precision)._predict
    z_t = torch.randn(5, 4, 8, 8, device="cuda", generator=draws)
    t = torch.tensor([10, 20, 30, 40, 50], device="cuda")
    graph = captured(predict, torch.zeros_like(z_t), torch.zeros_like(t))
    first = graph(z_t, t)
    near(first, predict(z_t, t), 1e-3, 1e-3)
    kept = first.clone()
    graph(2 * z_t, t + 5)
    assert first.equal(kept)            # an answer is not overwritten by the next
    near(graph(z_t, t + 5), predict(z_t, t + 5), 1e-3, 1e-3)


def test_eps_theta_keeps_the_graph_of_the_last_shape(load, draws):
    networks = load().networks
    z_t = torch.randn(5, 4, 8, 8, device="cuda", generator=draws)
    t = torch.tensor([10, 20, 30, 40, 50], device="cuda")
    for B in (5, 3, 3, 5):
        near(networks.eps_theta(z_t[:B], t[:B]), networks._predict(z_t[:B], t[:B]),
             1e-3, 1e-3)
        assert [key[1] for key in networks.graphs] == [B]


@pytest.mark.parametrize("path", [
    {}, {"call_every": 4}, {"precision": "bfloat16"},
    {"step_rule": "static"}])
def test_nothing_is_waited_for_inside_the_sampling_loop(load, path):
    detector = load()
    detector = detector.under(detector.settings.change(**path))
    z0 = torch.randn(4, 4, 8, 8, device="cuda")
    T_hat = torch.tensor([20, 40, 60, 80], device="cuda")
    detector.denoise(z0, T_hat)                     # recording the graph waits, once
    torch.cuda.set_sync_debug_mode("error")
    try:
        detector.denoise(z0, T_hat)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def loss_by(unet, abar):
    """The loss of a batch z0, t, eps."""
    eps_theta = lambda z_t, t: unet(z_t, t).sample
    return lambda *batch: epsilon_loss(eps_theta, *batch, abar)


def test_a_recorded_step_has_the_gradients_of_its_own_batch(draws):
    torch.manual_seed(0)
    unet = build_unet(tiny(), 4, 8).cuda()
    loss_of = loss_by(unet, alpha_bar(tiny(), "cuda"))

    def step(*batch):
        unet.zero_grad(set_to_none=False)
        loss = loss_of(*batch)
        loss.backward()
        return loss.detach()

    def drawn():
        z0, eps = (torch.randn(4, 4, 8, 8, device="cuda", generator=draws)
                   for _ in range(2))
        return z0, torch.randint(1000, (4,), device="cuda", generator=draws), eps

    batches = [drawn() for _ in range(3)]
    recorded = captured(step, *batches[0])
    for batch in batches:
        loss, found = recorded(*batch), [w.grad.clone() for w in unet.parameters()]
        near(loss, step(*batch), 1e-3, 1e-4)
        near(found, [w.grad for w in unet.parameters()], 1e-2, 1e-3)


# --- training -------------------------------------------------------------------------

def flat(network):
    return torch.cat([w.detach().flatten() for w in network.parameters()])


def test_an_interrupted_training_ends_like_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY", 3)
    settings, abar = tiny(), alpha_bar(tiny(), "cuda")
    z0 = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def untrained():
        torch.manual_seed(0)
        return build_unet(settings, 4, 8).cuda()

    def train(path, stop_at=None):
        unet, calls = untrained(), []

        def batch_at(draws):
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            calls.append(1)
            eps = torch.randn(z0.shape, generator=draws)
            t = torch.randint(1000, (6,), generator=draws)
            return z0.cuda(), t.cuda(), eps.cuda()

        optimise(unet, batch_at, loss_by(unet, abar), 7, "test", settings, path)
        return flat(unet)

    start, whole, path = flat(untrained()), train(None), tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(path, stop_at=5)
    # A GPU adds in an order of its own, and AdamW makes much of a small gradient's
    # rounding: near beside the way the weights went.
    apart, way = (train(path) - whole).abs().mean(), (whole - start).abs().mean()
    assert apart < 0.05 * way


def test_training_goes_on_from_its_checkpoint(tmp_path):
    once, again = (
        Detector.fit(good_images(24), tiny(train_length="6 steps"), vae=tiny_vae(),
                     device="cuda", checkpoint=tmp_path / "state.safetensors")
        for _ in range(2))
    assert once.record["peak_memory"]["train"] > 0
    assert same_weights(once.networks.unet, again.networks.unet)
