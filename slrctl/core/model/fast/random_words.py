"""Dropout masks at a twentieth of a nanosecond an element, from a table of random words.

A mask needs 16 random bits an element and a training step has 10^8 of them, so a generator that
computes each number takes a tenth of the step. Here a block of words is the sum of two stretches
of a fixed table of 2^20 random words, one of them multiplied by an odd number:

    word[i] = table[a + i] + m * table[b + i]   (modulo 2^32)

The places a and b and the multiplier m of every block are drawn from the generator that
`scoped_seed` sets for each step: 70 bits a block. Words of one block are sums of different random
words; those of two blocks are pairwise independent, because a multiplication by an odd number is
a bijection.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from slrctl.core.seeding import scoped_generator

LEVELS = 2**16  # a rate is rounded to a multiple of 1/LEVELS
# Of a block: it stays in the cache, and its words, each for two elements, fit behind any place.
MOST_ELEMENTS = 2**19
_NUM_PLACES = 2**20
_CPU = torch.device("cpu")


class WordKey(NamedTuple):
    """What a block of words follows from."""

    place: int
    other_place: int
    multiplier: int


def draw_keys(count: int) -> list[WordKey]:
    """Draw the keys of some blocks from the generator of `scoped_seed`."""
    draws = torch.randint(0, 2**30, (count, 3), generator=scoped_generator(_CPU)).tolist()
    return [WordKey(a % _NUM_PLACES, b % _NUM_PLACES, 2 * m + 1) for a, b, m in draws]


def row_blocks(num_rows: int, width: int, most: int = MOST_ELEMENTS) -> list[slice]:
    """Cut rows into blocks of nearly one size, of no more than so many elements.

    Raises:
        ValueError: a single row is wider than a mask.
    """
    if width > MOST_ELEMENTS:
        raise ValueError(f"{width} elements a row; a dropout mask has at most {MOST_ELEMENTS}")
    num_blocks = -(-num_rows // max(1, most // width))
    size = -(-num_rows // max(1, num_blocks))
    return [slice(i, min(i + size, num_rows)) for i in range(0, num_rows, max(1, size))]


def mask_blocks(
    num_rows: int, width: int, rate: float, dtype: torch.dtype, most: int = MOST_ELEMENTS
) -> Iterator[tuple[slice, Int[Tensor, "rows width"]]]:
    """Draw a mask for each block of rows; it lasts until the next is drawn."""
    blocks = row_blocks(num_rows, width, most)
    buffer = mask_buffer(blocks[0].stop * width, dtype)
    for block, key in zip(blocks, draw_keys(len(blocks)), strict=True):
        yield block, keep_mask((block.stop - block.start, width), rate, key, buffer)


def mask_buffer(count: int, dtype: torch.dtype) -> Int[Tensor, " buffer"]:
    """Room for masks of so many elements of a type of numbers."""
    return torch.empty(count + count % 2, dtype=torch.int16 if dtype.itemsize == 2 else torch.int32)


def keep_mask(
    shape: Sequence[int], rate: float, key: WordKey, buffer: Int[Tensor, " buffer"]
) -> Int[Tensor, "*shape"]:
    """Say which elements stay: 1 with probability 1 - rate, else 0, written into the buffer.

    Each word decides two elements: neighbours in half precision, else those half a block apart.
    """
    count = math.prod(shape)
    levels = buffer[: count + count % 2]
    lowest_kept = _threshold(rate) - LEVELS // 2
    if levels.dtype == torch.int16:
        _write_words(levels.view(torch.int32), key)
    else:
        high, low = levels.chunk(2)
        _write_words(high, key)
        torch.bitwise_left_shift(high, 16, out=low)
        lowest_kept *= LEVELS
    return levels.ge_(lowest_kept)[:count].view(*shape)


def mask_(values: Float[Tensor, "*shape"], keep: Int[Tensor, "*shape"]) -> None:
    """Zero in place what is not kept; a product of bits is the cheapest way."""
    if values.dtype.itemsize == keep.dtype.itemsize:
        values.view(keep.dtype).mul_(keep)
    else:
        values.mul_(keep)


def keep_scale(rate: float) -> float:
    """What makes up for the dropped share, exactly."""
    return LEVELS / (LEVELS - _threshold(rate))


def _threshold(rate: float) -> int:
    return round(rate * LEVELS)


def _write_words(words: Int32[Tensor, " count"], key: WordKey) -> None:
    table, count = _table(), len(words)
    first = table[key.place : key.place + count]
    second = table[key.other_place : key.other_place + count]
    torch.add(first, second, alpha=key.multiplier, out=words)


@cache
def _table() -> Int32[Tensor, " words"]:
    """The same in every run; what differs is where in it a block begins."""
    words = np.random.SFC64(0).random_raw((_NUM_PLACES + MOST_ELEMENTS // 2) // 2)
    return torch.from_numpy(words.astype("<u8", copy=False).view("<i4"))
