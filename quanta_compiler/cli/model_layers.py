"""What commands read of a model: its folder or its id on the Hub, and its targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quanta_compiler.diagnostics import refusal
from quanta_compiler.text.console import tell

if TYPE_CHECKING:
    from quanta_compiler.models.layers import ModelLayers


def read_layers(model: str, targets: str | None) -> ModelLayers:
    """Return the targeted layers of a model; raise SpecError where it cannot be read."""
    from quanta_compiler.models.layers import ModelError

    try:
        from quanta_compiler.compare.run import named_layers

        return named_layers(model, target_modules(targets), tell)
    except ModelError as error:
        raise refusal("quanta", str(error), hint=error.hint) from None


def target_modules(text: str | None) -> str | list[str] | None:
    """Return `target_modules`: a list of names, or the text itself where it is a regular expression or a keyword."""
    if text is None or text == "all-linear":
        return text
    names = [name.strip() for name in text.split(",")]
    plain = all(name.replace(".", "").replace("_", "").replace("-", "").isalnum() for name in names)
    return names if plain else text
