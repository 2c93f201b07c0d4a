"""What is computed with vectors, beside their operators."""

from typing import Any

from llvmlite import ir
from numba.core import types

from slrctl.core.model.fast.kernels.vector_type import (
    FLAGS,
    FLOATS,
    INTEGERS,
    LANES,
    VECTOR,
    WORDS,
    call,
    constant,
    find,
    in_every_lane,
    index_of,
    instruction,
)


@instruction
def zeros(typing_context, count):
    """So many vectors of zeros, a number that is known when the kernel is compiled."""
    result = types.UniTuple(VECTOR, count.literal_value)

    def generate(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(result), None)

    return result(count), generate


@instruction
def add_products(typing_context, sums, vector, numbers, i, j):
    """Add to each of some vectors the product of one with a number, `numbers[i, j + n]`."""

    def generate(context, builder, signature, arguments):
        return _add_products(context, builder, signature, arguments, 1)

    return sums(sums, VECTOR, numbers, types.intp, types.intp), generate


@instruction
def add_products_down(typing_context, sums, vector, numbers, i, j):
    """The same with numbers below one another in rows of 16, `numbers[i + n, j]`."""

    def generate(context, builder, signature, arguments):
        return _add_products(context, builder, signature, arguments, LANES)

    return sums(sums, VECTOR, numbers, types.intp, types.intp), generate


@instruction
def splat(typing_context, number):
    """A float32 number in every lane."""

    def generate(context, builder, signature, arguments):
        return in_every_lane(builder, arguments[0])

    return VECTOR(types.float32), generate


@instruction
def rounded(typing_context, vector):
    """The nearest whole numbers."""

    def generate(context, builder, signature, arguments):
        return call(builder, "llvm.nearbyint.v16f32", FLOATS, *arguments)

    return VECTOR(VECTOR), generate


@instruction
def whole_power_of_2(typing_context, whole):
    """2 to whole numbers between -126 and 127; no number of sense to others."""

    def generate(context, builder, signature, arguments):
        exponent = builder.fptosi(arguments[0], INTEGERS)
        biased = builder.add(exponent, constant(INTEGERS, 127))
        return builder.bitcast(builder.shl(biased, constant(INTEGERS, 23)), FLOATS)

    return VECTOR(VECTOR), generate


@instruction
def zero_below(typing_context, vector, limit, where):
    """0 in lanes where another vector is below a limit. NaN is not."""

    def generate(context, builder, signature, arguments):
        vector, limit, where = arguments
        is_below = builder.fcmp_ordered("<", where, in_every_lane(builder, limit))
        return builder.select(is_below, constant(FLOATS, 0), vector)

    return VECTOR(VECTOR, types.float32, VECTOR), generate


@instruction
def kept(typing_context, vector, words, lowest_kept):
    """0 in lanes whose word is below a limit: what dropout takes away."""

    def generate(context, builder, signature, arguments):
        vector, words, lowest = arguments
        is_kept = builder.icmp_signed(">=", words, in_every_lane(builder, lowest))
        return builder.select(is_kept, vector, constant(FLOATS, 0))

    return VECTOR(VECTOR, WORDS, types.int32), generate


def _add_products(context: Any, builder: Any, signature: Any, arguments: Any, step: int) -> Any:
    sums, vector, *place = arguments
    first = find(context, builder, signature, *place)
    for n in range(signature.return_type.count):
        number = builder.load(builder.gep(first, [index_of(n * step)]))
        product = builder.fmul(vector, in_every_lane(builder, number), flags=FLAGS)
        total = builder.fadd(builder.extract_value(sums, n), product, flags=FLAGS)
        sums = builder.insert_value(sums, total, n)
    return sums
