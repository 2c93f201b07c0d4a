"""The feed-forward of a layer in blocks of rows, with dropout and a backward pass of its own.

The hidden units of 24 clips of 204 frames are 40 MB a layer. Computed at once, every step of the
way (product, ReLU, mask, product) goes through memory; in blocks each one finds them in the cache.
They are kept for the backward pass, where a unit lets the gradient through exactly where it is
above 0, so no mask is kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.model.fast import (
    arithmetic_type,
    backward_pass,
    without_autocast,
)
from slrctl.core.model.fast.products import linear, product, product_over_rows
from slrctl.core.model.fast.random_words import Masks, draw_masks

# Products whose result has a multiple of this many columns run at the full rate of the processor,
# which pays for the copy of the weights from so many rows on.
_VECTOR = 16
_MANY_ROWS = 150
_BYTES_OF_BLOCK = 2**21  # at most, of units: they and their gradient stay in the cache
_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


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
    with without_autocast():
        if torch.is_grad_enabled():
            result: Tensor = _FeedForward.apply(rows, *expand, *contract, rate, dtype)  # pyright: ignore[reportAssignmentType]
        elif rate == 0 and dtype == rows.dtype and len(rows) < _MANY_ROWS:
            # Of a single clip: the same operations, without what many rows need between them.
            units = linear(rows, *expand).relu_()
            result = torch.add(contract[1], product(units, contract[0]))
        else:
            masks = draw_masks(len(rows), len(expand[1]), rate)
            hidden = _hidden_units(*_operands(rows, *expand, dtype), masks)
            last = _padded(contract[0].to(dtype), 0, len(rows))
            result = _outputs(hidden, last, contract[1], masks.scale)
    return result.view(features.shape)


def _operands(
    rows: Float[Tensor, "N D"],
    weight: Float[Tensor, "F D"],
    bias: Float[Tensor, " F"],
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "F P"], Float[Tensor, " F"] | None]:
    """What makes hidden units, before the ReLU: inputs, weights, and a bias that is none of these.

    In bfloat16 a product adds the bias by the way, since inputs have a column of ones.
    """
    if dtype == weight.dtype:
        return rows, weight, bias
    inputs = _beside_ones(rows, dtype)
    further = inputs.shape[1] - weight.shape[1] - 1
    weights = torch.cat([weight, bias[:, None], weight.new_zeros(len(weight), further)], dim=1)
    return inputs, weights.to(dtype), None


def _hidden_units(
    inputs: Float[Tensor, "N P"],
    weight: Float[Tensor, "F P"],
    bias: Float[Tensor, " F"] | None,
    masks: Masks,
) -> Iterator[Float[Tensor, "R F"]]:
    """The units of one block of rows after another; what stays is not yet scaled up."""
    size = _rows_of_block(len(inputs), len(weight), weight.dtype)
    for number, block in enumerate(inputs.split(size)):
        units = product(block, weight) if bias is None else linear(block, weight, bias)
        yield _rectified(units, number * size, masks)


def _rectified(units: Float[Tensor, "R F"], first_row: int, masks: Masks) -> Float[Tensor, "R F"]:
    """ReLU and dropout, in place; without dropout it needs no kernel."""
    if masks.scale == 1:
        return units.relu_()
    from slrctl.core.model.fast.kernels.hidden_units import rectify

    rectify(_bits(units), _MINUS_INFINITY[units.dtype], first_row, tuple(masks))
    return units


def _outputs(
    hidden: Iterable[Float[Tensor, "R F"]],
    weight: Float[Tensor, "P F"],
    bias: Float[Tensor, " D"],
    scale: float,
) -> Float[Tensor, "N D"]:
    """What the units add up to; what makes up for the dropped ones comes where numbers are few."""
    blocks = [product(units, weight) for units in hidden]
    outputs = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
    return torch.add(bias, outputs[:, : len(bias)], alpha=scale)


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
        masks = draw_masks(len(rows), len(expand_bias), rate)
        operands = _operands(rows, expand_weight, expand_bias, dtype)
        hidden = list(_hidden_units(*operands, masks))
        last = _padded(contract_weight.to(dtype), 0, len(rows))
        ctx.save_for_backward(*operands[:2], last, *hidden)
        ctx.scale, ctx.width = masks.scale, rows.shape[1]
        return _outputs(hidden, last, contract_bias, masks.scale)

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Float[Tensor, "N D"]) -> tuple[Tensor | None, ...]:
        from slrctl.core.model.fast.kernels.hidden_units import let_through

        inputs, expand, contract, *hidden = ctx.saved_tensors
        (given,), dtype, width, size = gradients, expand.dtype, ctx.width, len(hidden[0])
        from_outputs = contract[: given.shape[1]].t()
        if inputs.shape[1] == width:  # without a column that adds the bias
            inputs, expand = _beside_ones(inputs, dtype), _padded(expand, 1, len(inputs))
        of_outputs = (given * ctx.scale).to(dtype)
        scratch, of_rows, of_weights = torch.empty_like(hidden[0]), [], []
        all_but_sign = ~_MINUS_ZERO[dtype]
        blocks = of_outputs.split(size), inputs.split(size), hidden
        for gradient, block, units in zip(*blocks, strict=True):
            of_units = product(gradient, from_outputs, scratch[: len(units)])
            let_through(_bits(of_units), _bits(units), all_but_sign)
            of_both = product_over_rows(block, of_units), product_over_rows(gradient, units)
            of_weights = _added(of_weights, of_both)
            of_rows.append(product(of_units, expand.t()))
        of_expand, of_contract = of_weights
        return (
            torch.cat(of_rows)[:, :width].to(given.dtype),
            of_expand[:width].t(),
            of_expand[width],
            of_contract,
            given.sum(0),
            None,
            None,
        )


def _added(totals: Sequence[Tensor], more: Sequence[Tensor]) -> Sequence[Tensor]:
    """Sums in float32, in place; the first that are to be added begin them."""
    if not totals:
        return [one.float() for one in more]
    return [total.add_(one) for total, one in zip(totals, more, strict=True)]


def _rows_of_block(num_rows: int, num_units: int, dtype: torch.dtype) -> int:
    """How many rows are in each of as few blocks, of nearly one size, as the cache allows."""
    most = max(1, _BYTES_OF_BLOCK // (num_units * dtype.itemsize))
    num_blocks = max(1, -(-num_rows // most))
    return max(1, -(-num_rows // num_blocks))


def _bits(numbers: Tensor) -> Any:
    """The same memory as an array of integers."""
    return numbers.view(_BITS[numbers.dtype]).numpy()


_MINUS_ZERO, _MINUS_INFINITY = (
    {dtype: _bits(torch.tensor([number], dtype=dtype))[0] for dtype in _BITS}
    for number in (-0.0, -torch.inf)
)


def _beside_ones(rows: Float[Tensor, "N D"], dtype: torch.dtype) -> Float[Tensor, "N P"]:
    """The rows with a column of ones, and zeros up to a whole number of vectors.

    A product adds the bias, or sums its gradient, by the way.
    """
    num_rows, width = rows.shape
    further = -(width + 1) % _VECTOR if num_rows >= _MANY_ROWS else 0
    inputs = torch.zeros(num_rows, width + 1 + further, dtype=dtype)
    inputs[:, :width] = rows
    inputs[:, width] = 1
    return inputs


def _padded(weight: Float[Tensor, "_ _"], axis: int, num_rows: int) -> Float[Tensor, "_ _"]:
    """The weights with zeros for results up to a whole number of vectors, along this axis."""
    further = -weight.shape[axis] % _VECTOR
    if further == 0 or num_rows < _MANY_ROWS:
        return weight
    return F.pad(weight, (0, further) if axis == 1 else (0, 0, 0, further))
