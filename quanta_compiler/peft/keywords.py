"""Arguments of PEFT's LoRA, OFT, BOFT and VeRA that `QuantaConfig` calls otherwise, refused with what to write."""

import functools
from typing import Any, TypeVar

from quanta_compiler.diagnostics import did_you_mean

_Class = TypeVar("_Class", bound=type[Any])
_OFT = "preset='oft:BLOCKS', placement='input'"
_BOFT = "preset='boft:blocks=BLOCKS,factors=FACTORS', placement='input'"
_THEIRS = {
    "r": "`r` is a part of the preset, such as preset='lora:8', 'oft:8' or 'vera:256'",
    "rank": "`rank` is a part of the preset, such as preset='lora:8'",
    "alpha": "`scale` is what LoRA has as alpha / r",
    "lora_alpha": "`scale` is what LoRA has as lora_alpha / r",
    "lora_dropout": "`lora_dropout` is `dropout`",
    "bias": "leave `bias` out: no bias is trained, but that of layers in `modules_to_save`",
    "init_lora_weights": "`init_lora_weights` is `init_weights`",
    "use_dora": "`use_dora` is `dora`",
    "use_rslora": "`scale` is what LoRA has as lora_alpha / sqrt(r)",
    "rank_pattern": "`circuit` takes a circuit for every target: circuit={'q_proj': ..., 'v_proj': ...}",
    "oft_block_size": f"for `oft_block_size` write the number of blocks: {_OFT}",
    "use_cayley_neumann": f"leave `use_cayley_neumann` out: Cayley's map is exact in {_OFT}",
    "module_dropout": "leave `module_dropout` out: `dropout` drops numbers of the input, and nothing drops blocks",
    "boft_dropout": "leave `boft_dropout` out: `dropout` drops numbers of the input, and nothing drops blocks",
    "boft_block_size": f"for `boft_block_size` write the number of blocks: {_BOFT}",
    "boft_block_num": f"`boft_block_num` is BLOCKS in {_BOFT}",
    "boft_n_butterfly_factor": f"`boft_n_butterfly_factor` is FACTORS in {_BOFT}",
    "d_initial": "leave `d_initial` out: d begins at 1 in preset='vera:RANK', and `scale` multiplies the update",
    "projection_prng_key": "`projection_prng_key` is `init_seed`, with preset='vera:RANK'",
    "save_projection": "leave `save_projection` out: the projections of preset='vera:RANK' are always saved",
    "vera_dropout": "`vera_dropout` is `dropout`",
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
