"""The consistency term's kernel against the plain path, in value and gradient."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slrctl.core.cmcl import consistency_loss
from slrctl.core.model import fast
from slrctl.core.model.fast.divergence import kl_of_rows
from slrctl.core.model.fast.kernels.divergence import compare_rows

B, H, T = 4, 3, 21


@pytest.fixture
def presence(rng):
    """Some frames of every clip; no right hand in one, no left hand in another."""
    present = torch.rand(2, B, T, generator=rng) > 0.3
    present[0, 2] = False
    present[1, 3] = False
    return present[0], present[1]


def maps_of(rng, presence, spread):
    """Two maps as attention gives them: the larger the spread, the more weights near 0."""
    scores = spread * torch.randn(2, B, H, T, T, generator=rng)
    left, right = presence
    return [
        weights.softmax(-1) * keys[:, None, None, :]
        for weights, keys in zip(scores, (right, left), strict=True)
    ]


def value_and_gradients(maps, presence, temperature):
    maps = [weights.clone().requires_grad_() for weights in maps]
    loss = consistency_loss(*maps, *presence, temperature=temperature)
    return loss, *torch.autograd.grad(loss, maps)


@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 4.0])
def test_it_equals_the_plain_path(rng, presence, spread, temperature):
    maps = maps_of(rng, presence, spread)

    results = value_and_gradients(maps, presence, temperature)
    with fast.plain_path():
        expected = value_and_gradients([x.double() for x in maps], presence, temperature)

    # Where the maps agree the gradient is 0 but for rounding.
    for result, reference in zip(results, expected, strict=True):
        size = max(1.0, reference.abs().max().item())
        assert_close(result.double(), reference, atol=2e-6 * size, rtol=1e-4)


def test_a_frame_that_no_other_looks_back_to_is_compared_with_the_floor(rng, presence):
    maps = maps_of(rng, presence, 1.0)
    maps[1][0, :, :, presence[0][0].nonzero()[0]] = 0.0

    results = value_and_gradients(maps, presence, 0.1)  # the floor to the tenth power is 1e-90
    with fast.plain_path():
        expected = value_and_gradients([x.double() for x in maps], presence, 0.1)

    for result, reference in zip(results, expected, strict=True):
        size = max(1.0, reference.abs().max().item())
        assert_close(result.double(), reference, atol=2e-6 * size, rtol=1e-4)


def test_rounding_makes_no_divergence_negative(rng):
    everywhere = torch.ones(200, T, dtype=torch.bool)
    shares = torch.rand(200, 1, 1, T, generator=rng)
    maps = (shares / shares.sum(-1, keepdim=True)).expand(-1, H, T, -1)
    with torch.no_grad():
        rows = kl_of_rows(maps, 3 * maps.mT, everywhere, 1e-9, 1.0)

    assert rows.min() >= 0.0
    assert rows.max() < 1e-6


def test_without_gradients_the_value_is_the_same_to_the_bit(rng, presence, monkeypatch):
    monkeypatch.setattr(fast, "FEW_FRAMES", 0)
    maps = maps_of(rng, presence, 2.0)

    with_gradients, *_ = value_and_gradients(maps, presence, 1.0)
    with torch.no_grad():
        without = consistency_loss(*maps, *presence)

    assert torch.equal(without, with_gradients.detach())


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_makes_the_term_none(rng, presence, number, temperature, value):
    maps = maps_of(rng, presence, 1.0)
    row, column = (int(part[0].nonzero()[0]) for part in presence)
    place = (row, column) if number == 0 else (column, row)
    maps[number][0, 1, *place] = value

    assert consistency_loss(*maps, *presence, temperature=temperature).isfinite().logical_not()


def test_the_gradient_for_all_heads_takes_the_memory_of_one(rng, presence):
    _, *gradients = value_and_gradients(maps_of(rng, presence, 1.0), presence, 1.0)

    assert [gradient.stride(1) for gradient in gradients] == [0, 0]


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_what_stands_off_the_support_counts_for_nothing(rng, presence, temperature):
    maps = maps_of(rng, presence, 1.0)
    left, right = presence
    expected = value_and_gradients(maps, presence, temperature)
    maps = [
        torch.where(keys[:, None, None, :], weights, 1e20)
        for weights, keys in zip(maps, (right, left), strict=True)
    ]

    value, *gradients = value_and_gradients(maps, presence, temperature)

    assert_close(value, expected[0])
    assert_close(gradients[0], expected[1])
    # What the other map says to frames of the left hand that are not there reaches no row.
    assert_close(gradients[1], expected[2])


def test_everything_that_is_to_be_written_is_written():
    maps = np.full((2, 2, 1, 5, 5), 0.2, np.float32)
    is_there = np.array([[False] * 5, [True] * 5])
    written = (np.full(shape, np.nan, np.float32) for shape in ((2, 5), (2, 5, 5), (2, 5, 5)))
    written = tuple(written)

    compare_rows(*maps, is_there, 1e-9, 1.0, *written)

    for numbers in written:
        assert_close(torch.from_numpy(numbers), torch.zeros(numbers.shape), atol=1e-5, rtol=0)
