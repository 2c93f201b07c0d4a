"""Multi-head attention as one function with a backward pass of its own.

The weights are never written to memory, unless they are asked for: a kernel has those of sixteen
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

from slrctl.core.model.fast import backward_pass, without_autocast
from slrctl.core.model.fast.products import linear, linear_back
from slrctl.core.model.fast.random_words import Masks, draw_masks_of_weights

NO_MAPS = np.empty((0, 0, 0, 0), np.float32)


class Projections(NamedTuple):
    """The linear maps of an attention."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear


def attend(
    own: Float[Tensor, "B Q D"],
    other: Float[Tensor, "B T D"],
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
    is_of_itself = other is own
    own = own.float()
    inputs = own, own if is_of_itself else other.float(), is_attended.contiguous()
    with without_autocast():
        if torch.is_grad_enabled():
            return _Attention.apply(*inputs, num_heads, rate, return_weights, *parameters)  # pyright: ignore[reportReturnType]
        messages, maps, _ = _attend(*inputs, num_heads, rate, return_weights, parameters)
        return messages, maps


class _Projected(NamedTuple):
    """Queries, and keys beside values. Those of one stream are one array, queries first."""

    query: Float[Tensor, "B Q _"]
    key_value: Float[Tensor, "B T _"]
    first_key: int

    @classmethod
    def of(
        cls,
        own: Float[Tensor, "B Q D"],
        other: Float[Tensor, "B T D"],
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
    ) -> "_Projected":
        if other is own:
            together = _project(own, torch.cat([*weights]), torch.cat([*biases]))
            return cls(together, together, len(weights[0]))
        query = _project(own, weights[0], biases[0])
        return cls(query, _project(other, torch.cat([*weights[1:]]), torch.cat([*biases[1:]])), 0)


def _project(
    frames: Float[Tensor, "B T D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"]
) -> Float[Tensor, "B T F"]:
    return linear(frames.flatten(0, 1), weight, bias).view(*frames.shape[:2], len(weight))


class _Computed(NamedTuple):
    """What the way back needs of the way there."""

    projected: _Projected
    heads: Float[Tensor, "B Q D"]
    offsets: Float[Tensor, "B H Q"]
    masks: Masks


def _attend(
    own: Float[Tensor, "B Q D"],
    other: Float[Tensor, "B T D"],
    is_attended: Bool[Tensor, "B T"],
    num_heads: int,
    rate: float,
    return_weights: bool,
    parameters: Sequence[Tensor],
) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q T"] | None, _Computed]:
    from slrctl.core.model.fast.kernels import attention as kernels

    weights, biases = parameters[::2], parameters[1::2]
    (num_clips, num_queries, _), num_keys = own.shape, other.shape[1]
    projected = _Projected.of(own, other, weights[:3], biases[:3])
    masks = draw_masks_of_weights(num_clips * num_heads, num_queries, num_keys, rate)
    heads = own.new_empty(num_clips, num_queries, len(weights[0]))
    offsets = own.new_empty(num_clips, num_heads, num_queries)
    maps = own.new_empty(*offsets.shape, num_keys) if return_weights else None
    kernels.attend(
        projected.query.numpy(),
        projected.key_value.numpy(),
        (0, projected.first_key, 0),
        (num_heads, len(weights[0]) // num_heads),
        is_attended.numpy(),
        rate > 0,
        tuple(masks),
        heads.numpy(),
        offsets.numpy(),
        NO_MAPS if maps is None else maps.numpy(),
    )
    messages = _project(heads, weights[3], biases[3])
    has_key = is_attended.any(-1)
    if not bool(has_key.all()):
        messages *= has_key[:, None, None]
    return messages, maps, _Computed(projected, heads, offsets, masks)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        own: Float[Tensor, "B Q D"],
        other: Float[Tensor, "B T D"],
        is_attended: Bool[Tensor, "B T"],
        num_heads: int,
        rate: float,
        return_weights: bool,
        *parameters: Tensor,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q T"] | None]:
        messages, maps, computed = _attend(
            own, other, is_attended, num_heads, rate, return_weights, parameters
        )
        projected, heads, offsets, masks = computed
        ctx.first_key, ctx.is_of_itself = projected.first_key, other is own
        tensors = (*projected[:2], heads, offsets)
        ctx.save_for_backward(own, other, is_attended, *tensors, *parameters[::2])
        ctx.num_heads, ctx.is_dropped, ctx.masks = num_heads, rate > 0, tuple(masks)
        ctx.set_materialize_grads(False)
        return messages, maps

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        from slrctl.core.model.fast.kernels import attention as kernels

        own, other, is_attended, query, key_value, heads, *rest = ctx.saved_tensors
        offsets, *weights = rest
        of_messages, of_maps = gradients
        of_output = own.new_zeros(own.shape) if of_messages is None else of_messages
        has_key = is_attended.any(-1)
        if not bool(has_key.all()):
            of_output = of_output * has_key[:, None, None]
        of_heads, of_output_weight, of_output_bias = _back(of_output, heads, weights[3])
        of_query = torch.empty_like(query)
        of_key_value = of_query if ctx.is_of_itself else torch.empty_like(key_value)
        kernels.attend_back(
            query.numpy(),
            key_value.numpy(),
            (0, ctx.first_key, 0),
            (ctx.num_heads, len(weights[0]) // ctx.num_heads),
            is_attended.numpy(),
            ctx.is_dropped,
            ctx.masks,
            offsets.numpy(),
            of_heads.numpy(),
            NO_MAPS if of_maps is None else apart(of_maps),
            of_query.numpy(),
            of_key_value.numpy(),
        )
        if ctx.is_of_itself:
            of_own, of_weights, of_biases = _back(of_query, own, torch.cat(weights[:3]))
            of_others = None
            of_projections = of_weights.chunk(3), of_biases.chunk(3)
        else:
            of_own, *of_first = _back(of_query, own, weights[0])
            of_others, *of_rest = _back(of_key_value, other, torch.cat(weights[1:3]))
            of_projections = (
                (one, *two.chunk(2)) for one, two in zip(of_first, of_rest, strict=True)
            )
        of_parameters = [p for pair in zip(*of_projections, strict=True) for p in pair]
        of_parameters += [of_output_weight, of_output_bias]
        return of_own, of_others, None, None, None, None, *of_parameters


def _back(
    gradient: Float[Tensor, "B T F"], inputs: Float[Tensor, "B T D"], weight: Float[Tensor, "F D"]
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "F D"], Float[Tensor, " F"]]:
    """The gradients of the inputs, the weight and the bias of a linear map."""
    rows = gradient.flatten(0, 1), inputs.flatten(0, 1)
    of_rows, of_weight, of_bias = linear_back(*rows, weight)
    return of_rows.view(inputs.shape), of_weight, of_bias


def apart(of_maps: Float[Tensor, "B H Q T"]) -> np.ndarray:
    """The gradient of the maps; of one head only where it is the same for all, as of a mean."""
    if of_maps.stride(1) == 0:
        of_maps = of_maps[:, :1]
    return of_maps.contiguous().numpy()
