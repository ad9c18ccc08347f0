"""The JSON Schema of the circuit file, from the models, for editors and other validators.

It says what can be said of one value at a time; what holds between gates only `quanta check` knows. Imported for
`quanta schema` alone: generating it costs more than reading a file.
"""

import json
from typing import Any

from pydantic import BaseModel

from quanta_compiler.kinds.initialisers import ENTRIES
from quanta_compiler.kinds.kind import Kind
from quanta_compiler.kinds.plugins import all_plugins
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec.models import CircuitFile, forms
from quanta_compiler.spec.preset_files import preset_model
from quanta_compiler.spec.schema_parts import NAME

# The newest draft that the editors' language servers read in full.
_DRAFT = "http://json-schema.org/draft-07/schema#"


def json_schema(added: tuple[type[Kind], ...] = ()) -> dict[str, Any]:
    """Return the JSON Schema of the circuit file: a circuit written out, or one of the presets."""
    models: list[type[BaseModel]] = [forms(added).file, *map(preset_model, PRESETS)]
    definitions: dict[str, Any] = {}
    for form in models:
        schema = _tidy(form.model_json_schema(), definitions)
        definitions.update(schema.pop("$defs", {}))
        definitions[form.__name__] = schema
    definitions[CircuitFile.__name__]["properties"]["init"]["default"] = ENTRIES[0]
    return {
        "$schema": _DRAFT,
        "title": "A circuit of quanta-compiler",
        "type": "object",
        "anyOf": [{"$ref": f"#/$defs/{form.__name__}"} for form in models],
        "$defs": {name: definitions[name] for name in sorted(definitions)},
    }


def schema_text() -> str:
    """Return the JSON Schema as the text of `schemas/circuit.schema.json`, with the kinds of installed packages."""
    return json.dumps(json_schema(all_plugins()), indent=2) + "\n"


def _tidy(part: Any, definitions: dict[str, Any]) -> Any:
    """Move named parts to the definitions, and drop defaults that only mean that a key may be left out."""
    if isinstance(part, list):
        return [_tidy(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    tidy = {
        key: _tidy(value, definitions) for key, value in part.items() if not (key == "default" and value in (None, []))
    }
    name = tidy.pop(NAME, None)
    if name is None:
        return tidy
    # What pydantic adds for a field stays with the field.
    beside = {key: tidy.pop(key) for key in ("title", "default") if key in tidy}
    definitions[name] = {**tidy, "title": name}
    return {"$ref": f"#/$defs/{name}", **beside}
