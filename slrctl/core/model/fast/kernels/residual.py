"""A residual connection: dropout, sum and layer normalisation of a row at a time."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import kernel
from slrctl.core.model.fast.kernels.layer_norm import normalise_row, normalise_row_back
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
    for row in range(num_rows):
        for i in range(width):
            normal[row, i] = changes[row, i] * keep_scale
        if is_dropped:
            drop_row(normal, row, width, row, masks)
        for i in range(width):
            normal[row, i] += rows[row, i]
        normalise_row(normal, row, weight, bias, epsilon, spread, sums)


@kernel
def add_and_normalise_back(
    of_sums, normal, spread, weight, is_dropped, masks, of_rows, of_changes, of_weight, of_bias
):
    """The way back: write the gradients of rows and changes, and add up those of the weights."""
    num_rows, width = of_sums.shape
    keep_scale = np.float32(masks[4]) if is_dropped else np.float32(1)
    for row in range(num_rows):
        normalise_row_back(of_rows, of_sums, row, normal, spread, weight, of_weight, of_bias)
        for i in range(width):
            of_changes[row, i] = of_rows[row, i] * keep_scale
        if is_dropped:
            drop_row(of_changes, row, width, row, masks)
