"""A training that is interrupted ends like one that was not; a checkpoint of another
one is refused.
"""
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from conftest import good_images, same_weights, tiny, tiny_vae
from safetensors.torch import load_file, save_file

from ddad import Detector, training
from ddad.noise_predictor import alpha_bar, build_unet, epsilon_loss
from ddad.runtime import checkpoints
from ddad.runtime.checkpoints import fitted, forget, kept_latents
from ddad.runtime.errors import ModelError, SettingsError, WriteError
from ddad.runtime.files import sole_writer


@pytest.fixture(autouse=True)
def every_third_step(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY", 3)


def run_training(path=None, stop_at=None, seed=0, steps=7, **changes):
    """A tiny U-Net, trained `steps` steps; stop_at interrupts that step. The weights,
    the record and how many steps were made.
    """
    settings = tiny(train_length=f"{steps} steps", seed=seed, **changes)
    torch.manual_seed(seed)
    unet, abar = build_unet(settings, 4, 4), alpha_bar(settings)
    z0 = torch.randn(6, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    calls = []

    def batch_at(draws):
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        calls.append(1)
        rows = torch.randint(6, (4,), generator=draws)
        t = torch.randint(1000, (4,), generator=draws)
        return z0[rows], t, torch.randn(4, 4, 4, 4, generator=draws)

    def loss_of(z0, t, eps):
        return epsilon_loss(lambda z_t, t: unet(z_t, t).sample, z0, t, eps, abar)

    record = training.optimise(unet, batch_at, loss_of, steps, "test", settings, path)
    return unet.state_dict(), record, len(calls)


@pytest.mark.parametrize("ema", [0.0, 0.999])
def test_an_interrupted_training_ends_like_an_undisturbed_one(tmp_path, ema):
    path = tmp_path / "new folder" / "state.safetensors"
    weights, record, calls = run_training(ema=ema)
    assert calls == 7
    with pytest.raises(KeyboardInterrupt):
        run_training(path, stop_at=5, ema=ema)
    assert path.exists() and [p.name for p in path.parent.iterdir()] == [path.name]
    # goes on with steps 3 .. 6, and, once finished, with none
    for left in (4, 0):
        again, record_again, calls = run_training(path, ema=ema)
        assert calls == left
        assert same_weights(weights, again) and record_again == record


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    run_training(path)
    before = path.read_bytes()
    for changes in ({"seed": 1}, {"learning_rate": 1e-4}, {"steps": 8}):
        with pytest.raises(SettingsError, match=f"other {next(iter(changes))}"):
            run_training(path, **changes)
    assert path.read_bytes() == before


def test_a_checkpoint_serves_where_only_later_stages_differ(tmp_path):
    path = tmp_path / "state.safetensors"
    weights, _, _ = run_training(path)
    again, _, calls = run_training(path, lam=0.1, T_max=160, tune_epochs=0)
    assert calls == 0 and same_weights(weights, again)


def test_it_is_written_at_every_so_many_steps_and_at_the_end(tmp_path, monkeypatch):
    path, done, real = tmp_path / "state.safetensors", [], checkpoints.save_file

    def noting(tensors, to, meta):
        done.append(int(meta["done"]))
        real(tensors, to, meta)

    monkeypatch.setattr(checkpoints, "save_file", noting)
    run_training(path)
    assert done == [3, 6, 7] and len(load_file(path)["losses"]) == 7


# --- a detector that is trained once --------------------------------------------------

class Trainer:
    """Counts what `fitted` has done, and leaves a checkpoint as a training does."""

    def __init__(self):
        self.trained, self.loaded, self.number = [], 0, count()

    def train(self, checkpoint):
        self.trained.append(checkpoint.exists())
        checkpoint.write_text("state")
        kept_latents(checkpoint).mkdir(exist_ok=True)
        return SimpleNamespace(save_pretrained=self.save, number=next(self.number))

    def save(self, folder):
        folder.mkdir()

    def load(self, folder):
        self.loaded += 1
        return folder


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "models"
    home.mkdir()
    return home / "one.detector"


def beside(folder):
    return sorted(path.name for path in folder.parent.iterdir())


def test_it_trains_once_and_is_loaded_afterwards(folder):
    trainer = Trainer()
    assert fitted(folder, trainer.train, trainer.load).number == 0
    assert (trainer.trained, trainer.loaded) == ([False], 0)
    # neither checkpoint nor latents nor lock
    assert beside(folder) == ["one.detector"]
    assert fitted(folder, trainer.train, trainer.load) == folder
    assert (trainer.trained, trainer.loaded) == ([False], 1)


def test_without_load_it_is_trained_anew(folder):
    trainer, over = Trainer(), lambda folder: folder.mkdir(exist_ok=True)
    trainer.save = over
    assert [fitted(folder, trainer.train).number for _ in range(2)] == [0, 1]


def test_interrupted_it_keeps_its_checkpoint_and_goes_on_from_it(folder):
    trainer, checkpoint = Trainer(), "one.detector.training.safetensors"

    def interrupted(path):
        trainer.train(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(folder, interrupted, trainer.load)
    latents = checkpoint.replace(".safetensors", ".latents")
    assert beside(folder) == [latents, checkpoint]
    fitted(folder, trainer.train, trainer.load)
    assert trainer.trained == [False, True] and beside(folder) == ["one.detector"]


def test_what_a_kill_after_saving_left_is_removed(folder):
    trainer = Trainer()
    trainer.train(folder.with_name("one.detector.training.safetensors"))
    folder.mkdir()
    fitted(folder, trainer.train, trainer.load)
    assert trainer.loaded == 1 and beside(folder) == ["one.detector"]


def test_it_refuses_while_another_process_writes(folder):
    trainer, lock = Trainer(), folder.with_name("one.detector.lock")
    with sole_writer(lock, folder):
        with pytest.raises(WriteError, match="another process writes to .*one.detecto"):
            fitted(folder, trainer.train, trainer.load)
        assert not trainer.trained and not folder.exists()
    fitted(folder, trainer.train, trainer.load)
    assert trainer.trained == [False]


def test_forgetting_what_is_not_there(tmp_path):
    forget(tmp_path / "none.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_other_images_is_refused(tmp_path):
    """Killed, wrong images removed, started again: it must not go on from weights that
    learned them.
    """
    path, settings = tmp_path / "state.safetensors", tiny()
    images = good_images(12)
    first = Detector.fit(images, settings, checkpoint=path)
    again = Detector.fit(images, settings, checkpoint=path)
    assert same_weights(first.networks.unet.state_dict(),
                        again.networks.unet.state_dict())
    for other in (images[1:], images.flip(0), images * 0.99):
        with pytest.raises(SettingsError, match="images or autoencoder"):
            Detector.fit(other, settings, checkpoint=path)
    with pytest.raises(SettingsError, match="images or autoencoder"):
        Detector.fit(images, settings, vae=tiny_vae(), checkpoint=path)


def test_a_diverging_training_stops_and_keeps_its_last_state(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LOOK", 2)
    path, made = tmp_path / "state.safetensors", []

    def loss_of(w):
        made.append(1)
        return w * (torch.nan if len(made) > 4 else 1)

    model = torch.nn.Linear(1, 1, bias=False)
    with pytest.raises(ModelError, match="step 6; lower learning_rate.*earlier step"):
        training.optimise(model, lambda draws: (model.weight.sum(),), loss_of, 20,
                          "test", tiny(gradient_clip=0.0), path)
    assert len(made) == 6
    made.clear()
    with pytest.raises(ModelError, match="or set gradient_clip$"):     # none is kept
        training.optimise(model, lambda draws: (model.weight.sum() * torch.nan,),
                          loss_of, 20, "test", tiny(), tmp_path / "none.safetensors")
    tensors = load_file(path)
    assert len(tensors["losses"]) == 3
    assert all(values.isfinite().all() for values in tensors.values())


def test_a_file_of_another_kind_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.training.safetensors"
    save_file({"w": torch.zeros(1)}, path)          # no word of what it was made with
    with pytest.raises(SettingsError, match="is no checkpoint of a training; delete"):
        run_training(path)


@pytest.mark.parametrize("left", (b"", b"\x08\0\0\0\0\0\0\0{"))
def test_a_damaged_checkpoint_is_named(tmp_path, left):
    path = tmp_path / "model.training.safetensors"
    path.write_bytes(left)
    with pytest.raises(SettingsError, match="model.training.safetensors cannot be "
                       "read .*; delete it to start anew"):
        run_training(path)
