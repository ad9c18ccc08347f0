"""Devices that are known from their data sheets alone: times are computed by a roofline, and nothing was measured.

An operation takes what its FLOPs take at the rate of the matrix units, what its bytes take at the rate of the memory,
or its launch, whichever is longest. A circuit by the engine `triton` is reckoned as predict/engines/triton.py says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.engines import EngineRates
from quanta_compiler.predict.grid import Grid, Grids

_COUNTED = 4
"""Bytes of a number in what is counted as work."""


@dataclass(frozen=True, slots=True)
class DataSheet:
    """A GPU as its maker describes it, in bfloat16."""

    name: str
    flops_per_second: float
    """Of dense products with float32 sums that large products are known to reach; the sheet's where they reach it."""
    bytes_per_second: float
    """Of memory that large copies are known to reach."""
    launch_seconds: float
    """Of a kernel launched behind another."""
    said: str
    """What the sheet itself gives, and which it is."""


SHEETS: Mapping[str, DataSheet] = {
    "a100": DataSheet(
        name="NVIDIA A100 SXM 80 GB",
        flops_per_second=312e12,
        bytes_per_second=1.9e12,
        launch_seconds=3e-6,
        said="NVIDIA A100 Tensor Core GPU Datasheet: 312 TFLOP/s, 2,039 GB/s",
    ),
    "h100": DataSheet(
        name="NVIDIA H100 SXM",
        flops_per_second=800e12,
        bytes_per_second=3.0e12,
        launch_seconds=3e-6,
        said="NVIDIA H100 Tensor Core GPU Datasheet: 989 TFLOP/s, 3,350 GB/s",
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
    rates = f"{sheet.flops_per_second / 1e12:g} TFLOP/s, {sheet.bytes_per_second / 1e9:,.0f} GB/s"
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
        kind="computed",
        remark=f"times are computed and not measured: a roofline of {rates} in bfloat16 ({sheet.said})",
    )
