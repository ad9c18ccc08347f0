"""Writing adapters: whole ones or none, and nothing over somebody's own work."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.system.files import OutputError, umask

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
CARD_FILE = "README.md"
_ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE)


def write_adapter(
    config: Any, tensors: Mapping[str, torch.Tensor], folder: Path, *, source: Path, force: bool
) -> dict[str, Path]:
    """Write an adapter's PEFT config and its tensors into `folder`, made where missing; return the paths by kind.

    All files are complete in a folder beside it before anything there is touched.

    Raises:
        OutputError: an adapter stands there and not `force`, or a file cannot be written.

    """
    from safetensors.torch import save_file

    refuse_existing(folder, source, force=force)
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        if (folder / CARD_FILE).is_file():
            # What stands there is kept; the circuits in it are written anew.
            shutil.copyfile(folder / CARD_FILE, temporary / CARD_FILE)
        config.save_pretrained(str(temporary))
        save_file(dict(tensors), temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        # mkdtemp makes folders private; results get the permissions of an ordinary new folder.
        temporary.chmod(0o777 & ~umask())
        if folder.exists():
            for name in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE):
                if (temporary / name).exists():
                    os.replace(temporary / name, folder / name)
        else:
            temporary.rename(folder)
    except OSError as error:
        where = folder if temporary is None or str(temporary) in str(error.filename) else error.filename or folder
        raise OutputError(f"cannot write {where}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return {"config": folder / CONFIG_FILE, "weights": folder / WEIGHTS_FILE}


def refuse_existing(folder: Path, source: Path, *, force: bool) -> None:
    """Raise OutputError where an adapter stands in `folder` and not `force`, or `source` itself."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: choose another folder with -o")
    for name in _ADAPTER_FILES:
        path = folder / name
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"{path} is the state dict itself: choose another folder with -o")
        if path.exists() and not force:
            raise OutputError(f"{folder} holds an adapter already: choose another folder, or overwrite it with --force")
