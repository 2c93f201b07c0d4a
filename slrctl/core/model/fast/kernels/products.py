"""Products of a few rows, in pieces of 4 x 4, which the processor holds in its registers.

The long axis is that of the frames, padded to a whole number of vectors.
"""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import part

VECTOR = 16  # float32 numbers in the widest register
TILE = 4


@part
def padded(length, multiple):
    """The least multiple that is not below the length."""
    return -(-length // multiple) * multiple


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
    """Write `left` (R x D) times `right` (D x T); R and D are multiples of 4."""
    for i in range(0, left.shape[0], TILE):
        _set_tile(product, left, right, i)
        for j in range(TILE, left.shape[1], TILE):
            _add_tile(product, left, right, i, j)


@part
def add_product(total, left, right):
    """The same, added to what is there."""
    for i in range(0, left.shape[0], TILE):
        for j in range(0, left.shape[1], TILE):
            _add_tile(total, left, right, i, j)


@part
def _set_tile(c, a, b, i):
    a00, a01, a02, a03 = a[i, 0], a[i, 1], a[i, 2], a[i, 3]
    a10, a11, a12, a13 = a[i + 1, 0], a[i + 1, 1], a[i + 1, 2], a[i + 1, 3]
    a20, a21, a22, a23 = a[i + 2, 0], a[i + 2, 1], a[i + 2, 2], a[i + 2, 3]
    a30, a31, a32, a33 = a[i + 3, 0], a[i + 3, 1], a[i + 3, 2], a[i + 3, 3]
    for t in range(c.shape[1]):
        b0, b1, b2, b3 = b[0, t], b[1, t], b[2, t], b[3, t]
        c[i, t] = a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
        c[i + 1, t] = a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
        c[i + 2, t] = a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
        c[i + 3, t] = a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3


@part
def _add_tile(c, a, b, i, j):
    a00, a01, a02, a03 = a[i, j], a[i, j + 1], a[i, j + 2], a[i, j + 3]
    a10, a11, a12, a13 = a[i + 1, j], a[i + 1, j + 1], a[i + 1, j + 2], a[i + 1, j + 3]
    a20, a21, a22, a23 = a[i + 2, j], a[i + 2, j + 1], a[i + 2, j + 2], a[i + 2, j + 3]
    a30, a31, a32, a33 = a[i + 3, j], a[i + 3, j + 1], a[i + 3, j + 2], a[i + 3, j + 3]
    for t in range(c.shape[1]):
        b0, b1, b2, b3 = b[j, t], b[j + 1, t], b[j + 2, t], b[j + 3, t]
        c[i, t] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
        c[i + 1, t] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
        c[i + 2, t] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
        c[i + 3, t] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3


@part
def row_products(products, left, right):
    """Products of each row of `left` (R x T) with each of `right` (D x T), into R x D."""
    for i in range(0, left.shape[0], TILE):
        for j in range(0, right.shape[0], TILE):
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
