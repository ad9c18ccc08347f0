"""A comparison as `quanta compare --json` prints it, made of nothing: for pages, which take data alone."""

from __future__ import annotations

import random
from typing import Any

COLUMNS: list[tuple[str, str, str, str | None]] = [
    ("name", "name", "", None),
    ("kind", "kind", "", None),
    ("family", "family", "", None),
    ("source", "source", "", None),
    ("in_features", "in", "features", None),
    ("out_features", "out", "features", None),
    ("layers", "layers", "", None),
    ("trainable", "trainable", "numbers", "lower"),
    ("percent", "percent", "%", "lower"),
    ("step_flops_per_token", "step", "FLOPs/token", "lower"),
    ("saved_bytes_per_token", "saved", "bytes/token", "lower"),
    ("operator_flops", "operator", "FLOPs", "lower"),
    ("rank_upper", "rank to", "", "higher"),
    ("numerical_rank", "random rank", "", "higher"),
    ("connected", "connected", "", None),
    ("step_seconds", "step time", "s", "lower"),
]


def comparison(rows: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """Return a comparison of rows; what a row does not say is null."""
    columns = [
        {"key": key, "title": title, "unit": unit, "meaning": f"What {title} means.", "better": better}
        for key, title, unit, better in COLUMNS
    ]
    shared = {"kind": "circuit", "source": "file.yaml", "in_features": 64, "out_features": 64, "layers": 1}
    empty = {str(column["key"]): None for column in columns}
    return {
        "title": "one layer, 64 -> 64 features",
        "tokens": 2048,
        "device": {"name": "a machine", "calibrated": False, "remark": "not yours"},
        "percent_of": "a dense 64 x 64 layer",
        "model": None,
        "columns": columns,
        "rows": [{**empty, **shared, **row} for row in rows],
        "problems": [],
        **keys,
    }


def row(name: str, trainable: int, seconds: float | None, **keys: Any) -> dict[str, Any]:
    """Return a row with figures that follow from its parameters."""
    figures = {
        "name": name,
        "trainable": trainable,
        "percent": 100 * trainable / 4096,
        "step_flops_per_token": 6.0 * trainable,
        "saved_bytes_per_token": 256.0,
        "rank_upper": min(64, trainable // 64),
        "connected": True,
        "step_seconds": seconds,
    }
    return {**figures, **keys}


def many_rows(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows with random figures, of all kinds."""
    draw = random.Random(seed)
    return [
        row(
            f"circuit-{place}",
            draw.randint(100, 10**6),
            None if place % 9 == 5 else 10 ** draw.uniform(-4, 1),
            kind=draw.choice(["circuit", "circuit", "method", "dense"]),
            saved_bytes_per_token=draw.choice([256.0, 512.0, 98306.0]),
        )
        for place in range(number)
    ]
