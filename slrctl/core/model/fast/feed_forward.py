"""The feed-forward of a layer in blocks of rows, with dropout and a backward pass of its own.

The hidden units of 24 clips of 204 frames are 40 MB a layer. Computed at once, every step of the
way (product, ReLU, mask, product) goes through memory; in blocks each one finds them in the cache.
They are kept for the backward pass, where a unit lets the gradient through exactly where it is
above 0, so no mask is kept.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.model.fast import arithmetic_type
from slrctl.core.model.fast.random_words import (
    keep_scale,
    mask_,
    mask_blocks,
    row_blocks,
)

# Products whose result has a multiple of this many columns run at the full rate of the processor.
_VECTOR = 16


def feed_forward(
    features: Float[Tensor, "B T D"],
    expand: tuple[Float[Tensor, "F D"], Float[Tensor, " F"]],
    contract: tuple[Float[Tensor, "D F"], Float[Tensor, " D"]],
    rate: float,
) -> Float[Tensor, "B T D"]:
    """`contract(dropout(relu(expand(features))))`, each of the two a weight and a bias.

    `rate` is that of dropout, 0 at evaluation. Draws come from the generator of `scoped_seed`.
    """
    dtype = arithmetic_type(features)
    rows = features.flatten(0, -2)
    with torch.autocast("cpu", enabled=False):
        result: Tensor = _FeedForward.apply(rows, *expand, *contract, rate, dtype)  # pyright: ignore[reportAssignmentType]
    return result.view(features.shape)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "N D"],
        expand_weight: Float[Tensor, "F D"],
        expand_bias: Float[Tensor, " F"],
        contract_weight: Float[Tensor, "D F"],
        contract_bias: Float[Tensor, " D"],
        rate: float,
        dtype: torch.dtype,
    ) -> Float[Tensor, "N D"]:
        inputs = _beside_ones(rows, dtype)
        to_hidden = torch.cat([expand_weight, expand_bias[:, None]], dim=1).to(dtype).t()
        num_units = len(expand_bias)
        # Scaling the weights makes up for the dropped units without a pass over the others.
        to_output = _padded((contract_weight * keep_scale(rate)).to(dtype))
        is_trained = any(ctx.needs_input_grad)
        first = row_blocks(len(rows), num_units)[0]
        hidden = torch.empty(len(rows) if is_trained else first.stop, num_units, dtype=dtype)
        result = torch.empty(len(rows), len(to_output), dtype=dtype)
        for block, keep in _blocks(len(rows), num_units, rate, dtype):
            units = hidden[block] if is_trained else hidden[: block.stop - block.start]
            torch.mm(inputs[block], to_hidden, out=units)
            _rectify(units)
            if keep is not None:
                mask_(units, keep)
            _contract(units, to_output, result[block])
        if is_trained:
            ctx.save_for_backward(rows, expand_weight, contract_weight, hidden)
            ctx.rate = rate
        return result[:, : len(contract_bias)].to(rows.dtype).add_(contract_bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "N D"]) -> tuple[Tensor | None, ...]:
        rows, expand_weight, contract_weight, hidden = ctx.saved_tensors
        dtype, (num_rows, width), scale = hidden.dtype, rows.shape, keep_scale(ctx.rate)
        scaled = (contract_weight * scale).to(dtype)
        to_inputs = _padded(expand_weight.to(dtype).t())
        gradient = gradients[0].to(dtype)
        inputs = _beside_ones(rows, dtype)
        of_expand = rows.new_zeros(width + 1, hidden.shape[1])
        of_contract = torch.zeros_like(contract_weight)
        of_rows = torch.empty(num_rows, len(to_inputs), dtype=dtype)
        blocks = row_blocks(*hidden.shape)
        of_units = torch.empty(blocks[0].stop, hidden.shape[1], dtype=dtype)
        for block in blocks:
            units, of_block = hidden[block], of_units[: block.stop - block.start]
            torch.mm(gradient[block], scaled, out=of_block)
            _let_through(of_block, units)
            _accumulate(of_expand, inputs[block], of_block)
            _accumulate(of_contract, gradient[block], units)
            _contract(of_block, to_inputs, of_rows[block])
        return (
            of_rows[:, :width].to(rows.dtype),
            of_expand[:width].t(),
            of_expand[width],
            of_contract.mul_(scale),
            gradients[0].sum(0),
            None,
            None,
        )


def _blocks(
    num_rows: int, num_units: int, rate: float, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor | None]]:
    """Cut the rows into blocks; with a rate, draw each one's mask."""
    if rate:
        yield from mask_blocks(num_rows, num_units, rate, dtype)
    else:
        yield from ((block, None) for block in row_blocks(num_rows, num_units))


def _beside_ones(rows: Float[Tensor, "N D"], dtype: torch.dtype) -> Float[Tensor, "N _"]:
    """The rows with a column of ones: a product adds the bias, or sums its gradient, by the way."""
    num_rows, width = rows.shape
    inputs = torch.ones(num_rows, width + 1, dtype=dtype)
    inputs[:, :width] = rows
    return inputs


def _padded(weight: Float[Tensor, "D F"]) -> Float[Tensor, "_ F"]:
    return F.pad(weight, (0, 0, 0, -len(weight) % _VECTOR)).contiguous()


def _rectify(units: Tensor) -> None:
    if units.dtype == torch.bfloat16:
        units.view(torch.int16).clamp_min_(0)  # the sign is the same bit
    else:
        units.clamp_min_(0)


def _let_through(gradient: Tensor, units: Tensor) -> None:
    """Zero the gradient where the unit is 0; units are never negative."""
    if units.dtype == torch.bfloat16:
        mask_(gradient, units.view(torch.int16).sign())
    else:
        torch.ops.aten.threshold_backward(gradient, units, 0, grad_input=gradient)


def _contract(units: Tensor, weight: Tensor, out: Tensor) -> None:
    """A product with many terms and few results; oneDNN's kernel has the better shape for it."""
    if units.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        out.copy_(torch.ops.mkldnn._linear_pointwise(units, weight, None, "none", [], ""))
    else:
        torch.mm(units, weight.t(), out=out)


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right, in the total's own precision."""
    if total.dtype == left.dtype:
        total.addmm_(left.t(), right)
    else:
        total.add_(left.t() @ right)
