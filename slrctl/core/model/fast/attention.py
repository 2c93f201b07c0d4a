"""Multi-head attention as one function with a backward pass of its own.

The weights are never written to memory, unless they are asked for: a kernel has those of eight
queries of a head at a time, and the backward pass works them out again (Dao et al. 2022,
FlashAttention). Under autocast all stays in float32: at these widths bfloat16 gains less than its
conversions cost.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.model.fast.random_words import Masks, draw_masks

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
    inputs = own.float(), other.float(), is_attended.contiguous()
    with torch.autocast("cpu", enabled=False):
        if torch.is_grad_enabled():
            return _Attention.apply(*inputs, num_heads, rate, return_weights, *parameters)  # pyright: ignore[reportReturnType]
        messages, maps, _ = _attend(*inputs, num_heads, rate, return_weights, parameters)
        return messages, maps


class _Computed(NamedTuple):
    """What the way back needs of the way there."""

    query: Float[Tensor, "B Q D"]
    key_value: Float[Tensor, "B T _"]
    heads: Float[Tensor, "B Q D"]
    divisors: Float[Tensor, "2 B H Q"]
    masks: Masks


def _attend(
    own: Float[Tensor, "B Q D"],
    other: Float[Tensor, "B T E"],
    is_attended: Bool[Tensor, "B T"],
    num_heads: int,
    rate: float,
    return_weights: bool,
    parameters: Sequence[Tensor],
) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q T"] | None, _Computed]:
    from slrctl.core.model.fast.kernels import attention as kernels

    parameters = [parameter.detach() for parameter in parameters]
    weights, biases = parameters[::2], parameters[1::2]
    (num_clips, num_queries, _), num_keys = own.shape, other.shape[1]
    query = torch.addmm(biases[0], own.detach().flatten(0, 1), weights[0].t())
    key_value = torch.addmm(
        torch.cat(biases[1:3]), other.detach().flatten(0, 1), torch.cat(weights[1:3]).t()
    )
    query, key_value = query.view(*own.shape[:2], -1), key_value.view(*other.shape[:2], -1)
    masks = draw_masks(num_clips * num_heads * num_queries, num_keys, rate)
    heads = torch.empty_like(query)
    divisors = query.new_empty(2, num_clips, num_heads, num_queries)
    maps = query.new_empty(*divisors.shape[1:], num_keys) if return_weights else None
    kernels.attend(
        query.numpy(),
        key_value.numpy(),
        is_attended.numpy(),
        num_heads,
        rate > 0,
        tuple(masks),
        heads.numpy(),
        divisors.numpy(),
        _NO_MAPS if maps is None else maps.numpy(),
    )
    messages = torch.addmm(biases[3], heads.flatten(0, 1), weights[3].t()).view(own.shape)
    has_key = is_attended.any(-1)
    if not bool(has_key.all()):
        messages *= has_key[:, None, None]
    return messages, maps, _Computed(query, key_value, heads, divisors, masks)


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
        messages, maps, computed = _attend(
            own, other, is_attended, num_heads, rate, return_weights, parameters
        )
        *tensors, masks = computed
        ctx.save_for_backward(own, other, is_attended, *tensors, *parameters[::2])
        ctx.num_heads, ctx.is_dropped, ctx.masks = num_heads, rate > 0, tuple(masks)
        ctx.set_materialize_grads(False)
        return messages, maps

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        from slrctl.core.model.fast.kernels import attention as kernels

        own, other, is_attended, *tensors = ctx.saved_tensors
        query, key_value, heads, divisors, *weights = tensors
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
            is_attended.numpy(),
            ctx.num_heads,
            ctx.is_dropped,
            ctx.masks,
            divisors.numpy(),
            of_heads.numpy(),
            _NO_MAPS if of_maps is None else _apart(of_maps),
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


def _apart(of_maps: Float[Tensor, "B H Q T"]) -> np.ndarray:
    """The gradient of the maps; of one head only where it is the same for all, as of a mean."""
    if of_maps.stride(1) == 0:
        of_maps = of_maps[:, :1]
    return of_maps.contiguous().numpy()
