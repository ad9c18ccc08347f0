"""Where PEFT's tests keep their rows, and what stands there instead.

Four ways lead our configuration into a test that is not edited:
- `TABLES`: a list of rows that a module names (`TEST_CASES`) gets our rows.
- `PARAMETERS`: a list written inside a `parametrize` mark gets our values.
- `NAMES`: a test that writes `LoraConfig(...)` in its body, for behaviour that every method shares, finds our
  configuration under that name. Only the tests listed with it are run.
- `STAND_INS`: a test that asks for PEFT's own class (`if config_cls != LoraConfig: skip`), or a module whose other
  tests need that class, finds ours under the name while it runs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from packaging.version import Version
from suite_rows import (
    CONFIG,
    MIXED_TARGETS,
    QUANTIZED,
    apart,
    apart_together,
    as_lokr,
    as_lora,
    custom_rows,
    mixed_rows,
    pair_rows,
    task_rows,
)

from quanta_compiler.peft import QuantaCircuitLayer
from quanta_compiler.peft.weighted import EXACT


@dataclass(frozen=True)
class Renamed:
    """Names of a test module that mean our classes, and the tests that are run so."""

    names: dict[str, Any]
    tests: tuple[str, ...]
    """`Class.test`, `Class.*` or `test`; shell patterns."""


@dataclass(frozen=True)
class Exclusion:
    """A test that is not run, and why."""

    module: str
    test: str
    reason: str
    identity: str = "*"
    """A shell pattern for the ids of its parameters."""


TABLES: dict[str, dict[str, Callable[[], list[Any]]]] = {
    "test_custom_models": {
        "TEST_CASES": custom_rows,
        "ALL_PEFT_CONFIG_CLASSES": lambda: [CONFIG],
        "MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES": pair_rows,
        "MIXED_ADAPTER_TEST_CASES": mixed_rows,
    },
    "test_config": {
        "ALL_CONFIG_CLASSES": lambda: [(CONFIG, {})],
        "LAYER_INDEXING_CONFIG_CLASSES": lambda: [(CONFIG, {})],
    },
    "test_decoder_models": {"ALL_CONFIGS": lambda: task_rows("CAUSAL_LM")},
    "test_encoder_decoder_models": {"ALL_CONFIGS": lambda: task_rows("SEQ_2_SEQ_LM")},
    "test_feature_extraction_models": {"ALL_CONFIGS": lambda: task_rows("FEATURE_EXTRACTION")},
    "test_seq_classifier": {"ALL_CONFIGS": lambda: task_rows("SEQ_CLS")},
    "test_token_classification_qa": {
        "TOKEN_CLS_CONFIGS": lambda: task_rows("TOKEN_CLS"),
        "QA_CONFIGS": lambda: task_rows("QUESTION_ANS"),
    },
    "test_quantization": {"TEST_CASES": lambda: [(CONFIG, keywords) for keywords in QUANTIZED]},
}
"""Module -> name of a table -> rows."""

MODELS: dict[str, dict[str, str]] = {
    "test_decoder_models": {"PEFT_DECODER_MODELS_TO_TEST": "quanta-compiler/tiny-random-conv1d-decoder"},
}
"""Module -> name of a list of models -> a model added to it."""

PARAMETERS: dict[str, dict[tuple[str, str], Callable[[], list[Any]]]] = {
    "test_custom_models": {
        ("TestPeftCustomModel.test_multiple_adapters_mixed_modules_to_save", "config_cls"): lambda: [CONFIG],
        (
            "TestPeftCustomModel.test_multiple_adapters_mixed_modules_to_save_order_switched",
            "config_cls",
        ): lambda: [CONFIG],
        ("TestPeftCustomModel.test_adapter_name_makes_no_difference", "config0"): lambda: [
            apart(target_modules=["lin0"])
        ],
        **{
            (f"TestMixedAdapterBatches.test_mixed_adapter_batches_{test}", "test_name, config0, config1"): partial(
                apart_together, first, second
            )
            for test, first, second in MIXED_TARGETS
        },
        (
            "TestPeftCustomModel.test_add_weighted_adapter_with_different_scaling",
            "combination_type, min_corr, max_mse",
        ): lambda: [(combination, 0.999999, 1e-9) for combination in EXACT],
        (
            "TestMixedAdapterBatches.test_mixed_adapter_batches_lora_wrong_adapter_name_raises",
            "test_name, config",
        ): lambda: [("circuits", apart(target_modules=["lin0"]))],
    },
    "test_config": {
        ("TestPeftConfig.test_save_pretrained_with_target_modules", "config_class"): lambda: [CONFIG],
    },
    "test_low_level_api": {
        (
            "TestInjectAdapterFromStateDict.test_inject_from_state_dict_and_from_config_target_same_layers",
            "config",
        ): lambda: [CONFIG()],
    },
    "test_other": {
        ("TestAdapterTargeting.test_self_targeting_is_ignored", "config_cls, config_kwargs"): lambda: [
            (CONFIG, {"target_modules": "l1.*"})
        ],
    },
}
"""Module -> (test, argument names) -> values."""

NAMES: dict[str, Renamed] = {
    "test_tuners_utils": Renamed(
        {"LoraConfig": as_lora, "LoraLayer": QuantaCircuitLayer},
        (
            "TestPeftCustomKwargs.test_regex_matching_valid*",
            "TestPeftCustomKwargs.test_module_matching_lora",
            "TestPeftCustomKwargs.test_maybe_include_all_linear_layers_lora_[0-9]*",
            "TestPeftCustomKwargs.test_maybe_include_all_linear_layers_internals*",
            "TestPeftCustomKwargs.test_maybe_include_all_linear_does_not_target_classifier_head",
            "TestPeftCustomKwargs.test_all_linear_nested_targets_correct_layers*",
            "TestTargetedModuleNames.test_[!i]*",
            "TestExcludedModuleNames.test_[!i]*",
            "TestModelAndLayerStatus.test_layer_names_small",
            "TestModelAndLayerStatus.test_enabled_small",
            "TestModelAndLayerStatus.test_active_adapters_small",
            "TestModelAndLayerStatus.test_merge_adapters_small",
            "TestModelAndLayerStatus.test_requires_grad_small",
            "TestModelAndLayerStatus.test_available_adapters_small",
            "TestModelAndLayerStatus.test_devices_all_cpu_small",
            "TestModelAndLayerStatus.test_with_modules_to_save",
            "TestModelAndLayerStatus.test_quantization_backend_small",
            "TestModelAndLayerStatus.test_base_model_type_small",
            "TestModelAndLayerStatus.test_num_adapter_layers_small",
            "TestModelAndLayerStatus.test_model_*_small",
            "TestModelAndLayerStatus.test_model_enabled_irregular_with_modules_to_save",
            "TestModelAndLayerStatus.test_model_active_adapters_with_modules_to_save_irregular",
            "TestModelAndLayerStatus.test_model_requires_irregular_with_modules_to_save",
            "TestFindMinimalTargetModules.test_get_peft_*",
            "TestTunerStateDictKeyPrefixes.test_prefixes_auxiliary_modules_not_included",
        ),
    ),
    "test_mapping": Renamed({"LoraConfig": as_lora}, ("TestGetPeftModel.*",)),
    "test_lora_conversion": Renamed(
        {"LoKrConfig": as_lokr},
        (
            "TestLoraConversion.test_fixed_rank_*",
            "TestLoraConversion.test_dynamic_rank_*",
            "TestLoraConversion.test_threshold_wrong_value_raises",
            "TestLoraConversion.test_rank_higher_than_weight_dim_raises",
            "TestLoraConversion.test_converting_transformers_model_works",
            "TestLoraConversion.test_converted_lora_approximates_original_adapter",
            "TestLoraConversion.test_with_tqdm_works",
            "TestLoraConversion.test_save_as_lora",
            "TestLoraConversion.test_model_without_peft_config",
            "TestLoraConversion.test_converted_lora_with_multiple_adapters",
            "TestLoraConversion.test_convert_model_with_modules_to_save",
            "TestLoraConversion.test_with_torch_compile",
            "TestLoraConversion.test_convert_float16_dtype",
        ),
    ),
    "test_low_level_api": Renamed(
        {"LoraConfig": as_lora},
        (
            "TestInjectAdapterFromStateDict.test_inject_from_state_dict_transformers",
            "TestInjectAdapterFromStateDict.test_inject_from_state_dict_transformers_irregular_targets",
            "TestInjectAdapterFromStateDict.test_inject_from_state_dict_low_cpu_mem_usage",
            "TestInjectAdapterFromStateDict.test_inject_from_state_dict_extra_keys_warning",
            "TestInjectAdapterFromStateDict.test_inject_from_state_dict_compiled_model",
            "TestPeftStateDict.test_get_peft_model_state_dict_*",
            "TestPeftStateDict.test_get_and_set_peft_model_state_dict_normal_names",
            "TestPeftStateDict.test_get_and_set_peft_model_state_dict_weight_in_module_name",
            "TestPeftStateDict.test_get_and_set_peft_model_state_dict_adapter_name_same_as_module_name",
            "TestPeftStateDict.test_trained_modules_to_save_module_named_like_peft_prefix_round_trip",
            "TestPeftStateDict.test_set_peft_model_state_dict_preserves_input",
            "TestGetBaseModelStateDict.*",
            "TestStateDictFsdpShapeValidation.test_save_pretrained_succeeds_for_normal_lora",
        ),
    ),
    "test_other": Renamed(
        {"LoraConfig": as_lora},
        (
            "TestModulesToSave*",
            "TestTargetingAuxiliaryTrainingWrapper.test_nested_ignores_modules_to_save",
            "TestTargetingAuxiliaryTrainingWrapper.test_targeting_module_to_save_raises",
            "TestTargetingAuxiliaryTrainingWrapper.test_modules_to_save_targets_tuner_layer_raises",
        ),
    ),
    "test_initialization": Renamed(
        {"LoraConfig": as_lora},
        (
            "TestNoInfiniteRecursionDeepspeed.*",
            "TestCustomModelConfigWarning.*",
            "TestLowCpuMemUsage.test_from_pretrained_*",
            "TestLowCpuMemUsage.test_load_adapter_*",
            "TestLowCpuMemUsage.test_inject_adapter_*",
            "TestNamingConflictWarning.*",
            "TestLoadPeftKeyMapping.test_key_mapping_save_*_load_*_lora",
        ),
    ),
    "test_hub_features": Renamed({"LoraConfig": as_lora}, ("TestLocalModel.*",)),
}
"""Module -> names that mean our classes, and the tests run so: those that read nothing of LoRA's own, as `lora_A`."""

_WEIGHTED = {"LoraConfig": as_lora, "lora": SimpleNamespace(LoraLayer=QuantaCircuitLayer)}

STAND_INS: dict[str, dict[str, Any]] = {
    "test_*coder_models::Test*.test_mixed_adapter_batches": {"LoraConfig": CONFIG},
    "test_*coder_models::Test*.test_generate_with_mixed_adapter_batches": {"LoraConfig": CONFIG},
    "test_custom_models::TestMixedAdapterBatches.test_mixed_adapter_batches_lora_with_dora_*": {"LoraConfig": as_lora},
    "test_*_models::Test*.test_weighted_combination_of_adapters": {"IA3Config": CONFIG},
    "test_custom_models::TestPeftCustomModel.test_multiple_adapters_mixed_modules_to_save_merging_adapters": _WEIGHTED,
    "test_custom_models::TestPeftCustomModel.test_multiple_adapters_same_modules_to_save_merging_*": _WEIGHTED,
    "test_custom_models::TestPeftCustomModel.test_add_weighted_adapter_[!c]*": _WEIGHTED,
}
"""`module::Class.test`, a shell pattern -> names that mean ours while it runs, in its module and in testing_common."""

MODULES = sorted({*TABLES, *PARAMETERS, *NAMES})
"""The test modules that are run."""

_OF_TRANSFORMERS = (
    "test_inject_from_state_dict_transformers",
    "test_inject_from_state_dict_transformers_irregular_targets",
    "test_inject_from_state_dict_compiled_model",
)
"""Tests that call transformers' own `add_adapter`."""


def _transformers_wants() -> str | None:
    """Return the version of PEFT that transformers' `add_adapter` wants, where it is newer than the installed one."""
    from peft import __version__
    from transformers.integrations import peft as integration

    wanted = str(integration.MIN_PEFT_VERSION)
    return wanted if Version(__version__) < Version(wanted) else None


EXCLUDED = (
    *(
        Exclusion(
            "test_low_level_api",
            f"TestInjectAdapterFromStateDict.{test}",
            f"the installed transformers wants PEFT {_transformers_wants()} for its own `add_adapter`, LoRA's too",
        )
        for test in (_OF_TRANSFORMERS if _transformers_wants() else ())
    ),
    Exclusion(
        "test_config",
        "TestPeftConfig.test_from_pretrained_cache_dir",
        "downloads an adapter from the hub into an empty folder; no hub is needed for the rest",
    ),
    Exclusion(
        "test_custom_models",
        "TestPeftCustomModel.test_parameters_after_loading_model",
        "SGD with steps of 0.5 on inputs up to 89 overflows to NaN before anything is saved, and NaN differs from "
        "itself; the rows with a small scale run it for the same circuits",
        identity="*, unscaled-*",
    ),
    Exclusion(
        "test_custom_models",
        "TestPeftCustomModel.test_merge_layers_is_deterministic_in_train_mode",
        "gives every configuration a dropout, which is refused with `folded`; the rows of other residuals run it",
        identity="*folded*",
    ),
    Exclusion(
        "test_initialization",
        "TestNoInfiniteRecursionDeepspeed.test_no_infinite_recursion",
        "PeftMixedModel takes a closed list of PEFT's own methods",
        identity="PeftMixedModel",
    ),
)
"""Tests that would run and cannot apply."""

NEVER_TRAINED = ("quanta_circuit_frozen.", "quanta_circuit_features.")
"""Parts of the names of our parameters that never train: the frozen copy S, and the sizes of the layer."""

OF_TRAINED_PARAMETERS = (
    "test_training_*layer_indexing",
    "test_training_*gradient_checkpointing",
    "test_adapter_dtype_autocast",
    "test_add_adapter_no_autocast_adapter_dtype",
    "test_loading_model_*requires_grad_set_correctly",
)
"""Tests that take every parameter with a method's prefix for one that trains, and are shown those that may.

They want a gradient for each, `requires_grad` after loading, or the dtype of the base model. PEFT relaxed the same
assertion by `requires_grad` in `_test_training` and `test_only_params_are_updated`, where methods of its own keep some
parameters frozen, and left out AdaLoRA's in the tests of loading. These run with `PeftModel.named_parameters` leaving
out what of ours never trains. They would see the same if S were a buffer, but S must be a parameter: TRL copies
adapters, and accelerate's FSDP2 sends them to other processes, by their parameters.
"""
