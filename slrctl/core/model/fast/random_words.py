"""Dropout masks at a twentieth of a nanosecond an element, from a table of random words.

A mask needs 16 random bits an element and a training step has 10^8 of them, so a generator that
computes each number takes a tenth of the step. Here a block of words is the sum of two stretches
of a fixed table of 2^20 random words, one of them multiplied by an odd number:

    word[i] = table[a + i] + m * table[b + i]   (modulo 2^32)

The places a and b and the multiplier m of every block are drawn from torch's generator, which
`scoped_seed` sets for each step: 70 bits a block. Words of one block are sums of different random
words; those of two blocks are pairwise independent, because a multiplication by an odd number is
a bijection.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int32
from torch import Tensor

LEVELS = 2**16  # a rate is rounded to a multiple of 1/LEVELS
# Of a block: it stays in the cache, and fits behind any place. A word decides two elements.
MOST_WORDS = 2**18
_NUM_PLACES = 2**20


class WordKey(NamedTuple):
    """What a block of words follows from."""

    place: int
    other_place: int
    multiplier: int


def draw_keys(count: int) -> list[WordKey]:
    """Draw the keys of some blocks from torch's global generator: see `scoped_seed`."""
    draws = torch.randint(0, 2**30, (count, 3)).tolist()
    return [WordKey(a % _NUM_PLACES, b % _NUM_PLACES, 2 * m + 1) for a, b, m in draws]


def row_blocks(num_rows: int, width: int) -> list[slice]:
    """Cut rows into blocks that a mask can cover, all of nearly one size.

    Raises:
        ValueError: a single row is wider than a mask.
    """
    most = MOST_WORDS // -(-width // 2)
    if not most:
        raise ValueError(f"{width} elements a row; dropout takes at most {2 * MOST_WORDS}")
    num_blocks = -(-num_rows // most)
    size = -(-num_rows // max(1, num_blocks))
    return [slice(i, min(i + size, num_rows)) for i in range(0, num_rows, max(1, size))]


def mask_blocks(
    num_rows: int, width: int, rate: float, dtype: torch.dtype
) -> Iterator[tuple[slice, Int[Tensor, "rows width"]]]:
    """Draw a mask for each block of rows."""
    blocks = row_blocks(num_rows, width)
    for block, key in zip(blocks, draw_keys(len(blocks)), strict=True):
        yield block, keep_mask(block.stop - block.start, width, rate, key, dtype)


def keep_mask(
    rows: int, width: int, rate: float, key: WordKey, dtype: torch.dtype
) -> Int[Tensor, "rows width"]:
    """Say which elements stay: 1 with probability 1 - rate, else 0; integers of the dtype's size.

    Each word decides two elements: neighbours in half precision, else those half a row apart.
    """
    half = -(-width // 2)
    if dtype.itemsize == 2:
        levels = torch.empty(rows, 2 * half, dtype=torch.int16)
        _write_words(levels.view(torch.int32), key)
        return levels.ge_(_lowest_kept(rate))[:, :width]
    levels = torch.empty(rows, 2 * half, dtype=torch.int32)
    high, low = levels[:, :half], levels[:, half:]
    _write_words(high, key)
    torch.bitwise_left_shift(high, 16, out=low)
    mask = levels.ge_(_lowest_kept(rate) * LEVELS)[:, :width]
    return mask if dtype.itemsize == 4 else mask.long()


def keep_scale(rate: float) -> float:
    """What makes up for the dropped share, exactly."""
    return LEVELS / (LEVELS - _threshold(rate))


def _threshold(rate: float) -> int:
    return round(rate * LEVELS)


def _lowest_kept(rate: float) -> int:
    return _threshold(rate) - LEVELS // 2


def _write_words(words: Int32[Tensor, "rows half"], key: WordKey) -> None:
    table, count = _table(), words.numel()
    first = table[key.place : key.place + count].view(words.shape)
    second = table[key.other_place : key.other_place + count].view(words.shape)
    torch.add(first, second, alpha=key.multiplier, out=words)


@cache
def _table() -> Int32[Tensor, " words"]:
    """The same in every run; what differs is where in it a block begins."""
    words = np.random.SFC64(0).random_raw((_NUM_PLACES + MOST_WORDS) // 2)
    return torch.from_numpy(words.astype("<u8", copy=False).view("<i4"))
