"""Multi-head attention in blocks of clips, as one function with a backward pass of its own.

The weights of a block stay in the cache and are never written to memory, unless they are asked
for: the backward pass works them out again, and draws their dropout mask again from its key. The
sum that softmax's gradient needs is taken from the message (Dao et al. 2022, FlashAttention,
appendix B.2). Instead of its maximum a row subtracts an upper bound, which comes out of the same
product as the scores. Scores are in powers of 2, for `exp2` takes a third of the time of `exp`.
Under autocast all stays in float32: at these widths bfloat16 gains less than its conversions cost.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from slrctl.core.model.fast.heads import HeadLayout, head_layout
from slrctl.core.model.fast.random_words import (
    MOST_ELEMENTS,
    WordKey,
    draw_keys,
    keep_mask,
    keep_scale,
    mask_,
    mask_buffer,
    row_blocks,
)

# Weights of a block: they, their mask and one more buffer fit into the cache.
WEIGHTS_OF_BLOCK = 2**17
_NEVER = -1e30
_LOG2_E, _LN_2 = math.log2(math.e), math.log(2)
# Up to this bound no weight that counts falls below 2^-120; float32 holds 2^-126. Rows that
# exceed it, extreme ones, subtract their true maximum, which costs two passes.
_LARGEST_BOUND = 60.0


class Projections(NamedTuple):
    """The four linear maps of an attention."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear


def fits(num_queries: int, num_keys: int) -> bool:
    """Whether the weights of a head are few enough for one dropout mask."""
    return num_queries * num_keys <= MOST_ELEMENTS


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
    own, other = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (own, other))
    parameters = [p for linear in projections for p in (linear.weight, linear.bias)]
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(  # pyright: ignore[reportReturnType]
            own, other, is_attended, num_heads, rate, return_weights, *parameters
        )


class _Block(NamedTuple):
    """Some of the H * B pairs of a head and a clip, and what their dropout mask follows from."""

    rows: slice
    key: WordKey | None


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
        weights, biases = parameters[::2], parameters[1::2]
        layout = head_layout(own.shape[-1], num_heads)
        query, key, value = _project(own, other, weights, biases, layout)
        key.view(num_heads, len(own), other.shape[1], -1)[..., layout.barrier] = torch.where(
            is_attended, 0.0, _NEVER
        )
        bounds = _row_bounds(query, key, is_attended, layout)
        is_extreme = bounds > _LARGEST_BOUND
        query[..., layout.offset] = -bounds.masked_fill(is_extreme, 0.0)
        maxima = torch.zeros_like(bounds).unsqueeze(-1) if bool(is_extreme.any()) else None
        blocks = _cut(len(query), own.shape[1] * other.shape[1], rate)
        scratch, buffer = _scratch(blocks, query, key)
        heads, sums = torch.empty_like(query), query.new_empty(*query.shape[:2], 1)
        maps = query.new_empty(len(query), *scratch.shape[1:]) if return_weights else None
        for rows, key_of_mask in blocks:
            shares = scratch[: rows.stop - rows.start]
            torch.bmm(query[rows], key[rows].transpose(1, 2), out=shares)
            if maxima is not None:
                _subtract_maxima(shares, is_extreme[rows], maxima[rows])
            shares.exp2_()
            torch.sum(shares, -1, keepdim=True, out=sums[rows])
            if maps is not None:
                torch.mul(shares, _inverse(sums[rows]), out=maps[rows])
            if key_of_mask is not None:
                mask_(shares, keep_mask(shares.shape, rate, key_of_mask, buffer))
            torch.bmm(shares, value[rows], out=heads[rows])
        joined = layout.beside(heads.mul_(_inverse(sums).mul_(keep_scale(rate))), len(own))
        messages = torch.addmm(biases[3], joined, layout.spread(weights[3].t()))
        messages = messages.view(own.shape).mul_(is_attended.any(-1)[:, None, None])
        if maps is not None:
            maps = maps.view(num_heads, len(own), *maps.shape[1:]).transpose(0, 1)
        if any(ctx.needs_input_grad):
            # With the logarithm of its sum subtracted too, a row comes out normalised. A row that
            # sums to 0, of a clip without a key, stays as it is.
            logarithms = torch.where(sums > 0, sums, 1.0).log2_()
            if maxima is None:
                query[..., layout.offset].sub_(logarithms.squeeze(-1))
            ctx.subtrahends = () if maxima is None else (maxima, logarithms)
            ctx.save_for_backward(own, other, is_attended, query, key, value, joined, *weights)
            ctx.layout, ctx.blocks, ctx.rate = layout, blocks, rate
            ctx.set_materialize_grads(False)
        return messages, maps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        own, other, is_attended, query, key, value, joined, *weights = ctx.saved_tensors
        layout, (of_messages, of_maps) = ctx.layout, gradients
        of_output = own.new_zeros(own.shape) if of_messages is None else of_messages
        of_output = (of_output * is_attended.any(-1)[:, None, None]).flatten(0, 1)
        of_joined = of_output @ layout.spread(weights[3].t()).t()
        # What softmax's gradient subtracts: the mean of the weights' gradient under the weights.
        means = (of_joined * joined).view(-1, layout.num_heads, layout.padded).sum(-1)
        means = means.t().reshape(*query.shape[:2], 1)
        of_heads = layout.apart(of_joined.mul_(keep_scale(ctx.rate)).view(*own.shape[:2], -1))
        of_query, of_key_value = torch.empty_like(query), key.new_empty(2, *key.shape)
        (scratch, buffer), (another, _) = (_scratch(ctx.blocks, query, key) for _ in range(2))
        if of_maps is not None:
            of_maps = of_maps.transpose(0, 1).flatten(0, 1)
        for rows, key_of_mask in ctx.blocks:
            shares, of_scores = (s[: rows.stop - rows.start] for s in (scratch, another))
            torch.bmm(query[rows], key[rows].transpose(1, 2), out=shares)
            for subtrahend in ctx.subtrahends:
                shares.sub_(subtrahend[rows])
            shares.exp2_()
            torch.bmm(of_heads[rows], value[rows].transpose(1, 2), out=of_scores)
            keep, mean = None, means[rows]
            if key_of_mask is not None:
                keep = keep_mask(shares.shape, ctx.rate, key_of_mask, buffer)
                mask_(of_scores, keep)
            if of_maps is not None:
                of_scores.add_(of_maps[rows])
                mean = mean + torch.linalg.vecdot(of_maps[rows], shares).unsqueeze(-1)
            of_scores.sub_(mean).mul_(shares)
            if keep is not None:
                mask_(shares, keep)
            torch.bmm(of_scores, key[rows], out=of_query[rows])
            torch.bmm(of_scores.transpose(1, 2), query[rows], out=of_key_value[0][rows])
            torch.bmm(shares.transpose(1, 2), of_heads[rows], out=of_key_value[1][rows])
        return (
            *_project_back(own, other, weights, layout, of_query, of_key_value),
            layout.gather(joined.t() @ of_output).t(),
            of_output.sum(0),
        )


def _cut(num_pairs: int, weights_of_pair: int, rate: float) -> list[_Block]:
    """Cut into blocks that fit the cache; with a rate, draw the key of each block's mask."""
    blocks = row_blocks(num_pairs, weights_of_pair, WEIGHTS_OF_BLOCK)
    keys = draw_keys(len(blocks)) if rate else [None] * len(blocks)
    return list(map(_Block, blocks, keys))


def _project(
    own: Tensor,
    other: Tensor,
    weights: tuple[Tensor, ...],
    biases: tuple[Tensor, ...],
    layout: HeadLayout,
) -> tuple[Float[Tensor, "_ Q _"], Float[Tensor, "_ T _"], Float[Tensor, "_ T _"]]:
    """Queries, keys and values in the padded layout; scores come in powers of 2."""
    scale = _LOG2_E / math.sqrt(layout.head_dim)
    to_query = layout.spread(weights[0] * scale)
    query_bias = layout.spread(biases[0] * scale, one_in=layout.barrier)
    key_bias = layout.spread(biases[1], one_in=layout.offset)
    query = torch.addmm(query_bias, own.flatten(0, 1), to_query.t())
    both = torch.addmm(
        torch.cat([key_bias, layout.spread(biases[2])]),
        other.flatten(0, 1),
        torch.cat([layout.spread(weights[1]), layout.spread(weights[2])]).t(),
    )
    key, value = layout.apart(both.view(*other.shape[:2], -1)).chunk(2)
    return layout.apart(query.view(*own.shape[:2], -1)), key, value


def _project_back(
    own: Tensor,
    other: Tensor,
    weights: list[Tensor],
    layout: HeadLayout,
    of_query: Float[Tensor, "_ Q _"],
    of_key_value: Float[Tensor, "2 _ T _"],
) -> tuple[Tensor | None, ...]:
    """Gradients of all inputs but the output projection, from those of the scores in nats."""
    root = math.sqrt(layout.head_dim)
    # The queries that met the keys' gradient hold the factor log2(e) / sqrt(head_dim).
    of_key_value[0].mul_(_LN_2)
    of_query = layout.beside(of_query, len(own))
    of_both = layout.beside(of_key_value.flatten(0, 1), len(other))
    to_both = torch.cat([layout.spread(weights[1]), layout.spread(weights[2])])
    of_own = (of_query @ layout.spread(weights[0] / root)).view(own.shape)
    of_other = (of_both @ to_both).view(other.shape)
    of_query_weight = layout.gather(of_query.t() @ own.flatten(0, 1)).div_(root)
    of_weights = of_both.t() @ other.flatten(0, 1)
    of_biases = of_both.sum(0)
    half = len(of_biases) // 2
    return (
        of_own, of_other, None, None, None, None,
        of_query_weight, layout.gather(of_query.sum(0)).div_(root),
        layout.gather(of_weights[:half]), layout.gather(of_biases[:half]),
        layout.gather(of_weights[half:]), layout.gather(of_biases[half:]),
    )  # fmt: skip


def _scratch(blocks: list[_Block], query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the weights of a block and for their mask."""
    scratch = query.new_empty(blocks[0].rows.stop, query.shape[1], key.shape[1])
    return scratch, mask_buffer(scratch.numel(), scratch.dtype)


def _row_bounds(
    query: Float[Tensor, "_ Q _"],
    key: Float[Tensor, "_ T _"],
    is_attended: Bool[Tensor, "B T"],
    layout: HeadLayout,
) -> Float[Tensor, "_ Q"]:
    """A number not below any score of the row: the product of lengths (Cauchy and Schwarz)."""
    lengths = torch.linalg.vector_norm(key[..., : layout.head_dim], dim=-1)
    lengths.view(layout.num_heads, *is_attended.shape).mul_(is_attended)
    bounds = torch.linalg.vector_norm(query[..., : layout.head_dim], dim=-1)
    return bounds.mul_(lengths.amax(-1, keepdim=True))


def _subtract_maxima(
    scores: Float[Tensor, "_ Q T"],
    is_extreme: Bool[Tensor, "_ Q"],
    maxima: Float[Tensor, "_ Q 1"],
) -> None:
    """Subtract from extreme rows their maximum, which is noted, and from others exactly 0.

    The maximum of a row without a key is that of the barrier, which must stay in the way.
    """
    highest = scores.amax(-1, keepdim=True)
    is_used = is_extreme.unsqueeze(-1) & (highest > _NEVER / 2)
    scores.sub_(maxima.copy_(highest.masked_fill_(~is_used, 0.0)))


def _inverse(sums: Tensor) -> Tensor:
    """1 / sum, and 0 where there was nothing to sum."""
    return torch.where(sums > 0, sums.reciprocal(), 0.0)
