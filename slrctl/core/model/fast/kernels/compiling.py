"""How kernels are compiled: by numba, when they are first called, and kept for later processes."""

import inspect
from collections.abc import Callable
from typing import Any

import numba

# What a compiler may assume of sums: that they can be taken in any order. It must not assume that
# there is no NaN, for a training that diverges is noticed by it.
_ANY_ORDER = {"contract", "reassoc", "nsz", "arcp"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers to machine code; it runs without Python's lock.

    Where nothing can be written, neither beside this file nor in the user's cache, it is compiled
    anew in every process.
    """
    # A checker of shapes may have wrapped it; machine code is checked where it is called from.
    function = inspect.unwrap(function)
    options = {"nogil": True, "fastmath": _ANY_ORDER, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function": no place to keep it
        return numba.njit(**options)(function)
