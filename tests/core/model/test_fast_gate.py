"""The gated update of the fast path against the plain one."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model import fast
from slrctl.core.model.fusion import GatedUpdate

B, T = 3, 7


@pytest.fixture(params=[42, 24, 5])
def update(request, rng):
    update = GatedUpdate(request.param)
    for parameter in update.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=rng)
    return update


def outcome(update, streams, weights):
    """The result, and the gradients of the three streams and of every weight."""
    update.zero_grad()
    streams = [stream.clone().requires_grad_() for stream in streams]
    result = update(*streams)
    (result * weights).sum().backward()
    of_streams = [stream.grad for stream in streams]
    return [result.detach(), *of_streams, *(p.grad for p in update.parameters())]


def given(update, rng, size=1.0):
    streams = [size * torch.randn(B, T, len(update.gate.bias), generator=rng) for _ in range(3)]
    return streams, torch.randn(streams[0].shape, generator=rng)


# At 300 most gates are open or closed as far as float32 can tell.
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_it_equals_the_plain_path(update, rng, size):
    streams, weights = given(update, rng, size)

    results = outcome(update, streams, weights)
    with fast.plain_path():
        expected = outcome(update, streams, weights)

    for result, reference in zip(results, expected, strict=True):
        assert_close(result, reference, atol=3e-6 * reference.abs().max().item(), rtol=1e-4)


def test_it_equals_the_plain_path_of_float64(update, rng):
    streams, weights = given(update, rng)

    results = outcome(update, streams, weights)
    exact = outcome(update.double(), [stream.double() for stream in streams], weights.double())

    for result, reference in zip(results, exact, strict=True):
        assert_close(result.double(), reference, atol=2e-6, rtol=2e-5)


def test_under_autocast_it_stays_in_float32(update, rng):
    streams, weights = given(update, rng)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = outcome(update, streams, weights)

    for result, reference in zip(results, outcome(update, streams, weights), strict=True):
        assert torch.equal(result, reference)


def test_without_gradients_the_result_is_the_same(update, rng):
    streams, _ = given(update, rng)

    with torch.no_grad():
        result = update(*streams)

    assert torch.equal(result, update(*streams).detach())


def test_streams_that_lie_apart_in_memory_give_the_same(update, rng):
    streams, weights = given(update, rng)
    apart = torch.cat(streams, dim=-1).chunk(3, dim=-1)

    together, separate = (outcome(update, x, weights) for x in (streams, apart))

    for result, reference in zip(separate, together, strict=True):
        assert torch.equal(result, reference)


def test_a_number_that_is_none_is_not_hidden(update, rng):
    streams, _ = given(update, rng)
    streams[1][1, 2, 0] = torch.nan

    result = update(*streams)

    is_spoilt = result.isnan().all(-1)
    assert is_spoilt[1, 2]
    assert is_spoilt.sum() == result.isnan().any(-1).sum() == 1
