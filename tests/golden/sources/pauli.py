# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: f12450582446269d2704bfcc696c8815e22927051c519d82ea41eb2cd0ba7b66
"""Circuit pauli: 12 -> 12 features.

Layout 4 x 3, 2 gates, 7 trainable parameters; circuit 6fd1a5092694823c.
Planned for 2048 tokens a batch: any other batch gives the same result, if not at the least cost.
In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;
in `operator`, `axis'` is the input side of an axis.
"""

import torch


class Circuit(torch.nn.Module):
    """Maps [..., 12] to [..., 12]."""

    in_features: int = 12
    out_features: int = 12
    circuit: str = (
        '{"version": 1, "name": "pauli", "layout": [4, 3], "in_features": 12, "out_features": 12, "gates": '
        '[{"name": "g0", "axes": [0], "kind": "pauli", "layers": 1, "init": "zeros"}, {"name": "g1", "axes"'
        ': [1], "kind": "pauli", "layers": 1, "init": "zeros"}], "output": [0, 1], "plan": {"tokens": 2048,'
        ' "optimizer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        # pauli on 0:4
        gates["g0"] = torch.nn.Parameter(torch.empty(4, device=device, dtype=dtype))
        # pauli on 1:3
        gates["g1"] = torch.nn.Parameter(torch.empty(3, device=device, dtype=dtype))
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
        """Apply the circuit: [..., 12] -> [..., 12]."""
        if x.shape[-1:] != (12,):
            raise ValueError(f"expected [..., 12], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 12).contiguous()
        n = x.shape[0]
        # g0: pauli on 0:4
        blocks_3 = Circuit._blocks_3(torch.stack([gates["g1"]]))
        matrix_g1 = Circuit._pauli_3(Circuit._eye(gates["g1"], 3, 3), blocks_3[0])
        x = x.view(n, 4, 3).permute(2, 0, 1).contiguous().view(n * 3, 4)  # 1:3 n 0:4
        blocks_4 = Circuit._blocks_4(torch.stack([gates["g0"]]))
        x = Circuit._pauli_4(x, blocks_4[0])  # 1:3 n 0:4
        # g1: pauli on 1:3
        x = x.view(3, n * 4).t() @ matrix_g1  # n 0:4 1:3
        x = x.view(n, 12)
        return x.view(*lead, 12)

    def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        """Return the circuit's matrix, [12, 12], differentiable.

        With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without
        gradients and computed in the dtype of the parameters, and it is returned.
        """
        if add_to is not None:
            if add_to.shape != (12, 12):
                raise ValueError(f"expected [12, 12] to add to, got {list(add_to.shape)}")
            with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):
                return add_to.add_(self.operator(), alpha=scale)
        gates = self.gates
        # g0, g1
        blocks_3 = Circuit._blocks_3(torch.stack([gates["g1"]]))
        matrix_g1 = Circuit._pauli_3(Circuit._eye(gates["g1"], 3, 3), blocks_3[0])
        blocks_4 = Circuit._blocks_4(torch.stack([gates["g0"]]))
        matrix_g0 = Circuit._pauli_4_2(Circuit._eye(gates["g0"], 4, 4), blocks_4[0])
        w1: torch.Tensor = matrix_g0.view(16, 1) * matrix_g1.view(1, 9)  # 0':4 0:4 1':3 1:3
        w1 = w1.view(4, 4, 3, 3).permute(1, 3, 0, 2).reshape(12, 12)  # 0:4 1:3 0':4 1':3
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
    def _blocks_2(angles: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return the blocks of every matrix 2 x 2, 1 layer, of a stack: [n, 1]."""
        n = angles.shape[0]
        ry = Circuit._ry(angles.t()).view(-1, n, 2, 2).unbind()
        whole0: torch.Tensor = ry[0].view(n, 4)
        block0 = whole0
        return [[block] for block in block0.unbind()]

    @staticmethod
    def _blocks_3(angles: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return the cosines, sines and blocks of every matrix 3 x 3, 1 layer, of a stack: [n, 3]."""
        v1, v2, c, u1, u2 = torch.split(angles, [1, 0, 1, 1, 0], dim=1)
        blocks_2 = Circuit._blocks_2(torch.cat([v1, u1]))
        half = c / 2
        n, cos, sin = len(half), torch.cos(half).unbind(), torch.sin(half).unbind()
        return [[cos[i], sin[i], *blocks_2[i], *blocks_2[n + i]] for i in range(n)]

    @staticmethod
    def _blocks_4(angles: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return the blocks of every matrix 4 x 4, 1 layer, of a stack: [n, 4]."""
        n = angles.shape[0]
        # ry0, cz2
        cz = Circuit._cz(angles, 2, 2)
        ry = Circuit._ry(angles.t()).view(-1, n, 2, 2).unbind()
        w1: torch.Tensor = ry[0].view(n, 2, 2, 1) * cz.view(1, 2, 1, 2)  # n q0:2 q0:2 q1:2
        # ry2
        w1 = w1.transpose(1, 3).reshape(n, 4, 2)  # n q1:2 q0:2 q0:2
        w1 = torch.bmm(w1, ry[2].transpose(1, 2))  # n q1:2 q0:2 q0:2
        # ry1
        w1 = w1.view(n * 2, 4, 1) * ry[1].view(n * 2, 1, 2)  # n q1:2 q0:2 q0:2 q1:2
        # ry3
        w1 = torch.bmm(w1.view(n, 2, 8).transpose(1, 2), ry[3].transpose(1, 2))  # n q0:2 q0:2 q1:2 q1:2
        w1 = w1.view(n, 2, 2, 2, 2).permute(0, 2, 4, 1, 3).reshape(n, 16)  # n q0:2 q1:2 q0:2 q1:2
        block0 = w1
        return [[block] for block in block0.unbind()]

    @staticmethod
    def _pauli_2(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Apply a matrix 2 x 2, planned for 3 vectors: [n, 2]."""
        n = x.shape[0]
        # block0: q0:2
        x = x @ blocks[0].view(2, 2).t()  # n q0:2
        return x

    @staticmethod
    def _pauli_3(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Apply a matrix 3 x 3, planned for 3 vectors: [n, 3]."""
        cos, sin = blocks[:2]
        a = Circuit._pauli_2(x[:, :2].contiguous(), blocks[2:3])
        b = x[:, 2:].contiguous()
        head, tail = a[:, :1], b[:, :1]
        a = torch.cat([cos * head - sin * tail, a[:, 1:]], dim=1)
        b = cos * tail + sin * head
        del head, tail
        a = Circuit._pauli_2(a, blocks[3:4])
        return torch.cat([a, b], dim=1)

    @staticmethod
    def _pauli_4(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Apply a matrix 4 x 4, planned for 6144 vectors: [n, 4]."""
        n = x.shape[0]
        # block0: q0:2 q1:2
        x = x @ blocks[0].view(4, 4).t()  # n q0:2 q1:2
        return x

    @staticmethod
    def _pauli_4_2(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Apply a matrix 4 x 4, planned for 4 vectors: [n, 4]."""
        n = x.shape[0]
        # block0: q0:2 q1:2
        x = x @ blocks[0].view(4, 4).t()  # n q0:2 q1:2
        return x
