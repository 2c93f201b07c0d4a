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
    fewer,
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
    find_attended,
    find_offset,
    inverse_of,
    longest_key,
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
    most_rows = padded(num_keys, LANES)
    room_of_keys, room_of_values = parted(most_rows, head_dim), parted(most_rows, head_dim)
    queries, messages = parted(QUERIES, head_dim), parted(QUERIES, head_dim)
    keys_across = scratch(room_of_keys.size // LANES)
    queries_across = scratch(queries.size // LANES)
    messages_across = scratch(messages.size // LANES)
    room_of_shares = scratch(most_rows + 1)  # the last row stays 0
    offset, square = scratch(1), scratch(LANES)
    num_blocks = padded(num_queries, QUERIES) // QUERIES
    all_queries = np.arange(num_queries)
    places_of_all, row_of_key = np.empty(num_keys, np.int64), np.empty(num_keys, np.int64)
    for clip in range(num_clips):
        num_attended = find_attended(places_of_all, row_of_key, is_attended[clip], most_rows)
        places_of_keys = places_of_all[:num_attended]
        keys = fewer(room_of_keys, padded(num_attended, LANES))
        values = fewer(room_of_values, padded(num_attended, LANES))
        all_shares = room_of_shares[: padded(num_attended, KEYS)]
        shares, pairs = all_shares[:num_attended], all_shares[: padded(num_attended, 2)]
        own, other, written = query[clip], key_value[clip], heads[clip]
        for head in range(num_heads):
            first, message = first_query + head * head_dim, first_message + head * head_dim
            key = first_key + head * head_dim
            take(keys, other, places_of_keys, key, head_dim, _ONE)
            take(values, other, places_of_keys, key + width, head_dim, _ONE)
            turn(keys_across, keys)
            longest = longest_key(keys_across, num_attended, queries.size // LANES, square)
            for start in range(0, num_queries, QUERIES):
                places_of_queries = all_queries[start : start + QUERIES]
                count = len(places_of_queries)
                take(queries, own, places_of_queries, first, head_dim, scale)
                turn(queries_across, queries)
                multiply(all_shares, queries_across, keys_across, head_dim)
                find_offset(offset, queries_across, longest, shares)
                for i in range(count):
                    offsets[clip, head, start + i] = offset[0, i]
                inverse = inverse_of(exponentiate(shares, load(offset, 0)))
                if maps.size > 0:
                    own_maps = maps[clip, head]
                    write_maps(own_maps, start, count, room_of_shares, row_of_key, inverse, square)
                if is_dropped:
                    number = (clip * num_heads + head) * num_blocks + start // QUERIES
                    drop_keys(pairs, words_of_queries(number, num_keys, masks))
                add_up(messages_across, shares, values, head_dim)
                for d in range(messages_across.shape[0]):
                    store(messages_across, d, load(messages_across, d) * (inverse * keep_scale))
                turn_back(messages, messages_across)
                give(messages, written, places_of_queries, message, head_dim)


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
    most_rows = padded(num_keys, LANES)
    room_of_keys, room_of_values = parted(most_rows, head_dim), parted(most_rows, head_dim)
    room_of_their_gradients = parted(most_rows, head_dim), parted(most_rows, head_dim)
    queries, of_messages = parted(QUERIES, head_dim), parted(QUERIES, head_dim)
    of_queries = parted(QUERIES, head_dim)
    keys_across = scratch(room_of_keys.size // LANES)
    values_across = scratch(room_of_values.size // LANES)
    queries_across = scratch(queries.size // LANES)
    of_messages_across = scratch(queries.size // LANES)
    of_queries_across = scratch(queries.size // LANES)
    room_of_shares, room_of_gradients = scratch(most_rows + 1), scratch(most_rows + 1)
    room_of_kept = scratch(most_rows)
    offset, square = scratch(1), scratch(LANES)
    num_blocks = padded(num_queries, QUERIES) // QUERIES
    all_queries = np.arange(num_queries)
    places_of_all, row_of_key = np.empty(num_keys, np.int64), np.empty(num_keys, np.int64)
    for clip in range(num_clips):
        num_attended = find_attended(places_of_all, row_of_key, is_attended[clip], most_rows)
        places_of_keys = places_of_all[:num_attended]
        keys = fewer(room_of_keys, padded(num_attended, LANES))
        values = fewer(room_of_values, padded(num_attended, LANES))
        of_keys = fewer(room_of_their_gradients[0], padded(num_attended, LANES))
        of_values = fewer(room_of_their_gradients[1], padded(num_attended, LANES))
        num_rows, even = padded(num_attended, KEYS), padded(num_attended, 2)
        shares, of_shares = room_of_shares[:num_rows], room_of_gradients[:num_rows]
        kept_shares = room_of_kept[:num_rows]
        pairs = shares[:even], of_shares[:even], kept_shares[:even]
        own, other, gradient = query[clip], key_value[clip], of_heads[clip]
        of_own, of_other = of_query[clip], of_key_value[clip]
        if num_attended < num_keys:
            of_other[:, first_key : first_key + 2 * width] = 0
        for head in range(num_heads):
            first, message = first_query + head * head_dim, first_message + head * head_dim
            key = first_key + head * head_dim
            take(keys, other, places_of_keys, key, head_dim, _ONE)
            take(values, other, places_of_keys, key + width, head_dim, _ONE)
            turn(keys_across, keys)
            turn(values_across, values)
            of_keys[:] = 0
            of_values[:] = 0
            for start in range(0, num_queries, QUERIES):
                places_of_queries = all_queries[start : start + QUERIES]
                count = len(places_of_queries)
                take(queries, own, places_of_queries, first, head_dim, scale)
                turn(queries_across, queries)
                take(of_messages, gradient, places_of_queries, message, head_dim, keep_scale)
                turn(of_messages_across, of_messages)
                # What the block before left in lanes that are none here must not count.
                for i in range(QUERIES):
                    offset[0, i] = offsets[clip, head, start + i] if i < count else _ZERO
                multiply(shares, queries_across, keys_across, head_dim)
                multiply(of_shares, of_messages_across, values_across, head_dim)
                inverse = inverse_of(exponentiate(shares[:num_attended], load(offset, 0)))
                if is_dropped:
                    number = (clip * num_heads + head) * num_blocks + start // QUERIES
                    words = words_of_queries(number, num_keys, masks)
                    mean = share_out_and_drop(*pairs, inverse, words)
                    add_outer(of_values, kept_shares, of_messages)
                else:
                    mean = share_out(pairs[0], pairs[1], inverse)
                    add_outer(of_values, shares, of_messages)
                if of_maps.size > 0:
                    of_map = of_maps[clip, head % of_maps.shape[1]]
                    both = room_of_gradients, room_of_shares
                    mean = mean + add_maps(*both, row_of_key, of_map, start, count, square)
                through_softmax(pairs[1], pairs[0], mean)
                take(queries, own, places_of_queries, first, head_dim, root)
                add_outer(of_keys, of_shares, queries)
                add_up(of_queries_across, pairs[1], keys, head_dim)
                turn_back(of_queries, of_queries_across)
                for number in range(of_queries.shape[0]):
                    for i in range(QUERIES):
                        store(of_queries[number], i, load(of_queries[number], i) * root)
                give(of_queries, of_own, places_of_queries, first, head_dim)
            give(of_keys, of_other, places_of_keys, key, head_dim)
            give(of_values, of_other, places_of_keys, key + width, head_dim)
