"""Which images a training step takes: drawn anew, or dealt from shuffled epochs."""
from collections import Counter

import pytest
import torch
from conftest import same_weights, tiny
from formulas import seeded

from ddad import training
from ddad.noise_predictor import build_unet
from ddad.runtime import checkpoints
from ddad.settings import preset
from ddad.training import STEPS, rows_of, train_noise_predictor


def steps(images, count, **changes):
    """The rows of each step, as a training draws them."""
    s = tiny(**changes)
    draws = [torch.Generator().manual_seed(s.seed * STEPS + i) for i in range(count)]
    return [rows_of(one, images, s).tolist() for one in draws]


@pytest.mark.parametrize("seed", [0, 42])
def test_epochs_take_each_image_once_and_drop_the_rest(seed):
    dealt = steps(11, 9, train_order="epochs", seed=seed)         # 4, 4, and 3 left
    epochs = [dealt[i] + dealt[i + 1] for i in range(0, 8, 2)]
    assert all(len(set(one)) == 8 for one in epochs)
    assert len({tuple(one) for one in epochs}) == 4
    # no image is left out for good
    assert {row for one in epochs for row in one} == set(range(11))
    assert dealt == steps(11, 9, train_order="epochs", seed=seed)
    assert dealt != steps(11, 9, train_order="epochs", seed=seed + 1)


def test_every_image_comes_as_often_over_many_epochs():
    taken = Counter(row for one in steps(11, 2000, train_order="epochs") for row in one)
    # 1000 epochs, of which each leaves out 3 of 11: 727 +- 14
    assert len(taken) == 11 and all(abs(n - 727) < 60 for n in taken.values())


def test_fewer_images_than_a_batch_fill_it():
    for one in steps(3, 5, train_order="epochs"):
        assert sorted(Counter(one).values()) == [1, 1, 2]


def test_drawn_rows_are_those_of_the_steps_own_generator():
    assert steps(11, 2) == [torch.randint(11, (4,), generator=seeded(i)).tolist()
                            for i in range(2)]


def test_300_epochs_have_the_steps_of_the_official_loop():
    s = preset("official")
    assert s.steps_for(209) == 300 * (209 // 30)


def trained(path=None, stop_at=None, monkeypatch=None):
    mean = torch.randn(9, 4, 4, 4, generator=seeded())
    s = tiny(train_order="epochs", train_length="7 steps")
    torch.manual_seed(5)
    unet = build_unet(s, 4, 4)
    if stop_at:
        left = iter(range(stop_at))

        def stopping(*given):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return rows_of(*given)
        monkeypatch.setattr(training, "rows_of", stopping)
    train_noise_predictor(unet, mean, None, s, torch.device("cpu"), path)
    return unet


def test_a_training_in_epochs_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Interrupted in the middle of its third epoch."""
    path, whole = tmp_path / "state.safetensors", trained()
    monkeypatch.setattr(checkpoints, "EVERY", 3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        trained(path, 5, patch)
    assert path.exists() and same_weights(whole, trained(path))
