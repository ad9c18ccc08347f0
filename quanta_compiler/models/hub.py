"""The folder of a model that is named by its id on the Hub."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

from quanta_compiler.models.layers import CONFIG, ModelError
from quanta_compiler.system.extras import PEFT, require

_LONGEST_NAME = 1000
_SHOWN_CHARACTERS = 100
"""How much of the Hub's own errors an error repeats."""
_SECONDS = 4
"""How long the Hub has to answer; its own download asks several times, for half a minute."""
_SHIPPED = Path(__file__).parents[2] / "examples" / "models"
"""Folders with the shapes of popular models; they lie beside the package in a clone, and are not in the wheel."""


def model_folder(model: str, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of a model: `model` itself, or that of the Hub's `config.json` in the user's cache.

    Nothing but that one file is downloaded.

    Raises:
        ModelError: there is no such folder, and the Hub has no such model or cannot be reached.

    """
    folder = Path(model)
    if len(model) > _LONGEST_NAME or "\0" in model:
        raise ModelError(f"{shorten(model, _SHOWN_CHARACTERS, placeholder=' …')!r} is no name of a folder")
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        return folder
    require("a model of the Hub", *PEFT)
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(model, CONFIG, local_files_only=True)).parent
    except HFValidationError:
        raise ModelError(f"{model!r} is neither a folder nor an id of the Hub") from None
    except LocalEntryNotFoundError:
        progress(f"asking the Hub for {CONFIG} of {model!r}")
    shipped = _shipped(model)
    try:
        get_hf_file_metadata(hf_hub_url(model, CONFIG), timeout=_SECONDS)
        return Path(hf_hub_download(model, CONFIG)).parent
    except GatedRepoError:
        hint = "log in with `hf auth login`" + (f", or take its shapes: --model {shipped}" if shipped else "")
        raise ModelError(f"the Hub gives {model!r} to those it knows", hint) from None
    except RepositoryNotFoundError:
        raise ModelError(f"there is no folder {model!r}, and no such model on the Hub") from None
    except Exception as error:
        # Offline, a proxy, no room in the cache: many errors of several packages.
        fault = str(error).strip().partition("\n")[0]
        cause = fault if 0 < len(fault) <= _SHOWN_CHARACTERS else type(error).__name__
        elsewhere = f"`hf download {model} {CONFIG} --local-dir DIR` where the Hub can be reached, and copy DIR here"
        raise ModelError(
            f"there is no folder {model!r}, and the Hub cannot be reached ({cause})",
            f"its shapes are here: --model {shipped}" if shipped else f"name a folder: --model DIR, by {elsewhere}",
        ) from None


def _shipped(model: str) -> str | None:
    """Return the folder that has a model's shapes, where this is a clone that has one."""
    for path in sorted(_SHIPPED.glob(f"*/{CONFIG}")):
        if json.loads(path.read_text(encoding="utf-8")).get("_name_or_path", "").lower() == model.lower():
            folder = path.parent
            return os.fspath(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
    return None
