"""Dropout masks from a table of random words: their rate and their independence."""

import numba
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model.fast.kernels.masks import drop_keys, drop_row, words_of_queries
from slrctl.core.model.fast.random_words import (
    MOST_WORDS,
    NUM_PLACES,
    Masks,
    draw_masks,
    draw_masks_of_weights,
    keep_mask,
    keep_mask_of_weights,
    keep_scale,
    rows_of_block,
    weights_fit,
)

WIDTH = 2048
BLOCK = rows_of_block(WIDTH) * WIDTH  # elements that share a key


def dropped(rate: float, seed: int = 1, count: int = 1, width: int = WIDTH):
    """The zeros of some masks of eight blocks each, one after the other."""
    torch.manual_seed(seed)
    rows = 8 * rows_of_block(width)
    keep = keep_mask(draw_masks(count * rows, width, rate), count * rows, width)
    return 1 - keep.view(count, rows, width).double()


def deviation(share: float, count: int) -> float:
    return (share * (1 - share) / count) ** 0.5


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_share_of_zeros_is_the_rate(rate):
    zeros = dropped(rate, count=4)

    assert abs(zeros.mean().item() - rate) < 4 * deviation(rate, zeros.numel()) + 2**-17


def test_every_column_has_the_rate():
    zeros = dropped(0.1, count=32).flatten(0, 1)

    # 2,048 columns: the furthest of so many lies within five deviations.
    furthest = (zeros.mean(0) - 0.1).abs().max().item()
    assert furthest < 5 * deviation(0.1, len(zeros))


@pytest.mark.parametrize("distance", [1, 2, 3, WIDTH, BLOCK // 2, BLOCK // 2 + 1, BLOCK, 4 * BLOCK])
def test_elements_of_a_mask_are_dropped_independently(distance):
    zeros = dropped(0.3).flatten()

    both = (zeros[distance:] * zeros[:-distance]).mean().item()

    assert abs(both - 0.09) < 4 * deviation(0.09, len(zeros) - distance) + 2**-16


def test_masks_of_one_step_are_independent_in_pairs_and_in_threes():
    zeros = dropped(0.3, count=12).flatten(1)
    count = zeros.shape[1]

    pairs = (zeros @ zeros.T / count).fill_diagonal_(0.09)
    threes = torch.stack(
        [(zeros[i] * zeros[i + 1] * zeros[i + 2]).mean() for i in range(len(zeros) - 2)]
    )

    assert (pairs - 0.09).abs().max().item() < 4.5 * deviation(0.09, count)
    assert (threes - 0.027).abs().max().item() < 4.5 * deviation(0.027, count)


def test_patterns_of_eight_neighbours_are_as_frequent_as_they_should_be():
    zeros = dropped(0.5, count=4).long().view(-1, 8)

    patterns = (zeros * 2 ** torch.arange(8)).sum(1)
    expected = len(patterns) / 256
    chi_square = ((patterns.bincount(minlength=256) - expected) ** 2 / expected).sum().item()

    assert 255 - 4 * 22.6 < chi_square < 255 + 4 * 22.6  # its deviation is sqrt(2 x 255)


def test_steps_of_a_training_share_no_mask():
    zeros = torch.cat([dropped(0.3, seed=seed).flatten(1) for seed in range(12)])

    overlap = (zeros @ zeros.T / zeros.shape[1]).fill_diagonal_(0.09)

    assert (overlap - 0.09).abs().max().item() < 4.5 * deviation(0.09, zeros.shape[1])


def test_a_seed_repeats_its_masks():
    assert torch.equal(dropped(0.1, seed=5), dropped(0.1, seed=5))


def test_drawing_a_mask_leaves_other_generators_alone():
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    dropped(0.1)

    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("width", [1, 7, 33])
def test_odd_widths_have_the_rate_too(width):
    zeros = dropped(0.25, count=64, width=width)

    assert zeros.shape[-1] == width
    assert abs(zeros.mean().item() - 0.25) < 4 * deviation(0.25, zeros.numel())


def test_the_scale_makes_up_for_the_dropped_share():
    assert_close(keep_scale(0.25), 4 / 3)


@pytest.mark.parametrize("width", [1, 7, 205, 2048, MOST_WORDS])
def test_the_words_of_a_block_fit_behind_any_place_of_the_table(width):
    masks = draw_masks(1, width, 0.1)

    assert masks.rows_of_block % 2 == 0
    assert NUM_PLACES + masks.rows_of_block // 2 * width <= len(masks.table)


def test_places_are_all_of_the_table_and_its_blocks_fit_into_a_cache_with_it():
    torch.manual_seed(1)
    masks = draw_masks(100_000, WIDTH, 0.1)

    places = masks.keys[:, :2] % NUM_PLACES
    assert places.min() < 0.01 * 2**16
    assert places.max() >= 0.99 * 2**16
    assert 4 * (places.max() + BLOCK // 2) < 2**19  # bytes, of a second cache that has 2^19 or more


def test_a_row_wider_than_a_mask_is_refused():
    with pytest.raises(ValueError, match="131073 elements a row"):
        draw_masks(1, MOST_WORDS + 1, 0.1)


def test_a_word_worked_by_hand_decides_an_element_and_the_one_below_it():
    table = np.array([7, 2**31 - 5, 40_000, 2], np.int32)
    # Places 0 and 2 of 2^16, multiplier 3; a rate of 1/2 keeps what is not negative.
    masks = Masks(table, np.array([[0, 3 * 2**16 + 2, 1]]), 2, 0, 2.0)

    # 7 + 3 * 40,000 = 1 * 65,536 + 54,471: as 16 bits with a sign 1 above and -11,065 below.
    # 2^31 - 5 + 3 * 2 = 2^31 + 1 is -2^31 + 1 in 32 bits: -32,768 above and 1 below.
    keep = keep_mask(masks, 2, 2)

    assert keep.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("width", [1, 6, 205])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int16])
def test_kernels_drop_what_the_plain_mask_says(width, dtype):
    num_rows = 3 * rows_of_block(width) // 2 + 1 if width > 100 else 501
    masks = draw_masks(num_rows, width, 0.3)
    values = np.ones((num_rows, width), dtype)

    for row in range(num_rows):
        drop_row(values, row, width, row, tuple(masks))

    assert np.array_equal(values != 0, keep_mask(masks, num_rows, width).numpy())


def kept_weights(num_heads: int, num_queries: int, num_keys: int, rate: float) -> torch.Tensor:
    size = num_heads, num_queries, num_keys
    return keep_mask_of_weights(draw_masks_of_weights(*size, rate), *size)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (5, 7), (16, 2), (33, 205)])
def test_weights_of_attention_are_dropped_at_the_rate_by_query_and_by_key(num_queries, num_keys):
    torch.manual_seed(1)
    zeros = 1 - kept_weights(4_000, num_queries, num_keys, 0.3).double()

    assert zeros.shape == (4_000, num_queries, num_keys)
    for axes, count in (((0, 1), 4_000 * num_queries), ((0, 2), 4_000 * num_keys)):
        # The furthest of some hundred lies within five deviations.
        furthest = (zeros.mean(axes) - 0.3).abs().max().item()
        assert furthest < 5 * deviation(0.3, count) + 2**-16


@pytest.mark.parametrize("shift", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, -1), (0, 0, 2)])
def test_neighbouring_weights_of_attention_are_dropped_independently(shift):
    torch.manual_seed(1)
    zeros = 1 - kept_weights(500, 40, 51, 0.3).double()

    both = (zeros * zeros.roll(shift, (0, 1, 2))).mean().item()

    assert abs(both - 0.09) < 4 * deviation(0.09, zeros.numel()) + 2**-16


@numba.njit
def drop(weights, number, num_keys, masks):
    drop_keys(weights, words_of_queries(number, num_keys, masks))


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (5, 8), (33, 205), (20, 3_001)])
def test_kernels_drop_the_weights_that_the_plain_mask_says(num_queries, num_keys):
    torch.manual_seed(1)
    size = 3, num_queries, num_keys
    masks = draw_masks_of_weights(*size, 0.3)
    keep = keep_mask_of_weights(masks, *size).numpy()
    num_blocks = -(-num_queries // 16)
    assert num_keys < 3_000 or len(masks.keys) > 1  # more than one block of words

    for head in range(3):
        for block in range(num_blocks):
            weights = np.ones((num_keys + num_keys % 2, 16), np.float32)
            drop(weights, head * num_blocks + block, num_keys, tuple(masks))
            expected = keep[head, 16 * block : 16 * block + 16]
            assert np.array_equal(weights[:num_keys, : len(expected)].T != 0, expected)


def test_so_many_keys_have_masks_and_no_more():
    assert weights_fit(2 * MOST_WORDS // 16)
    assert not weights_fit(2 * MOST_WORDS // 16 + 1)
    assert not weights_fit(0)
