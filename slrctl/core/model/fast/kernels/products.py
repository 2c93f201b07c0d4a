"""Products of a few queries with many keys, whose sums stay in registers.

Rows are in parts of 16 columns: `P N 16` for N rows of up to 16 P columns. What is across has, for
each 16 of them, a row for every column (16 P of them), in which they stand side by side. Scratch
begins where a line of the cache does: a vector that lies in two of them takes twice as long.
"""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import has_wide_registers, part
from slrctl.core.model.fast.kernels.vector_memory import (
    load,
    load_part,
    load_rows,
    store,
    store_part,
    store_rows,
    transpose,
)
from slrctl.core.model.fast.kernels.vector_type import LANES
from slrctl.core.model.fast.kernels.vectors import add_products, add_products_down, splat, zeros

QUERIES = LANES  # that are multiplied at once
# Whose sums are in registers together, where there is room for them.
KEYS = 16 if has_wide_registers() else 4
_LINE = 16  # float32 numbers in a line of the cache


@part
def padded(length, multiple):
    """The least multiple that is not below the length."""
    return -(-length // multiple) * multiple


@part
def scratch(num_rows):
    """Rows of 16 zeros, in memory that begins with a line of the cache."""
    return parted(num_rows, LANES)[0]


@part
def parted(num_rows, width):
    """The same for rows in parts."""
    num_parts = padded(width, LANES) // LANES
    size = num_parts * num_rows * LANES
    memory = np.zeros(size + _LINE, np.float32)
    start = -(memory.ctypes.data // memory.itemsize) % _LINE
    return memory[start : start + size].reshape(num_parts, num_rows, LANES)


@part
def fewer(parts, num_rows):
    """Room for fewer rows in the same memory, without a gap between the parts."""
    num_parts = parts.shape[0]
    memory = parts.reshape(-1)
    return memory[: num_parts * num_rows * LANES].reshape(num_parts, num_rows, LANES)


@part
def take(parts, rows, places, column, width, factor):
    """Read the rows at some places, columns from `column` on, times a number; the others are 0."""
    for number in range(parts.shape[0]):
        own, start = parts[number], number * LANES
        num_columns = min(width - start, LANES)
        for row in range(len(places)):
            vector = load_part(rows, places[row], column + start, num_columns)
            store(own, row, vector * factor)
        for row in range(len(places), own.shape[0]):
            store(own, row, splat(np.float32(0)))


@part
def give(parts, rows, places, column, width):
    """Write them back."""
    for number in range(parts.shape[0]):
        own, start = parts[number], number * LANES
        num_columns = min(width - start, LANES)
        for row in range(len(places)):
            store_part(rows, places[row], column + start, num_columns, load(own, row))


@part
def turn(across, parts):
    """Write rows across, 16 after 16."""
    num_parts = parts.shape[0]
    for first in range(0, parts.shape[1], LANES):
        for number in range(num_parts):
            transpose(across, first * num_parts + number * LANES, parts[number], first)


@part
def turn_back(parts, across):
    """Make rows of 16 that are across."""
    for number in range(parts.shape[0]):
        transpose(parts[number], 0, across, number * LANES)


@part
def multiply(products, queries, keys, width):
    """Write a row for each key, the products of 16 queries with it; both are across."""
    for key in range(0, products.shape[0], KEYS):
        first, place = key // LANES * queries.shape[0], key % LANES
        sums = zeros(KEYS)
        for column in range(width):
            sums = add_products(sums, load(queries, column), keys, first + column, place)
        store_rows(products, key, sums)


@part
def add_up(sums, weights, rows, width):
    """Write, across, the sum of all rows under the weights that each query has for them."""
    for number in range(rows.shape[0]):
        own, first = rows[number], number * LANES
        # The usual heads have 8 and 14 columns.
        if width - first <= 8:
            store_rows(sums, first, _add_up(zeros(8), weights, own))
        elif width - first <= 14:
            store_rows(sums, first, _add_up(zeros(14), weights, own))
        else:
            store_rows(sums, first, _add_up(zeros(LANES), weights, own))


@part
def _add_up(sums, weights, rows):
    for row in range(weights.shape[0]):
        sums = add_products(sums, load(weights, row), rows, row, 0)
    return sums


@part
def add_outer(totals, weights, rows):
    """Add, for each key, the sum of the rows of 16 queries under the weights they have for it."""
    for number in range(rows.shape[0]):
        own, total = rows[number], totals[number]
        for key in range(0, weights.shape[0], KEYS):
            sums = load_rows(total, key, KEYS)
            for query in range(QUERIES):
                sums = add_products_down(sums, load(own, query), weights, key, query)
            store_rows(total, key, sums)
