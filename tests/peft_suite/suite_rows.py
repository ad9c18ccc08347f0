"""The rows that PEFT's tests run with: configurations of ours in place of those of PEFT's own methods.

The custom models have layers of 10 -> 20 (`lin0`) and 20 -> 2 features (`lin1`); `EmbConv1D` has a transformers
`Conv1D` of 5 -> 1 and a `lin0` of 10 -> 2.
"""

from __future__ import annotations

from typing import Any

from quanta_compiler.peft import QuantaConfig

CONFIG = QuantaConfig
"""The configuration class that the tests are pointed at."""

Row = tuple[Any, ...]


def circuit(name: str, layout: Any, gates: list[Any], **more: Any) -> dict[str, Any]:
    """Return a circuit file as a dict."""
    return {"version": 1, "name": name, "layout": layout, "gates": gates, **more}


THREE_AXES = circuit("three-axes", {"auto": 3}, ["all_pairs"])
CHAIN = circuit("chain", {"auto": 2}, [{"pattern": "each"}, [0, 1]])
LOWRANK_FROM_ZERO = circuit(
    "lowrank-from-zero", {"auto": 2}, [{"axes": [0, 1], "kind": "lowrank", "rank": 3, "init": "zeros"}]
)
DENSE_FROM_ZERO = circuit("dense-from-zero", {"auto": 2}, [[0], {"axes": [1], "init": "zeros"}])
DIAGONAL_FROM_ONE = circuit(
    "diagonal-from-one", {"auto": 2}, [{"axes": [0, 1], "kind": "diagonal", "init": "identity"}]
)
PADDED = circuit("padded", "4x3x2", ["chain"])
SHARED = circuit(
    "shared", {"auto": 2}, [{"axes": [0], "name": "first"}, [1], {"axes": [0], "share": "first", "transpose": True}]
)
PARTLY_FROZEN = circuit("partly-frozen", {"auto": 2}, [{"axes": [0], "frozen": True}, [0, 1]])
BLOCKS = circuit("blocks", {"auto": 2}, [{"axes": [1], "per": "rest"}, {"axes": [0], "per": "rest"}])
WITH_CONSTANT = circuit("with-constant", "5x2", [{"axes": [1], "kind": "constant", "value": [[0, 1], [1, 0]]}, [0, 1]])
RECTANGULAR_10_TO_20 = circuit("rectangular-10-20", "5x2", [[0, 1], {"axes": [0], "to": [10]}])
RECTANGULAR_20_TO_2 = circuit("rectangular-20-2", "5x4", [{"axes": [0], "to": [1]}, {"axes": [1], "to": [2]}])

_SMALL = {"scale": 0.01}
# One test takes SGD steps of 0.5 with inputs up to 89, for which a product of gates overflows (PEFT lowers the rate by
# name for some methods of its own), so most rows make the update small; those that do not are called "unscaled".

_BOTH = {"target_modules": ["lin0", "lin1"], **_SMALL}
_FIRST = {"target_modules": ["lin0"], **_SMALL}

CUSTOM_MODELS: list[Row] = [
    ("MLP, unscaled", "MLP", {"target_modules": "lin0"}),
    ("MLP both layers, unscaled", "MLP", {"target_modules": ["lin0", "lin1"]}),
    ("MLP folded, unscaled", "MLP", {"target_modules": ["lin0", "lin1"], "residual": "folded"}),
    ("MLP first layer", "MLP", _FIRST),
    ("MLP second layer", "MLP", {"target_modules": ["lin1"], **_SMALL}),
    ("MLP both layers", "MLP", _BOTH),
    ("MLP all-linear", "MLP", {"target_modules": "all-linear", **_SMALL}),
    ("MLP excluded layer", "MLP", {**_BOTH, "exclude_modules": ["lin1"]}),
    ("MLP module to save", "MLP", {**_FIRST, "modules_to_save": ["lin1"]}),
    ("MLP target saved too", "MLP", {**_BOTH, "modules_to_save": ["lin1"]}),
    ("MLP dropout", "MLP", {**_BOTH, "dropout": 0.1}),
    ("MLP seed", "MLP", {**_BOTH, "init_seed": 7}),
    ("MLP dora", "MLP", {**_BOTH, "dora": True}),
    ("MLP dora, dropout", "MLP", {**_FIRST, "dora": True, "dropout": 0.1}),
    ("MLP dora, lowrank gate", "MLP", {**_BOTH, "circuit": LOWRANK_FROM_ZERO, "dora": True}),
    ("Conv1D dora", "EmbConv1D", {"target_modules": ["conv1d", "lin0"], "dora": True}),
    ("MLP2 power of two", "MLP2", _BOTH),
    ("MLP frozen copy", "MLP", {**_BOTH, "residual": "frozen_copy", "circuit": CHAIN}),
    ("MLP folded", "MLP", {**_BOTH, "residual": "folded"}),
    ("MLP folded, module to save", "MLP", {**_FIRST, "modules_to_save": ["lin1"], "residual": "folded"}),
    ("MLP folded, rectangular", "MLP", {"circuit": {"lin0": RECTANGULAR_10_TO_20}, "residual": "folded", **_SMALL}),
    ("MLP lowrank gate", "MLP", {**_BOTH, "circuit": LOWRANK_FROM_ZERO}),
    ("MLP lowrank gate, frozen copy", "MLP", {**_FIRST, "circuit": LOWRANK_FROM_ZERO, "residual": "frozen_copy"}),
    ("MLP no residual", "MLP", {**_FIRST, "circuit": DENSE_FROM_ZERO, "residual": "none"}),
    ("MLP three axes", "MLP", {**_BOTH, "circuit": THREE_AXES}),
    ("MLP padded layout", "MLP", {**_BOTH, "circuit": PADDED}),
    ("MLP rectangular gates", "MLP", {**_FIRST, "circuit": RECTANGULAR_10_TO_20}),
    ("MLP mapping", "MLP", {"circuit": {"lin0": RECTANGULAR_10_TO_20, "lin1": RECTANGULAR_20_TO_2}, **_SMALL}),
    (
        "MLP mapping and targets",
        "MLP",
        {"target_modules": "all-linear", "circuit": {"lin0": CHAIN, "lin1": PADDED}, **_SMALL},
    ),
    ("MLP diagonal gate", "MLP", {**_FIRST, "circuit": DIAGONAL_FROM_ONE}),
    ("MLP shared gate", "MLP", {**_FIRST, "circuit": SHARED}),
    ("MLP partly frozen gates", "MLP", {**_BOTH, "circuit": PARTLY_FROZEN}),
    ("MLP block-diagonal gates", "MLP", {**_FIRST, "circuit": BLOCKS}),
    ("MLP constant gate", "MLP", {**_FIRST, "circuit": WITH_CONSTANT}),
    ("MLP with layer norm", "MLP_LayerNorm", {"target_modules": ["lin0"], "modules_to_save": ["layernorm1"]}),
    ("Conv1D", "EmbConv1D", {"target_modules": ["conv1d"]}),
    ("Conv1D and linear", "EmbConv1D", {"target_modules": ["conv1d", "lin0"]}),
    ("Conv1D folded", "EmbConv1D", {"target_modules": ["conv1d", "lin0"], "residual": "folded"}),
    ("Conv1D lowrank gate", "EmbConv1D", {"target_modules": ["conv1d"], "circuit": LOWRANK_FROM_ZERO}),
    ("Conv1D, embedding to save", "EmbConv1D", {"target_modules": ["conv1d"], "modules_to_save": ["emb"]}),
    ("linear after Conv2d", "Conv2d", _FIRST),
    ("linear around Conv2d", "Conv2d2", {**_BOTH, "circuit": CHAIN}),
    ("linear after attention", "MHA", {"target_modules": ["lin0"]}),
]
"""Name, model, keywords."""

_APART = {"init_weights": False}

ACTIVE_TOGETHER: list[Row] = [
    ("default, same target", {"target_modules": ["lin0"]}, {"target_modules": ["lin0"]}),
    ("default, different targets", {"target_modules": ["lin0"]}, {"target_modules": ["lin1"]}),
    ("default, overlapping targets", {"target_modules": ["lin0", "lin1"]}, {"target_modules": ["lin1"]}),
    (
        "different circuits, same target",
        {"target_modules": ["lin0"], "circuit": CHAIN},
        {"target_modules": ["lin0"], "circuit": LOWRANK_FROM_ZERO},
    ),
    (
        "different residuals, same target",
        {"target_modules": ["lin0"], "residual": "folded"},
        {"target_modules": ["lin0"], "residual": "frozen_copy"},
    ),
    (
        "folded, same target",
        {"target_modules": ["lin0"], "residual": "folded"},
        {"target_modules": ["lin0"], "residual": "folded"},
    ),
    (
        "dora, same target",
        {"target_modules": ["lin0"], "dora": True},
        {"target_modules": ["lin0"], "circuit": CHAIN, "dora": True},
    ),
    (
        "dora and none, overlapping targets",
        {"target_modules": ["lin0", "lin1"], "dora": True},
        {"target_modules": ["lin1"], "circuit": CHAIN},
    ),
    (
        "mappings, same targets",
        {"circuit": {"lin0": RECTANGULAR_10_TO_20, "lin1": RECTANGULAR_20_TO_2}},
        {"circuit": {"lin0": PADDED, "lin1": CHAIN}},
    ),
]
"""Name, keywords of the first adapter, keywords of the second; both are drawn away from the identity."""

_SAVING = {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}
_SAVING_GRU = {"target_modules": ["lin0"], "modules_to_save": ["gru"]}

MIXED_TARGETS: list[Row] = [
    ("different_target_layers", {"target_modules": ["lin0"]}, {"target_modules": ["lin1"]}),
    ("partly_overlapping_target_layers", {"target_modules": ["lin0"]}, {"target_modules": ["lin0", "lin1"]}),
    ("multiple_modules_to_save", _SAVING, {**_SAVING, "circuit": CHAIN}),
    ("unsupported_layer_raises", _SAVING_GRU, _SAVING_GRU),
]
"""Test of several adapters in one batch, keywords of the first adapter, keywords of the second."""

TASKS: list[dict[str, Any]] = [
    {"target_modules": None},
    {"target_modules": None, "circuit": LOWRANK_FROM_ZERO},
    {"target_modules": None, "circuit": CHAIN, "residual": "folded"},
]
"""Keywords for the models of the transformers library; the task is added for each test module."""

QUANTIZED: list[dict[str, Any]] = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": ["q_proj", "v_proj"], "circuit": LOWRANK_FROM_ZERO},
]
"""Keywords for quantized models, whose adapted layers the tests count as q_proj and v_proj."""


def custom_rows() -> list[Row]:
    """Return the rows of test_custom_models: name, model, configuration class, keywords."""
    return [(name, model, CONFIG, keywords) for name, model, keywords in CUSTOM_MODELS]


def pair_rows() -> list[Row]:
    """Return the rows of two active adapters: name, method, configuration class, keywords of both."""
    return [
        (name, "quanta_circuit", CONFIG, {**_APART, **first}, {**_APART, **second})
        for name, first, second in ACTIVE_TOGETHER
    ]


def mixed_rows() -> list[Row]:
    """Return the rows of two adapters in one batch, where `dora` is refused: name and both configurations."""
    plain = [(first, second) for _, first, second in ACTIVE_TOGETHER if "dora" not in {**first, **second}]
    return [row for first, second in plain for row in apart_together(first, second)]


def apart_together(first: dict[str, Any], second: dict[str, Any]) -> list[Row]:
    """Return one row of two configurations that begin away from the identity."""
    return [("circuits", apart(**first), apart(**second))]


def task_rows(task: str) -> list[Row]:
    """Return rows for one task of transformers models: configuration class, keywords."""
    return [(CONFIG, {"task_type": task, **keywords}) for keywords in TASKS]


def apart(**keywords: Any) -> QuantaConfig:
    """Return a configuration that begins away from the identity."""
    return CONFIG(**{**_APART, **keywords})


def as_lora(**keywords: Any) -> QuantaConfig:
    """Stand where a test writes `LoraConfig`: the same request, without what only those have.

    Raises:
        TypeError: a keyword that means something our method does not have (`use_rslora`, say).

    """
    for name in ("r", "lora_alpha"):
        keywords.pop(name, None)
    renamed = {"init_lora_weights": "init_weights", "lora_dropout": "dropout", "use_dora": "dora"}
    return CONFIG(**{renamed.get(name, name): value for name, value in keywords.items()})


def as_lokr(**keywords: Any) -> QuantaConfig:
    """Stand where a test writes `LoKrConfig`, whose random update is strong and yet almost one of rank 8."""
    return as_lora(**{"circuit": LOWRANK_FROM_ZERO, "scale": 5.0, **keywords})
