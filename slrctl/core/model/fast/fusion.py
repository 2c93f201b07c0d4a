"""The fusion of the streams as one function with a backward pass of its own.

All linear maps that read one stream are one product: the queries of its own two directions, what it
gives to its gate, and keys and values of the two directions that read it. All stays in float32, as
attention does.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slrctl.core.model.fast import backward_pass, without_autocast
from slrctl.core.model.fast.attention import NO_MAPS, apart
from slrctl.core.model.fast.fusion_weights import (
    Direction,
    StreamWeights,
    Update,
    in_two_maps,
)
from slrctl.core.model.fast.gate import ComputedStream, take_in, take_in_back
from slrctl.core.model.fast.products import linear, linear_back
from slrctl.core.model.fast.random_words import draw_masks_of_weights


def fuse(
    streams: Sequence[Float[Tensor, "B T _"]],
    is_present: Sequence[Bool[Tensor, "B T"]],
    directions: Sequence[Direction],
    updates: Sequence[Update],
    wanted: Collection[int],
) -> tuple[list[Float[Tensor, "B T _"]], list[Float[Tensor, "B H T T"] | None]]:
    """Let every stream read others and take in both messages as far as its gate lets them.

    Args:
        streams: features of each stream.
        is_present: where each can be attended to.
        directions: two of each stream, in the order in which their dropout is drawn.
        updates: one of each stream.
        wanted: the directions whose maps are returned, by their numbers.

    Returns:
        The fused streams, and the map of each direction before dropout, or None.
    """
    plan = _Plan.of(directions, updates, wanted)
    with without_autocast():
        parameters = [
            p
            for number, update in enumerate(updates)
            for p in in_two_maps(number, directions, update)
        ]
        inputs = plan, *streams, *(present.contiguous() for present in is_present), *parameters
        if torch.is_grad_enabled():
            results: Any = _Fusion.apply(*inputs)
        else:
            results = _Fusion.forward(None, *inputs)
    return list(results[: len(streams)]), list(results[len(streams) :])


class _Way(NamedTuple):
    """A direction, with the columns where its queries, its keys and its messages begin."""

    own: int
    other: int
    places: tuple[int, int, int]
    shape: tuple[int, int]  # heads, and the width of each
    rate: float
    is_wanted: bool


class _Plan(NamedTuple):
    """Where everything lies, and what is drawn."""

    ways: tuple[_Way, ...]
    widths: tuple[int, ...]
    epsilons: tuple[float, ...]

    @classmethod
    def of(
        cls,
        directions: Sequence[Direction],
        updates: Sequence[Update],
        wanted: Collection[int],
    ) -> "_Plan":
        widths = tuple(update.gate.out_features for update in updates)
        num_own, next_key = [0] * len(widths), [3 * width for width in widths]
        ways = []
        for number, way in enumerate(directions):
            width = widths[way.own]
            first = num_own[way.own] * width
            places = first, next_key[way.other], first
            shape = way.num_heads, width // way.num_heads
            ways.append(_Way(way.own, way.other, places, shape, way.rate, number in wanted))
            num_own[way.own] += 1
            next_key[way.other] += 2 * width
        return cls(tuple(ways), widths, tuple(update.norm.eps for update in updates))


class _Fusion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, *inputs: Tensor) -> tuple[Tensor | None, ...]:
        count = len(plan.widths)
        inputs = tuple(tensor.detach() for tensor in inputs)
        is_present = inputs[count : 2 * count]
        weights = [StreamWeights(*one) for one in _in_groups(inputs[2 * count :], count)]
        rows = [stream.flatten(0, 1).contiguous() for stream in inputs[:count]]
        projected = [
            linear(own, one.projection, one.projection_bias)
            for own, one in zip(rows, weights, strict=True)
        ]
        heads, maps, offsets, masks = _attend(plan, projected, is_present)
        fused, streams = [], []
        for number, has_key in enumerate(_has_key(plan, is_present)):
            given = rows[number], projected[number], heads[number]
            sums, *computed = take_in(*given, has_key, weights[number], plan.epsilons[number])
            fused.append(sums.view(inputs[number].shape))
            streams.append(ComputedStream(*given, *computed))
        if ctx is not None:
            ctx.plan, ctx.masks = plan, masks
            tensors = (tensor for one in (*streams, *weights) for tensor in one)
            ctx.save_for_backward(*is_present, *offsets, *tensors)
            ctx.set_materialize_grads(False)
        return *fused, *maps

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, count, saved = ctx.plan, len(ctx.plan.widths), ctx.saved_tensors
        is_present, offsets = saved[:count], saved[count : count + len(plan.ways)]
        groups = _in_groups(saved[count + len(plan.ways) :], 2 * count)
        streams = [ComputedStream(*one) for one in groups[:count]]
        weights = [StreamWeights(*one) for one in groups[count:]]
        of_projected = [torch.empty_like(one.projected) for one in streams]
        of_own, of_heads, of_weights = [], [], []
        for number, has_key in enumerate(_has_key(plan, is_present)):
            given = gradients[number], streams[number], has_key, weights[number]
            of_features, of_messages, *rest = take_in_back(*given, of_projected[number])
            of_own.append(of_features)
            of_heads.append(of_messages)
            of_weights.append(rest)
        written = of_heads, gradients[count:], of_projected
        _attend_back(plan, streams, is_present, offsets, ctx.masks, *written)
        of_streams = []
        for number, (own, *_) in enumerate(streams):
            of_rows, *of_first = linear_back(of_projected[number], own, weights[number].projection)
            of_rows = of_own[number].add_(of_rows)
            of_streams.append(of_rows.view(*is_present[number].shape, -1))
            of_weights[number] = [*of_first, *of_weights[number]]
        return None, *of_streams, *[None] * count, *(one for group in of_weights for one in group)


def _in_groups(tensors: Sequence[Tensor], count: int) -> list[Sequence[Tensor]]:
    """As many groups of one size, in a row."""
    size = len(tensors) // count
    return [tensors[start : start + size] for start in range(0, len(tensors), size)]


def _attend(
    plan: _Plan,
    projected: Sequence[Float[Tensor, "N _"]],
    is_present: Sequence[Bool[Tensor, "B T"]],
) -> tuple[
    list[Float[Tensor, "N _"]],
    list[Float[Tensor, "B H T T"] | None],
    list[Float[Tensor, "B H T"]],
    list[tuple[Any, ...]],
]:
    """The heads of every stream, and of every direction its map, its offsets and its masks."""
    from slrctl.core.model.fast.kernels.attention import attend

    num_clips, num_frames = is_present[0].shape
    heads = [
        rows.new_empty(len(rows), 2 * width)
        for rows, width in zip(projected, plan.widths, strict=True)
    ]
    maps, offsets, masks = [], [], []
    for own, other, places, shape, rate, is_wanted in plan.ways:
        size = num_clips, shape[0], num_frames
        mask = tuple(draw_masks_of_weights(num_clips * shape[0], num_frames, num_frames, rate))
        offset = heads[own].new_empty(size)
        one_map = heads[own].new_empty(*size, num_frames) if is_wanted else None
        attend(
            _of_clips(projected[own], num_clips),
            _of_clips(projected[other], num_clips),
            places,
            shape,
            is_present[other].numpy(),
            rate > 0,
            mask,
            _of_clips(heads[own], num_clips),
            offset.numpy(),
            NO_MAPS if one_map is None else one_map.numpy(),
        )
        maps.append(one_map)
        offsets.append(offset)
        masks.append(mask)
    return heads, maps, offsets, masks


def _attend_back(
    plan: _Plan,
    streams: Sequence[ComputedStream],
    is_present: Sequence[Bool[Tensor, "B T"]],
    offsets: Sequence[Float[Tensor, "B H T"]],
    masks: Sequence[tuple[Any, ...]],
    of_heads: Sequence[Float[Tensor, "N _"]],
    of_maps: Sequence[Float[Tensor, "B H T T"] | None],
    of_projected: Sequence[Float[Tensor, "N _"]],
) -> None:
    """The way back: write the gradients of what was projected, but for the gates' columns."""
    from slrctl.core.model.fast.kernels.attention import attend_back

    num_clips = len(is_present[0])
    for number, (own, other, places, shape, rate, _) in enumerate(plan.ways):
        of_map = of_maps[number]
        attend_back(
            _of_clips(streams[own].projected, num_clips),
            _of_clips(streams[other].projected, num_clips),
            places,
            shape,
            is_present[other].numpy(),
            rate > 0,
            masks[number],
            offsets[number].numpy(),
            _of_clips(of_heads[own], num_clips),
            NO_MAPS if of_map is None else apart(of_map),
            _of_clips(of_projected[own], num_clips),
            _of_clips(of_projected[other], num_clips),
        )


def _of_clips(rows: Float[Tensor, "N D"], num_clips: int) -> Any:
    """The rows of each clip apart, as an array."""
    return rows.view(num_clips, -1, rows.shape[1]).numpy()


def _has_key(plan: _Plan, is_present: Sequence[Bool[Tensor, "B T"]]) -> list[Float[Tensor, "2 B"]]:
    """For each stream 1 where a clip has something to read, else 0, of both its directions."""
    are_there = [present.any(-1).float() for present in is_present]
    return [
        torch.stack([are_there[way.other] for way in plan.ways if way.own == number])
        for number in range(len(is_present))
    ]
