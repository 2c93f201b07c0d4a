"""The hidden units of a feed-forward, a block at a time: ReLU, dropout and the way back."""

from slrctl.core.model.fast.kernels.compiling import kernel
from slrctl.core.model.fast.kernels.masks import drop_row


@kernel
def rectify(units, negative_infinity, first_row, is_dropped, masks):
    """Zero the units below 0, and those that dropout drops.

    Args:
        units: `R F`, numbers of any precision, given as the integers of their bits: their sign is
            the same bit. NaN stays, of either sign.
        negative_infinity: its bits.
        first_row: what the number of the first row is in the masks.
        is_dropped: whether dropout is applied.
        masks: `random_words.Masks` as a plain tuple.
    """
    num_rows, width = units.shape
    nothing = units.dtype.type(0)
    for row in range(num_rows):
        for i in range(width):
            unit = units[row, i]
            units[row, i] = unit if unit >= 0 or unit > negative_infinity else nothing
        if is_dropped:
            drop_row(units, row, width, first_row + row, masks)


@kernel
def let_through(gradient, units):
    """Zero the bits of the gradient, of these units and perhaps more, where the unit is 0."""
    num_rows, width = units.shape
    nothing = gradient.dtype.type(0)
    for row in range(num_rows):
        for i in range(width):
            gradient[row, i] = nothing if units[row, i] == 0 else gradient[row, i]
