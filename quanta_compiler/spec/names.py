"""Which names a file may give to circuits, gates and axes."""

import keyword
import re

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
POSITION = re.compile(r"-?(?:0|[1-9][0-9]{0,9})\Z")
CIRCUIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
NAME_LENGTH = 64
"""Longer names would only break the tables that show them."""

RESERVED_AXES = frozenset({"auto", "rest"})
"""Words with a meaning of their own where an axis may stand."""

# What torch.nn.Module, ParameterDict and ModuleDict have as attributes, and so refuse as the name of a member, in any
# torch since 2.6; `smart_apply` is what transformers adds to every module. A test compares this with the torch that is
# installed. Names of the form __x__ are all refused.
_TORCH_NAMES = """
    T_destination _apply _backward_hooks _backward_pre_hooks _buffers _call_impl _compiled_call_impl _forward_hooks
    _forward_hooks_always_called _forward_hooks_with_kwargs _forward_pre_hooks _forward_pre_hooks_with_kwargs
    _get_backward_hooks _get_backward_pre_hooks _get_name _is_full_backward_hook _key_to_attr _keys
    _load_from_state_dict _load_state_dict_post_hooks _load_state_dict_pre_hooks _maybe_warn_non_full_backward_hook
    _modules _named_members _non_persistent_buffers_set _parameters _register_load_state_dict_pre_hook
    _register_state_dict_hook _replicate_for_data_parallel _save_to_state_dict _slow_forward _state_dict_hooks
    _state_dict_pre_hooks _version _wrapped_call_impl add_module apply bfloat16 buffers call_super_init children clear
    compile copy cpu cuda double dump_patches eval extra_repr float forward fromkeys get get_buffer get_extra_state
    get_parameter get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children
    named_modules named_parameters parameters pop popitem register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule setdefault
    share_memory smart_apply state_dict to to_empty train training type update values xpu zero_grad
"""
TORCH_NAMES = frozenset(_TORCH_NAMES.split())


def identifier_problem(name: str) -> str | None:
    """Say why `name` is no identifier that Python accepts, or return None."""
    if not IDENTIFIER.match(name):
        return "is not an identifier (ASCII letters, digits and _, not starting with a digit)"
    if len(name) > NAME_LENGTH:
        return f"is longer than {NAME_LENGTH} characters"
    if keyword.iskeyword(name):
        return "is a Python keyword"
    return None


def axis_name_problem(name: str) -> str | None:
    """Say why an axis cannot be called `name`, or return None."""
    if name in RESERVED_AXES:
        return "is a reserved word"
    return identifier_problem(name)


def gate_name_problem(name: str) -> str | None:
    """Say why a gate cannot be called `name`, or return None."""
    # Two underscores are Python's own, and torch.compile marks containers with such names as it goes.
    if name in TORCH_NAMES or name.startswith("__"):
        return "is taken by torch's containers"
    return identifier_problem(name)
