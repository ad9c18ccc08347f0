"""What kernels need, as tables: what is launched, and what was compiled to find it."""

from collections.abc import Iterator

from quanta_compiler.kernels.engines.triton.architectures import SHARED
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Tiling
from quanta_compiler.kernels.engines.triton.needs import Needs, Pass, Trial
from quanta_compiler.kernels.engines.triton.plans import Refusal
from quanta_compiler.text.quantities import bytes_text
from quanta_compiler.text.tables import Cells, Column, Table, numbers
from quanta_compiler.text.words import plural

_TRIED = (
    *(Column("kernel"), *numbers("tokens", "warps", "registers", "spilled", "shared", "MMA")),
    Column("", is_remark=True),
)


def needs_tables(needs: Needs) -> list[Table]:
    """Return a table of what is launched on every architecture, and one for each of what was tried."""
    tables = [Table(_title(needs), (Column("arch"), Column("pass"), Column("runs")), tuple(_launched(needs)))]
    for arch in dict.fromkeys(one.arch for one in needs.passes):
        title = f"sm_{arch}, compiled (a program has at most {bytes_text(1024 * SHARED[arch])} of shared memory)"
        passes = [one for one in needs.passes if one.arch == arch]
        rows = [_trial_cells(needs, one, trial) for one in passes for trial in one.trials]
        tables.append(Table(title, _TRIED, tuple(rows)))
    return [table for table in tables if table.rows]


def launched(needs: Needs, one: Pass) -> Iterator[str]:
    """Yield the kernels of a pass in the order in which they are launched, or why there are none."""
    if isinstance(one.plan, Refusal):
        yield f"{one.runs}: {one.plan.reason}"
        return
    if len(one.plan) == 1:
        yield f"1 kernel of {_tiling(one.plan[0].tiling)}"
        return
    count = f"{len(one.plan)} kernels: "
    for place, (kernel, tiling) in enumerate(one.plan):
        yield f"{' ' * len(count) if place else count}{_gates(needs, kernel)}, {_tiling(tiling)}"


def _title(needs: Needs) -> str:
    gates = str(needs.gates_dtype).removeprefix("torch.")
    vectors = str(needs.number.vectors).removeprefix("torch.")
    dtypes = vectors if gates == vectors else f"{vectors}, gates in {gates}"
    name = f"T x - S x of {needs.name}" if needs.difference else needs.name
    return f"{name} in {dtypes}: compiled by Triton {needs.triton}, not measured"


def _launched(needs: Needs) -> Iterator[Cells]:
    for one in needs.passes:
        for place, line in enumerate(launched(needs, one)):
            yield ("", "", line) if place else (f"sm_{one.arch}", one.title, line)


def _trial_cells(needs: Needs, one: Pass, trial: Trial) -> Cells:
    is_part = trial.kernel.last - trial.kernel.first < one.whole.last - one.whole.first
    name = one.title + (f" {_gates(needs, trial.kernel)}" if is_part else "")
    tiling = (str(trial.tiling.tokens), str(trial.tiling.warps))
    if isinstance(trial.needs, str):
        return (name, *tiling, "", "", "", "", trial.needs)
    found = trial.needs
    has_shared = found.shared <= SHARED[one.arch] * 1024
    too_much = "spills" if found.spilled else "too many columns" if has_shared else "too much shared"
    verdict = "taken" if one.is_taken(trial) else "" if found.fits(one.arch) else too_much
    counts = (found.registers, found.spilled, bytes_text(found.shared), found.matrix_instructions)
    return (name, *tiling, *map(str, counts), verdict)


def _gates(needs: Needs, kernel: Kernel) -> str:
    names = needs.gates_of(kernel)
    ends = (names[0], names[-1]) if kernel.name == "forward" else (names[-1], names[0])
    return ends[0] if len(names) == 1 else f"{ends[0]} to {ends[1]}"


def _tiling(tiling: Tiling) -> str:
    return f"{plural(tiling.tokens, 'token')}, {tiling.warps} warps"
