"""Multi-head attention as one function with a backward pass of its own.

The weights are never written to memory, unless they are asked for: a kernel has those of eight
queries of a head at a time, and the backward pass works them out again (Dao et al. 2022,
FlashAttention). Under autocast all stays in float32: at these widths bfloat16 gains less than its
conversions cost.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.model.fast.random_words import draw_masks

_NO_MAPS = np.empty((0, 0, 0, 0), np.float32)


class Projections(NamedTuple):
    """The four linear maps of an attention."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear


def attend(
    own: Float[Tensor, "B Q D"],
    other: Float[Tensor, "B T E"],
    is_attended: Bool[Tensor, "B T"],
    projections: Projections,
    num_heads: int,
    rate: float,
    *,
    return_weights: bool,
) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q T"] | None]:
    """Let queries from `own` read keys and values from `other`, and project the messages.

    Returns:
        The messages, and the weights before dropout if they are asked for. A clip without a key
        to attend to has weights and messages of 0.
    """
    parameters = [p for linear in projections for p in (linear.weight, linear.bias)]
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(  # pyright: ignore[reportReturnType]
            own.float(), other.float(), is_attended, num_heads, rate, return_weights, *parameters
        )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        own: Float[Tensor, "B Q D"],
        other: Float[Tensor, "B T E"],
        is_attended: Bool[Tensor, "B T"],
        num_heads: int,
        rate: float,
        return_weights: bool,
        *parameters: Tensor,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q T"] | None]:
        from slrctl.core.model.fast.kernels import attention as kernels

        weights, biases = parameters[::2], parameters[1::2]
        (num_clips, num_queries, _), num_keys = own.shape, other.shape[1]
        width = len(weights[0])
        query = torch.addmm(biases[0], own.flatten(0, 1), weights[0].t())
        key_value = torch.addmm(
            torch.cat(biases[1:3]), other.flatten(0, 1), torch.cat(weights[1:3]).t()
        )
        query, key_value = query.view(*own.shape[:2], -1), key_value.view(*other.shape[:2], -1)
        num_rows = num_clips * num_heads * num_queries if rate else 0
        masks = draw_masks(num_rows, num_keys, rate)
        heads = torch.empty_like(query)
        divisors = query.new_empty(2, num_clips, num_heads, num_queries)
        maps = query.new_empty(*divisors.shape[1:], num_keys) if return_weights else None
        kernels.attend(
            query.numpy(),
            key_value.numpy(),
            is_attended.contiguous().numpy(),
            num_heads,
            rate > 0,
            tuple(masks),
            heads.numpy(),
            divisors.numpy(),
            _NO_MAPS if maps is None else maps.numpy(),
        )
        messages = torch.addmm(biases[3], heads.view(-1, width), weights[3].t()).view(own.shape)
        has_key = is_attended.any(-1)
        if not bool(has_key.all()):
            messages *= has_key[:, None, None]
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(
                own, other, is_attended, query, key_value, heads, divisors, *weights
            )
            ctx.num_heads, ctx.is_dropped, ctx.masks = num_heads, rate > 0, masks
            ctx.set_materialize_grads(False)
        return messages, maps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        from slrctl.core.model.fast.kernels import attention as kernels

        own, other, is_attended, query, key_value, heads, divisors, *weights = ctx.saved_tensors
        of_messages, of_maps = gradients
        of_output = own.new_zeros(own.shape) if of_messages is None else of_messages
        has_key = is_attended.any(-1)
        if not bool(has_key.all()):
            of_output = of_output * has_key[:, None, None]
        of_output = of_output.flatten(0, 1)
        of_heads = (of_output @ weights[3]).view(heads.shape)
        of_query, of_key_value = torch.empty_like(query), torch.empty_like(key_value)
        kernels.attend_back(
            query.numpy(),
            key_value.numpy(),
            is_attended.contiguous().numpy(),
            ctx.num_heads,
            ctx.is_dropped,
            tuple(ctx.masks),
            divisors.numpy(),
            of_heads.numpy(),
            _NO_MAPS if of_maps is None else of_maps.contiguous().numpy(),
            of_query.numpy(),
            of_key_value.numpy(),
        )
        of_query, of_key_value = of_query.flatten(0, 1), of_key_value.flatten(0, 1)
        of_key_value_weight = of_key_value.t() @ other.flatten(0, 1)
        of_key_weight, of_value_weight = of_key_value_weight.chunk(2)
        of_key_bias, of_value_bias = of_key_value.sum(0).chunk(2)
        return (
            (of_query @ weights[0]).view(own.shape),
            (of_key_value @ torch.cat(weights[1:3])).view(other.shape),
            None, None, None, None,
            of_query.t() @ own.flatten(0, 1), of_query.sum(0),
            of_key_weight, of_key_bias,
            of_value_weight, of_value_bias,
            of_output.t() @ heads.flatten(0, 1), of_output.sum(0),
        )  # fmt: skip
