# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: f934c1d604a0a3e2774df10ebd99475696f5a2bc271c2998549caf832709ec7b
"""Circuit ry-cz: 4 -> 4 features.

Layout 2 x 2, 2 gates, 1 trainable parameters; circuit ecace01e4fc208d4.
Planned for 2048 tokens a batch: any other batch gives the same result, if not at the least cost.
In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;
in `operator`, `axis'` is the input side of an axis.
"""

import torch


class Circuit(torch.nn.Module):
    """Maps [..., 4] to [..., 4]."""

    in_features: int = 4
    out_features: int = 4
    circuit: str = (
        '{"version": 1, "name": "ry-cz", "layout": [2, 2], "in_features": 4, "out_features": 4, "gates": [{'
        '"name": "g0", "axes": [0], "kind": "ry", "init": "zeros"}, {"name": "g1", "axes": [0, 1], "kind": '
        '"cz"}], "output": [0, 1], "plan": {"tokens": 2048, "optimizer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        # ry on 0:2
        gates["g0"] = torch.nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        gates = self.gates
        gates["g0"].zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the circuit: [..., 4] -> [..., 4]."""
        if x.shape[-1:] != (4,):
            raise ValueError(f"expected [..., 4], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 4).contiguous()
        n = x.shape[0]
        # g0, g1
        cz = Circuit._cz(gates["g0"], 2, 2)
        ry = Circuit._ry(gates["g0"]).unbind()
        w1 = ry[0].view(2, 2, 1) * cz.view(2, 1, 2)  # 0:2 0:2 1:2
        # g0, g1
        x = x.view(n, 2, 2).permute(2, 0, 1).contiguous()  # 1:2 n 0:2
        w1 = w1.view(4, 2).t().contiguous().view(2, 2, 2)  # 1:2 0:2 0:2
        x = torch.bmm(x, w1.transpose(1, 2))  # 1:2 n 0:2
        del w1
        x = x.permute(1, 2, 0).reshape(n, 4)  # n 0:2 1:2
        return x.view(*lead, 4)

    def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        """Return the circuit's matrix, [4, 4], differentiable.

        With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without
        gradients and computed in the dtype of the parameters, and it is returned.
        """
        if add_to is not None:
            if add_to.shape != (4, 4):
                raise ValueError(f"expected [4, 4] to add to, got {list(add_to.shape)}")
            with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):
                return add_to.add_(self.operator(), alpha=scale)
        gates = self.gates
        # g0, g1
        cz = Circuit._cz(gates["g0"], 2, 2)
        ry = Circuit._ry(gates["g0"]).unbind()
        w1: torch.Tensor = ry[0].view(2, 2, 1) * cz.view(2, 1, 2)  # 0:2 0':2 1':2
        # tie
        w1 = torch.diag_embed(w1, dim1=1, dim2=3)  # 0:2 1:2 0':2 1':2
        w1 = w1.view(4, 4)
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
