"""Dropout masks from a table of random words: their rate and their independence."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model.fast.random_words import (
    MOST_ELEMENTS,
    draw_keys,
    keep_mask,
    keep_scale,
    mask_blocks,
    mask_buffer,
    row_blocks,
)

ROWS, WIDTH = 256, 2048
TYPES = [torch.float32, torch.bfloat16]


def dropped(rate: float, seed: int = 1, count: int = 1, dtype=torch.float32, width: int = WIDTH):
    """The zeros of some masks, one after the other."""
    torch.manual_seed(seed)
    buffer = mask_buffer(ROWS * width, dtype)
    masks = [keep_mask((ROWS, width), rate, key, buffer).clone() for key in draw_keys(count)]
    return 1 - torch.stack(masks).double()


def deviation(share: float, count: int) -> float:
    return (share * (1 - share) / count) ** 0.5


@pytest.mark.parametrize("dtype", [*TYPES, torch.float64])
@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_share_of_zeros_is_the_rate(rate, dtype):
    zeros = dropped(rate, count=4, dtype=dtype)

    assert abs(zeros.mean().item() - rate) < 4 * deviation(rate, zeros.numel()) + 2**-17


@pytest.mark.parametrize("dtype", TYPES)
def test_every_column_has_the_rate(dtype):
    zeros = dropped(0.1, count=16, dtype=dtype).flatten(0, 1)

    # 2,048 columns: the furthest of so many lies within five deviations.
    furthest = (zeros.mean(0) - 0.1).abs().max().item()
    assert furthest < 5 * deviation(0.1, len(zeros))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("distance", [1, 2, 3, WIDTH, ROWS * WIDTH // 2, ROWS * WIDTH // 2 + 1])
def test_elements_of_a_mask_are_dropped_independently(distance, dtype):
    zeros = dropped(0.3, dtype=dtype).flatten()

    both = (zeros[distance:] * zeros[:-distance]).mean().item()

    assert abs(both - 0.09) < 4 * deviation(0.09, len(zeros) - distance) + 2**-16


@pytest.mark.parametrize("dtype", TYPES)
def test_masks_of_one_step_are_independent_in_pairs_and_in_threes(dtype):
    zeros = dropped(0.3, count=12, dtype=dtype).flatten(1)
    count = zeros.shape[1]

    pairs = (zeros @ zeros.T / count).fill_diagonal_(0.09)
    threes = torch.stack(
        [(zeros[i] * zeros[i + 1] * zeros[i + 2]).mean() for i in range(len(zeros) - 2)]
    )

    assert (pairs - 0.09).abs().max().item() < 4.5 * deviation(0.09, count)
    assert (threes - 0.027).abs().max().item() < 4.5 * deviation(0.027, count)


def test_patterns_of_eight_neighbours_are_as_frequent_as_they_should_be():
    zeros = dropped(0.5, count=4, dtype=torch.bfloat16).long().view(-1, 8)

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
@pytest.mark.parametrize("dtype", TYPES)
def test_odd_widths_have_the_rate_too(width, dtype):
    zeros = dropped(0.25, count=64, dtype=dtype, width=width)

    assert zeros.shape[-1] == width
    assert abs(zeros.mean().item() - 0.25) < 4 * deviation(0.25, zeros.numel())


def test_the_scale_makes_up_for_the_dropped_share():
    assert_close(keep_scale(0.25), 4 / 3)


@pytest.mark.parametrize(("num_rows", "width"), [(720, 2048), (1, 1), (10**6, 1), (5000, 205)])
def test_blocks_cover_the_rows_once_and_fit_the_table(num_rows, width):
    blocks = row_blocks(num_rows, width)

    assert [i for block in blocks for i in range(num_rows)[block]] == list(range(num_rows))
    assert all((block.stop - block.start) * width <= MOST_ELEMENTS for block in blocks)


def test_a_row_wider_than_a_mask_is_refused():
    with pytest.raises(ValueError, match="at most 524288"):
        row_blocks(1, 2**19 + 1)


def test_a_block_of_many_has_a_mask_of_its_own():
    torch.manual_seed(1)
    masks = [mask.clone() for _, mask in mask_blocks(512, WIDTH, 0.5, torch.float32)]

    assert [len(mask) for mask in masks] == [256, 256]
    assert not torch.equal(*masks)
