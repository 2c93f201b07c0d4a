"""The linear maps of a fusion, multiplied where one follows another.

In a direction nothing lies between its own projection of what is read and those to keys and values,
nor between its output projection and the gate. Autograd takes apart what is put together here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.model.fast import backward_pass
from slrctl.core.model.fast.attention import Projections


class Direction(NamedTuple):
    """What one stream takes from another, by their numbers; the rate is that of dropout."""

    own: int
    other: int
    before: nn.Linear
    projections: Projections
    num_heads: int
    rate: float


class Update(NamedTuple):
    """How a stream takes in what it is told."""

    gate: nn.Linear
    norm: nn.LayerNorm


class StreamWeights(NamedTuple):
    """What `in_two_maps` makes of a stream's parameters."""

    projection: Float[Tensor, "F D"]
    projection_bias: Float[Tensor, " F"]
    reception: Float[Tensor, "2*D 2*D"]
    reception_biases: Float[Tensor, "2 2*D"]
    norm: Float[Tensor, " D"]
    norm_bias: Float[Tensor, " D"]


def in_two_maps(number: int, directions: Sequence[Direction], update: Update) -> StreamWeights:
    """Two linear maps of a stream, one from its features and one from its heads, and its norm.

    The second has a bias for each direction, since a message from a part that is never there is 0.
    """
    of_own, *of_messages = update.gate.weight.split(update.gate.out_features, dim=1)
    queries = [way.projections.query for way in directions if way.own == number]
    outputs = [way.projections.output for way in directions if way.own == number]
    read, read_biases = zip(
        *(_key_value(way) for way in directions if way.other == number), strict=True
    )
    received, received_biases = zip(*map(_to_sum_and_gate, outputs, of_messages), strict=True)
    return StreamWeights(
        torch.cat([*(query.weight for query in queries), of_own, *read]),
        torch.cat([*(query.bias for query in queries), update.gate.bias, *read_biases]),
        torch.cat(received, dim=1),
        torch.stack(received_biases),
        update.norm.weight,
        update.norm.bias,
    )


def _key_value(way: Direction) -> tuple[Float[Tensor, "F O"], Float[Tensor, " F"]]:
    """The linear map from the other's features to keys and values."""
    key, value = way.projections.key, way.projections.value
    both = torch.cat([key.weight, value.weight]), torch.cat([key.bias, value.bias])
    weight, bias = _in_one(both[0], way.before)
    return weight, bias + both[1]


def _to_sum_and_gate(
    output: nn.Linear, gate: Float[Tensor, "D D"]
) -> tuple[Float[Tensor, "F D"], Float[Tensor, " F"]]:
    """The linear map from heads to their message, and to what that gives to the gate."""
    weight, bias = _in_one(gate, output)
    return torch.cat([output.weight, weight]), torch.cat([output.bias, bias])


def _in_one(
    weight: Float[Tensor, "F D"], before: nn.Linear
) -> tuple[Float[Tensor, "F O"], Float[Tensor, " F"]]:
    """A matrix after a linear map, as one linear map."""
    return _InOne.apply(weight, before.weight, before.bias)  # pyright: ignore[reportReturnType]


class _InOne(torch.autograd.Function):
    """Its backward pass is in float32 too, wherever it is called."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Float[Tensor, "F D"],
        before: Float[Tensor, "D O"],
        bias: Float[Tensor, " D"],
    ) -> tuple[Float[Tensor, "F O"], Float[Tensor, " F"]]:
        ctx.save_for_backward(weight, before, bias)
        return weight @ before, torch.mv(weight, bias)

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        weight, before, bias = ctx.saved_tensors
        of_product, of_sum = gradients
        of_weight = torch.addmm(torch.outer(of_sum, bias), of_product, before.t())
        return of_weight, weight.t() @ of_product, torch.mv(weight.t(), of_sum)
