"""A residual connection with dropout and layer normalisation, as one function."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.model.fast.random_words import draw_masks


def add_and_normalise(
    features: Float[Tensor, "*axes D"],
    change: Float[Tensor, "*axes D"],
    norm: nn.LayerNorm,
    rate: float,
) -> Float[Tensor, "*axes D"]:
    """`norm(features + dropout(change))`; draws come from the generator of `scoped_seed`."""
    return _Residual.apply(features, change.float(), norm.weight, norm.bias, norm.eps, rate)  # pyright: ignore[reportReturnType]


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Float[Tensor, "*axes D"],
        change: Float[Tensor, "*axes D"],
        weight: Float[Tensor, " D"],
        bias: Float[Tensor, " D"],
        epsilon: float,
        rate: float,
    ) -> Float[Tensor, "*axes D"]:
        from slrctl.core.model.fast.kernels import residual as kernels

        rows, changes = (x.contiguous().view(-1, len(weight)) for x in (features, change))
        masks = draw_masks(len(rows) if rate else 0, len(weight), rate)
        normal, sums, spread = torch.empty_like(rows), torch.empty_like(rows), rows.new_empty(len(rows))
        kernels.add_and_normalise(
            rows.numpy(), changes.numpy(), weight.detach().numpy(), bias.detach().numpy(),
            epsilon, rate > 0, tuple(masks), normal.numpy(), spread.numpy(), sums.numpy(),
        )  # fmt: skip
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(normal, spread, weight)
            ctx.is_dropped, ctx.masks = rate > 0, tuple(masks)
        return sums.view(features.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "*axes D"]) -> tuple[Tensor | None, ...]:
        from slrctl.core.model.fast.kernels import residual as kernels

        normal, spread, weight = ctx.saved_tensors
        of_sums = gradients[0].contiguous()
        of_rows, of_changes = torch.empty_like(of_sums), torch.empty_like(of_sums)
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        kernels.add_and_normalise_back(
            of_sums.view(normal.shape).numpy(), normal.numpy(), spread.numpy(), weight.detach().numpy(),
            ctx.is_dropped, ctx.masks, of_rows.view(normal.shape).numpy(),
            of_changes.view(normal.shape).numpy(), of_weight.numpy(), of_bias.numpy(),
        )  # fmt: skip
        return of_rows, of_changes, of_weight, of_bias, None, None
