"""Options that several commands share, and what they choose."""
from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

MODEL = ("model", "folder of a detector")
DATA = ("data", "a product's folder in the layout of MVTec AD (train/good, "
                "test/<kind>, ground_truth/<kind>), MVTec LOCO, BTAD or VisA")


def command(group, name: str, run, text: str,
            *paths: tuple[str, str]) -> ArgumentParser:
    """A new command of `group`, argparse's action of subparsers: `run(options)` does
    it, `text` says what it does, `paths` are its positionals and what each means.
    """
    one = group.add_parser(name, help=text, description=text)
    one.set_defaults(run=run)
    for path, meaning in paths:
        one.add_argument(path, type=Path, help=meaning)
    return one


def settings_options(one: ArgumentParser, default: str = "clean") -> None:
    names = ("clean", "fast", "regional", "one-call", "paper", "official")
    said = [f"{name} (default)" if name == default else name for name in names]
    one.add_argument("--preset", help=f"{', '.join(said[:-1])} or {said[-1]}")
    changes_option(one, "settings to change; `ddad settings` lists them")


def changes_option(one: ArgumentParser, text: str) -> None:
    one.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help=text)


def device_option(one: ArgumentParser) -> None:
    one.add_argument("--device", default="auto",
                     help="auto (default), cpu, cuda or mps")


def network_options(one: ArgumentParser) -> None:
    device_option(one)
    one.add_argument("--vae", help="autoencoder: Hugging Face id, folder, embedded, "
                                   "pixels, or FILE.py:CALLABLE")


def compile_option(one: ArgumentParser) -> None:
    one.add_argument("--compile", action="store_true",
                     help="compile the networks first: a minute or more, for thousands "
                          "of images on a GPU")


def seeds_option(one: ArgumentParser) -> None:
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N",
                     help="a training each (default 0 1 2)")


def chosen_settings(options: Namespace):
    """The settings that --preset, --set and --vae choose. SettingsError."""
    from ..settings import preset
    settings = preset(options.preset or "clean").parse(options.set)
    vae = getattr(options, "vae", None)
    return settings.change(vae=vae) if vae else settings


def chosen_vae(options: Namespace):
    """The autoencoder that --vae names, or None. BackboneError."""
    from ..networks.autoencoders import load_vae
    return load_vae(options.vae) if options.vae else None


def chosen_detector(options: Namespace):
    """The detector in the folder MODEL, on --device, with --vae. ModelError."""
    from ..detector import Detector
    return Detector.from_pretrained(options.model, vae=chosen_vae(options),
                                    device=options.device)
