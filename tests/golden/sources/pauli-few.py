# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: e6b2782f5095679a00e4bf629a9f6fc2a9f383e1043c826d8049001a30afcbf7
"""Circuit pauli-few: 20 -> 12 features.

Layout 4 x 5, 2 gates, 8 trainable parameters; circuit 2f30ef0ca169dfd5.
Planned for 2048 tokens a batch: any other batch gives the same result, if not at the least cost.
In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;
in `operator`, `axis'` is the input side of an axis.
"""

import torch


class Circuit(torch.nn.Module):
    """Maps [..., 20] to [..., 12]."""

    in_features: int = 20
    out_features: int = 12
    circuit: str = (
        '{"version": 1, "name": "pauli-few", "layout": [4, 5], "in_features": 20, "out_features": 12, "gate'
        's": [{"name": "g0", "axes": [0], "kind": "pauli", "layers": 2, "rank_parameters": 1, "init": "zero'
        's"}, {"name": "g1", "axes": [1], "to": [3], "kind": "pauli", "layers": 1, "rank_parameters": 1, "i'
        'nit": "zeros"}], "output": [0, 1], "plan": {"tokens": 2048, "optimizer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        # pauli on 0:4
        gates["g0"] = torch.nn.Parameter(torch.empty(3, device=device, dtype=dtype))
        # pauli on 1:5 -> 1:3
        gates["g1"] = torch.nn.Parameter(torch.empty(5, device=device, dtype=dtype))
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
        """Apply the circuit: [..., 20] -> [..., 12]."""
        if x.shape[-1:] != (20,):
            raise ValueError(f"expected [..., 20], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 20).contiguous()
        n = x.shape[0]
        # g0: pauli on 0:4
        blocks_5 = Circuit._blocks_5(torch.stack([gates["g1"]]))
        matrix_g1 = Circuit._pauli_5_transposed(Circuit._eye(gates["g1"], 3, 5), blocks_5[0])
        x = x.view(n, 4, 5).permute(2, 0, 1).contiguous().view(n * 5, 4)  # 1:5 n 0:4
        blocks_4_2 = Circuit._blocks_4_2(torch.stack([gates["g0"]]))
        x = Circuit._pauli_4(x, blocks_4_2[0])  # 1:5 n 0:4
        # g1: pauli on 1:5 -> 1:3
        x = x.view(5, n * 4).t() @ matrix_g1.t()  # n 0:4 1:3
        x = x.view(n, 12)
        return x.view(*lead, 12)

    def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        """Return the circuit's matrix, [12, 20], differentiable.

        With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without
        gradients and computed in the dtype of the parameters, and it is returned.
        """
        if add_to is not None:
            if add_to.shape != (12, 20):
                raise ValueError(f"expected [12, 20] to add to, got {list(add_to.shape)}")
            with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):
                return add_to.add_(self.operator(), alpha=scale)
        gates = self.gates
        # g0, g1
        blocks_5 = Circuit._blocks_5(torch.stack([gates["g1"]]))
        matrix_g1 = Circuit._pauli_5_transposed(Circuit._eye(gates["g1"], 3, 5), blocks_5[0])
        blocks_4_2 = Circuit._blocks_4_2(torch.stack([gates["g0"]]))
        matrix_g0 = Circuit._pauli_4_2(Circuit._eye(gates["g0"], 4, 4), blocks_4_2[0])
        w1: torch.Tensor = matrix_g0.view(16, 1) * matrix_g1.view(1, 15)  # 0':4 0:4 1:3 1':5
        w1 = w1.view(4, 12, 5).transpose(0, 1).reshape(12, 20)  # 0:4 1:3 0':4 1':5
        return w1

    @staticmethod
    def _ry(angles: torch.Tensor) -> torch.Tensor:
        """Return rotations of a plane by half of every angle: [numbers] -> [numbers, 2, 2]."""
        half = angles / 2
        cos, sin = torch.cos(half), torch.sin(half)
        return torch.stack([cos, -sin, sin, cos], dim=-1).view(-1, 2, 2)

    @staticmethod
    def _cz(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Return ones [rows, columns], the last of them -1."""
        return torch.nn.functional.pad(like.new_full((1, 1), -1.0), (columns - 1, 0, rows - 1, 0), value=1.0)

    @staticmethod
    def _eye(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Return an identity matrix, or its first rows or columns."""
        return torch.eye(rows, columns, dtype=like.dtype, device=like.device)

    @staticmethod
    def _blocks_4(angles: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return the blocks of every matrix 4 x 4, 1 layer, 1 angles a column, of a stack: [n, 2]."""
        n = angles.shape[0]
        # ry0, cz1
        cz = Circuit._cz(angles, 2, 2)
        ry = Circuit._ry(angles.t()).view(-1, n, 2, 2).unbind()
        w1: torch.Tensor = ry[0].view(n, 2, 2, 1) * cz.view(1, 2, 1, 2)  # n q0:2 q0:2 q1:2
        # ry1
        w1 = torch.bmm(w1.view(n, 2, 4).transpose(1, 2), ry[1].transpose(1, 2))  # n q0:2 q1:2 q0:2
        w1 = w1.view(n, 2, 4).transpose(1, 2).reshape(n, 8)  # n q1:2 q0:2 q0:2
        block0 = w1
        return [[block] for block in block0.unbind()]

    @staticmethod
    def _blocks_5(angles: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return the cosines, sines and blocks of every matrix 5 x 5, 1 layer, 1 angles a column, of a stack: [n, 5]."""
        v1, v2, c, u1, u2 = torch.split(angles, [2, 0, 1, 2, 0], dim=1)
        blocks_4 = Circuit._blocks_4(torch.cat([v1, u1]))
        half = c / 2
        n, cos, sin = len(half), torch.cos(half).unbind(), torch.sin(half).unbind()
        return [[cos[i], sin[i], *blocks_4[i], *blocks_4[n + i]] for i in range(n)]

    @staticmethod
    def _blocks_4_2(angles: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return the blocks of every matrix 4 x 4, 2 layers, 1 angles a column, of a stack: [n, 3]."""
        n = angles.shape[0]
        # ry0, cz1
        cz = Circuit._cz(angles, 2, 2)
        ry = Circuit._ry(angles.t()).view(-1, n, 2, 2).unbind()
        w1: torch.Tensor = ry[0].view(n, 2, 2, 1) * cz.view(1, 2, 1, 2)  # n q0:2 q0:2 q1:2
        # ry1
        w1 = torch.bmm(w1.view(n, 2, 4).transpose(1, 2), ry[1].transpose(1, 2))  # n q0:2 q1:2 q0:2
        # cz3
        w1 = w1.view(n * 2, 2, 2) * cz.view(2, 2, 1).transpose(0, 2)  # n q0:2 q1:2 q0:2
        # ry2
        w1 = torch.bmm(w1.view(n, 4, 2), ry[2].transpose(1, 2))  # n q0:2 q1:2 q0:2
        w1 = w1.view(n, 2, 4).transpose(1, 2).reshape(n, 8)  # n q1:2 q0:2 q0:2
        block0 = w1
        return [[block] for block in block0.unbind()]

    @staticmethod
    def _pauli_4_transposed(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Apply the transpose of a matrix 4 x 4, planned for 3 vectors: [n, 4]."""
        n = x.shape[0]
        # block0: q1:2 q0:2
        x = x.view(n, 2, 2).permute(2, 0, 1).contiguous()  # q1:2 n q0:2
        x = torch.bmm(x, blocks[0].view(2, 2, 2))  # q1:2 n q0:2
        x = x.permute(1, 2, 0).reshape(n, 4)  # n q0:2 q1:2
        return x

    @staticmethod
    def _pauli_5_transposed(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Apply the transpose of a matrix 5 x 5, planned for 3 vectors: [n, 5]."""
        cos, sin = blocks[:2]
        a = Circuit._pauli_4_transposed(x[:, :4].contiguous(), blocks[3:4])
        b = x[:, 4:].contiguous()
        head, tail = a[:, :1], b[:, :1]
        a = torch.cat([cos * head + sin * tail, a[:, 1:]], dim=1)
        b = cos * tail - sin * head
        del head, tail
        a = Circuit._pauli_4_transposed(a, blocks[2:3])
        return torch.cat([a, b], dim=1)

    @staticmethod
    def _pauli_4(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Apply a matrix 4 x 4, planned for 10240 vectors: [n, 4]."""
        n = x.shape[0]
        # block0: q1:2 q0:2
        x = x.view(n, 2, 2).permute(2, 0, 1).contiguous()  # q1:2 n q0:2
        x = torch.bmm(x, blocks[0].view(2, 2, 2).transpose(1, 2))  # q1:2 n q0:2
        x = x.permute(1, 2, 0).reshape(n, 4)  # n q0:2 q1:2
        return x

    @staticmethod
    def _pauli_4_2(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Apply a matrix 4 x 4, planned for 4 vectors: [n, 4]."""
        n = x.shape[0]
        # block0: q1:2 q0:2
        x = x.view(n, 2, 2).permute(2, 0, 1).contiguous()  # q1:2 n q0:2
        x = torch.bmm(x, blocks[0].view(2, 2, 2).transpose(1, 2))  # q1:2 n q0:2
        x = x.permute(1, 2, 0).reshape(n, 4)  # n q0:2 q1:2
        return x
