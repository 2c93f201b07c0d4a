"""The hidden units of a feed-forward, a block at a time: ReLU, dropout and the way back."""

from slrctl.core.model.fast.kernels.compiling import kernel
from slrctl.core.model.fast.kernels.masks import drop_row


@kernel
def rectify(units, negative_infinity, first_row, masks):
    """Zero the units below 0, and those that dropout drops.

    Args:
        units: `R F`, numbers of any precision, given as the integers of their bits: their sign is
            the same bit. NaN stays, of either sign.
        negative_infinity: its bits.
        first_row: what the number of the first row is in the masks.
        masks: `random_words.Masks` as a plain tuple.
    """
    num_rows, width = units.shape
    nothing = units.dtype.type(0)
    for row in range(num_rows):
        for i in range(width):
            unit = units[row, i]
            units[row, i] = unit if unit >= 0 or unit > negative_infinity else nothing
        drop_row(units, row, width, first_row + row, masks)


@kernel
def let_through(gradient, units, all_but_sign):
    """Zero the bits of the gradient where the unit is 0.

    `all_but_sign` are the bits of a number without its sign, for there are two zeros.
    """
    num_rows, width = units.shape
    nothing = gradient.dtype.type(0)
    for row in range(num_rows):
        for i in range(width):
            is_zero = units[row, i] & all_but_sign == 0
            gradient[row, i] = nothing if is_zero else gradient[row, i]
