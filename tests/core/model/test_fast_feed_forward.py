"""The feed-forward in blocks against the plain one."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model import fast
from slrctl.core.model.encoder import FeedForward
from slrctl.core.model.fast.kernels.hidden_units import let_through

D, HIDDEN = 6, 2048


@pytest.fixture
def layer(rng):
    layer = FeedForward(D, HIDDEN, 0.1)
    for parameter in layer.parameters():
        torch.nn.init.uniform_(parameter, -0.2, 0.2, generator=rng)
    return layer


def gradients(layer, features, weights, *, is_plain=False, seed=3):
    """The result and every gradient of one pass; the draws belong to the seed."""
    layer.zero_grad()
    features = features.clone().requires_grad_()
    torch.manual_seed(seed)
    if is_plain:
        with fast.plain_path():
            result = layer(features)
    else:
        result = layer(features)
    (result.float() * weights).sum().backward()
    return [result.detach().float(), features.grad, *(p.grad for p in layer.parameters())]


# 300 rows of 2,048 units are three blocks.
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (4, 75)])
@pytest.mark.parametrize("is_training", [True, False])
def test_it_equals_the_plain_path_with_the_same_draws(layer, rng, shape, is_training):
    layer.train(is_training)
    features, weights = (torch.randn(*shape, D, generator=rng) for _ in range(2))

    for result, expected in zip(
        gradients(layer, features, weights),
        gradients(layer, features, weights, is_plain=True),
        strict=True,
    ):
        assert_close(result, expected, atol=2e-5, rtol=2e-5)


def test_it_equals_the_plain_path_under_autocast(layer, rng):
    layer.train()
    features, weights = (torch.randn(4, 75, D, generator=rng) for _ in range(2))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = gradients(layer, features, weights)
        expected = gradients(layer, features, weights, is_plain=True)

    for result, reference in zip(results, expected, strict=True):
        assert_close(result, reference, atol=0.02 * reference.abs().max().item(), rtol=0.02)


def test_the_gradients_of_the_plain_path_match_finite_differences(rng):
    layer = FeedForward(4, 10, 0.4).double().train()

    def call(features, *parameters):
        torch.manual_seed(1)
        return layer(features)

    features = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (features, *layer.parameters()))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_number_that_is_none_is_not_hidden(layer, sign, precision):
    features = torch.zeros(1, 2, D)
    features[0, 1] = sign * torch.nan

    with torch.autocast("cpu", dtype=precision, enabled=precision == torch.bfloat16):
        result = layer.eval()(features)

    assert result[0, 1].isnan().all()
    assert result[0, 0].isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 75), (4, 75)])
def test_without_gradients_the_result_is_the_same(layer, rng, shape):
    features = torch.randn(*shape, D, generator=rng)
    layer.eval()

    with torch.no_grad():
        result = layer(features)

    assert torch.equal(result, layer(features).detach())


def test_the_plain_path_is_left_at_the_end_of_its_block():
    features = torch.zeros(1)
    with fast.plain_path():
        inside = fast.applies_to(features)

    assert (inside, fast.applies_to(features)) == (False, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_another_precision_take_the_plain_path(dtype):
    assert not fast.applies_to(torch.zeros(1, dtype=dtype))


@pytest.mark.parametrize("wants_gradient", [False, True])
def test_only_a_prediction_from_few_frames_takes_the_plain_path(monkeypatch, wants_gradient):
    monkeypatch.setattr(fast, "FEW_FRAMES", 12)
    with torch.set_grad_enabled(wants_gradient):
        taken = [fast.applies_to(torch.zeros(clips, 4, 7)) for clips in (1, 3, 4)]

    assert taken == [wants_gradient, wants_gradient, True]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_gradient_gets_through_a_unit_above_zero_and_one_that_is_no_number(precision):
    units = torch.tensor([[0.0, -0.0, 1e-38, 2.0, torch.nan, -torch.nan]], dtype=precision)
    gradient = torch.ones_like(units)
    bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[precision]
    of_gradient, of_units = (x.view(bits).numpy() for x in (gradient, units))

    let_through(of_gradient, of_units, of_units.dtype.type(torch.iinfo(bits).max))

    assert gradient.tolist() == [[0, 0, 1, 1, 1, 1]]
