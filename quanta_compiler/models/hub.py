"""The folder of a model that is named by its id on the Hub."""

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

from quanta_compiler.models.layers import CONFIG, ModelError
from quanta_compiler.system.extras import PEFT, require

_LONGEST_NAME = 1000
_SHOWN_CHARACTERS = 100
"""How much of the Hub's own errors an error repeats."""


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
    from huggingface_hub import hf_hub_download
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
