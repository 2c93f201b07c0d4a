"""Dropout's masks, made from the table of random words as they are applied."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import part
from slrctl.core.model.fast.random_words import NUM_PLACES


@part
def drop_row(values, i, width, row, masks):
    """Zero what row number `row` of the masks drops of the row `i` of some values.

    Masks are `random_words.Masks` as a plain tuple.
    """
    first, second, multiplier, lowest_kept, shift = _words_of_row(width, row, masks)
    nothing = values.dtype.type(0)
    for t in range(width):
        word = np.int32((first[t] + multiplier * second[t]) << shift)
        values[i, t] = values[i, t] if word >= lowest_kept else nothing


@part
def drop_two_rows(values, others, i, width, row, masks):
    """The same of two arrays at once."""
    first, second, multiplier, lowest_kept, shift = _words_of_row(width, row, masks)
    nothing = values.dtype.type(0)
    for t in range(width):
        word = np.int32((first[t] + multiplier * second[t]) << shift)
        is_kept = word >= lowest_kept
        values[i, t] = values[i, t] if is_kept else nothing
        others[i, t] = others[i, t] if is_kept else nothing


@part
def _words_of_row(width, row, masks):
    """Both stretches of the table, and what makes of them the 16 bits of each element."""
    table, keys, rows_of_block, lowest_kept, _ = masks
    block, row_in_block = row // rows_of_block, row % rows_of_block
    place = row_in_block // 2 * width
    first = table[keys[block, 0] % NUM_PLACES + place :][:width]
    second = table[keys[block, 1] % NUM_PLACES + place :][:width]
    shift = 0 if row_in_block % 2 else 16
    # No more bits than a word has, or it would be computed in twice as many.
    return first, second, np.int32(2 * keys[block, 2] + 1), np.int32(lowest_kept), np.int32(shift)
