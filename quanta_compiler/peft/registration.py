"""A name of our own in PEFT's closed enumeration of methods."""

from typing import Any

from peft import PeftType

METHOD = "quanta_circuit"
"""PEFT derives the prefix of parameter names from it: `quanta_circuit_`."""


def peft_type() -> Any:
    """Return `PeftType.QUANTA_CIRCUIT`, made on the first call.

    `register_peft_method` is PEFT's public way to add a method, but it wants a member of the enumeration, which cannot
    be extended by its public interface. A plain string would not do: PEFT and transformers read `.value`. The member is
    made as Python's own `enum` makes one (CPython 3.10 to 3.13), so that iteration, lookup, pickle and JSON know it.
    """
    value = METHOD.upper()
    known = PeftType.__members__.get(value)
    if known is not None:
        return known
    member: Any = str.__new__(PeftType, value)
    member._name_ = value
    member._value_ = value
    member.__objclass__ = PeftType
    member._sort_order_ = len(PeftType.__members__)
    enumeration: Any = PeftType
    enumeration._member_names_.append(value)
    enumeration._member_map_[value] = member
    enumeration._value2member_map_[value] = member
    type.__setattr__(PeftType, value, member)
    return member
