"""Dropout's masks, made from the table of random words as they are applied."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import part
from slrctl.core.model.fast.kernels.vector_memory import load, load_words, store
from slrctl.core.model.fast.kernels.vector_type import LANES
from slrctl.core.model.fast.kernels.vectors import kept
from slrctl.core.model.fast.random_words import NUM_PLACES

HALF = np.int32(16)  # bits of a word


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
def words_of_queries(number, num_keys, masks):
    """What the words of 16 queries are made of; `number` counts such sixteens."""
    return _words_of_row((num_keys + 1) // 2 * LANES, 2 * number, masks)


@part
def words_of_pair(pair, words):
    """Words of 16 queries for two keys. The first of these goes by their lower halves."""
    first, second, multiplier, _, _ = words
    return load_words(first, pair * LANES) + multiplier * load_words(second, pair * LANES)


@part
def drop_keys(weights, words):
    """Zero what the masks drop of the weights of 16 queries, which have a row for each key."""
    lowest_kept = words[3]
    for pair in range(weights.shape[0] // 2):
        word, row = words_of_pair(pair, words), 2 * pair
        store(weights, row, kept(load(weights, row), word << HALF, lowest_kept))
        store(weights, row + 1, kept(load(weights, row + 1), word, lowest_kept))


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
