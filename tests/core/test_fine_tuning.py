"""Fine-tuning: the loss by hand, its levels, where gradients flow, batch norm."""
import copy
import math

import pytest
import torch
from conftest import good_images, tiny
from formulas import LEVELS, seeded
from torch import nn

from ddad.fine_tuning import feature_loss, fine_tune, random_level


class Phi(nn.Module):
    """Three blocks with batch norm; notes for every call whether gradients were
    wanted.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, n + 1, 3, 2, 1), nn.BatchNorm2d(n + 1),
                          nn.Tanh()) for n in (3, 4, 5))
        self.with_gradient = []
        self.eval().requires_grad_(False)

    def forward(self, x):
        self.with_gradient.append(torch.is_grad_enabled())
        out = []
        for block in self.blocks:
            x = block(x)
            out.append(x)
        return out


def blurred(images):
    """A stand-in for the method's reconstruction."""
    def reconstruct(rows, T_hat, start):
        return nn.functional.avg_pool2d(images[rows], 3, 1, 1)
    return reconstruct


@pytest.mark.parametrize("cosine", ["position", "flattened"])
def test_feature_loss(cosine):
    a = [torch.randn(2, c, 4, 4, generator=seeded(c)) for c in (3, 4, 5)]
    b = [torch.randn(2, c, 4, 4, generator=seeded(c + 9)) for c in (3, 4, 5)]
    loss = lambda b, stages=(1, 2, 3): feature_loss(a, b, stages, cosine).item()
    assert loss(a) == pytest.approx(0, abs=1e-5)
    assert loss([-x for x in a]) == pytest.approx(6, abs=1e-5)
    assert loss([3 * x for x in a]) == pytest.approx(0, abs=1e-5)
    expected = 0.0
    for j in (0, 2):
        if cosine == "flattened":
            pairs = [(a[j][n].ravel(), b[j][n].ravel()) for n in range(2)]
        else:
            pairs = [(a[j][n, :, y, x], b[j][n, :, y, x])
                     for n in range(2) for y in range(4) for x in range(4)]
        distances = [1 - (p @ q / p.norm() / q.norm()).item() for p, q in pairs]
        expected += sum(distances) / len(pairs)
    assert loss(b, (1, 3)) == pytest.approx(expected, abs=1e-5)


def test_random_levels():
    levels, start = random_level(500, 80, seeded())
    assert set(levels.tolist()) == {10, *LEVELS} and torch.equal(levels, start)
    # two of ten draws round to 20
    assert abs((levels == 20).float().mean().item() - 0.2) < 0.06
    firsts = set()
    for seed in range(60):
        levels, start = random_level(7, 80, seeded(seed), level="batch")
        assert levels.shape == start.shape == (7,)
        assert len(set(levels.tolist())) == len(set(start.tolist())) == 1
        firsts.add((start[0].item(), levels[0].item()))
    assert firsts == set(zip(range(8, 81, 8), [10, *LEVELS], strict=True))
    assert set(random_level(200, 30, seeded())[0].tolist()) == {10, 20, 30}


@pytest.mark.parametrize("gradient", ["reconstruction", "both"])
def test_gradient_flows_where_it_is_wanted(gradient):
    """One step of AdamW against the same step taken by hand."""
    images = torch.randn(6, 3, 16, 16, generator=seeded())
    settings = tiny(tune_gradient=gradient, tune_batch=6, tune_learning_rate=0.01)
    phi, by_hand = Phi(), Phi().requires_grad_(True)
    history = fine_tune(phi, images, blurred(images), settings)
    assert phi.with_gradient == [gradient == "both", True]
    target = [t if gradient == "both" else t.detach() for t in by_hand(images)]
    again = by_hand(nn.functional.avg_pool2d(images, 3, 1, 1))
    loss = feature_loss(target, again, settings.tune_stages)
    optimiser = torch.optim.AdamW(by_hand.parameters(), lr=0.01)
    loss.backward()
    optimiser.step()
    assert history == [pytest.approx(loss.item(), rel=1e-5)]
    start, found = Phi().state_dict(), phi.state_dict()
    for name, weight in by_hand.named_parameters():
        # a bias right before a norm in evaluation mode has a gradient; Adam's first
        # step has its sign, so tiny ones are left out
        clear = weight.grad.abs() > 1e-6
        torch.testing.assert_close(found[name][clear], weight.detach()[clear], rtol=0,
                                   atol=1e-4)
        assert not torch.equal(found[name], start[name])


@pytest.mark.parametrize("mode", ["frozen", "training"])
def test_batch_norm_in_fine_tuning(mode):
    images, phi = torch.randn(8, 3, 16, 16, generator=seeded()) * 3 + 1, Phi()
    before = {k: v.clone() for k, v in phi.state_dict().items()}
    settings = tiny(tune_batch_norm=mode, tune_epochs=2, tune_batch=3)
    history = fine_tune(phi, images, blurred(images), settings)
    after, first = phi.state_dict(), "blocks.0.0.weight"
    running = [k for k in before if "running" in k or "num_batches" in k]
    assert running
    assert all(torch.equal(before[k], after[k]) == (mode == "frozen") for k in running)
    assert not torch.equal(before[first], after[first])
    assert not any(module.training for module in phi.modules())
    assert not any(p.requires_grad for p in phi.parameters())
    assert len(history) == 2 and all(math.isfinite(loss) for loss in history)


def test_fine_tuning_lowers_its_loss_and_repeats():
    images, runs = good_images(12, 32), []
    for seed in (0, 0, 1):
        phi = Phi()
        settings = tiny(tune_epochs=6, tune_batch=4, tune_learning_rate=0.003,
                        seed=seed)
        runs.append((fine_tune(phi, images, blurred(images), settings),
                     phi.state_dict()))
    (history, weights), (again, same), (other, _) = runs
    assert history[-1] < 0.8 * history[0]
    assert history == again and history != other
    assert all(torch.equal(v, same[k]) for k, v in weights.items())


def test_no_epochs_leave_the_features_alone():
    images, phi = good_images(4, 32), Phi()
    before = copy.deepcopy(phi.state_dict())
    assert fine_tune(phi, images, blurred(images), tiny(tune_epochs=0)) == []
    assert all(torch.equal(v, before[k]) for k, v in phi.state_dict().items())
    assert not phi.training
