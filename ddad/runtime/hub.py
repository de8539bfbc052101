"""Detectors on the Hugging Face hub; a folder of this machine never asks it."""
from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from .errors import ModelError, WriteError
from .files import write_text
from .manifest import CARD
from .model_card import PLACEHOLDER
from .processes import is_main

# user/name, or user/name@revision: a branch, a tag or a commit
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@\w[\w./-]*)?", re.ASCII)
FETCHED = ["*.json", "*.safetensors", CARD]         # nothing that could be executed


def local(folder: str | Path) -> Path:
    """The folder itself; of a text "user/name" or "user/name@revision" where nothing
    of that name lies, the hub's repository, from the cache or fetched into it.

    Raises ModelError where that cannot be had. What was fetched is not trusted more
    than any folder: `saved_model.read` checks it.
    """
    if (isinstance(folder, Path) or os.path.lexists(folder)
            or not NAME.fullmatch(folder)):
        return Path(folder)
    from huggingface_hub import snapshot_download
    name, _, revision = folder.partition("@")
    print(f"detector {folder}: from the Hugging Face cache, else fetched from the hub",
          file=sys.stderr)
    try:
        return Path(snapshot_download(name, revision=revision or None,
                                      allow_patterns=FETCHED))
    except Exception as error:
        # the hub's own errors, those of its HTTP library, and the disk's
        raise ModelError(
            f"{folder} is no folder here, and the Hugging Face hub does not give it "
            f"({_first_line(error)}); give the folder of a saved detector, or the "
            "user/name of one on the hub") from error


def upload(save: Callable[[Path], None], name: str, private: bool) -> str:
    """Commit what `save` writes into a folder to the hub's repository "user/name",
    which is made if need be; the commit's address.

    Of several processes the main one uploads; the others return "". Raises WriteError.
    """
    from huggingface_hub import HfApi
    with TemporaryDirectory() as aside:
        folder = Path(aside) / Path(name).name
        save(folder)
        if not is_main():
            return ""
        try:
            api = HfApi(library_name="ddad")
            at = api.create_repo(name, private=private, exist_ok=True).repo_id
            text = (folder / CARD).read_text(encoding="utf-8").replace(PLACEHOLDER, at)
            write_text(folder / CARD, text)
            return api.upload_folder(
                repo_id=at, folder_path=folder,
                commit_message=f"Save detector {folder.name}").commit_url
        except Exception as error:
            raise WriteError(
                f"{name} cannot be written to the Hugging Face hub "
                f"({_first_line(error)}); log in with `hf auth login`, and give "
                "user/name, a repository of yours") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
