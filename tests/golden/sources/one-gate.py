# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: bcb057d0270c0cce64d8670b695ef2a2a1384d44417ab5074354d4d4d662d89a
"""Circuit one-gate: 12 -> 12 features.

Layout 3 x 4, 1 gate, 144 trainable parameters; circuit 22a36a7ffb53b52c.
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
        '{"version": 1, "name": "one-gate", "layout": [3, 4], "in_features": 12, "out_features": 12, "gates'
        '": [{"name": "g0", "axes": [0, 1], "kind": "dense", "init": "kaiming_uniform"}], "output": [0, 1],'
        ' "plan": {"tokens": 2048, "optimizer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        # dense on 0:3, 1:4
        gates["g0"] = torch.nn.Parameter(torch.empty(12, 12, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        gates = self.gates
        self._uniform(gates["g0"], 0.2886751345948129, generator)

    @staticmethod
    def _uniform(tensor: torch.Tensor, bound: float, generator: torch.Generator | None) -> None:
        drawn = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
        tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the circuit: [..., 12] -> [..., 12]."""
        if x.shape[-1:] != (12,):
            raise ValueError(f"expected [..., 12], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 12).contiguous()
        n = x.shape[0]
        # g0: dense on 0:3, 1:4
        x = x @ gates["g0"].t()  # n 0:3 1:4
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
        w: torch.Tensor = gates["g0"].clone()
        return w
