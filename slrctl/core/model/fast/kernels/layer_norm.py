"""Layer normalisation of one row, there and back, for kernels that have the row at hand."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import part


@part
def normalise_row(normal, row, weight, bias, epsilon, spread, sums):
    """Normalise a row of `normal` in place; write what divided it, inverted, and the result."""
    width = normal.shape[1]
    share = np.float32(1) / np.float32(width)
    mean = np.float32(0)
    for i in range(width):
        mean += normal[row, i]
    mean *= share
    variance = np.float32(0)
    for i in range(width):
        normal[row, i] -= mean
        variance += normal[row, i] * normal[row, i]
    inverse = np.float32(1) / np.sqrt(variance * share + np.float32(epsilon))
    spread[row] = inverse
    for i in range(width):
        normal[row, i] *= inverse
        sums[row, i] = normal[row, i] * weight[i] + bias[i]


@part
def normalise_row_back(of_rows, of_sums, row, normal, spread, weight, of_weight, of_bias):
    """The way back: write the gradient of what was normalised, add up those of the weights.

    They are sums over all rows, in float64: so it hardly matters in which parts they are taken.
    """
    width = normal.shape[1]
    share = np.float32(1) / np.float32(width)
    mean, slope = np.float32(0), np.float32(0)
    for i in range(width):
        gradient, unit = of_sums[row, i], normal[row, i]
        of_weight[i] += gradient * unit
        of_bias[i] += gradient
        mean += gradient * weight[i]
        slope += gradient * weight[i] * unit
    mean, slope, inverse = mean * share, slope * share, spread[row]
    for i in range(width):
        scaled = of_sums[row, i] * weight[i] - mean - normal[row, i] * slope
        of_rows[row, i] = scaled * inverse
