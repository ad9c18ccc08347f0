"""Which layers of a saved adapter are looked at."""

import re
from collections.abc import Iterable, Mapping

from quanta_compiler.adapters.paper_keys import natural_key
from quanta_compiler.adapters.tensor_file import TensorFile
from quanta_compiler.diagnostics import refusal
from quanta_compiler.text.words import some_of


def chosen(layers: re.Pattern[str] | None, name: str) -> bool:
    """Say whether the user's pattern finds something in a layer's name; without one, every layer is chosen."""
    return layers is None or layers.search(name) is not None


def refuse_nothing(
    file: TensorFile, found: Mapping[str, object], layers: re.Pattern[str] | None, names: Iterable[str]
) -> None:
    """Raise SpecError where no layer is left to look at; `names` are all layers of the file."""
    if found:
        return
    known = sorted(set(names), key=natural_key)
    if not known:
        raise refusal(file.name, "it holds no adapted layer", hint="restore the file that was saved")
    pattern = "" if layers is None else layers.pattern
    raise refusal(file.name, f"--layers {pattern!r} finds none of its layers: {some_of(known)}")
