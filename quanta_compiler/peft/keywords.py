"""Arguments of PEFT's LoRA, and of its methods that are presets here, refused with what `QuantaConfig` calls them."""

import functools
from typing import Any, TypeVar

from quanta_compiler.diagnostics import did_you_mean
from quanta_compiler.presets.table import PRESETS

_Class = TypeVar("_Class", bound=type[Any])
_THEIRS = {
    "r": "`r` is a part of the preset, such as preset='lora:8'",
    "rank": "`rank` is a part of the preset, such as preset='lora:8'",
    "alpha": "`scale` is what LoRA has as alpha / r",
    "lora_alpha": "`scale` is what LoRA has as lora_alpha / r",
    "lora_dropout": "`lora_dropout` is `dropout`",
    "bias": "leave `bias` out: no bias is trained, but that of layers in `modules_to_save`",
    "init_lora_weights": "`init_lora_weights` is `init_weights`",
    "use_dora": "`use_dora` is `dora`",
    "use_rslora": "`scale` is what LoRA has as lora_alpha / sqrt(r)",
    "rank_pattern": "`circuit` takes a circuit for every target: circuit={'q_proj': ..., 'v_proj': ...}",
    **{key: answer for family in PRESETS.values() for key, answer in family.theirs.items()},
}


def refusing_others(config: _Class) -> _Class:
    """Make a configuration's class refuse all unknown arguments in one error."""
    plain = config.__init__

    @functools.wraps(plain)
    def checked(self: Any, *args: Any, **given: Any) -> None:
        known = config.__dataclass_fields__
        unknown = [name for name in given if name not in known]
        if unknown:
            listed = ", ".join(map(repr, unknown))
            hints = dict.fromkeys(_hint(name, list(known)) for name in unknown)
            # PEFT, which leaves out what a newer version saved, knows the error by its words.
            raise TypeError(f"QuantaConfig got an unexpected keyword argument: {listed}\nhint: {'; '.join(hints)}")
        plain(self, *args, **given)

    setattr(config, "__init__", checked)  # noqa: B010 (to mypy a method cannot be assigned to)
    return config


def _hint(name: str, known: list[str]) -> str:
    close = did_you_mean(name, known)
    return _THEIRS.get(name) or (f"did you mean `{close}`?" if close else f"leave `{name}` out")
