"""Vectors of numbers as a type of numba: what a kernel holds in registers.

A compiler makes vectors of the loops in which it can, as it sees fit. Where many sums are to stay
in registers while a loop runs, a kernel has to say so itself, and says it with these. A processor
whose registers are narrower has a vector in two of them, or in four.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    register_model,
    type_callable,
)

LANES = 16  # numbers in a vector
FLAGS = ("contract",)  # a product and the sum it goes into may be rounded once
INDEX = ir.IntType(32)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(INDEX, LANES)


class _VectorType(types.Type):
    """Of float32 numbers, or of 32-bit words."""

    def __init__(self, number: types.Type) -> None:
        super().__init__(name=f"Vector({number})")
        self.number = number


def instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that writes machine code one that kernels call, without its first argument.

    Numbers that are known when a kernel is compiled are types of their own, with a value.
    """
    return intrinsic(prefer_literal=True)(function)


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, of: Any) -> None:
        super().__init__(manager, of, FLOATS if of is VECTOR else INTEGERS)


VECTOR, WORDS = _VectorType(types.float32), _VectorType(types.int32)


def _add_operator(symbol: Any, kind: _VectorType, name: str) -> None:
    """Let the operator take two vectors, or one and a number that stands in every lane."""
    sides = kind, kind.number

    @type_callable(symbol)
    def _type(context: Any) -> Callable[..., Any]:
        def typer(left: Any, right: Any) -> Any:
            is_mine = left in sides and right in sides and kind in (left, right)
            return kind if is_mine else None

        return typer

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (
            one if of == kind else in_every_lane(builder, one)
            for one, of in zip(arguments, signature.args, strict=True)
        )
        flags = FLAGS if kind is VECTOR else ()
        return getattr(builder, name)(left, right, flags=flags)

    for pair in ((kind, kind), (kind, kind.number), (kind.number, kind)):
        lower_builtin(symbol, *pair)(lower)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _add_operator(_symbol, VECTOR, _name)
for _symbol, _name in ((operator.add, "add"), (operator.mul, "mul"), (operator.lshift, "shl")):
    _add_operator(_symbol, WORDS, _name)


def find(context: Any, builder: Any, signature: Any, value: Any, *place: Any) -> Any:
    """The address of a number in the first array among the arguments."""
    kind = next(one for one in signature.args if isinstance(one, types.Array))
    return find_in(context, builder, kind, value, *place)


def find_in(context: Any, builder: Any, kind: Any, value: Any, *place: Any) -> Any:
    """The address of a number in an array; no place is counted from the end."""
    parts = context.make_array(kind)(context, builder, value)
    return cgutils.get_item_pointer(context, builder, kind, parts, place, wraparound=False)


def in_every_lane(builder: Any, number: Any) -> Any:
    """A vector of the same number 16 times."""
    undefined = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, number, index_of(0))
    return builder.shuffle_vector(first, undefined, constant(INTEGERS, 0))


def constant(kind: Any, number: int | float) -> Any:
    """The same, of a number that is known beforehand."""
    return ir.Constant(kind, [np.float32(number).item() if kind is FLOATS else number] * LANES)


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """The result of one of LLVM's own functions."""
    kind = ir.FunctionType(result, [one.type for one in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def index_of(number: int) -> Any:
    """A number as machine code has it."""
    return ir.Constant(INDEX, number)
