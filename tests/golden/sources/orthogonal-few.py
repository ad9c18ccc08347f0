# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: ff7e29b58212b52cf9b146a73257dd0ebdee77b998e647f3a8a3fcdbffe9e657
"""Circuit orthogonal-few: 24 -> 18 features.

Layout 6 x 4, 2 gates, 14 trainable parameters; circuit 89fa7d8e8bc75508.
Planned for 2048 tokens a batch: any other batch gives the same result, if not at the least cost.
In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;
in `operator`, `axis'` is the input side of an axis.
"""

import torch


class Circuit(torch.nn.Module):
    """Maps [..., 24] to [..., 18]."""

    in_features: int = 24
    out_features: int = 18
    circuit: str = (
        '{"version": 1, "name": "orthogonal-few", "layout": [6, 4], "in_features": 24, "out_features": 18, '
        '"gates": [{"name": "g0", "axes": [0], "to": [3], "kind": "orthogonal", "map": "exp", "rank_paramet'
        'ers": 1, "init": "zeros"}, {"name": "g1", "axes": [1], "to": [6], "kind": "orthogonal", "map": "ca'
        'yley", "rank_parameters": 2, "init": "zeros"}], "output": [0, 1], "plan": {"tokens": 2048, "optimi'
        'zer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        # orthogonal on 0:6 -> 0:3
        gates["g0"] = torch.nn.Parameter(torch.empty(5, device=device, dtype=dtype))
        # orthogonal on 1:4 -> 1:6
        gates["g1"] = torch.nn.Parameter(torch.empty(9, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        gates = self.gates
        gates["g0"].zero_()
        gates["g1"].zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the circuit: [..., 24] -> [..., 18]."""
        if x.shape[-1:] != (24,):
            raise ValueError(f"expected [..., 24], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 24).contiguous()
        n = x.shape[0]
        # g0: orthogonal on 0:6 -> 0:3
        matrix_g0 = Circuit._exponential(-gates["g0"], 6, 3, 1)
        matrix_g1 = Circuit._cayley(gates["g1"], 6, 4, 2)
        x = x.view(n, 6, 4).transpose(1, 2).contiguous().view(n * 4, 6)  # n 1:4 0:6
        x = x @ matrix_g0  # n 1:4 0:3
        # g1: orthogonal on 1:4 -> 1:6
        x = x.view(n, 4, 3).transpose(1, 2).contiguous().view(n * 3, 4)  # n 0:3 1:4
        x = x @ matrix_g1.t()  # n 0:3 1:6
        x = x.view(n, 18)
        return x.view(*lead, 18)

    def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        """Return the circuit's matrix, [18, 24], differentiable.

        With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without
        gradients and computed in the dtype of the parameters, and it is returned.
        """
        if add_to is not None:
            if add_to.shape != (18, 24):
                raise ValueError(f"expected [18, 24] to add to, got {list(add_to.shape)}")
            with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):
                return add_to.add_(self.operator(), alpha=scale)
        gates = self.gates
        # g0, g1
        matrix_g0 = Circuit._exponential(-gates["g0"], 6, 3, 1)
        matrix_g1 = Circuit._cayley(gates["g1"], 6, 4, 2)
        w1: torch.Tensor = matrix_g1.view(1, 24) * matrix_g0.view(18, 1)  # 0':6 0:3 1:6 1':4
        w1 = w1.view(6, 18, 4).transpose(0, 1).reshape(18, 24)  # 0:3 1:6 0':6 1':4
        return w1

    @staticmethod
    def _eye(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Return an identity matrix, or its first rows or columns."""
        return torch.eye(rows, columns, dtype=like.dtype, device=like.device)

    @staticmethod
    def _lie(numbers: torch.Tensor, size: int, columns: int) -> torch.Tensor:
        """Return the numbers below the diagonal of some columns: [..., numbers] -> [..., size, columns]."""
        column, row = torch.triu_indices(columns, size, 1, device=numbers.device)
        lower = numbers.new_zeros(*numbers.shape[:-1], size, columns)
        lower[..., row, column] = numbers
        return lower

    @staticmethod
    def _skew(lower: torch.Tensor) -> torch.Tensor:
        """Return S = A - A^T, A having zeros behind the given columns: [..., n, k] -> [..., n, n]."""
        size, columns = lower.shape[-2:]
        whole = torch.nn.functional.pad(lower, (0, size - columns))
        return whole - whole.mT

    @staticmethod
    def _factors(lower: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return U, V and V^T U with S = U V^T: [..., n, k] -> [..., n, 2k], [..., n, 2k], [..., 2k, 2k]."""
        first = Circuit._eye(lower, *lower.shape[-2:]).expand_as(lower)
        # S does not depend on this number, which keeps both sides of one size.
        scale = torch.linalg.matrix_norm(lower.detach(), keepdim=True).clamp_min(1.0).sqrt()
        left = torch.cat([lower / scale, -scale * first], dim=-1)
        right = torch.cat([scale * first, lower / scale], dim=-1)
        return left, right, right.mT @ left

    @staticmethod
    def _is_for_onnx() -> bool:
        """Say whether torch.onnx traces: ONNX knows neither matrix exponentials nor linear systems."""
        return torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export()

    @staticmethod
    def _matrix_exp(matrix: torch.Tensor) -> torch.Tensor:
        """Return exp(A); for ONNX by products, exp(A) = exp(A / 2^16)^(2^16), the inner one by its series."""
        if not Circuit._is_for_onnx():
            whole: torch.Tensor = torch.linalg.matrix_exp(matrix)
            return whole
        one = Circuit._eye(matrix, *matrix.shape[-2:])
        part, result = matrix / 2**16, one
        for term in range(12, 0, -1):
            result = one + part @ result / term
        for _ in range(16):
            result = result @ result
        return result

    @staticmethod
    def _solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return A^-1 B; for ONNX by Newton's iteration for the inverse, X <- X (2 - A X), in float64."""
        if not Circuit._is_for_onnx():
            found: torch.Tensor = torch.linalg.solve(matrix, right)
            return found
        precise = matrix.double()
        rows, columns = precise.abs().sum(-1), precise.abs().sum(-2)
        bound = rows.amax(-1) * columns.amax(-1)
        inverse = precise.mT / bound[..., None, None]
        for _ in range(40):
            inverse = 2 * inverse - inverse @ (precise @ inverse)
        return (inverse @ right.double()).to(right.dtype)

    @staticmethod
    def _exponential(numbers: torch.Tensor, size: int, columns: int, kept: int) -> torch.Tensor:
        """Return the first columns of exp(S), S skew-symmetric: [..., numbers] -> [..., size, columns]."""
        with torch.autocast(numbers.device.type, enabled=False):
            # In float32 an exponential is orthogonal to five digits only.
            lower = Circuit._lie(numbers if numbers.device.type == "mps" else numbers.double(), size, kept)
            if 2 * kept >= size:
                return Circuit._matrix_exp(Circuit._skew(lower))[..., :columns].to(numbers.dtype).contiguous()
            # exp(U V^T) = I + U f(V^T U) V^T with f(z) = (exp(z) - 1) / z, a corner of exp([[z, I], [0, 0]]).
            left, right, inner = Circuit._factors(lower)
            beside = torch.cat([inner, Circuit._eye(lower, 2 * kept, 2 * kept).expand_as(inner)], dim=-1)
            corner = Circuit._matrix_exp(torch.nn.functional.pad(beside, (0, 0, 0, 2 * kept)))
            function = corner[..., : 2 * kept, 2 * kept :]
            update = left @ (function @ right[..., :columns, :].mT)
            return (Circuit._eye(lower, size, columns) + update).to(numbers.dtype)

    @staticmethod
    def _cayley(numbers: torch.Tensor, size: int, columns: int, kept: int) -> torch.Tensor:
        """Return the first columns of (I - S/2)^-1 (I + S/2), S skew-symmetric: [..., numbers] -> [..., size, columns]."""
        with torch.autocast(numbers.device.type, enabled=False):
            lower = Circuit._lie(numbers.to(torch.promote_types(numbers.dtype, torch.float32)), size, kept)
            if 2 * kept >= size:
                half, one = Circuit._skew(lower) / 2, Circuit._eye(lower, size, size)
                return Circuit._solve(one - half, (one + half)[..., :columns]).to(numbers.dtype).contiguous()
            # The same matrix is I + U (I - V^T U / 2)^-1 V^T with S = U V^T.
            left, right, inner = Circuit._factors(lower)
            one = Circuit._eye(lower, 2 * kept, 2 * kept)
            inverse = Circuit._solve(one - inner / 2, right[..., :columns, :].mT)
            return (Circuit._eye(lower, size, columns) + left @ inverse).to(numbers.dtype)
