"""Attention of every head of every clip, 16 queries at a time, forwards and backwards.

Scores come in powers of 2. Instead of its maximum a query subtracts an upper bound where that is
small enough, the product of lengths (Cauchy and Schwarz), which costs no pass over its scores.
"""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import kernel
from slrctl.core.model.fast.kernels.masks import drop_keys, words_of_queries
from slrctl.core.model.fast.kernels.products import (
    KEYS,
    QUERIES,
    add_outer,
    add_up,
    give,
    multiply,
    padded,
    parted,
    scratch,
    take,
    turn,
    turn_back,
)
from slrctl.core.model.fast.kernels.softmax import (
    add_maps,
    exponentiate,
    find_offset,
    inverse_of,
    longest_key,
    raise_barrier,
    share_out,
    share_out_and_drop,
    through_softmax,
    write_maps,
)
from slrctl.core.model.fast.kernels.vector_memory import load, store
from slrctl.core.model.fast.kernels.vector_type import LANES

_LOG2_E = np.float32(1 / np.log(2))
_ZERO, _ONE = np.float32(0), np.float32(1)


@kernel
def attend(query, key_value, places, shape, is_attended, is_dropped, masks, heads, offsets, maps):
    """Average the values of each head under the softmax of its scores.

    Arrays lie in memory row by row, the numbers of a row side by side.

    Args:
        query: `B Q _`, with queries of D columns somewhere in it, the heads beside one another.
        key_value: `B T _`, with keys and then values somewhere in it; it may be the same array.
        places: the columns where queries, keys and, in `heads`, the messages begin.
        shape: how many heads, and the columns of each; D is their product.
        is_attended: `B T`; the weight of any other key is 0.
        is_dropped: whether dropout is applied to the weights.
        masks: of the weights of B H heads, `random_words.Masks` as a plain tuple.
        heads: written, D columns of `B Q _`: the messages.
        offsets: written, `B H Q`: what a query subtracts from its scores.
        maps: written, `B H Q T`, the weights before dropout; empty if they are not wanted.
    """
    (num_clips, num_queries, _), num_keys = heads.shape, key_value.shape[1]
    (first_query, first_key, first_message), (num_heads, head_dim) = places, shape
    width = num_heads * head_dim
    scale = _LOG2_E / np.sqrt(np.float32(head_dim))
    keep_scale = np.float32(masks[4]) if is_dropped else _ONE
    num_rows = padded(num_keys, KEYS)
    keys, values = parted(padded(num_keys, LANES), head_dim), parted(num_rows, head_dim)
    queries, messages = parted(QUERIES, head_dim), parted(QUERIES, head_dim)
    keys_across = scratch(keys.size // LANES)
    queries_across = scratch(queries.size // LANES)
    messages_across = scratch(messages.size // LANES)
    shares = scratch(num_rows)
    offset, square = scratch(1), scratch(LANES)
    num_blocks = padded(num_queries, QUERIES) // QUERIES
    barrier = np.empty(num_rows, np.float32)
    for clip in range(num_clips):
        raise_barrier(barrier, is_attended[clip])
        own, other, written = query[clip], key_value[clip], heads[clip]
        for head in range(num_heads):
            first, message = first_query + head * head_dim, first_message + head * head_dim
            key = first_key + head * head_dim
            take(keys, other, 0, num_keys, key, head_dim, _ONE)
            take(values, other, 0, num_keys, key + width, head_dim, _ONE)
            turn(keys_across, keys)
            longest = longest_key(keys_across, barrier, square)
            for start in range(0, num_queries, QUERIES):
                count = min(QUERIES, num_queries - start)
                take(queries, own, start, count, first, head_dim, scale)
                turn(queries_across, queries)
                multiply(shares, queries_across, keys_across, head_dim)
                find_offset(offset, queries_across, longest, shares, barrier)
                for i in range(count):
                    offsets[clip, head, start + i] = offset[0, i]
                inverse = inverse_of(exponentiate(shares, barrier, load(offset, 0)))
                if maps.size > 0:
                    write_maps(maps[clip, head], start, count, shares, inverse, square)
                if is_dropped:
                    number = (clip * num_heads + head) * num_blocks + start // QUERIES
                    drop_keys(shares, words_of_queries(number, num_keys, masks))
                add_up(messages_across, shares, values, head_dim)
                for d in range(messages_across.shape[0]):
                    store(messages_across, d, load(messages_across, d) * (inverse * keep_scale))
                turn_back(messages, messages_across)
                give(messages, written, start, count, message, head_dim)


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
    root = _ONE / np.sqrt(np.float32(head_dim))
    scale = _LOG2_E / np.sqrt(np.float32(head_dim))
    keep_scale = np.float32(masks[4]) if is_dropped else _ONE
    num_rows = padded(num_keys, KEYS)
    num_places = padded(num_keys, LANES)
    keys, values = parted(num_places, head_dim), parted(num_places, head_dim)
    of_keys, of_values = parted(num_rows, head_dim), parted(num_rows, head_dim)
    queries, of_messages = parted(QUERIES, head_dim), parted(QUERIES, head_dim)
    of_queries = parted(QUERIES, head_dim)
    keys_across, values_across = scratch(keys.size // LANES), scratch(keys.size // LANES)
    queries_across = scratch(queries.size // LANES)
    of_messages_across = scratch(queries.size // LANES)
    of_queries_across = scratch(queries.size // LANES)
    shares, of_shares = scratch(num_rows), scratch(num_rows)
    kept_shares = scratch(num_rows)
    offset, square = scratch(1), scratch(LANES)
    num_blocks = padded(num_queries, QUERIES) // QUERIES
    barrier = np.empty(num_rows, np.float32)
    for clip in range(num_clips):
        raise_barrier(barrier, is_attended[clip])
        own, other, gradient = query[clip], key_value[clip], of_heads[clip]
        of_own, of_other = of_query[clip], of_key_value[clip]
        for head in range(num_heads):
            first, message = first_query + head * head_dim, first_message + head * head_dim
            key = first_key + head * head_dim
            take(keys, other, 0, num_keys, key, head_dim, _ONE)
            take(values, other, 0, num_keys, key + width, head_dim, _ONE)
            turn(keys_across, keys)
            turn(values_across, values)
            of_keys[:] = 0
            of_values[:] = 0
            for start in range(0, num_queries, QUERIES):
                count = min(QUERIES, num_queries - start)
                take(queries, own, start, count, first, head_dim, scale)
                turn(queries_across, queries)
                take(of_messages, gradient, start, count, message, head_dim, keep_scale)
                turn(of_messages_across, of_messages)
                # What the block before left in lanes that are none here must not count.
                for i in range(QUERIES):
                    offset[0, i] = offsets[clip, head, start + i] if i < count else _ZERO
                multiply(shares, queries_across, keys_across, head_dim)
                multiply(of_shares, of_messages_across, values_across, head_dim)
                inverse = inverse_of(exponentiate(shares, barrier, load(offset, 0)))
                if is_dropped:
                    number = (clip * num_heads + head) * num_blocks + start // QUERIES
                    words = words_of_queries(number, num_keys, masks)
                    mean = share_out_and_drop(kept_shares, shares, of_shares, inverse, words)
                    add_outer(of_values, kept_shares, of_messages)
                else:
                    mean = share_out(shares, of_shares, inverse)
                    add_outer(of_values, shares, of_messages)
                if of_maps.size > 0:
                    of_map = of_maps[clip, head % of_maps.shape[1]]
                    mean = mean + add_maps(of_shares, shares, of_map, start, count, square)
                through_softmax(of_shares, shares, mean)
                take(queries, own, start, count, first, head_dim, root)
                add_outer(of_keys, of_shares, queries)
                add_up(of_queries_across, of_shares, keys, head_dim)
                turn_back(of_queries, of_queries_across)
                for number in range(of_queries.shape[0]):
                    for i in range(QUERIES):
                        store(of_queries[number], i, load(of_queries[number], i) * root)
                give(of_queries, of_own, start, count, first, head_dim)
            give(of_keys, of_other, 0, num_keys, key, head_dim)
            give(of_values, of_other, 0, num_keys, key + width, head_dim)
