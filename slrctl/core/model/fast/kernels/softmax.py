"""The softmax of 16 queries over the keys they attend to, which are rows; and its way back."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import part
from slrctl.core.model.fast.kernels.masks import HALF, words_of_pair
from slrctl.core.model.fast.kernels.powers import powers_of_2
from slrctl.core.model.fast.kernels.products import QUERIES
from slrctl.core.model.fast.kernels.vector_memory import (
    load,
    load_part,
    store,
    store_part,
    transpose,
)
from slrctl.core.model.fast.kernels.vector_type import LANES
from slrctl.core.model.fast.kernels.vectors import kept, splat, zero_below

_NEVER = np.float32(-1e30)
# Up to this bound no weight that counts falls below 2^-120; float32 holds 2^-126.
_LARGEST_BOUND = np.float32(60)
_ZERO, _ONE = np.float32(0), np.float32(1)
_SMALLEST = np.finfo(np.float32).tiny


@part
def find_attended(places, rows, is_attended, no_row):
    """Write where the keys are that are attended to, and the row of each key; give their number.

    They have a row each, in their order; any other key has the row `no_row`.
    """
    count = 0
    for t in range(len(is_attended)):
        rows[t] = count if is_attended[t] else no_row
        places[count] = t  # the next one takes its place if it does not count
        count += is_attended[t]
    return count


@part
def longest_key(keys_across, num_keys, num_columns, room):
    """The length of the longest key."""
    longest = _ZERO
    for first in range(0, num_keys, LANES):
        store(room, 0, _squares_of(keys_across, first // LANES * num_columns, num_columns))
        for n in range(min(LANES, num_keys - first)):
            longest = max(longest, room[0, n])
    return np.sqrt(longest)


@part
def _squares_of(across, first, num_columns):
    """The squared lengths of what is across."""
    squares = splat(_ZERO)
    for column in range(first, first + num_columns):
        squares = squares + load(across, column) * load(across, column)
    return squares


@part
def find_offset(offset, queries, longest, scores):
    """What each query subtracts: the bound of its scores, or the highest of them."""
    store(offset, 0, _squares_of(queries, 0, queries.shape[0]))
    for i in range(QUERIES):
        offset[0, i] = longest * np.sqrt(offset[0, i])
    for i in range(QUERIES):
        if offset[0, i] > _LARGEST_BOUND:
            offset[0, i] = _highest_score(scores, i)


@part
def _highest_score(scores, i):
    """The highest score of a query; 0 where there is none."""
    highest = _NEVER
    for t in range(scores.shape[0]):
        highest = max(highest, scores[t, i])
    return highest if highest > _NEVER else _ZERO


@part
def exponentiate(scores, offset):
    """Turn scores into powers of 2; give the sum of each query."""
    total = splat(_ZERO)
    for t in range(scores.shape[0]):
        powers = powers_of_2(load(scores, t) - offset)
        store(scores, t, powers)
        total = total + powers
    return total


@part
def inverse_of(total):
    """0 where there is no key."""
    return zero_below(_ONE / total, _SMALLEST, total)


@part
def write_maps(maps, start, count, shares, rows, inverse, square):
    """Write the weights of 16 queries for all keys, a square of them after the other."""
    num_keys = maps.shape[1]
    for first in range(0, num_keys, LANES):
        num_columns = min(LANES, num_keys - first)
        for n in range(num_columns):
            store(square, n, load(shares, rows[first + n]) * inverse)
        transpose(square, 0, square, 0)
        for i in range(count):
            store_part(maps, start + i, first, num_columns, load(square, i))


@part
def share_out(shares, of_shares, inverse):
    """Make the powers the shares of keys; give the mean of the gradients under them."""
    mean = splat(_ZERO)
    for t in range(shares.shape[0]):
        share = load(shares, t) * inverse
        mean = mean + load(of_shares, t) * share
        store(shares, t, share)
    return mean


@part
def share_out_and_drop(shares, of_shares, kept_shares, inverse, words):
    """The same, with the shares that dropout leaves beside them and no gradient of the others."""
    lowest_kept = words[3]
    mean = splat(_ZERO)
    for pair in range(shares.shape[0] // 2):
        word = words_of_pair(pair, words)
        for number in range(2):
            half, t = word if number else word << HALF, 2 * pair + number
            share = load(shares, t) * inverse
            gradient = kept(load(of_shares, t), half, lowest_kept)
            mean = mean + gradient * share
            store(shares, t, share)
            store(kept_shares, t, kept(share, half, lowest_kept))
            store(of_shares, t, gradient)
    return mean


@part
def add_maps(of_shares, shares, rows, of_maps, start, count, square):
    """Add gradients of the weights of 16 queries; give their mean under these."""
    num_keys, mean = of_maps.shape[1], splat(_ZERO)
    for first in range(0, num_keys, LANES):
        num_columns = min(LANES, num_keys - first)
        for i in range(count):
            store(square, i, load_part(of_maps, start + i, first, num_columns))
        for i in range(count, QUERIES):
            store(square, i, splat(_ZERO))
        transpose(square, 0, square, 0)
        for n in range(num_columns):
            gradient, row = load(square, n), rows[first + n]
            mean = mean + gradient * load(shares, row)
            store(of_shares, row, load(of_shares, row) + gradient)
    return mean


@part
def through_softmax(gradients, shares, mean):
    """From the gradients of the shares, whose mean this is, to those of the scores, in place."""
    for t in range(shares.shape[0]):
        store(gradients, t, (load(gradients, t) - mean) * load(shares, t))
