"""The first stage: a circuit file, or a dict of the same form, to a CircuitSpec.

    spec = load_spec("circuit.yaml")

Everything that is wrong with a file is found here and raised as one SpecError; later stages may rely on the spec.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quanta_compiler.diagnostics import Problems
from quanta_compiler.kinds.limits import FILE_BYTES, NESTING
from quanta_compiler.presets.layouts import AUTO_RULE
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.spec.document import Document, read_document
from quanta_compiler.spec.files import STANDARD_INPUT_NAME, StandardInput, read_file, too_large
from quanta_compiler.spec.loader import DictSource, TextSource, read_text
from quanta_compiler.spec.render import to_dict, to_yaml
from quanta_compiler.spec.resolve import resolve

__all__ = ["load_spec", "read_data", "to_dict", "to_yaml"]


def load_spec(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    in_features: int | None = None,
    out_features: int | None = None,
    auto_rule: int = AUTO_RULE,
) -> CircuitSpec:
    """Read a circuit: a path, a YAML text or a dict; raise SpecError with every problem in it.

    A `str` is a YAML text where it contains a line break or begins with `{`, and a path otherwise. Warnings are kept
    on the spec. `in_features` and `out_features` are sizes for a template (`layout: {auto: N}` without `in_features`),
    whose layout is then that of the larger of the two, and for a preset that does not write its own; without
    `out_features` it is `in_features`. Other files keep their own sizes. They must be positive (ValueError).
    `auto_rule` is the rule of `{auto: N}`: 2, or 1 for the circuits of adapters that were saved while it was the only
    one.
    """
    if any(size is not None and size < 1 for size in (in_features, out_features)):
        raise ValueError(f"the sizes for a template are positive, got {in_features} and {out_features}")
    data, problems = _read(source)
    document = read_document(data, problems)
    spec: CircuitSpec | None = None
    if isinstance(document, Document):
        spec = resolve(document, problems, in_features, out_features, auto_rule)
    elif document is not None:
        from quanta_compiler.spec.preset_files import resolve_preset

        spec = resolve_preset(document, problems, in_features, out_features, auto_rule)
    problems.raise_errors()
    assert spec is not None, "resolving failed without a problem"
    return replace(spec, warnings=problems.warnings())


def read_data(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return a circuit as it is written, patterns and templates included, as plain data; `load_spec` takes it back.

    Raises SpecError where it cannot be read or is no mapping; what is in it is not judged.
    """
    data, problems = _read(source)
    problems.raise_errors()
    if not isinstance(data, dict):
        read_document(data, problems)
        problems.raise_errors()
    assert isinstance(data, dict)
    return data


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Any, Problems]:
    if isinstance(source, Mapping):
        return _plain(source), Problems(DictSource())
    path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    if not isinstance(path, str):
        raise TypeError(f"a circuit is a path, a YAML text or a dict, not {type(source).__name__}")
    if isinstance(source, str) and ("\n" in source or "\r" in source or source.lstrip().startswith("{")):
        if len(source) > FILE_BYTES:
            raise too_large("<string>")
        name = STANDARD_INPUT_NAME if isinstance(source, StandardInput) else "<string>"
        text_source = TextSource(name, source.removeprefix("\ufeff"))
    else:
        text_source = TextSource(path, read_file(path))
    problems = Problems(text_source)
    return read_text(text_source, problems), problems


def _plain(value: Any, depth: int = 0) -> Any:
    """Return data with subclasses of `str`, `int` and `float` replaced by what they are.

    A subclass may write itself in any way it likes: what reaches an emitted file must not be asked for its text.
    """
    # Deeper data is no circuit and is left for the checks to refuse; it may even contain itself.
    if isinstance(value, bool) or value is None or depth > NESTING:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value
