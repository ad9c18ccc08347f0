"""The circuits of a recommendation as files."""

import yaml

from quanta_compiler.recommend.budget import Shape
from quanta_compiler.recommend.run import Recommendation


def circuit_files(made: Recommendation) -> dict[str, tuple[str, str]]:
    """Return (file, text) of every circuit by its name; one that several shapes share is one file."""
    serves: dict[str, list[Shape]] = {}
    documents = {}
    for choice in made.choices:
        for shape, document in choice.circuits.items():
            serves.setdefault(document["name"], []).append(shape)
            documents[document["name"]] = document
    files = {}
    for name, document in documents.items():
        shapes = ", ".join(f"{wide} -> {tall}" for wide, tall in serves[name])
        text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)
        files[name] = (f"{name}.yaml", f"# For layers of {shapes} features of {made.model.name!r}.\n{text}")
    return files
