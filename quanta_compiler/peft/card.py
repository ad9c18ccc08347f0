"""The part of a model card that shows an adapter's circuits; what others have written there stays."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quanta_compiler.peft.saved import WEIGHTS
from quanta_compiler.spec import load_spec, to_yaml

_BEGIN = "<!-- quanta-compiler: what stands between these two lines is written anew with every save -->"
_END = "<!-- quanta-compiler: end -->"
_SHOWN_LINES = 80
"""How many lines of a circuit a card shows; adapter_config.json holds all of them."""
_SHOWN_CIRCUITS = 12


def write_card(folder: str, config: Any) -> None:
    """Write the circuits of a configuration into the README.md of a folder, once there are any."""
    if not config.resolved:
        return
    path = Path(folder) / "README.md"
    section = "\n".join([_BEGIN, *_section(path.parent, config), _END])
    if path.exists():
        # Whatever bytes somebody has written there stay as they are.
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        text, found = re.subn(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", lambda _: section, text, flags=re.DOTALL)
        text = text if found else f"{text.rstrip()}\n\n{section}\n"
    else:
        # PEFT writes no card for adapters of another name than `default`, which lie one folder down.
        base = config.base_model_name_or_path
        named = f"base_model: {json.dumps(base)}\n" if base else ""
        text = f"---\nlibrary_name: peft\n{named}---\n\n# Circuit adapter\n\n{section}\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
    os.replace(temporary, path)


def _section(folder: Path, config: Any) -> Iterator[str]:
    yield from (
        "## Circuits",
        "",
        "The adapter consists of circuits: tensor networks of small gates. It is loaded by PEFT with the package "
        f"`quanta-compiler` (made with version {config.package_version}):",
        "",
        "```python",
        "import quanta_compiler.peft  # pip install quanta-compiler; importing it makes the method known to PEFT",
        "from peft import PeftModel",
        "",
        'model = PeftModel.from_pretrained(base_model, "the/folder/of/this/adapter")',
        "```",
        "",
    )
    weights = folder / WEIGHTS
    if config.rounding is not None and weights.exists():
        yield from (f"What trains is rounded to {config.rounding}: {weights.stat().st_size:,} bytes in {WEIGHTS}.", "")
    places = list(config.resolved.items())
    for place, entry in places[:_SHOWN_CIRCUITS]:
        target, _, shape = place.rpartition(": ")
        named = f" whose names end in `{target}`" if target else ""
        yield f"Layers{named} with {shape} features: residual `{entry['residual']}`, scale {config.scale:g}."
        lines = to_yaml(load_spec(entry["circuit"])).splitlines()
        yield from ("", "```yaml", *lines[:_SHOWN_LINES])
        if len(lines) > _SHOWN_LINES:
            yield f"# and {len(lines) - _SHOWN_LINES} more lines; adapter_config.json holds all of them"
        yield from ("```", "")
    if len(places) > _SHOWN_CIRCUITS:
        yield f"`adapter_config.json` holds {len(places) - _SHOWN_CIRCUITS} more circuits under `resolved`."
