"""A residual connection with dropout and layer normalisation, as one function."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.model.fast import backward_pass
from slrctl.core.model.fast.random_words import draw_masks


def add_and_normalise(
    features: Float[Tensor, "*axes D"],
    change: Float[Tensor, "*axes D"],
    norm: nn.LayerNorm,
    rate: float,
) -> Float[Tensor, "*axes D"]:
    """`norm(features + dropout(change))`; draws come from the generator of `scoped_seed`."""
    inputs = features, change.float(), norm.weight, norm.bias, norm.eps, rate
    if torch.is_grad_enabled():
        return _Residual.apply(*inputs)  # pyright: ignore[reportReturnType]
    return _Residual.forward(None, *inputs)


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

        rows, changes = (x.detach().reshape(-1, len(weight)) for x in (features, change))
        masks = tuple(draw_masks(len(rows), len(weight), rate))
        normal, spread = torch.empty_like(rows), rows.new_empty(len(rows))
        sums = torch.empty_like(rows)
        kernels.add_and_normalise(
            rows.numpy(),
            changes.numpy(),
            weight.detach().numpy(),
            bias.detach().numpy(),
            epsilon,
            rate > 0,
            masks,
            normal.numpy(),
            spread.numpy(),
            sums.numpy(),
        )
        if ctx is not None:
            ctx.save_for_backward(normal, spread, weight)
            ctx.is_dropped, ctx.masks = rate > 0, masks
        return sums.view(features.shape)

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Float[Tensor, "*axes D"]) -> tuple[Tensor | None, ...]:
        from slrctl.core.model.fast.kernels import residual as kernels

        normal, spread, weight = ctx.saved_tensors
        of_sums = gradients[0].reshape(normal.shape)
        of_rows, of_changes = torch.empty_like(of_sums), torch.empty_like(of_sums)
        of_norm = weight.new_zeros(2, len(weight), dtype=torch.float64)
        kernels.add_and_normalise_back(
            of_sums.numpy(),
            normal.numpy(),
            spread.numpy(),
            weight.detach().numpy(),
            ctx.is_dropped,
            ctx.masks,
            of_rows.numpy(),
            of_changes.numpy(),
            *of_norm.numpy(),
        )
        shape = gradients[0].shape
        return of_rows.view(shape), of_changes.view(shape), *of_norm.float(), None, None
