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

    lag = read_lag(there, back)

    assert lag is not None
    assert lag.frames == shift
    assert_allclose(lag.strength, T)


def test_a_lag_is_read_through_uniform_attention_and_missing_frames():
    keys = np.ones(T, bool)
    keys[4] = False
    there = 0.9 / keys.sum() * keys + 0.1 * shifted(T, 2) * keys
    back = 0.9 / T + 0.1 * shifted(T, -2)

    lag = read_lag(
        directed("left_to_right", there, keys=keys), directed("right_to_left", back, rows=keys)
    )

    assert lag is not None
    assert lag.frames == 2


def test_a_corner_with_a_single_cell_is_no_lag():
    corner = np.full((T, T), 1 / T)
    corner[0, T - 1] = 100.0

    lag = read_lag(directed("left_to_right", corner), directed("right_to_left", corner.T))

    assert lag is not None
    assert lag.frames != T - 1


def test_uniform_attention_has_no_preferred_lag():
    uniform = np.full((T, T), 1 / T)

    lag = read_lag(directed("left_to_right", uniform), directed("right_to_left", uniform))

    assert lag is not None
    assert_allclose(lag.strength, 1.0, rtol=1e-6)


def test_hands_that_never_meet_have_no_lag():
    left = np.arange(T) < 2
    maps = np.zeros((T, T))

    assert (
        read_lag(
            directed("left_to_right", maps, left, ~left),
            directed("right_to_left", maps, ~left, left),
        )
        is None
    )


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


def test_uniform_attention_has_entropy_1_and_a_single_frame_0():
    uniform = directed("left_to_right", np.full((T, T), 1 / T))
    single = directed("left_to_right", shifted(T, 0))

    assert_allclose(relative_entropy(uniform), [1.0], rtol=1e-6)
    assert_allclose(relative_entropy(single), [0.0], atol=1e-9)


def test_entropy_without_two_keys_is_not_a_number():
    keys = np.arange(T) == 3
    found = directed("left_to_right", np.tile(keys, (T, 1)), keys=keys)

    assert np.isnan(relative_entropy(found)).all()


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


def test_equal_heads_are_redundant_and_disjoint_ones_are_not():
    one, other = shifted(T, 0), np.roll(np.eye(T), 3, axis=1)

    assert redundancy(directed("left_to_right", [one, one])) == 1.0
    assert_allclose(redundancy(directed("left_to_right", [one, other])), 0.0, atol=1e-12)
    # Two of three pairs are disjoint.
    assert_allclose(redundancy(directed("left_to_right", [one, one, other])), 1 / 3)


def test_a_single_head_is_redundant_with_nothing():
    assert math.isnan(redundancy(directed("left_to_right", shifted(T, 0))))
