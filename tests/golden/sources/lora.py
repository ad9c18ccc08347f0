# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: 6b5fcfd4b3c6fe833d833659072e35a35f79191cd0829f64945b601450d1b290
"""Circuit lora: 64 -> 48 features.

Layout 64, 2 gates, 896 trainable parameters; circuit 437487ed308c3798.
Planned for 2048 tokens a batch: any other batch gives the same result, if not at the least cost.
In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;
in `operator`, `axis'` is the input side of an axis.
"""

import torch


class Circuit(torch.nn.Module):
    """Maps [..., 64] to [..., 48]."""

    in_features: int = 64
    out_features: int = 48
    circuit: str = (
        '{"version": 1, "name": "lora", "layout": {"x": 64}, "in_features": 64, "out_features": 48, "gates"'
        ': [{"name": "A", "axes": ["x"], "to": {"r": 8}, "kind": "dense", "init": "kaiming_uniform"}, {"nam'
        'e": "B", "axes": ["r"], "to": {"y": 48}, "kind": "dense", "init": "kaiming_uniform"}], "output": ['
        '"y"], "plan": {"tokens": 2048, "optimizer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        # dense on x:64 -> r:8
        gates["A"] = torch.nn.Parameter(torch.empty(8, 64, device=device, dtype=dtype))
        # dense on r:8 -> y:48
        gates["B"] = torch.nn.Parameter(torch.empty(48, 8, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        gates = self.gates
        self._uniform(gates["A"], 0.125, generator)
        self._uniform(gates["B"], 0.35355339059327373, generator)

    @staticmethod
    def _uniform(tensor: torch.Tensor, bound: float, generator: torch.Generator | None) -> None:
        drawn = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
        tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the circuit: [..., 64] -> [..., 48]."""
        if x.shape[-1:] != (64,):
            raise ValueError(f"expected [..., 64], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 64).contiguous()
        n = x.shape[0]
        # A: dense on x:64 -> r:8
        x = x @ gates["A"].t()  # n r:8
        # B: dense on r:8 -> y:48
        x = x @ gates["B"].t()  # n y:48
        return x.view(*lead, 48)

    def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        """Return the circuit's matrix, [48, 64], differentiable.

        With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without
        gradients and computed in the dtype of the parameters, and it is returned.
        """
        if add_to is not None:
            if add_to.shape != (48, 64):
                raise ValueError(f"expected [48, 64] to add to, got {list(add_to.shape)}")
            with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):
                return add_to.add_(self.operator(), alpha=scale)
        gates = self.gates
        # A, B
        w1: torch.Tensor = gates["B"] @ gates["A"]  # y:48 x':64
        return w1
