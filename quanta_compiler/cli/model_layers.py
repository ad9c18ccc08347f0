"""What commands read of a model: its folder or its id on the Hub, its targets, and their shares of a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quanta_compiler.cli.options import wrong_option
from quanta_compiler.diagnostics import refusal
from quanta_compiler.text.console import tell
from quanta_compiler.text.counts import count_of

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


def budgets_by_width(
    text: str, in_features: int | None, out_features: int | None, model: str | None, targets: str | None
) -> list[tuple[int, int, int]]:
    """Return the widths to search for, each with the most numbers that may train."""
    if model is None:
        if targets is not None:
            raise wrong_option("--targets", "targets are layers of a model: add --model")
        for option, width in (("--in", in_features), ("--out", out_features)):
            if width is None:
                raise wrong_option(option, "give the width, or a model with --model")
        if text.strip().endswith("%"):
            raise wrong_option("--max-parameters", "a share is of a model's parameters: add --model")
        try:
            return [(in_features or 0, out_features or 0, max(1, count_of(text)))]
        except ValueError as error:
            raise wrong_option("--max-parameters", str(error)) from None
    if in_features is not None or out_features is not None:
        raise wrong_option("--in", "a model has widths of its own: leave --in and --out out")
    from quanta_compiler.recommend.budget import parse_budget, shares

    try:
        budget = parse_budget(text)
    except ValueError as error:
        raise wrong_option("--max-parameters", str(error)) from None
    layers = read_layers(model, targets)
    return [(*shape, max(1, share)) for shape, share in shares(layers.shapes(), budget.numbers(layers)).items()]
