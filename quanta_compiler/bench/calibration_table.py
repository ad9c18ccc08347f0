"""A calibration as a table for people: a few of its rates, and where it is kept."""

from pathlib import Path

from quanta_compiler.diagnostics import escape
from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.times import seconds_of
from quanta_compiler.predict.work import Operation, Pass, Permutation, Product
from quanta_compiler.text.tables import FIGURES, Cells, Table
from quanta_compiler.text.words import plural

_PRODUCTS = (
    ("a large matrix product", Product(1024, 1024, 1024)),
    ("65,536 rows by a matrix of 32 x 32", Product(65536, 32, 32)),
    ("the gradient of such a matrix", Product(32, 65536, 32, is_transposed=True)),
    ("1,024 products of 16 x 16 matrices", Product(16, 16, 16, batch=1024)),
)
_NUMBERS = 2**20
_COPIES = (
    ("a copy in order", Pass(8 * _NUMBERS)),
    ("a copy by runs of 16 numbers", Permutation((256, 256, 16), (16, 4096, 1))),
    ("a copy of single numbers", Permutation((64, 32, 512), (1, 32768, 64))),
)


def calibration_table(calibration: Calibration, path: Path) -> Table:
    """Return the rates that predicted times depend on most."""
    device = f"{calibration.device}, {plural(calibration.threads, 'thread')}"
    title = f"{escape(calibration.name)} ({device}), float32, torch {escape(calibration.torch)}"
    rows: list[Cells] = [(what, _rate(product.flops, product, calibration), "GFLOP/s") for what, product in _PRODUCTS]
    rows += [(what, _rate(copy.bytes, copy, calibration), "GB/s, read and written") for what, copy in _COPIES]
    rows += [
        ("calling an operation, forward", f"{1e6 * calibration.forward_launch:.1f}", "microseconds"),
        ("calling an operation, backward", f"{1e6 * calibration.backward_launch:.1f}", "microseconds"),
        ("the fused kernel", "no" if calibration.kernel is None else "yes", "measured"),
    ]
    return Table(f"{title}\nkept in {escape(str(path))}", FIGURES, tuple(rows))


def _rate(amount: int, operation: Operation, calibration: Calibration) -> str:
    return f"{1e-9 * amount / seconds_of(operation, calibration):.1f}"
