"""The numbers of a clip's maps against plain loops and values worked by hand."""

import math

import numpy as np
import pytest
from attention_maps import directed, shifted, softmax_rows
from numpy.testing import assert_allclose

from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import (
    compared_distributions,
    divergences,
    read_lag,
    redundancy,
    relative_entropy,
)

T = 12


@pytest.fixture
def random_maps():
    """Two heads each way, with frames missing in both hands."""
    generator = np.random.default_rng(0)
    left, right = np.ones(T, bool), np.ones(T, bool)
    left[:2] = False
    right[[3, 11]] = False
    there = softmax_rows(generator.normal(size=(2, T, T)), right)
    back = softmax_rows(generator.normal(size=(2, T, T)), left)
    return (
        directed("left_to_right", there, left, right),
        directed("right_to_left", back, right, left),
    )


@pytest.mark.parametrize("shift", [-5, -1, 0, 3])
def test_a_planted_lag_is_read_off(shift):
    there = directed("left_to_right", shifted(T, shift))
    back = directed("right_to_left", shifted(T, -shift))

    assert read_lag(there, back) == (shift, pytest.approx(T))


def test_a_lag_is_read_through_uniform_attention_and_missing_frames():
    keys = np.arange(T) != 4
    there = 0.9 / keys.sum() * keys + 0.1 * shifted(T, 2) * keys
    back = 0.9 / T + 0.1 * shifted(T, -2)

    lag = read_lag(
        directed("left_to_right", there, keys=keys), directed("right_to_left", back, rows=keys)
    )

    assert lag is not None
    assert lag.frames == 2


def test_a_corner_with_a_single_cell_is_no_lag_and_uniform_attention_prefers_none():
    corner = np.full((T, T), 1 / T)
    corner[0, T - 1] = 100.0

    lag = read_lag(directed("left_to_right", corner), directed("right_to_left", corner.T))

    assert lag == (0, pytest.approx(1.0))


def test_hands_that_never_meet_have_no_lag():
    left, nothing = np.arange(T) < 2, np.zeros((T, T))
    there = directed("left_to_right", nothing, left, ~left)

    assert read_lag(there, directed("right_to_left", nothing, ~left, left)) is None


def test_entropy_is_that_of_a_plain_loop(random_maps):
    there = random_maps[0]

    found = relative_entropy(there)

    for head in range(2):
        total = 0.0
        for row in range(2, T):
            for weight in there.weights[head, row].tolist():
                if weight > 0:
                    total -= weight * math.log(weight)
        assert_allclose(found[head], total / (T - 2) / math.log(T - 2), rtol=1e-6)


ONE_KEY = np.arange(T) == 3


@pytest.mark.parametrize(
    ("weights", "keys", "entropy"),
    [
        (np.full((T, T), 1 / T), None, 1.0),
        (shifted(T, 0), None, 0.0),
        (np.tile(ONE_KEY, (T, 1)), ONE_KEY, np.nan),
    ],
    ids=["uniform", "a single frame", "one key"],
)
def test_entropy_is_relative_to_uniform_attention(weights, keys, entropy):
    found = relative_entropy(directed("left_to_right", weights, keys=keys))

    assert_allclose(found, [entropy], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", ["kl", "symmetric", "js"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_is_that_of_the_distributions_shown(random_maps, form, temperature):
    there, back = random_maps
    settings = CMCLSettings(divergence=form, temperature=temperature)

    found = divergences(there, back, settings)

    expected = []
    for weights in ((there.mean, back.mean), *zip(there.weights, back.weights, strict=True)):
        p, q = compared_distributions(*weights, there.keys_count, temperature)
        total = 0.0
        for row in np.flatnonzero(there.rows_count):
            for column in np.flatnonzero(there.keys_count):
                a, b = p[row, column], q[row, column]
                middle = (a + b) / 2
                total += {
                    "kl": a * math.log(a / b),
                    "symmetric": (a * math.log(a / b) + b * math.log(b / a)) / 2,
                    "js": (a * math.log(a / middle) + b * math.log(b / middle)) / 2,
                }[form]
        expected.append(total / there.rows_count.sum())
    assert_allclose(found, expected, rtol=1e-5)


def test_the_compared_distributions_are_renormalised_powers_over_the_present_frames(random_maps):
    there, back = random_maps

    found = compared_distributions(there.mean, back.mean, there.keys_count, 2.0)

    present = there.rows_count
    for rows, weights in zip(found, (there.mean, back.mean.T), strict=True):
        roots = (np.sqrt(weights) * there.keys_count)[present]
        assert_allclose(rows[present], roots / roots.sum(1, keepdims=True), rtol=1e-6)


ONE, OTHER = shifted(T, 0), np.roll(np.eye(T), 3, axis=1)


@pytest.mark.parametrize(
    ("heads", "expected"),
    # Of three heads, two of the three pairs are disjoint.
    [([ONE, ONE], 1.0), ([ONE, OTHER], 0.0), ([ONE, ONE, OTHER], 1 / 3), ([ONE], np.nan)],
)
def test_equal_heads_are_redundant_and_disjoint_ones_are_not(heads, expected):
    assert_allclose(redundancy(directed("left_to_right", heads)), expected, atol=1e-12)
