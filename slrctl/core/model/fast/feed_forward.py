"""The feed-forward of a layer in blocks of rows, with dropout and a backward pass of its own.

The hidden units of 24 clips of 204 frames are 40 MB a layer. Computed at once, every step of the
way (product, ReLU, mask, product) goes through memory; in blocks each one finds them in the cache.
They are kept for the backward pass, where a unit lets the gradient through exactly where it is
above 0, so no mask is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.model.fast import arithmetic_type, refuse_second_derivative
from slrctl.core.model.fast.random_words import draw_masks, keep_scale

# Products whose result has a multiple of this many columns run at the full rate of the processor.
_VECTOR = 16
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
    with torch.autocast("cpu", enabled=False):
        if torch.is_grad_enabled():
            result: Tensor = _FeedForward.apply(rows, *expand, *contract, rate, dtype)  # pyright: ignore[reportAssignmentType]
        else:
            result = _forward(rows, *expand, *contract, rate, dtype)
    return result.view(features.shape)


def _forward(
    rows: Float[Tensor, "N D"],
    expand_weight: Float[Tensor, "F D"],
    expand_bias: Float[Tensor, " F"],
    contract_weight: Float[Tensor, "D F"],
    contract_bias: Float[Tensor, " D"],
    rate: float,
    dtype: torch.dtype,
    hidden: list[Tensor] | None = None,
) -> Float[Tensor, "N D"]:
    """The result; the hidden units of each block are added to the list, if there is one."""
    from slrctl.core.model.fast.kernels.hidden_units import rectify

    num_units = len(expand_bias)
    expand = _expansion(expand_weight, expand_bias, dtype)
    to_output = _padded(contract_weight.to(dtype), 0)
    size = _rows_of_block(len(rows), num_units, dtype)
    masks = tuple(draw_masks(len(rows), num_units, rate))
    negative_infinity = _bits(torch.tensor([-torch.inf], dtype=dtype))[0]
    results = []
    for number, block in enumerate(rows.split(size)):
        units = expand(block)
        rectify(_bits(units), negative_infinity, number * size, rate > 0, masks)
        results.append(_contract(units, to_output))
        if hidden is not None:
            hidden.append(units)
    outputs = torch.cat(results)[:, : len(contract_bias)]
    # What makes up for the dropped units comes where there is least to multiply.
    return torch.add(contract_bias, outputs, alpha=keep_scale(rate))


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
        hidden: list[Tensor] = []
        weights = (expand_weight, expand_bias, contract_weight, contract_bias)
        result = _forward(rows, *weights, rate, dtype, hidden)
        ctx.save_for_backward(rows, expand_weight, contract_weight, *hidden)
        ctx.rate = rate
        return result

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def backward(ctx: Any, *gradients: Float[Tensor, "N D"]) -> tuple[Tensor | None, ...]:
        from slrctl.core.model.fast.kernels.hidden_units import let_through

        refuse_second_derivative()
        rows, expand_weight, contract_weight, *hidden = ctx.saved_tensors
        dtype, num_units = hidden[0].dtype, hidden[0].shape[1]
        width, size = rows.shape[1], len(hidden[0])
        from_outputs = contract_weight.to(dtype)
        to_inputs = _padded(expand_weight.to(dtype), 1).t()
        of_outputs = (gradients[0] * keep_scale(ctx.rate)).to(dtype)
        of_expand = rows.new_zeros(width + 1, num_units)
        of_contract = torch.zeros_like(contract_weight)
        of_units, of_rows = torch.empty_like(hidden[0]), []
        of_bits = _bits(of_units)
        blocks = (of_outputs.split(size), _beside_ones(rows, dtype).split(size), hidden)
        for gradient, inputs, units in zip(*blocks, strict=True):
            of_block = of_units[: len(units)]
            torch.mm(gradient, from_outputs, out=of_block)
            let_through(of_bits, _bits(units))
            _accumulate(of_expand, inputs, of_block)
            _accumulate(of_contract, gradient, units)
            of_rows.append(_contract(of_block, to_inputs))
        return (
            torch.cat(of_rows)[:, :width].to(rows.dtype),
            of_expand[:width].t(),
            of_expand[width],
            of_contract,
            gradients[0].sum(0),
            None,
            None,
        )


def _rows_of_block(num_rows: int, num_units: int, dtype: torch.dtype) -> int:
    """How many rows are in each of as few blocks, of nearly one size, as the cache allows."""
    most = max(1, _BYTES_OF_BLOCK // (num_units * dtype.itemsize))
    num_blocks = max(1, -(-num_rows // most))
    return max(1, -(-num_rows // num_blocks))


def _bits(numbers: Tensor) -> Any:
    """The same memory as an array of integers."""
    return numbers.view(_BITS[numbers.dtype]).numpy()


def _beside_ones(rows: Float[Tensor, "N D"], dtype: torch.dtype) -> Float[Tensor, "N _"]:
    """The rows with a column of ones: a product adds the bias, or sums its gradient, by the way."""
    num_rows, width = rows.shape
    inputs = torch.ones(num_rows, width + 1, dtype=dtype)
    inputs[:, :width] = rows
    return inputs


def _padded(weight: Float[Tensor, "_ _"], axis: int) -> Float[Tensor, "_ _"]:
    """The weights with zeros for results up to a whole number of vectors, along this axis."""
    further = -weight.shape[axis] % _VECTOR
    return F.pad(weight, (0, further) if axis == 1 else (0, 0, 0, further))


def _expansion(
    weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"], dtype: torch.dtype
) -> Callable[[Float[Tensor, "R D"]], Float[Tensor, "R F"]]:
    """What makes hidden units of rows, before the ReLU: oneDNN in float32, torch otherwise."""
    if _is_onednns(dtype):
        return lambda rows: torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    beside = torch.cat([weight, bias[:, None]], dim=1).to(dtype).t()
    return lambda rows: torch.mm(_beside_ones(rows, dtype), beside)


def _is_onednns(dtype: torch.dtype) -> bool:
    """Whether oneDNN's products of a few columns are faster than torch's own."""
    return dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _contract(units: Tensor, weight: Tensor) -> Tensor:
    """A product with many terms and few results; oneDNN's kernel has the better shape for it."""
    if _is_onednns(units.dtype):
        return torch.ops.mkldnn._linear_pointwise(units, weight, None, "none", [], "")
    return torch.mm(units, weight.t())


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right, in the total's own precision."""
    if total.dtype == left.dtype:
        total.addmm_(left.t(), right)
    else:
        total.add_(left.t() @ right)
