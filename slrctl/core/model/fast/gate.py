"""A stream takes in both messages, as far as its gate lets them: the second half of the fusion."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from slrctl.core.model.fast.fusion_weights import StreamWeights
from slrctl.core.model.fast.products import linear, linear_back


class ComputedStream(NamedTuple):
    """What is computed of one stream; the backward pass needs it."""

    own: Float[Tensor, "N D"]
    projected: Float[Tensor, "N F"]
    heads: Float[Tensor, "N 2*D"]
    received: Float[Tensor, "N 2*D"]
    normal: Float[Tensor, "N D"]
    spread: Float[Tensor, " N"]


def take_in(
    own: Float[Tensor, "N D"],
    projected: Float[Tensor, "N F"],
    heads: Float[Tensor, "N 2*D"],
    has_key: Float[Tensor, "2 B"],
    weights: StreamWeights,
    epsilon: float,
) -> tuple[Tensor, ...]:
    """The fused stream, and what `ComputedStream` keeps."""
    from slrctl.core.model.fast.kernels.gate import gate_and_normalise

    received = linear(heads, weights.reception, weights.reception.new_zeros(heads.shape[1]))
    # A direction's bias must not speak for a part that is not there.
    first, second = has_key[:, :, None] * weights.reception_biases[:, None]
    received.view(len(first), -1, received.shape[1]).add_((first + second)[:, None])
    normal, sums, spread = (
        torch.empty_like(own),
        torch.empty_like(own),
        own.new_empty(len(own)),
    )
    gate_and_normalise(
        own.numpy(),
        projected.numpy(),
        2 * own.shape[1],
        received.numpy(),
        weights.norm.numpy(),
        weights.norm_bias.numpy(),
        epsilon,
        normal.numpy(),
        spread.numpy(),
        sums.numpy(),
    )
    return sums, received, normal, spread


def take_in_back(
    of_fused: Float[Tensor, "B T D"] | None,
    stream: ComputedStream,
    has_key: Float[Tensor, "2 B"],
    weights: StreamWeights,
    of_projected: Float[Tensor, "N F"],
) -> tuple[Tensor, ...]:
    """The way back: the gradients of the features, of the heads and of the last four weights.

    Those of the gate's columns are written to `of_projected`.
    """
    from slrctl.core.model.fast.kernels.gate import gate_and_normalise_back

    own, _, heads, received, normal, spread = stream
    of_fused = own.new_zeros(own.shape) if of_fused is None else of_fused
    of_own, of_received = torch.empty_like(own), torch.empty_like(received)
    of_norm = weights.norm.new_zeros(2, own.shape[1], dtype=torch.float64)
    gate_and_normalise_back(
        of_fused.reshape(own.shape).contiguous().numpy(),
        received.numpy(),
        2 * own.shape[1],
        normal.numpy(),
        spread.numpy(),
        weights.norm.numpy(),
        of_own.numpy(),
        of_projected.numpy(),
        of_received.numpy(),
        *of_norm.numpy(),
    )
    of_heads, of_reception, _ = linear_back(of_received, heads, weights.reception)
    of_clips = of_received.view(has_key.shape[1], -1, received.shape[1]).sum(1)
    return of_own, of_heads, of_reception, has_key @ of_clips, *of_norm.float()
