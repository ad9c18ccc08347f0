"""A model's layers by its `config.json` alone: built without weights, its targets resolved by PEFT itself."""

import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.pytorch_utils import Conv1D

from quanta_compiler.diagnostics import meant
from quanta_compiler.models.layers import CONFIG, ModelError, ModelLayers, TargetLayer, read_config
from quanta_compiler.peft.bases import layer_features
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.expert_tensors import ExpertTensor, expert_tensors, meant_experts, missed_experts
from quanta_compiler.peft.model import QuantaCircuitModel
from quanta_compiler.peft.readers import reader_of
from quanta_compiler.text.words import listed

_USUAL = (("q_proj", "v_proj"), ("q_lin", "v_lin"), ("q_proj", "kv_b_proj"), ("qkv_proj",), ("Wqkv",), ("in_proj",))
"""What the layers that most adapters go on are called, queries and values where there are some, and PEFT is silent."""
_SHOWN_NAMES = 12
"""How many layer names an error lists."""
_SHOWN_CHARACTERS = 200
"""How much of transformers' own errors an error repeats."""
_EXPERTS = (
    "each expert of a tensor of experts is counted as a layer, and FLOPs, times and bytes are those of experts that "
    "every token passes"
)


def read_model(folder: Path, targets: str | Sequence[str] | None) -> ModelLayers:
    """Build the model of a `config.json` on the meta device, and find its targets.

    `targets` are PEFT's `target_modules`: names, matched at the end; one string, which is `all-linear` or a regular
    expression for whole names; or None for what PEFT takes by default. Nothing is downloaded, and no code that comes
    with a model is run.

    Raises:
        ModelError: there is no such configuration, no model can be built from it, or a target is not in it.

    """
    data = read_config(folder)
    # Some files hold the path of the folder that the model was saved from.
    written = data.get("_name_or_path")
    if isinstance(written, str) and (written.count("/") > 1 or "\\" in written or written.startswith(("/", ".", "~"))):
        # The folder that it was saved from: a page that is passed on says nothing of it but its last part.
        written = re.split(r"[/\\]", written.rstrip("/\\"))[-1]
    name = written if isinstance(written, str) and written.strip() else folder.resolve().name
    with _quiet():
        model = _build(folder, data)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        config = _configuration(model, name, targets)
        missed, _ = missed_experts(model, config)
        layers = _targeted(model, name, config)
    remarks = [f"the targets mean {missed}"] if missed else []
    if any(layer.experts > 1 for layer in layers):
        remarks.append(_EXPERTS)
    targeted = {layer.name for layer in layers}
    return ModelLayers(
        name=name,
        parameters=parameters,
        layers=layers,
        others=tuple(key for key, _ in model.named_modules() if key and key not in targeted),
        remark="; ".join(remarks),
        **_widths(model.config),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def _build(folder: Path, data: dict[str, Any]) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        if data["model_type"] in transformers.CONFIG_MAPPING:
            fault = f"is refused by transformers: {_one_line(error)}"
        elif "auto_map" in data:
            fault = "comes with code of its own, which is not run here"
        else:
            fault = f"is of type {data['model_type']!r}, which transformers {transformers.__version__} does not know"
        raise ModelError(f"the model in {folder} {fault}") from None
    try:
        with torch.device("meta"):
            return _architecture(config)(config)
    except Exception as error:
        raise ModelError(f"the model in {folder} cannot be built from its {CONFIG}: {_one_line(error)}") from None


def _architecture(config: Any) -> Any:
    """Return the class that the configuration names, else the language model of its type, else its plain model."""
    for written in getattr(config, "architectures", None) or ():
        named = getattr(transformers, str(written), None)
        if isinstance(named, type) and issubclass(named, PreTrainedModel):
            # None on abstract classes.
            made_for: Any = getattr(named, "config_class", None) or ()
            if isinstance(config, made_for):
                return named
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM.from_config
    return AutoModel.from_config


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), _SHOWN_CHARACTERS, placeholder=" …") or type(error).__name__


class _Targets(QuantaCircuitModel):
    """PEFT's search for targets, by the tuner of our own adapters, with nothing put in their places."""

    def __init__(self, model: nn.Module, config: QuantaConfig) -> None:
        self.found: list[tuple[str, nn.Module | ExpertTensor, nn.Module]] = []
        super().__init__(model, config, "default")

    def _create_and_replace(  # type: ignore[override]
        self, *given: Any, current_key: str, tensor: ExpertTensor | None = None
    ) -> None:
        _, _, target, _, parent = given
        self.found.append((current_key, tensor or target, parent))


def _configuration(model: Any, name: str, targets: str | Sequence[str] | None) -> QuantaConfig:
    """Return the configuration with these targets; refuse those that mean nothing."""
    if targets is not None and not targets:
        raise ModelError("no target is given: name layers, or `all-linear`")
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            raise ModelError(f"the target {targets!r} is no regular expression: {error}") from None
    elif targets is not None:
        _check_names(model, name, targets)
    return QuantaConfig(target_modules=targets if targets is None or isinstance(targets, str) else list(targets))


def _targeted(model: Any, name: str, config: QuantaConfig) -> tuple[TargetLayer, ...]:
    """Return the layers that an adapter is put on."""
    # PEFT writes over it what keywords and defaults mean.
    targets = config.target_modules
    try:
        found = _Targets(model, config).found
    except ValueError:
        if targets == "all-linear":
            raise ModelError(f"{name} has no linear layer that an adapter can be put on") from None
        if targets is None:
            raise _without_default(model) from None
        raise ModelError(
            f"no module of {name} matches the regular expression {targets!r} as a whole: "
            f"write names as a list, or `.*` before them; there is {listed(_linear_names(model), _SHOWN_NAMES)}"
        ) from None
    except Exception as error:
        raise ModelError(f"PEFT cannot look for targets in {name}: {_one_line(error)}") from None
    layers = []
    for key, module, parent in found:
        if isinstance(module, ExpertTensor):
            layers.append(TargetLayer(key, *module.features, module.shape[0]))
            continue
        hint, reader = None, reader_of(parent, key.rpartition(".")[2])
        if not isinstance(module, nn.Linear | Conv1D):
            fault = f"is no linear layer, but a module of type {type(module).__name__}"
        elif reader is not None:
            fault = f"belongs to {reader}, which reads its weight past any adapter"
            hint = f"there is {listed(_linear_names(model), _SHOWN_NAMES)}"
        else:
            layers.append(TargetLayer(key, *layer_features(module)))
            continue
        raise ModelError(f"{key} of {name} {fault}: leave it out", hint)
    return tuple(layers)


def _without_default(model: Any) -> ModelError:
    """Return the error for a type that PEFT has no targets for, with some that suit it."""
    known = _linear_names(model)
    usual = next((",".join(names) for names in _USUAL if set(names) <= set(known)), "all-linear")
    return ModelError(
        f"PEFT has no default targets for models of type {model.config.model_type!r}: "
        f"name some of {listed(known, _SHOWN_NAMES)}",
        f"take `--targets {usual}`",
    )


def _check_names(model: Any, name: str, targets: Sequence[str]) -> None:
    """Refuse a name that matches nothing; PEFT does so only where none of them matches."""
    modules = [key for key, _ in model.named_modules()]
    for target in targets:
        is_module = any(key == target or key.endswith(f".{target}") for key in modules)
        if not is_module and not _helps_to_experts(model, target, targets):
            known = _linear_names(model)
            there = f"there is {listed(known, _SHOWN_NAMES)}"
            experts, _ = missed_experts(model, QuantaConfig(target_modules=[target]))
            hint = f"it means {experts}; {there}" if experts else meant(target, known, there, mark="'")
            raise ModelError(f"no module of {name} is called {target!r}: {hint}")


def _helps_to_experts(model: Any, target: str, targets: Sequence[str]) -> bool:
    """Say whether a target means a tensor of experts that all targets together reach."""
    alone, together = (QuantaConfig(target_modules=list(names)) for names in ([target], targets))
    return any(
        meant_experts(alone, tensor)[0] and meant_experts(together, tensor)[1] for tensor in expert_tensors(model)
    )


def _linear_names(model: Any) -> list[str]:
    """Return the last parts of the names of all layers that a circuit can be put on, in the model's order."""
    found = (key.rpartition(".") for key, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
    names = [end for path, _, end in found if reader_of(model.get_submodule(path), end) is None]
    config = QuantaConfig(target_modules="all-linear")
    experts = (tensor.key for tensor in expert_tensors(model) if meant_experts(config, tensor)[1])
    return list(dict.fromkeys([*names, *experts]))


def _widths(config: Any) -> dict[str, int]:
    """Return the numbers of a configuration that methods of whole blocks need."""
    text = config.get_text_config()
    hidden, heads = _number(text, "hidden_size"), _number(text, "num_attention_heads")
    head_width = _number(text, "head_dim", "d_kv") or (hidden // heads if heads else 0)
    key_heads = _number(text, "num_key_value_heads")
    if not key_heads and getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
        key_heads = 1
    # GPT-2 and its like write nothing for what is usual.
    mlp_width = _number(text, "intermediate_size", "ffn_dim", "n_inner", "d_ff")
    if not mlp_width and hasattr(text, "n_inner"):
        mlp_width = 4 * hidden
    return {
        "blocks": 0 if getattr(config, "is_encoder_decoder", False) else _number(text, "num_hidden_layers"),
        "hidden_size": hidden,
        "mlp_width": mlp_width,
        "heads": heads,
        "head_width": head_width,
        "key_value_width": (key_heads or _number(text, "num_kv_heads") or heads) * head_width,
    }


def _number(config: Any, *names: str) -> int:
    for name in names:
        try:
            value = getattr(config, name, None)
        except Exception:
            # A few configurations refuse a field that differs from layer to layer, with errors of their own.
            continue
        if isinstance(value, int) and value > 0:
            return value
    return 0
