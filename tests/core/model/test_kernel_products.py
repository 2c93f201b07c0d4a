"""Vectors that a kernel holds in registers, and the products made of them, against plain ones."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from slrctl.core.model.fast.kernels import products, vector_memory
from slrctl.core.model.fast.kernels.powers import powers_of_2
from slrctl.core.model.fast.kernels.products import KEYS, padded, parted, scratch
from slrctl.core.model.fast.kernels.vector_type import LANES

HERE = Path(__file__).parent


@pytest.fixture
def draws():
    return np.random.default_rng(0)


def normal(draws, *shape):
    return draws.standard_normal(shape).astype(np.float32)


def in_parts(rows, num_rows):
    """Rows in parts of 16 columns, worked out with numpy alone."""
    parts = np.zeros((-(-rows.shape[1] // LANES), num_rows, LANES), np.float32)
    for row, numbers in enumerate(rows):
        for column, number in enumerate(numbers):
            parts[column // LANES, row, column % LANES] = number
    return parts


def across(parts):
    """Each 16 rows side by side, the parts below one another."""
    blocks = parts.reshape(len(parts), -1, LANES, LANES).transpose(1, 0, 3, 2)
    return np.ascontiguousarray(blocks).reshape(-1, LANES)


@numba.njit
def take(parts, rows, places, column, width):
    products.take(parts, rows, places, column, width, np.float32(2))


@numba.njit
def give(parts, rows, places, column, width):
    products.give(parts, rows, places, column, width)


@numba.njit
def turn(across, parts):
    products.turn(across, parts)


@numba.njit
def turn_back(parts, across):
    products.turn_back(parts, across)


@numba.njit
def multiply(result, queries, keys, width):
    products.multiply(result, queries, keys, width)


@numba.njit
def add_up(sums, weights, rows, width):
    products.add_up(sums, weights, rows, width)


@numba.njit
def add_outer(totals, weights, rows):
    products.add_outer(totals, weights, rows)


@numba.njit
def raise_2(results, exponents):
    vector_memory.store(results, 0, powers_of_2(vector_memory.load(exponents, 0)))


@numba.njit
def some_scratch(num_rows, width):
    return scratch(num_rows), parted(num_rows, width)


@pytest.mark.parametrize("width", [1, 8, 16, 17, 40])
def test_some_rows_are_read_from_the_middle_of_an_array_and_written_back_alone(draws, width):
    rows = normal(draws, 9, 60)
    parts = np.full((-(-width // LANES), 8, LANES), np.nan, np.float32)
    read, given = np.array([1, 2, 4, 5, 8]), np.array([0, 3, 4, 7, 8])

    take(parts, rows, read, 7, width)
    written = np.full_like(rows, -1)
    give(parts, written, given, 11, width)

    assert np.array_equal(parts, in_parts(2 * rows[read, 7 : 7 + width], 8))
    expected = np.full_like(rows, -1)
    expected[given, 11 : 11 + width] = 2 * rows[read, 7 : 7 + width]
    assert np.array_equal(written, expected)


def test_the_last_numbers_of_an_array_are_read_and_nothing_beyond(draws):
    rows = normal(draws, 2, 10)[:1]  # what follows must not be taken for a part of it
    parts = np.full((1, 1, LANES), np.nan, np.float32)

    take(parts, rows, np.arange(1), 4, 6)

    assert np.array_equal(parts, in_parts(2 * rows[:, 4:], 1))


@pytest.mark.parametrize("num_parts", [1, 3])
def test_rows_are_turned_across_and_back(draws, num_parts):
    parts = normal(draws, num_parts, 2 * LANES, LANES)
    turned = np.empty((2 * num_parts * LANES, LANES), np.float32)
    back = np.empty((num_parts, LANES, LANES), np.float32)

    turn(turned, parts)
    turn_back(back, turned[num_parts * LANES :])

    assert np.array_equal(turned, across(parts))
    assert np.array_equal(back, parts[:, LANES:])


@pytest.mark.parametrize("width", [1, 7, 8, 14, 15, 16, 30, 33])
@pytest.mark.parametrize("num_keys", [1, 16, 21, 50])
def test_products_of_queries_and_keys_of_any_width_are_those_of_numpy(draws, width, num_keys):
    num_rows = padded(num_keys, KEYS)
    queries, keys = normal(draws, LANES, width), normal(draws, num_keys, width)
    weights = np.zeros((num_rows, LANES), np.float32)
    weights[:num_keys] = normal(draws, num_keys, LANES)
    row_parts, query_parts = in_parts(keys, padded(num_keys, LANES)), in_parts(queries, LANES)
    scores = np.empty((num_rows, LANES), np.float32)
    sums = np.empty((len(row_parts) * LANES, LANES), np.float32)
    totals = np.ones_like(row_parts)

    multiply(scores, across(query_parts), across(row_parts), width)
    add_up(sums, weights, row_parts, width)
    add_outer(totals, weights, query_parts)

    expected = 1 + in_parts(weights[:num_keys] @ queries, row_parts.shape[1])
    for result, reference in (
        (scores[:num_keys], keys @ queries.T),
        (sums[:width], keys.T @ weights[:num_keys]),
        (totals[:, :num_keys], expected[:, :num_keys]),
    ):
        assert np.allclose(result, reference, rtol=1e-5, atol=1e-5)
    assert not scores[num_keys:].any()


def test_powers_of_two_are_as_accurate_as_they_say_and_0_below_full_precision(draws):
    exponents = np.concatenate([draws.uniform(-126, 126, 10_000), np.arange(-126, 127)])
    exponents = np.resize(exponents, padded(len(exponents), LANES)).astype(np.float32)
    results = np.empty_like(exponents)
    for first in range(0, len(exponents), LANES):
        lanes = slice(first, first + LANES)
        raise_2(results[None, lanes], exponents[None, lanes])

    exact = 2.0 ** exponents.astype(np.float64)
    assert np.abs(results / exact - 1).max() < 2.1e-7

    special = np.array([[-126.01, -1e30, -np.inf, np.nan, 0.0, *[1.0] * 11]], np.float32)
    raise_2(special, special)
    assert np.array_equal(special[0, :5], [0, 0, 0, np.nan, 1], equal_nan=True)


@pytest.mark.parametrize(("num_rows", "width"), [(1, 1), (3, 16), (17, 33)])
def test_scratch_is_zero_and_begins_with_a_line_of_the_cache(num_rows, width):
    rows, parts = some_scratch(num_rows, width)

    assert rows.shape == (num_rows, LANES)
    assert parts.shape == (-(-width // LANES), num_rows, LANES)
    assert not rows.any()
    assert not parts.any()
    assert rows.ctypes.data % 64 == parts.ctypes.data % 64 == 0


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names registers of x86 processors")
def test_a_processor_with_narrower_registers_passes_the_tests_of_attention(tmp_path):
    narrow = {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    asked = "from slrctl.core.model.fast.kernels.products import KEYS; print(KEYS)"
    tests = [str(HERE / f"test_{name}.py") for name in ("kernel_products", "fast_attention")]

    def run(*command):
        return subprocess.run(
            [sys.executable, *command],
            env=os.environ | narrow,
            cwd=HERE.parents[2],
            capture_output=True,
            text=True,
            check=False,
        )

    tested = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests)

    assert run("-c", asked).stdout.strip() == "4"
    assert tested.returncode == 0, tested.stdout
