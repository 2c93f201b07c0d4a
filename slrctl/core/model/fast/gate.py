"""The fusion's gated update as one function."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.model.fast import backward_pass, without_autocast
from slrctl.core.model.fast.products import linear, linear_back


def gated_update(
    own: Float[Tensor, "B T D"],
    message: Float[Tensor, "B T D"],
    other_message: Float[Tensor, "B T D"],
    gate: nn.Linear,
    norm: nn.LayerNorm,
) -> Float[Tensor, "B T D"]:
    """`norm(own + g * (message + other_message))` with the gate g of all three, in float32."""
    together = torch.cat([own, message, other_message], dim=-1)
    inputs = together, gate.weight, gate.bias, norm.weight, norm.bias, norm.eps
    with without_autocast():
        if torch.is_grad_enabled():
            return _GatedUpdate.apply(*inputs)  # pyright: ignore[reportReturnType]
        return _GatedUpdate.forward(None, *inputs)


class _GatedUpdate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        together: Float[Tensor, "B T E"],
        gate_weight: Float[Tensor, "D E"],
        gate_bias: Float[Tensor, " D"],
        norm_weight: Float[Tensor, " D"],
        norm_bias: Float[Tensor, " D"],
        epsilon: float,
    ) -> Float[Tensor, "B T D"]:
        from slrctl.core.model.fast.kernels.gate import gate_and_normalise

        rows = together.detach().flatten(0, 1)
        gates = linear(rows, gate_weight.detach(), gate_bias.detach())
        normal, sums, spread = (
            torch.empty_like(gates),
            torch.empty_like(gates),
            rows.new_empty(len(rows)),
        )
        gate_and_normalise(
            rows.numpy(),
            gates.numpy(),
            norm_weight.detach().numpy(),
            norm_bias.detach().numpy(),
            epsilon,
            normal.numpy(),
            spread.numpy(),
            sums.numpy(),
        )
        if ctx is not None:
            ctx.save_for_backward(rows, gates, normal, spread, gate_weight, norm_weight)
        return sums.view(*together.shape[:2], gates.shape[1])

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Float[Tensor, "B T D"]) -> tuple[Tensor | None, ...]:
        from slrctl.core.model.fast.kernels.gate import gate_and_normalise_back

        rows, gates, normal, spread, gate_weight, norm_weight = ctx.saved_tensors
        of_gates, of_rows = torch.empty_like(gates), torch.empty_like(rows)
        of_norm = norm_weight.new_zeros(2, len(norm_weight), dtype=torch.float64)
        gate_and_normalise_back(
            gradients[0].reshape(gates.shape).numpy(),
            rows.numpy(),
            gates.numpy(),
            normal.numpy(),
            spread.numpy(),
            norm_weight.numpy(),
            of_gates.numpy(),
            of_rows.numpy(),
            *of_norm.numpy(),
        )
        through_gate, *of_gate = linear_back(of_gates, rows, gate_weight)
        of_together = of_rows.add_(through_gate).view(*gradients[0].shape[:2], rows.shape[1])
        return of_together, *of_gate, *of_norm.float(), None
