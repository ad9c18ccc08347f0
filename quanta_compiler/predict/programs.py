"""What a program asks of a machine: the steps of its account on torch, and what autograd makes of them.

A product has one more for every operand that needs a gradient, and a copy into another order goes back by another copy.
"""

from quanta_compiler.lowering.account import Executed, Making, Resized, StepCost
from quanta_compiler.lowering.accounting import program_cost
from quanta_compiler.lowering.program import Copy, Matmul, Multiply, Program
from quanta_compiler.predict.rotations import making_work, passes_work
from quanta_compiler.predict.steps import copy, matmul, multiply, resize
from quanta_compiler.predict.work import Work, joined


def program_work(program: Program) -> Work:
    """Return the work of a batch of the size that a program was planned for, its input requiring a gradient."""
    return joined(map(_work, program_cost(program).steps))


def _work(step: StepCost) -> Work:
    origin = step.origin
    if isinstance(origin, Making):
        return making_work(origin)
    if isinstance(origin, Resized):
        return resize(origin)
    if not isinstance(origin, Executed):
        return passes_work(origin)
    if isinstance(origin.operation, Matmul):
        return matmul(origin, origin.operation)
    if isinstance(origin.operation, Multiply):
        return multiply(origin, origin.operation)
    assert isinstance(origin.operation, Copy), "ties and picks stand in operators only"
    return copy(origin, origin.operation)
