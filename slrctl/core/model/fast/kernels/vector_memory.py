"""How vectors come from arrays and go back; sixteen of them can be turned on the way.

Arrays lie in memory row by row, the numbers of a row side by side.
"""

from typing import Any

from llvmlite import ir
from numba.core import types

from slrctl.core.model.fast.kernels.vector_type import (
    FLOATS,
    INDEX,
    INTEGERS,
    LANES,
    VECTOR,
    WORDS,
    call,
    constant,
    find,
    find_in,
    in_every_lane,
    index_of,
    instruction,
)

_ALIGNMENT = 4  # bytes: that of a number
# In the form in which old versions of LLVM have it; newer ones turn it into theirs.
_MASKED = "llvm.masked.{}.v16f32.p0v16f32"


@instruction
def load(typing_context, numbers, i):
    """Row `i`; the rows of an array that vectors are read from have the length of one."""

    def generate(context, builder, signature, arguments):
        return builder.load(_row(context, builder, signature, *arguments), align=_ALIGNMENT)

    return VECTOR(numbers, types.intp), generate


@instruction
def store(typing_context, numbers, i, vector):
    """Write a vector as row `i`."""

    def generate(context, builder, signature, arguments):
        *place, value = arguments
        builder.store(value, _row(context, builder, signature, *place), align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, VECTOR), generate


@instruction
def load_rows(typing_context, numbers, i, count):
    """So many rows from `i` on; the number is known when the kernel is compiled."""
    result = types.UniTuple(VECTOR, count.literal_value)

    def generate(context, builder, signature, arguments):
        vectors = ir.Constant(context.get_value_type(result), ir.Undefined)
        first = _row(context, builder, signature, *arguments[:2])
        for n in range(result.count):
            row = builder.load(builder.gep(first, [index_of(n)]), align=_ALIGNMENT)
            vectors = builder.insert_value(vectors, row, n)
        return vectors

    return result(numbers, types.intp, count), generate


@instruction
def store_rows(typing_context, numbers, i, vectors):
    """Write some vectors as rows from `i` on."""

    def generate(context, builder, signature, arguments):
        first = _row(context, builder, signature, *arguments[:2])
        for n in range(vectors.count):
            row = builder.gep(first, [index_of(n)])
            builder.store(builder.extract_value(arguments[2], n), row, align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, vectors), generate


@instruction
def load_words(typing_context, numbers, i):
    """The vector of words that begins with `numbers[i]`."""

    def generate(context, builder, signature, arguments):
        address = find(context, builder, signature, *arguments)
        return builder.load(builder.bitcast(address, INTEGERS.as_pointer()), align=_ALIGNMENT)

    return WORDS(numbers, types.intp), generate


@instruction
def load_part(typing_context, numbers, i, j, count):
    """As many numbers as there are, from `numbers[i, j]` on, and zeros."""

    def generate(context, builder, signature, arguments):
        *place, count = arguments
        address = find(context, builder, signature, *place)
        address = builder.bitcast(address, FLOATS.as_pointer())
        options = address, index_of(_ALIGNMENT), _first(builder, count), constant(FLOATS, 0)
        return call(builder, _MASKED.format("load"), FLOATS, *options)

    return VECTOR(numbers, types.intp, types.intp, types.intp), generate


@instruction
def store_part(typing_context, numbers, i, j, count, vector):
    """Write so many of a vector's numbers, from `numbers[i, j]` on."""

    def generate(context, builder, signature, arguments):
        *place, count, vector = arguments
        address = find(context, builder, signature, *place)
        address = builder.bitcast(address, FLOATS.as_pointer())
        options = vector, address, index_of(_ALIGNMENT), _first(builder, count)
        call(builder, _MASKED.format("store"), ir.VoidType(), *options)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, types.intp, types.intp, VECTOR), generate


@instruction
def transpose(typing_context, target, i, source, j):
    """Write 16 rows of the source, from `j` on, as columns of as many rows from `i` on."""

    def generate(context, builder, signature, arguments):
        target, i, source, j = arguments
        read = signature.args[2]
        first = _row_of(context, builder, read, source, j)
        rows = [
            builder.load(builder.gep(first, [index_of(n)]), align=_ALIGNMENT) for n in range(LANES)
        ]
        step = 1
        while step < LANES:
            rows = _exchange(builder, rows, step)
            step *= 2
        first = _row_of(context, builder, signature.args[0], target, i)
        for n, row in enumerate(rows):
            builder.store(row, builder.gep(first, [index_of(n)]), align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


def _row(context: Any, builder: Any, signature: Any, value: Any, i: Any) -> Any:
    return _row_of(context, builder, signature.args[0], value, i)


def _row_of(context: Any, builder: Any, kind: Any, value: Any, i: Any) -> Any:
    address = find_in(context, builder, kind, value, i, context.get_constant(types.intp, 0))
    return builder.bitcast(address, FLOATS.as_pointer())


def _first(builder: Any, count: Any) -> Any:
    """Whether a lane is one of so many."""
    lanes = ir.Constant(INTEGERS, list(range(LANES)))
    return builder.icmp_signed("<", lanes, in_every_lane(builder, builder.trunc(count, INDEX)))


def _exchange(builder: Any, rows: Any, step: int) -> Any:
    """A step of a transposition: swap squares of so many numbers beside the diagonal."""
    changed = list(rows)
    for n in range(LANES):
        if n & step:
            continue
        pair = rows[n], rows[n + step]
        for place, shift in ((n, 0), (n + step, step)):
            lanes = [
                lane + shift if not lane & step else LANES + lane - step + shift
                for lane in range(LANES)
            ]
            order = ir.Constant(INTEGERS, lanes)
            changed[place] = builder.shuffle_vector(*pair, order)
    return changed
