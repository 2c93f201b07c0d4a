"""How a stream takes in its messages, against the formula in float64."""

import pytest
import torch
from torch.nn.functional import layer_norm
from torch.testing import assert_close

from slrctl.core.model.fast.fusion_weights import StreamWeights
from slrctl.core.model.fast.gate import ComputedStream, take_in, take_in_back

B, T, EPSILON = 3, 7, 1e-5


# At 300 most gates are open or closed as far as float32 can tell.
@pytest.mark.parametrize("size", [1.0, 300.0])
@pytest.mark.parametrize("width", [42, 24, 5])
def test_it_is_the_formula_and_its_gradient(rng, width, size):
    own, heads, projected = (
        size * torch.randn(B * T, columns, generator=rng)
        for columns in (width, 2 * width, 3 * width)
    )
    # Each message as it is: what is left is the gate, the sum and the norm.
    reception, biases = torch.eye(2 * width), torch.rand(2, 2 * width, generator=rng)
    norm, norm_bias = torch.rand(2, width, generator=rng)
    weights = StreamWeights(torch.empty(0, 0), torch.empty(0), reception, biases, norm, norm_bias)
    has_key = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    of_fused = torch.randn(B, T, width, generator=rng)

    fused, *computed = take_in(own, projected, heads, has_key, weights, EPSILON)
    stream = ComputedStream(own, projected, heads, *computed)
    of_projected = torch.zeros_like(projected)
    of_own, of_heads, _, of_biases, of_norm, of_norm_bias = take_in_back(
        of_fused, stream, has_key, weights, of_projected
    )

    exact = [x.double().requires_grad_() for x in (own, heads, projected, biases, norm, norm_bias)]
    received = exact[1] + (has_key.double().t() @ exact[3]).repeat_interleave(T, dim=0)
    gate = torch.sigmoid(exact[2][:, 2 * width :] + received[:, width:])
    sums = exact[0] + gate * received[:, :width]
    expected = layer_norm(sums, (width,), exact[4], exact[5], EPSILON)
    (expected * of_fused.flatten(0, 1)).sum().backward()
    results = fused, of_own, of_heads, of_projected, of_biases, of_norm, of_norm_bias
    references = expected.detach(), *(x.grad for x in exact)
    for result, reference in zip(results, references, strict=True):
        assert reference is not None
        bound = 3e-6 * reference.abs().max().item()
        assert_close(result.double(), reference, atol=bound, rtol=1e-4)
