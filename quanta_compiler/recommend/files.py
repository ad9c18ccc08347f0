"""The circuits of a recommendation as files."""

import yaml

from quanta_compiler.models.fitting import is_template
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
        written = document
        heading = f"# For layers of {shapes} features of {made.model.name!r}.\n"
        if len(set(serves[name])) == 1:
            # With its widths the file is a circuit by itself; one for several shapes takes those of each layer.
            (wide, tall), *_ = serves[name]
            written = {**document, "in_features": wide, "out_features": tall}
        elif is_template(document):
            heading += "# It takes the widths of each layer: add in_features to look at it by itself.\n"
        text = yaml.safe_dump(written, sort_keys=False, default_flow_style=None, width=120)
        files[name] = (f"{name}.yaml", heading + text)
    return files
