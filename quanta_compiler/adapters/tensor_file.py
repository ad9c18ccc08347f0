"""Files of named tensors, read without running anything that is in them: safetensors, and torch's weights alone."""

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.diagnostics import clip, refusal
from quanta_compiler.system.extras import require

_COPY_HINT = "copy it again: a transfer was probably cut off"
_SAVE_HINT = "save it with `safetensors.torch.save_file`, or as `torch.save(model.state_dict(), file)`"
_WRAPPERS = ("state_dict", "model", "module")
"""Keys under which training scripts put a state dict beside other things."""
_SAFETENSORS_HEADER = 8
"""Bytes that hold the length of the header, which is JSON."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A file of tensors: their shapes at once, the tensors themselves one by one."""

    name: str
    """The file as the user named it."""
    shapes: Mapping[str, tuple[int, ...]]
    _read: Callable[[str], torch.Tensor]

    def read(self, key: str) -> torch.Tensor:
        """Return a tensor on the CPU.

        Raises:
            SpecError: its bytes cannot be read.

        """
        try:
            return self._read(key).detach()
        except Exception as error:
            raise refusal(self.name, f"it cannot be read: {_first_line(error)}", place=key, hint=_SAVE_HINT) from None


def open_tensors(path: Path) -> TensorFile:
    """Open a safetensors file, or a file of `torch.save` that holds tensors alone.

    Raises:
        SpecError: there is no such file, it is damaged, or it holds what is no tensor.

    """
    if path.is_dir():
        raise refusal(path, "it is a folder", hint="give the file of tensors inside it")
    if not path.exists():
        raise refusal(path, "there is no such file")
    if path.stat().st_size == 0:
        raise refusal(path, "the file is empty", hint=_COPY_HINT)
    try:
        return _open_safetensors(path) if _is_safetensors(path) else _open_torch(path)
    except OSError as error:
        raise refusal(path, f"it cannot be read: {error.strerror or error}") from None


def _is_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(_SAFETENSORS_HEADER + 1)
    length = int.from_bytes(start[:_SAFETENSORS_HEADER], "little")
    return start.endswith(b"{") and length <= path.stat().st_size


def _open_safetensors(path: Path) -> TensorFile:
    require("reading safetensors files", "safetensors")
    from safetensors import SafetensorError, safe_open

    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError) as error:
        message = f"it is no safetensors file, or a damaged one: {_first_line(error)}"
        raise refusal(path, message, hint=_COPY_HINT) from None
    return TensorFile(str(path), shapes, file.get_tensor)


def _open_torch(path: Path) -> TensorFile:
    try:
        with warnings.catch_warnings():
            # torch warns of pickles that it goes on to refuse.
            warnings.simplefilter("ignore")
            # Files of the current format are mapped: the base model's weights, if they are there, are never read.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # The sentence of torch's long message that names what was refused.
        lines = [line.strip() for line in str(error).splitlines()]
        named = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
        cause = clip((named or lines or [""])[0].removeprefix("WeightsUnpickler error: "), 160)
        message = f"it is a pickle of more than tensors, which is not opened because it could run code: {cause}"
        raise refusal(path, message, hint=_SAVE_HINT) from None
    except Exception as error:  # What a damaged pickle raises is up to its bytes.
        message = f"it is no file of tensors, or a damaged one: {_first_line(error)}"
        raise refusal(path, message, hint=_SAVE_HINT) from None
    tensors = _state_dict(loaded)
    if tensors is None:
        message = f"it holds a {type(loaded).__name__}, no state dict (a dict of tensors)"
        raise refusal(path, message, hint=_SAVE_HINT)
    return TensorFile(str(path), {key: tuple(tensor.shape) for key, tensor in tensors.items()}, tensors.__getitem__)


def _state_dict(loaded: object) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a state dict, or of the one inside a training checkpoint."""
    if not isinstance(loaded, Mapping):
        return None
    tensors = {key: value for key, value in loaded.items() if isinstance(key, str) and torch.is_tensor(value)}
    if tensors:
        return tensors
    inner = [loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)]
    return _state_dict(inner[0]) if inner else tensors


def _first_line(error: Exception) -> str:
    return clip((str(error).strip() or type(error).__name__).splitlines()[0], 200)
