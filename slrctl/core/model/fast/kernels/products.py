"""Products of a few rows, in pieces whose other side the processor holds in its registers.

The long axis is that of the frames, padded to a whole number of vectors. Scratch begins where a
line of the cache does: a vector that lies in two of them takes twice as long.
"""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import part

VECTOR = 16  # float32 numbers in the widest register
DEPTH = 16  # terms of a sum that are added up at once
ROWS = 8  # of what `add_product` multiplies
TILE = 4
_LINE = 16  # float32 numbers in a line of the cache


@part
def padded(length, multiple):
    """The least multiple that is not below the length."""
    return -(-length // multiple) * multiple


@part
def scratch(num_rows, num_columns):
    """Memory for float32 numbers that begins with a line of the cache."""
    memory = np.empty(num_rows * num_columns + _LINE, np.float32)
    start = -(memory.ctypes.data // memory.itemsize) % _LINE
    return memory[start : start + num_rows * num_columns].reshape(num_rows, num_columns)


@part
def transpose_in(target, source):
    """Write `T d` transposed into `D T'`, with zeros around it."""
    num_frames, width = source.shape
    target[:] = 0
    for frame in range(num_frames):
        for column in range(width):
            target[column, frame] = source[frame, column]


@part
def transpose_out(target, source):
    """The way back, without the padding."""
    num_frames, width = target.shape
    for frame in range(num_frames):
        for column in range(width):
            target[frame, column] = source[column, frame]


@part
def set_product(product, left, right):
    """Write `left` (R x D) times `right` (D x T); D is a multiple of 16."""
    for i in range(left.shape[0]):
        _set_row(product, left, right, i)
        for j in range(DEPTH, left.shape[1], DEPTH):
            _add_row(product, left, right, i, j)


@part
def _set_row(c, a, b, i):
    a0, a1, a2, a3 = a[i, 0], a[i, 1], a[i, 2], a[i, 3]
    a4, a5, a6, a7 = a[i, 4], a[i, 5], a[i, 6], a[i, 7]
    a8, a9, a10, a11 = a[i, 8], a[i, 9], a[i, 10], a[i, 11]
    a12, a13, a14, a15 = a[i, 12], a[i, 13], a[i, 14], a[i, 15]
    for t in range(c.shape[1]):
        s0 = a0 * b[0, t] + a1 * b[1, t] + a2 * b[2, t] + a3 * b[3, t]
        s1 = a4 * b[4, t] + a5 * b[5, t] + a6 * b[6, t] + a7 * b[7, t]
        s2 = a8 * b[8, t] + a9 * b[9, t] + a10 * b[10, t] + a11 * b[11, t]
        s3 = a12 * b[12, t] + a13 * b[13, t] + a14 * b[14, t] + a15 * b[15, t]
        c[i, t] = s0 + s1 + s2 + s3


@part
def _add_row(c, a, b, i, j):
    a0, a1, a2, a3 = a[i, j], a[i, j + 1], a[i, j + 2], a[i, j + 3]
    a4, a5, a6, a7 = a[i, j + 4], a[i, j + 5], a[i, j + 6], a[i, j + 7]
    a8, a9, a10, a11 = a[i, j + 8], a[i, j + 9], a[i, j + 10], a[i, j + 11]
    a12, a13, a14, a15 = a[i, j + 12], a[i, j + 13], a[i, j + 14], a[i, j + 15]
    for t in range(c.shape[1]):
        s0 = a0 * b[j, t] + a1 * b[j + 1, t] + a2 * b[j + 2, t] + a3 * b[j + 3, t]
        s1 = a4 * b[j + 4, t] + a5 * b[j + 5, t] + a6 * b[j + 6, t] + a7 * b[j + 7, t]
        s2 = a8 * b[j + 8, t] + a9 * b[j + 9, t] + a10 * b[j + 10, t] + a11 * b[j + 11, t]
        s3 = a12 * b[j + 12, t] + a13 * b[j + 13, t] + a14 * b[j + 14, t] + a15 * b[j + 15, t]
        c[i, t] += s0 + s1 + s2 + s3


@part
def add_product(total, left, right):
    """Add `left` (R x 8) times `right` (8 x T)."""
    for i in range(total.shape[0]):
        row = total[i]
        a0, a1, a2, a3 = left[i, 0], left[i, 1], left[i, 2], left[i, 3]
        a4, a5, a6, a7 = left[i, 4], left[i, 5], left[i, 6], left[i, 7]
        for t in range(total.shape[1]):
            s0 = a0 * right[0, t] + a1 * right[1, t] + a2 * right[2, t] + a3 * right[3, t]
            s1 = a4 * right[4, t] + a5 * right[5, t] + a6 * right[6, t] + a7 * right[7, t]
            row[t] += s0 + s1


@part
def row_products(products, left, right):
    """Products of each row of `left` (R x T) with those of `right`, into R x D; multiples of 4."""
    for i in range(0, left.shape[0], TILE):
        for j in range(0, products.shape[1], TILE):
            _multiply_rows(products, left, right, i, j)


@part
def _multiply_rows(c, a, b, i, j):
    c00 = c01 = c02 = c03 = np.float32(0)
    c10 = c11 = c12 = c13 = np.float32(0)
    c20 = c21 = c22 = c23 = np.float32(0)
    c30 = c31 = c32 = c33 = np.float32(0)
    for t in range(a.shape[1]):
        a0, a1, a2, a3 = a[i, t], a[i + 1, t], a[i + 2, t], a[i + 3, t]
        b0, b1, b2, b3 = b[j, t], b[j + 1, t], b[j + 2, t], b[j + 3, t]
        c00 += a0 * b0
        c01 += a0 * b1
        c02 += a0 * b2
        c03 += a0 * b3
        c10 += a1 * b0
        c11 += a1 * b1
        c12 += a1 * b2
        c13 += a1 * b3
        c20 += a2 * b0
        c21 += a2 * b1
        c22 += a2 * b2
        c23 += a2 * b3
        c30 += a3 * b0
        c31 += a3 * b1
        c32 += a3 * b2
        c33 += a3 * b3
    c[i, j], c[i, j + 1], c[i, j + 2], c[i, j + 3] = c00, c01, c02, c03
    c[i + 1, j], c[i + 1, j + 1], c[i + 1, j + 2], c[i + 1, j + 3] = c10, c11, c12, c13
    c[i + 2, j], c[i + 2, j + 1], c[i + 2, j + 2], c[i + 2, j + 3] = c20, c21, c22, c23
    c[i + 3, j], c[i + 3, j + 1], c[i + 3, j + 2], c[i + 3, j + 3] = c30, c31, c32, c33
