"""A folder with a Hugging Face `config.json`, looked at before anything is imported that takes seconds."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

CONFIG = "config.json"
_SHOWN_CHARACTERS = 100
"""How much of the Hub's own errors an error repeats."""


class ModelError(ValueError):
    """A model's folder, or the targets in it, are no good; the message is one sentence."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def model_folder(model: str, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of a model: `model` itself, or that of the Hub's `config.json` in the user's cache.

    Nothing but that one file is downloaded.

    Raises:
        ModelError: there is no such folder, and the Hub has no such model or cannot be reached.

    """
    folder = Path(model)
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        return folder
    from quanta_compiler.system.extras import PEFT, require

    require("a model of the Hub", *PEFT)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(model, CONFIG, local_files_only=True)).parent
    except LocalEntryNotFoundError:
        progress(f"asking the Hub for {CONFIG} of {model!r}")
    try:
        return Path(hf_hub_download(model, CONFIG)).parent
    except GatedRepoError:
        raise ModelError(f"the Hub gives {model!r} to those it knows", "log in with `hf auth login`") from None
    except RepositoryNotFoundError:
        raise ModelError(f"there is no folder {model!r}, and no such model on the Hub") from None
    except Exception as error:
        # Offline, a proxy, no room in the cache: many errors of several packages.
        fault = shorten(str(error), _SHOWN_CHARACTERS, placeholder=" …")
        raise ModelError(
            f"there is no folder {model!r}, and the Hub cannot be reached ({fault})",
            f"put the model's {CONFIG} in a folder, by `hf download {model} {CONFIG} --local-dir DIR`, and name it",
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's configuration as it is written.

    Raises:
        ModelError: there is none.

    """
    path = folder / CONFIG
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "does not exist"
        raise ModelError(f"{folder} {fault}: name the folder of a model, with a {CONFIG} in it")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {CONFIG}: name the folder of a Hugging Face model") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise ModelError(f"{path} is nested too deeply to be a configuration") from None
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("model_type"), str):
        raise ModelError(f"{path} has no `model_type`, so it does not say which model it is for")
    return data
