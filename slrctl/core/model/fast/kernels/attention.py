"""Attention of every head of every clip, a few queries at a time, forwards and backwards.

Scores come in powers of 2. Instead of its maximum a row subtracts an upper bound where that is
small enough, the product of lengths (Cauchy and Schwarz), which costs no pass over the row.
"""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import kernel, part
from slrctl.core.model.fast.kernels.masks import drop_row, drop_two_rows
from slrctl.core.model.fast.kernels.powers import power_of_2
from slrctl.core.model.fast.kernels.products import (
    DEPTH,
    ROWS,
    TILE,
    VECTOR,
    add_product,
    padded,
    row_products,
    scratch,
    set_product,
    transpose_in,
    transpose_out,
)

_QUERIES = ROWS  # of one block
_NEVER = np.float32(-1e30)
# Up to this bound no weight that counts falls below 2^-120; float32 holds 2^-126.
_LARGEST_BOUND = np.float32(60)
_LOG2_E = np.float32(1 / np.log(2))


@kernel
def attend(query, key_value, places, shape, is_attended, is_dropped, masks, heads, offsets, maps):
    """Average the values of each head under the softmax of its scores.

    Args:
        query: `B Q _`, with queries of D columns somewhere in it, the heads beside one another.
        key_value: `B T _`, with keys and then values somewhere in it; it may be the same array.
        places: the columns where queries, keys and, in `heads`, the messages begin.
        shape: how many heads, and the columns of each; D is their product.
        is_attended: `B T`; the weight of any other key is 0.
        is_dropped: whether dropout is applied to the weights.
        masks: of `B H Q` rows of T, `random_words.Masks` as a plain tuple.
        heads: written, D columns of `B Q _`: the messages.
        offsets: written, `B H Q`: what a row subtracts from its scores.
        maps: written, `B H Q T`, the weights before dropout; empty if they are not wanted.
    """
    (num_clips, num_queries, _), num_keys = heads.shape, key_value.shape[1]
    (first_query, first_key, first_message), (num_heads, head_dim) = places, shape
    width = num_heads * head_dim
    scale = _LOG2_E / np.sqrt(np.float32(head_dim))
    keep_scale = np.float32(masks[4]) if is_dropped else np.float32(1)
    vectors, depth = padded(num_keys, VECTOR), padded(head_dim, DEPTH)
    keys, values = scratch(depth, vectors), scratch(depth, vectors)
    shares = scratch(_QUERIES, vectors)
    queries = np.zeros((_QUERIES, depth), np.float32)
    messages = np.empty((_QUERIES, padded(head_dim, TILE)), np.float32)
    inverses = np.empty(_QUERIES, np.float32)
    barrier = np.empty(vectors, np.float32)
    for clip in range(num_clips):
        _raise_barrier(barrier, is_attended[clip])
        for head in range(num_heads):
            first, message = first_query + head * head_dim, first_message + head * head_dim
            key = first_key + head * head_dim
            value = key + width
            transpose_in(keys, key_value[clip, :, key : key + head_dim])
            transpose_in(values, key_value[clip, :, value : value + head_dim])
            longest = _longest(keys, barrier)
            for start in range(0, num_queries, _QUERIES):
                count = min(_QUERIES, num_queries - start)
                for i in range(count):
                    for d in range(head_dim):
                        queries[i, d] = query[clip, start + i, first + d] * scale
                set_product(shares, queries, keys)
                for i in range(count):
                    offset = longest * _length(queries, i)
                    if offset > _LARGEST_BOUND:
                        offset = _highest(shares, i, barrier)
                    inverse = _inverse(_exponentiate(shares, i, barrier, offset))
                    offsets[clip, head, start + i], inverses[i] = offset, inverse
                    if maps.size > 0:
                        for t in range(num_keys):
                            maps[clip, head, start + i, t] = shares[i, t] * inverse
                    if is_dropped:
                        row = (clip * num_heads + head) * num_queries + start + i
                        drop_row(shares, i, num_keys, row, masks)
                row_products(messages, shares, values)
                for i in range(count):
                    factor = inverses[i] * keep_scale
                    for d in range(head_dim):
                        heads[clip, start + i, message + d] = messages[i, d] * factor


@kernel
def attend_back(
    query, key_value, places, shape, is_attended, is_dropped, masks, offsets,
    of_heads, of_maps, of_query, of_key_value,
):  # fmt: skip
    """The way back: write the gradients of queries, keys and values, where these were.

    Args as above, and the gradients of what `attend` wrote: `of_heads`, like the heads, and
    `of_maps`, like the maps, or of one head where it is the same for all, or empty.
    """
    (num_clips, num_queries, _), num_keys = of_heads.shape, key_value.shape[1]
    (first_query, first_key, first_message), (num_heads, head_dim) = places, shape
    width = num_heads * head_dim
    root = np.float32(1) / np.sqrt(np.float32(head_dim))
    scale = _LOG2_E / np.sqrt(np.float32(head_dim))
    keep_scale = np.float32(masks[4]) if is_dropped else np.float32(1)
    vectors, depth = padded(num_keys, VECTOR), padded(head_dim, DEPTH)
    keys, values = scratch(depth, vectors), scratch(depth, vectors)
    of_keys, of_values = scratch(head_dim, vectors), scratch(head_dim, vectors)
    shares, kept = scratch(_QUERIES, vectors), scratch(_QUERIES, vectors)
    of_shares = scratch(_QUERIES, vectors)
    queries = np.zeros((_QUERIES, depth), np.float32)
    queries_across = np.zeros((head_dim, _QUERIES), np.float32)
    of_messages = np.zeros((_QUERIES, depth), np.float32)
    of_messages_across = np.zeros((head_dim, _QUERIES), np.float32)
    of_queries = np.empty((_QUERIES, padded(head_dim, TILE)), np.float32)
    barrier = np.empty(vectors, np.float32)
    for clip in range(num_clips):
        _raise_barrier(barrier, is_attended[clip])
        for head in range(num_heads):
            first, message = first_query + head * head_dim, first_message + head * head_dim
            key = first_key + head * head_dim
            value = key + width
            transpose_in(keys, key_value[clip, :, key : key + head_dim])
            transpose_in(values, key_value[clip, :, value : value + head_dim])
            of_keys[:] = 0
            of_values[:] = 0
            for start in range(0, num_queries, _QUERIES):
                count = min(_QUERIES, num_queries - start)
                for i in range(count):
                    for d in range(head_dim):
                        one = query[clip, start + i, first + d]
                        queries[i, d], queries_across[d, i] = one * scale, one * root
                        gradient = of_heads[clip, start + i, message + d] * keep_scale
                        of_messages[i, d], of_messages_across[d, i] = gradient, gradient
                set_product(shares, queries, keys)
                set_product(of_shares, of_messages, values)
                # What the block before left in rows that are none here must not count.
                shares[count:] = 0
                kept[count:] = 0
                of_shares[count:] = 0
                for i in range(count):
                    total = _exponentiate(shares, i, barrier, offsets[clip, head, start + i])
                    inverse = _inverse(total)
                    for t in range(vectors):
                        share = shares[i, t] * inverse
                        shares[i, t], kept[i, t] = share, share
                    if is_dropped:
                        row = (clip * num_heads + head) * num_queries + start + i
                        drop_two_rows(kept, of_shares, i, num_keys, row, masks)
                    if of_maps.size > 0:
                        alike = head % of_maps.shape[1]
                        for t in range(num_keys):
                            of_shares[i, t] += of_maps[clip, alike, start + i, t]
                    _through_softmax(of_shares, shares, i, total * inverse)
                row_products(of_queries, of_shares, keys)
                add_product(of_keys, queries_across, of_shares)
                add_product(of_values, of_messages_across, kept)
                for i in range(count):
                    for d in range(head_dim):
                        of_query[clip, start + i, first + d] = of_queries[i, d] * root
            transpose_out(of_key_value[clip, :, key : key + head_dim], of_keys)
            transpose_out(of_key_value[clip, :, value : value + head_dim], of_values)


@part
def _raise_barrier(barrier, is_attended):
    """0 where a key is attended to; elsewhere a number that no score comes up to."""
    barrier[:] = _NEVER
    for t in range(len(is_attended)):
        if is_attended[t]:
            barrier[t] = 0


@part
def _longest(keys, barrier):
    """The length of the longest key that is attended to."""
    longest = np.float32(0)
    for t in range(len(barrier)):
        if barrier[t] == 0:
            square = np.float32(0)
            for d in range(keys.shape[0]):
                square += keys[d, t] * keys[d, t]
            longest = max(longest, square)
    return np.sqrt(longest)


@part
def _length(rows, i):
    square = np.float32(0)
    for d in range(rows.shape[1]):
        square += rows[i, d] * rows[i, d]
    return np.sqrt(square)


@part
def _highest(rows, i, barrier):
    """The highest score of a key that is attended to; 0 where there is none."""
    highest = _NEVER
    for t in range(len(barrier)):
        if barrier[t] == 0:
            highest = max(highest, rows[i, t])
    return highest if highest > _NEVER else np.float32(0)


@part
def _exponentiate(rows, i, barrier, offset):
    """Turn scores of a row into powers of 2, 0 behind the barrier; give their sum.

    Both ways take the sum anew: they round scores in two ways, and at some hundreds a sum of the
    other way would be off by as much as a thousandth.
    """
    total = np.float32(0)
    for t in range(rows.shape[1]):
        power = power_of_2(rows[i, t] + (barrier[t] - offset))
        rows[i, t] = power
        total += power
    return total


@part
def _inverse(total):
    """0 where there is no key."""
    return np.float32(1) / total if total != 0 else total


@part
def _through_softmax(gradients, shares, i, total):
    """From the gradient of a row's shares to that of its scores, in place.

    The shares add up to `total`, which is 1 but for roundings. Were it taken for 1, there would be
    a gradient where one key has it all, and there is none.
    """
    mean = np.float32(0)
    for t in range(shares.shape[1]):
        mean += gradients[i, t] * shares[i, t]
    mean = mean / total if total != 0 else mean
    for t in range(shares.shape[1]):
        gradients[i, t] = (gradients[i, t] - mean) * shares[i, t]
