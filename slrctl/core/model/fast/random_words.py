"""Dropout masks at a tenth of a nanosecond an element, from a table of random words.

A mask needs 16 random bits an element and a training step has 10^8 of them, so a generator that
computes each number takes a tenth of the step. Here a block of words is the sum of two stretches
of a fixed table of random words, one of them multiplied by an odd number:

    word[i] = table[a + i] + m * table[b + i]   (modulo 2^32)

The places a and b, 2^16 each, and the multiplier m of every block are drawn from the generator
that `scoped_seed` sets for each step: 62 bits a block. Words of one block are sums of different
random words. Those of two blocks are pairwise independent, because a multiplication by an odd
number is a bijection, unless both are made of the same two words of the table, which can only be
where their places lie equally far apart, in one of 2^15 pairs of blocks. A word decides two
elements, one below the other: its low half in an even row of the block, its high half in the odd
row that follows.

The table and its blocks are small, so that a core finds them in a cache of its own: a step reads
some 10^8 of their words.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int32, Int64
from torch import Tensor

from slrctl.core.seeding import scoped_generator

LEVELS = 2**16  # a rate is rounded to a multiple of 1/LEVELS
NUM_PLACES = 2**16  # where a block can begin in the table
_WORDS_OF_BLOCK = 2**14  # at most, unless a single row has more
MOST_WORDS = 2**17  # of a row: they fit behind any place of the table
QUERIES = 16  # of attention, whose masks lie together
_CPU = torch.device("cpu")


class Masks(NamedTuple):
    """What the masks of rows follow from, a key for every block of rows.

    A key is three numbers of 30 bits: the two places are remainders of `NUM_PLACES`, the
    multiplier is the odd number after twice the third. An element stays where its 16 bits, in the
    upper half of a word, are not below `lowest_kept`; `scale` makes up for the dropped share,
    exactly.
    """

    table: Int32[np.ndarray, " words"]
    keys: Int64[np.ndarray, "blocks 3"]
    rows_of_block: int
    lowest_kept: int
    scale: float


def rows_of_block(width: int) -> int:
    """How many rows of so many elements share a key: an even number.

    Raises:
        ValueError: a row is wider than a mask can be.
    """
    if not fits(width):
        raise ValueError(f"{width} elements a row; a dropout mask has at most {MOST_WORDS}")
    return 2 * max(1, _WORDS_OF_BLOCK // width)


def fits(width: int) -> bool:
    """Whether a row of so many elements has a mask."""
    return width <= MOST_WORDS


def draw_masks(num_rows: int, width: int, rate: float) -> Masks:
    """Draw the masks of some rows from the generator of `scoped_seed`; none at a rate of 0."""
    if rate == 0:
        return _no_masks()
    rows = rows_of_block(width)
    shape = (-(-num_rows // rows), 3)
    keys = torch.randint(0, 2**30, shape, generator=scoped_generator(_CPU)).numpy()
    lowest_kept = (_threshold(rate) - LEVELS // 2) * LEVELS
    return Masks(_table(), keys, rows, lowest_kept, keep_scale(rate))


def draw_masks_of_weights(num_heads: int, num_queries: int, num_keys: int, rate: float) -> Masks:
    """Draw those of attention, for each head of each clip.

    Each 16 queries have two rows, with 16 elements for every key: one for the keys with even
    numbers and one for those with odd ones, where the keys that are attended to are counted.
    """
    num_rows = 2 * num_heads * -(-num_queries // QUERIES)
    return draw_masks(num_rows, _width_of_weights(num_keys), rate)


def keep_mask_of_weights(
    masks: Masks, num_heads: int, num_queries: int, num_keys: int
) -> Bool[Tensor, "heads Q T"]:
    """Say which weights stay."""
    num_blocks, width = -(-num_queries // QUERIES), _width_of_weights(num_keys)
    keep = keep_mask(masks, 2 * num_heads * num_blocks, width)
    keep = keep.view(num_heads, num_blocks, 2, width // QUERIES, QUERIES).permute(0, 1, 4, 3, 2)
    return keep.flatten(3).flatten(1, 2)[:, :num_queries, :num_keys]


def weights_fit(num_keys: int) -> bool:
    """Whether the weights of so many keys have masks."""
    return num_keys > 0 and fits(_width_of_weights(num_keys))


def _width_of_weights(num_keys: int) -> int:
    return -(-num_keys // 2) * QUERIES


def keep_mask(masks: Masks, num_rows: int, width: int) -> Bool[Tensor, "num_rows width"]:
    """Say which elements stay: what kernels work out for themselves, a row at a time."""
    table = torch.from_numpy(masks.table)
    keys = torch.from_numpy(masks.keys)[:, :, None]
    words_of_block = torch.arange(masks.rows_of_block // 2 * width)
    first, second = (table[keys[:, column] % NUM_PLACES + words_of_block] for column in (0, 1))
    high = first + (2 * keys[:, 2] + 1).int() * second
    pairs = torch.stack([high << 16, high], dim=1).unflatten(-1, (-1, width)).transpose(1, 2)
    return pairs.flatten(0, 2)[:num_rows] >= masks.lowest_kept


def keep_scale(rate: float) -> float:
    """What makes up for the dropped share, exactly."""
    return LEVELS / (LEVELS - _threshold(rate))


def _threshold(rate: float) -> int:
    return round(rate * LEVELS)


@cache
def _no_masks() -> Masks:
    """What kernels are given where nothing is dropped."""
    return Masks(_table(), np.zeros((1, 3), np.int64), 2, -(2**31), 1.0)


@cache
def _table() -> Int32[np.ndarray, " words"]:
    """The same in every run; what differs is where in it a block begins."""
    words = np.random.SFC64(0).random_raw((NUM_PLACES + MOST_WORDS) // 2)
    return words.astype("<u8", copy=False).view("<i4")
