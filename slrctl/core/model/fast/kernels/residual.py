"""A residual connection: dropout, sum and layer normalisation of a row at a time."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import kernel
from slrctl.core.model.fast.kernels.masks import drop_row


@kernel
def add_and_normalise(
    rows, changes, weight, bias, epsilon, is_dropped, masks, normal, spread, sums
):
    """Normalise each row plus its change, the change dropped in part and scaled up.

    Args:
        rows: `N D`.
        changes: `N D`.
        weight: `D`, as bias is.
        bias: what a normalised row is multiplied by and added to.
        epsilon: added to the variance.
        is_dropped: whether dropout is applied to the changes.
        masks: of N rows, `random_words.Masks` as a plain tuple.
        normal: written, `N D`: the rows of mean 0 and variance 1.
        spread: written, `N`: what they were divided by, inverted.
        sums: written, `N D`: the result.
    """
    num_rows, width = rows.shape
    keep_scale = np.float32(masks[4]) if is_dropped else np.float32(1)
    share = np.float32(1) / np.float32(width)
    for row in range(num_rows):
        for i in range(width):
            normal[row, i] = changes[row, i] * keep_scale
        if is_dropped:
            drop_row(normal, row, width, row, masks)
        mean = np.float32(0)
        for i in range(width):
            normal[row, i] += rows[row, i]
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


@kernel
def add_and_normalise_back(
    of_sums, normal, spread, weight, is_dropped, masks, of_rows, of_changes, of_weight, of_bias
):
    """The way back: write the gradients of rows and changes, and add up those of the weights."""
    num_rows, width = of_sums.shape
    keep_scale = np.float32(masks[4]) if is_dropped else np.float32(1)
    share = np.float32(1) / np.float32(width)
    for row in range(num_rows):
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
            of_changes[row, i] = of_rows[row, i] * keep_scale
        if is_dropped:
            drop_row(of_changes, row, width, row, masks)
