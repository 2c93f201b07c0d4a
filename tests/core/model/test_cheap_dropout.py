"""Dropout's masks: their rate, their independence, their scale."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model.dropout import dropout, dropout_of_weights

COUNT = 1_000_003  # some blocks, the last one shorter


def mask(rate: float, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    return dropout(torch.ones(COUNT, 1), rate, is_training=True)[:, 0] == 0


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_the_share_of_zeros_is_the_rate(rate):
    deviation = (rate * (1 - rate) / COUNT) ** 0.5

    assert abs(mask(rate).double().mean().item() - rate) < 4 * deviation + 2**-17


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 64])
def test_elements_are_dropped_independently(distance):
    dropped = mask(0.3).double()

    both = (dropped[distance:] * dropped[:-distance]).mean().item()

    assert abs(both - 0.09) < 4 * (0.09 * 0.91 / COUNT) ** 0.5 + 1e-4


def test_the_mean_is_kept(rng):
    features = torch.rand(COUNT, 1, generator=rng)
    torch.manual_seed(1)

    assert_close(dropout(features, 0.1, True).mean(), features.mean(), rtol=2e-3, atol=0)


def test_a_seed_repeats_its_mask_and_another_differs():
    assert torch.equal(mask(0.1, seed=1), mask(0.1, seed=1))
    assert not torch.equal(mask(0.1, seed=1), mask(0.1, seed=2))


def test_the_gradient_passes_where_the_feature_did():
    features = torch.ones(8, 5, requires_grad=True)
    torch.manual_seed(3)

    result = dropout(features, 0.5, True)
    result.sum().backward()

    assert_close(features.grad, result.detach())


@pytest.mark.parametrize(("rate", "is_training"), [(0.5, False), (0.0, True)])
def test_nothing_is_dropped_at_evaluation_or_at_rate_0(rate, is_training):
    features = torch.ones(8)

    assert dropout(features, rate, is_training) is features


def test_half_precision_stays_half_precision():
    assert dropout(torch.ones(9, dtype=torch.bfloat16), 0.5, True).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(2, 3, 20, 31), (1, 1, 3, 16_385)])
def test_weights_of_attention_are_dropped_at_the_rate_whether_masks_lie_together_or_not(shape):
    torch.manual_seed(1)
    weights = torch.ones(shape)

    results = dropout_of_weights(weights, 0.25, is_training=True)

    deviation = (0.25 * 0.75 / weights.numel()) ** 0.5
    assert results.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert abs((results == 0).double().mean().item() - 0.25) < 4 * deviation


def test_masks_are_of_the_keys_that_are_attended_to_in_their_order():
    is_attended = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    weights = torch.rand(3, 2, 40, 5)

    torch.manual_seed(1)
    of_all = dropout_of_weights(torch.ones_like(weights), 0.25, is_training=True)
    torch.manual_seed(1)
    results = dropout_of_weights(weights, 0.25, True, is_attended)

    assert torch.equal(
        results[0, ..., [1, 2, 4]], (weights[0, ..., [1, 2, 4]] * of_all[0, ..., :3])
    )
    assert torch.equal(results[1], weights[1] * of_all[1])


@pytest.mark.parametrize(
    ("shape", "rate", "is_training"),
    [((1, 2, 3, 4), 0.5, False), ((1, 2, 3, 4), 0.0, True), ((0, 2, 3, 4), 0.5, True)],
)
def test_no_weight_is_dropped_at_evaluation_at_rate_0_or_where_there_is_none(
    shape, rate, is_training
):
    weights = torch.ones(shape)

    assert dropout_of_weights(weights, rate, is_training) is weights
