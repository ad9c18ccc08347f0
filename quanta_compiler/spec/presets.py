"""Presets: families of circuits by name, and the short notation for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quanta_compiler.diagnostics import Problems, did_you_mean
from quanta_compiler.spec import preset_circuits as circuits
from quanta_compiler.spec.document import PresetDocument, read_document
from quanta_compiler.spec.layout_values import Layout
from quanta_compiler.spec.loader import DictSource
from quanta_compiler.spec.preset_circuits import Expansion
from quanta_compiler.spec.preset_models import PRESET_MODELS, PresetFile


@dataclass(frozen=True, slots=True)
class Preset:
    """A family of circuits."""

    meaning: str
    operator: str
    """The operator T: [m, n] as a formula; m is out_features, n is in_features, m_k and n_k are their factors."""
    parameters: str
    """The number of trained parameters as a formula."""
    circuit: Callable[[Any, int, int], Expansion]
    """The circuit, from the options, in_features and out_features."""
    main: str | None
    """The option that the short notation `NAME:VALUE` sets."""
    model: type[PresetFile]

    @property
    def options(self) -> tuple[str, ...]:
        """The options that the preset takes, in the order of the documentation."""
        return tuple(name for name in self.model.model_fields if name not in PresetFile.model_fields)


PRESETS: dict[str, Preset] = {
    "quanta": Preset(
        "QuanTA: a gate for every pair of axes",
        "T = the product of the gates, pair by pair",
        "sum over the pairs (j, k) of (n_j n_k)^2",
        circuits.quanta_circuit,
        "layout",
        PRESET_MODELS["quanta"],
    ),
    "lora": Preset(
        "LoRA: a low-rank product",
        "T = B A",
        "r (n + m), r being `rank`",
        circuits.lora_circuit,
        "rank",
        PRESET_MODELS["lora"],
    ),
    "krona": Preset(
        "KronA: a Kronecker product of a matrix for each axis",
        "T = A_0 (x) A_1 (x) ...",
        "sum over the axes k of m_k n_k",
        circuits.krona_circuit,
        "layout",
        PRESET_MODELS["krona"],
    ),
    "tt": Preset(
        "tensor-train matrix: a core for each axis, joined by bonds",
        "T[i, j] = G_0[i_0, j_0] G_1[i_1, j_1] ... G_(N-1)[i_(N-1), j_(N-1)]",
        "r m_0 n_0 + r^2 (m_1 n_1 + ... + m_(N-2) n_(N-2)) + r m_(N-1) n_(N-1), r being `rank`",
        circuits.tt_circuit,
        "rank",
        PRESET_MODELS["tt"],
    ),
    "loretta": Preset(
        "LoRETTA: a LoRA whose A and B are tensor trains",
        "T = B A, A the train of [n_0, ..., n_(N-1), r], B that of [r, m_0, ..., m_(N-1)]",
        "t n_0 + t^2 (n_1 + ... + n_(N-1)) + 2 t r + t^2 (m_0 + ... + m_(N-2)) + t m_(N-1), t being `tt_rank`",
        circuits.loretta_circuit,
        "rank",
        PRESET_MODELS["loretta"],
    ),
    "monarch": Preset(
        "Monarch: two block-diagonal matrices and a permutation after each",
        "T = P_2 L P_1 R",
        "r b (ceil(n / b) + ceil(m / b)), b being `blocks` and r `block_rank`",
        circuits.monarch_circuit,
        "blocks",
        PRESET_MODELS["monarch"],
    ),
    "btt": Preset(
        "block tensor train: a tensor train whose cores differ for every index of the other axes",
        "T[(a b), (c d)] = sum over s of L[a, b, c, s] R[b, c, d, s], for two axes",
        "sum over the axes k of n_0 ... n_k m_k ... m_(N-1) times `rank` for each bond of core k",
        circuits.btt_circuit,
        "rank",
        PRESET_MODELS["btt"],
    ),
    "butterfly": Preset(
        "butterfly: log2(n) sparse factors of 2 x 2 blocks",
        "T = B_w ... B_4 B_2",
        "2 w log2(w), w the power of two from max(n, m) on",
        circuits.butterfly_circuit,
        None,
        PRESET_MODELS["butterfly"],
    ),
    "quantum_peft": Preset(
        "Quantum-PEFT: a low-rank product whose two orthogonal factors come from few angles",
        "T = U diag(s) V^T, U: [m, r] and V: [n, r] of orthonormal columns, r being `rank`",
        "p(n) + p(m) + r, p(2^q) = (2 L + 1) q - 2 L, L being `layers`; more where a width is no power of two",
        circuits.quantum_peft_circuit,
        "rank",
        PRESET_MODELS["quantum_peft"],
    ),
    "quantum_peft_full": Preset(
        "Quantum-PEFT of full rank: one orthogonal matrix from few angles",
        "T = the first m rows and n columns of an orthogonal matrix of size max(n, m)",
        "p(max(n, m)), p(2^q) = (2 L + 1) q - 2 L, L being `layers`; more where the width is no power of two",
        circuits.quantum_peft_full_circuit,
        "layers",
        PRESET_MODELS["quantum_peft_full"],
    ),
}


def preset_document(text: str) -> dict[str, Any]:
    """Return the circuit file that a preset in short notation stands for, its options written out.

    The notation is `NAME`, `NAME:VALUE` for the preset's main option, or `NAME:OPTION=VALUE,OPTION=VALUE`: `lora:8`,
    `krona:64-64`, `tt:rank=4,layout=16-16-16`, `quanta:auto=3`. Widths are left to `load_spec`.

    Raises:
        ValueError: there is no such preset, it has no such option, or the value is wrong.

    """
    name, colon, rest = text.partition(":")
    preset = known_preset(name)
    given: dict[str, Any] = {}
    for piece in rest.split(",") if colon else ():
        option, value = _option_of(preset, name, piece)
        if option in given:
            raise ValueError(f"`{option}` is given twice in {text!r}")
        given[option] = value
    title = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:64].rstrip("-")
    document = {"version": 1, "name": title, "preset": name, **given}
    problems = Problems(DictSource())
    read = read_document(document, problems)
    errors = problems.errors()
    if errors:
        raise ValueError(f"{text!r}: {errors[0].message}" + (f" ({errors[0].hint})" if errors[0].hint else ""))
    assert isinstance(read, PresetDocument)
    for option in preset.options:
        default = getattr(read.file, option)
        document.setdefault(option, {"auto": default.auto} if isinstance(default, Layout) else default)
    return document


def known_preset(name: str) -> Preset:
    """Return the preset of a name; ValueError where there is none."""
    if name in PRESETS:
        return PRESETS[name]
    close = did_you_mean(name, PRESETS)
    raise ValueError(
        f"unknown preset {name!r}: " + (f"did you mean {close!r}?" if close else f"there is {', '.join(PRESETS)}")
    )


def _option_of(preset: Preset, name: str, piece: str) -> tuple[str, Any]:
    """Return the option and the value that a piece of the short notation gives."""
    option, equals, value = piece.partition("=")
    if not equals:
        if preset.main is None:
            raise ValueError(f"preset {name!r} has no options, got {piece!r}")
        option, value = preset.main, piece
    option, value = option.strip(), value.strip()
    if option == "auto" and "layout" in preset.options:
        return "layout", {"auto": int(value) if value.isdigit() and len(value) < 10 else value}
    if option not in preset.options:
        known = ", ".join(preset.options) or "none"
        raise ValueError(f"preset {name!r} has no option {option!r}: its options are {known}")
    if option != "layout" and re.fullmatch("-?[0-9]{1,18}", value):
        return option, int(value)
    return option, value
