"""A folder with a Hugging Face `config.json`, looked at before anything is imported that takes seconds."""

import json
from pathlib import Path
from typing import Any

CONFIG = "config.json"


class ModelError(ValueError):
    """A model's folder, or the targets in it, are no good; the message is one sentence."""


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
