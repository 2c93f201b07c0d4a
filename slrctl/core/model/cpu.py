"""Training on a CPU with kernels compiled by numba, for the layers that dropout makes slow.

`use_kernels` replaces two functions of a model, once per run: `attention.attend` and
`transformer.feed_forward`. The ones here compute the same with other dropout masks, and call the
plain ones where nothing is dropped: evaluation is torch's alone.

A training step of 24 clips of 204 frames needs 10^8 decisions what to drop. Torch draws one in 3 to
6 ns, which takes as long as the rest of the step. The kernels compute 16 bits for each with
SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), a counter-based generator, in vector registers; so
rates are multiples of 2^-16, and masks are never written to memory.
"""

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.model import attention, transformer
from slrctl.core.model.attention import MultiHeadAttention
from slrctl.core.model.transformer import FeedForward
from slrctl.core.seeding import scoped_generator

LANES = 16  # queries at once, and the widest head: float32 numbers in a vector register
_BYTES_OF_BLOCK = 2**21  # of hidden units at once: they and their gradient stay in the cache
_LEVELS = 2**16

# The compiler may not assume that there is no NaN, by which a diverging training is noticed.
_OPTIONS: Any = {"nogil": True, "fastmath": {"contract", "arcp"}, "error_model": "numpy"}


def inline(function: Callable[..., Any]) -> Any:
    """Compile a function into each kernel that calls it.

    So a process that compiles a kernel runs the same code as one that loads it.
    """
    # A checker of shapes may have wrapped it.
    return numba.njit(forceinline=True, **_OPTIONS)(inspect.unwrap(function))


def use_kernels(model: nn.Module, precision: str) -> None:
    """Replace the functions of all layers that kernels can compute in training.

    In bf16 the products of the feed-forwards, nine tenths of all multiplications, are computed in
    bfloat16, without autocast: in other layers conversions cost more than they save.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for module in model.modules():
        if isinstance(module, FeedForward):
            module.compute = partial(feed_forward, dtype=dtype)
        elif isinstance(module, MultiHeadAttention):
            width = module.query_projection.out_features // module.num_heads
            if width <= LANES:
                module.attend = attend


def attend(
    query: Float[Tensor, "B Q D"],
    key: Float[Tensor, "B T D"],
    value: Float[Tensor, "B T D"],
    key_mask: Bool[Tensor, "B T"],
    num_heads: int,
    rate: float,
) -> Float[Tensor, "B Q D"]:
    """Compute `attention.attend`, 16 queries at a time."""
    # A single query, the decoder's, would leave 15 lanes empty. Kernels do not look where they
    # read: torch broadcasts or refuses sizes that do not fit.
    fits = key_mask.shape == key.shape[:2] and len(query) == len(key) and query.shape[1] > 1
    if rate == 0 or not fits:
        return attention.attend(query, key, value, key_mask, num_heads, rate)
    return _Attention.apply(query, key, value, key_mask.contiguous(), num_heads, rate)  # pyright: ignore[reportReturnType]


def feed_forward(
    features: Float[Tensor, "B T D"],
    expand: nn.Linear,
    contract: nn.Linear,
    rate: float,
    *,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "B T D"]:
    """Compute `transformer.feed_forward` in blocks of rows, with its products in this precision."""
    if rate == 0:
        return transformer.feed_forward(features, expand, contract, rate)
    weights = expand.weight, expand.bias, contract.weight, contract.bias
    rows = _FeedForward.apply(features.flatten(0, -2), *weights, rate, dtype)
    return rows.view(features.shape)  # pyright: ignore[reportOptionalMemberAccess]


class _Attention(torch.autograd.Function):
    """Attention whose weights are never written to memory: backward computes them again."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "B Q D"],
        key: Float[Tensor, "B T D"],
        value: Float[Tensor, "B T D"],
        key_mask: Bool[Tensor, "B T"],
        num_heads: int,
        rate: float,
    ) -> Float[Tensor, "B Q D"]:
        num_clips, num_queries, _ = query.shape
        heads = torch.empty_like(query)
        logsums = query.new_empty(num_clips, num_heads, num_queries)
        ctx.options = num_heads, *_draw_mask(rate)
        tensors = query, key, value, key_mask
        _attend(*_arrays(*tensors), *ctx.options, *_arrays(heads, logsums))
        ctx.save_for_backward(*tensors, heads, logsums)
        return heads

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "B Q D"]) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        *tensors, heads, logsums = ctx.saved_tensors
        outputs = heads, logsums, gradients[0].contiguous()
        of_inputs = [torch.empty_like(x) for x in tensors[:3]]
        _attend_backward(*_arrays(*tensors), *ctx.options, *_arrays(*outputs), *_arrays(*of_inputs))
        return *of_inputs, None, None, None


class _FeedForward(torch.autograd.Function):
    """Feed-forward whose masks are not kept: units that are not 0 pass their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "N D"],
        expand: Float[Tensor, "F D"],
        expand_bias: Float[Tensor, " F"],
        contract: Float[Tensor, "D F"],
        contract_bias: Float[Tensor, " D"],
        rate: float,
        dtype: torch.dtype,
    ) -> Float[Tensor, "N D"]:
        key, lowest, scale = _draw_mask(rate)
        # A column of ones adds the bias, and sums its gradient.
        inputs = _pad(torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)).to(dtype)
        expand = _pad(torch.cat([expand, expand_bias[:, None]], dim=1)).to(dtype)
        contract = contract.to(dtype)
        size = max(1, _BYTES_OF_BLOCK // (len(expand) * dtype.itemsize))
        minus_infinity = _bits(torch.tensor([-torch.inf], dtype=dtype))[0]
        hidden, outputs = [], []
        for number, block in enumerate(inputs.split(size)):
            units = _multiply(block, expand)
            _rectify_and_drop(_bits(units), minus_infinity, key, number * size, lowest)
            hidden.append(units)
            outputs.append(_multiply(units, contract))
        ctx.save_for_backward(inputs, expand, contract, *hidden)
        ctx.size, ctx.scale = size, float(scale)
        return torch.add(contract_bias, torch.cat(outputs), alpha=ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "N D"]) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        (gradient,) = gradients
        inputs, expand, contract, *hidden = ctx.saved_tensors
        scaled = (gradient * ctx.scale).to(expand.dtype)
        of_expand = torch.zeros(inputs.shape[1], len(expand))
        of_contract = torch.zeros(contract.shape)
        of_rows = []
        blocks = zip(inputs.split(ctx.size), hidden, scaled.split(ctx.size), strict=True)
        for block, units, of_outputs in blocks:
            of_units = _multiply(of_outputs, contract.t())
            _let_through(_bits(of_units), _bits(units))
            of_expand += _multiply(block.t(), of_units.t())
            of_contract += _multiply(of_outputs.t(), units.t())
            of_rows.append(_multiply(of_units, expand.t()))
        width = gradient.shape[1]
        of_weights = of_expand[:width].t(), of_expand[width], of_contract, gradient.sum(0)
        return torch.cat(of_rows)[:, :width].float(), *of_weights, None, None


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # by create_graph=True
        raise RuntimeError("kernels have no second derivative; set train.cpu_kernels to false")


def _multiply(left: Float[Tensor, "N D"], right: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """Multiply every row of one by every row of the other.

    OneDNN uses the widest registers of every processor; `torch.mm` does not in float32 on AMD's,
    where it is up to two times slower.
    """
    if torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return left @ right.t()


def _pad(rows: Float[Tensor, "N D"]) -> Float[Tensor, "N P"]:
    """Add columns of zeros up to a whole number of vectors."""
    return F.pad(rows, (0, -rows.shape[1] % LANES))


def _draw_mask(rate: float) -> tuple[np.uint64, np.uint16, np.float32]:
    """Draw the key of a mask; return it, the lowest 16 bits that are kept, and their factor."""
    key = torch.randint(2**63 - 1, (1,), generator=scoped_generator(torch.device("cpu")))
    lowest = min(round(rate * _LEVELS), _LEVELS - 1)
    return np.uint64(key.item()), np.uint16(lowest), np.float32(_LEVELS / (_LEVELS - lowest))


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def _bits(numbers: Tensor) -> np.ndarray:
    """View the same memory as integers."""
    return numbers.view({2: torch.int16, 4: torch.int32}[numbers.itemsize]).numpy()


def _kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and keep the code for later processes.

    Code that cannot be kept (a full disk) or read again is compiled anew.
    """
    function = inspect.unwrap(function)
    try:
        compiled: Any = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is no folder that can be written
        return numba.njit(**_OPTIONS)(function)
    for name in ("load_overload", "save_overload"):
        setattr(compiled._cache, name, _none_on_failure(getattr(compiled._cache, name)))
    return compiled


def _none_on_failure(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        with suppress(Exception):
            return method(*arguments)

    return call


_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_LOG2_E = np.float32(1 / np.log(2))
_LEAST_POWER = np.float32(-126)
# The series of 2^x: (ln 2)^n / n!
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(np.log(2) ** n / factorial)
    for n, factorial in zip(range(1, 7), (1, 2, 6, 24, 120, 720), strict=True)
)


@inline
def _fill_words(words, key, first):
    """Write the words of a key from number `first` on, as `seeding.counter_bits` does."""
    for n in range(len(words)):
        state = key + np.uint64(first + n + 1) * _STEP
        state = (state ^ (state >> _30)) * _MIX_1
        state = (state ^ (state >> _27)) * _MIX_2
        words[n] = state ^ (state >> _31)


@_kernel
def _rectify_and_drop(units, minus_infinity, key, first_row, lowest):
    """Zero the units (`R F`, the integers of their bits) that are below 0 or dropped.

    NaN of either sign stays: as integers, negative numbers are those up to minus infinity.
    """
    num_rows, width = units.shape
    nothing = units.dtype.type(0)
    words = np.empty((width + 3) // 4, np.uint64)
    bits = words.view(np.uint16)
    for row in range(num_rows):
        _fill_words(words, key, (first_row + row) * len(words))
        for i in range(width):
            unit = units[row, i]
            units[row, i] = unit if unit > minus_infinity and bits[i] >= lowest else nothing


@_kernel
def _let_through(gradient, units):
    """Zero the gradient where the unit is 0; both as the integers of their bits."""
    num_rows, width = units.shape
    nothing = gradient.dtype.type(0)
    for row in range(num_rows):
        for i in range(width):
            gradient[row, i] = nothing if units[row, i] == 0 else gradient[row, i]


@inline
def _power_of_2(x):
    """Return 2^x, accurate to 2e-7; 0 below the normal numbers of float32, NaN for NaN."""
    whole = np.floor(x + _HALF)
    rest = x - whole
    power = _C6 * rest + _C5
    power = power * rest + _C4
    power = power * rest + _C3
    power = power * rest + _C2
    power = power * rest + _C1
    power = power * rest + _ONE
    power *= np.int32((np.int32(whole) + 127) << 23).view(np.float32)
    return _ZERO if x < _LEAST_POWER else power


@inline
def _load_keys(keys, values, key, value, key_mask, first, width):
    """Copy a head's keys and values of the attended frames, zeros behind; return their number."""
    keys[:] = 0
    values[:] = 0
    count = 0
    for t in range(len(key_mask)):
        if key_mask[t]:
            for d in range(width):
                keys[count // 4, count % 4, d] = key[t, first + d]
                values[count // 4, count % 4, d] = value[t, first + d]
            count += 1
    return count


@inline
def _load_queries(rows, columns, source, start, first, width, factor):
    """Copy up to 16 rows of a head, and the same times a number into columns."""
    for i in range(LANES):
        for d in range(width):
            number = source[start + i, first + d] if start + i < len(source) else _ZERO
            rows[i, d] = number
            columns[d, i] = number * factor


@inline
def _add_products(sums, rows, matrix, count):
    """Add the first rows (`T/4 4 16`) times the matrix (`16 16`) to the sums (`T/4 4 16`)."""
    for t in range(-(-count // 4)):
        for lane in range(LANES):
            first, second, third, fourth = _ZERO, _ZERO, _ZERO, _ZERO
            for d in range(LANES):
                factor = matrix[d, lane]
                first += rows[t, 0, d] * factor
                second += rows[t, 1, d] * factor
                third += rows[t, 2, d] * factor
                fourth += rows[t, 3, d] * factor
            sums[t, 0, lane] += first
            sums[t, 1, lane] += second
            sums[t, 2, lane] += third
            sums[t, 3, lane] += fourth


@inline
def _average(columns, rows, weights, count, width):
    """Write the sum of the rows (`T 16`) under each column of weights (`T 16`) to a column."""
    columns[:] = 0
    for t in range(0, count, 8):
        for d in range(width):
            r0, r1, r2, r3 = rows[t, d], rows[t + 1, d], rows[t + 2, d], rows[t + 3, d]
            r4, r5, r6, r7 = rows[t + 4, d], rows[t + 5, d], rows[t + 6, d], rows[t + 7, d]
            for lane in range(LANES):
                first = r0 * weights[t, lane] + r1 * weights[t + 1, lane]
                first += r2 * weights[t + 2, lane] + r3 * weights[t + 3, lane]
                second = r4 * weights[t + 4, lane] + r5 * weights[t + 5, lane]
                second += r6 * weights[t + 6, lane] + r7 * weights[t + 7, lane]
                columns[d, lane] += first + second


@_kernel
def _attend(query, key, value, key_mask, num_heads, mask_key, lowest, scale, heads, logsums):
    """Average the values of each head under the softmax of its scores, 16 queries at a time.

    Scores come in powers of 2, a row for each attended key and a column for each query. Rows lie in
    groups of four, which share what a product loads.

    Args:
        query: `B Q D`, the heads beside one another.
        key: `B T D`.
        value: `B T D`.
        key_mask: `B T`.
        num_heads: of at most 16 columns each.
        mask_key: of dropout's bits.
        lowest: the lowest bits that are kept.
        scale: the factor for what is kept.
        heads: written, `B Q D`.
        logsums: written, `B H Q`: the logarithm of the sum of each query's powers.
    """
    (num_clips, num_queries, embed_dim), num_keys = query.shape, key.shape[1]
    width, num_blocks = embed_dim // num_heads, -(-num_queries // LANES)
    factor = _LOG2_E / np.sqrt(np.float32(width))
    rows = -(-num_keys // 8) * 8
    keys = np.zeros((rows // 4, 4, LANES), np.float32)
    values = np.zeros((rows // 4, 4, LANES), np.float32)
    shares = np.zeros((rows // 4, 4, LANES), np.float32)
    queries, columns = np.zeros((LANES, LANES), np.float32), np.zeros((LANES, LANES), np.float32)
    messages = np.zeros((LANES, LANES), np.float32)
    top, total = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    words = np.empty(rows * LANES // 4, np.uint64)
    bits = words.view(np.uint16).reshape(rows, LANES)
    for clip in range(num_clips):
        for head in range(num_heads):
            first, number = head * width, clip * num_heads + head
            given = key[clip], value[clip], key_mask[clip]
            count = _load_keys(keys, values, *given, first, width)
            for block in range(num_blocks):
                start = block * LANES
                _load_queries(queries, columns, query[clip], start, first, width, factor)
                _fill_words(words, mask_key, (number * num_blocks + block) * len(words))
                shares[:] = 0
                _add_products(shares, keys, columns, count)
                top[:] = -np.inf
                total[:] = 0
                for t in range(count):
                    for lane in range(LANES):
                        top[lane] = max(top[lane], shares[t // 4, t % 4, lane])
                for t in range(count):
                    for lane in range(LANES):
                        share = _power_of_2(shares[t // 4, t % 4, lane] - top[lane])
                        total[lane] += share
                        share = share if bits[t, lane] >= lowest else _ZERO
                        shares[t // 4, t % 4, lane] = share
                weighed = values.reshape(rows, LANES), shares.reshape(rows, LANES)
                _average(messages, *weighed, count, width)
                for i in range(min(LANES, num_queries - start)):
                    logsums[clip, head, start + i] = top[i] + np.log2(total[i])
                    kept = scale / total[i] if count > 0 else _ZERO
                    for d in range(width):
                        heads[clip, start + i, first + d] = messages[d, i] * kept


@_kernel
def _attend_backward(
    query, key, value, key_mask, num_heads, mask_key, lowest, scale, heads, logsums, of_heads,
    of_query, of_key, of_value,
):  # fmt: skip
    """Write the gradients of queries, keys and values, given that of the heads."""
    (num_clips, num_queries, embed_dim), num_keys = query.shape, key.shape[1]
    width, num_blocks = embed_dim // num_heads, -(-num_queries // LANES)
    root = _ONE / np.sqrt(np.float32(width))
    rows = -(-num_keys // 8) * 8
    keys = np.zeros((rows // 4, 4, LANES), np.float32)
    values = np.zeros((rows // 4, 4, LANES), np.float32)
    of_keys = np.zeros((rows // 4, 4, LANES), np.float32)
    of_values = np.zeros((rows // 4, 4, LANES), np.float32)
    shares = np.zeros((rows // 4, 4, LANES), np.float32)
    of_shares = np.zeros((rows // 4, 4, LANES), np.float32)
    queries, columns = np.zeros((LANES, LANES), np.float32), np.zeros((LANES, LANES), np.float32)
    of_rows, of_columns = np.zeros((LANES, LANES), np.float32), np.zeros((LANES, LANES), np.float32)
    of_queries = np.zeros((LANES, LANES), np.float32)
    logsum, mean = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    words = np.empty(rows * LANES // 4, np.uint64)
    bits = words.view(np.uint16).reshape(rows, LANES)
    for clip in range(num_clips):
        for head in range(num_heads):
            first, number = head * width, clip * num_heads + head
            given = key[clip], value[clip], key_mask[clip]
            count = _load_keys(keys, values, *given, first, width)
            of_keys[:] = 0
            of_values[:] = 0
            for block in range(num_blocks):
                start = block * LANES
                block_rows = start, first, width
                _load_queries(queries, columns, query[clip], *block_rows, _LOG2_E * root)
                _load_queries(of_rows, of_columns, of_heads[clip], *block_rows, scale)
                _fill_words(words, mask_key, (number * num_blocks + block) * len(words))
                for i in range(min(LANES, num_queries - start)):
                    logsum[i] = logsums[clip, head, start + i]
                    # The mean gradient of a query's weights, under these (FlashAttention, eq. 4).
                    mean[i] = 0
                    for d in range(width):
                        mean[i] += of_rows[i, d] * heads[clip, start + i, first + d]
                shares[:] = 0
                of_shares[:] = 0
                _add_products(shares, keys, columns, count)
                _add_products(of_shares, values, of_columns, count)
                for t in range(count):
                    for lane in range(LANES):
                        share = _power_of_2(shares[t // 4, t % 4, lane] - logsum[lane])
                        is_kept = bits[t, lane] >= lowest
                        of_share = of_shares[t // 4, t % 4, lane] if is_kept else _ZERO
                        of_shares[t // 4, t % 4, lane] = (of_share - mean[lane]) * share * root
                        shares[t // 4, t % 4, lane] = share * scale if is_kept else _ZERO
                _add_products(of_values, shares, of_rows, count)
                _add_products(of_keys, of_shares, queries, count)
                weighed = keys.reshape(rows, LANES), of_shares.reshape(rows, LANES)
                _average(of_queries, *weighed, count, width)
                for i in range(min(LANES, num_queries - start)):
                    for d in range(width):
                        of_query[clip, start + i, first + d] = of_queries[d, i]
            count = 0
            for t in range(num_keys):
                for d in range(width):
                    is_read, place = key_mask[clip, t], (count // 4, count % 4, d)
                    of_key[clip, t, first + d] = of_keys[place] if is_read else _ZERO
                    of_value[clip, t, first + d] = of_values[place] if is_read else _ZERO
                count += key_mask[clip, t]
