"""Devices that are known from their data sheets alone: times are computed by a roofline, and nothing was measured.

An operation takes what its FLOPs take at the rate of the matrix units, what its bytes take at the rate of the memory,
or its launch, whichever is longest. A circuit by the engine `triton` is reckoned as predict/engines/triton.py says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.engines import EngineRates
from quanta_compiler.predict.grid import Grid, Grids
from quanta_compiler.text.quantities import amount_text

_COUNTED = 4
"""Bytes of a number in what is counted as work."""


@dataclass(frozen=True, slots=True)
class DataSheet:
    """A GPU as its maker describes it, in bfloat16."""

    name: str
    flops_per_second: float
    """Of dense products with float32 sums: what is assumed of large products, at most the sheet's own rate."""
    bytes_per_second: float
    """Of memory: what is assumed of large copies."""
    launch_seconds: float
    """Of a kernel launched behind another."""
    source: str
    """What the sheet is called."""
    published: tuple[float, float]
    """Its own rates, of FLOPs and of bytes."""


SHEETS: Mapping[str, DataSheet] = {
    "a100": DataSheet(
        name="NVIDIA A100 SXM 80GB",
        flops_per_second=312e12,
        bytes_per_second=1.9e12,
        launch_seconds=3e-6,
        source="NVIDIA A100 Tensor Core GPU Datasheet",
        published=(312e12, 2.039e12),
    ),
    "h100": DataSheet(
        name="NVIDIA H100 SXM",
        flops_per_second=800e12,
        bytes_per_second=3.0e12,
        launch_seconds=3e-6,
        source="NVIDIA H100 Tensor Core GPU Datasheet",
        published=(989e12, 3.35e12),
    ),
}
"""By the names that `--device` takes."""
_ITEM_BYTES = 2


def computed_calibration(device: str) -> Calibration:
    """Return the rates of one of `SHEETS`, the same for all shapes."""
    sheet = SHEETS[device]
    flop, byte = 1 / sheet.flops_per_second, 1 / sheet.bytes_per_second
    product = Grid(((1,),) * 3, (2 * flop,))
    # Read once and written once.
    number = 2 * _ITEM_BYTES * byte
    copies, orders = Grid(((1,),) * 2, (number,)), Grid(((1,),) * 3, (number,))
    rates = _rates(sheet.flops_per_second, sheet.bytes_per_second)
    published = f"{sheet.source}: {_rates(*sheet.published)}"
    return Calibration(
        device="cuda",
        name=f"{sheet.name}, bfloat16",
        threads=1,
        torch="",
        measured="",
        grids=Grids(
            products=product,
            gradients=product,
            batched=product,
            stream=Grid(((1,),), (_ITEM_BYTES / _COUNTED * byte,)),
            elementwise=copies,
            transposed=copies,
            runs=orders,
            strided=orders,
        ),
        fresh=0.0,
        restart=0.0,
        gathered=number,
        kernel=EngineRates("triton", (sheet.launch_seconds, _ITEM_BYTES * byte, flop)),
        forward_launch=sheet.launch_seconds,
        backward_launch=sheet.launch_seconds,
        origin="computed",
        remark=f"times are computed and not measured: a roofline of {rates} in bfloat16 ({published})",
    )


def _rates(flops_per_second: float, bytes_per_second: float) -> str:
    return f"{amount_text(flops_per_second, 'FLOP/s')}, {amount_text(bytes_per_second, 'B/s')}"
