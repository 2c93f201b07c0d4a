"""Products by either library against float64."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model.fast import products
from slrctl.core.model.fast.products import linear, linear_back, product

# The first is torch's own library's, the second oneDNN's.
SIZES = [(24, 42, 126), (360, 42, 126)]


def ways_to_lie(matrix):
    """The same numbers as they may lie in memory: in rows, in columns, and apart."""
    apart = torch.empty(matrix.shape[0], 3 * matrix.shape[1])
    apart[:, : matrix.shape[1]] = matrix
    return matrix, matrix.t().contiguous().t(), apart[:, : matrix.shape[1]]


@pytest.mark.parametrize(("num_rows", "width", "num_columns"), SIZES)
def test_however_they_lie_in_memory_the_result_is_that_of_float64(
    rng, num_rows, width, num_columns
):
    left, right = (torch.randn(n, width, generator=rng) for n in (num_rows, num_columns))
    bias, gradient = torch.randn(num_columns, generator=rng), left @ right.t()
    exact = [x.double() for x in (left, right, bias, gradient)]
    of_rows, of_weight = exact[3] @ exact[1], exact[3].t() @ exact[0]

    for own in ways_to_lie(left):
        for other in ways_to_lie(right):
            assert_close(
                product(own, other).double(), exact[0] @ exact[1].t(), atol=1e-5, rtol=1e-5
            )
            assert torch.equal(product(own, other, torch.empty_like(gradient)), product(own, other))
            mapped = linear(own, other, bias)
            assert_close(mapped.double(), exact[0] @ exact[1].t() + exact[2], atol=1e-5, rtol=1e-5)
            for its in ways_to_lie(gradient):
                results = linear_back(its, own, other)
                for result, reference in zip(
                    results, (of_rows, of_weight, exact[3].sum(0)), strict=True
                ):
                    largest = reference.abs().max().item()
                    assert_close(result.double(), reference, atol=2e-6 * largest, rtol=1e-5)


def test_both_libraries_are_used():
    taken = [
        products._is_onednns(torch.zeros(num_rows, width), num_columns)
        for num_rows, width, num_columns in SIZES
    ]

    assert taken == [False, torch.backends.mkldnn.is_available()]
