"""Layouts side by side, before anything is trained: what each costs, what it can express, how long it will take.

from quanta_compiler.compare import compare

compare(["circuit.yaml"], baselines=["lora:8", "krona:64-64"])
"""

from quanta_compiler.compare.comparison import Comparison
from quanta_compiler.compare.row import COLUMNS, Row
from quanta_compiler.compare.run import compare

__all__ = ["COLUMNS", "Comparison", "Row", "compare"]
