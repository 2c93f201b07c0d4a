"""Variance and effective rank of embeddings, and the fewest clips that they are told of."""

import math

import pytest
import torch

from slrctl.core.cmcl.diagnostics import FEWEST_CLIPS, effective_rank, feature_variance

N, D = 12, 5


def test_the_rank_of_two_equal_directions_is_2_and_all_variance_is_theirs():
    corners = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    embedding = torch.nn.functional.pad(corners.repeat(N // 4, 1), (0, D - 2))

    assert effective_rank(embedding) == pytest.approx(2.0)
    assert feature_variance(embedding) == pytest.approx(1.0)


def test_singular_values_of_3_to_1_have_the_rank_of_their_entropy():
    axes = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).repeat(N // 4, 1)

    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(axes) == pytest.approx(expected)


def test_clips_that_are_all_alike_have_no_variance():
    assert feature_variance(torch.full((N, D), 2.0)) == pytest.approx(0.0)


@pytest.mark.parametrize("measure", [effective_rank, feature_variance])
def test_too_few_clips_say_nothing_of_the_spread_of_features(measure, rng):
    embedding = torch.randn(FEWEST_CLIPS, D, generator=rng)

    assert measure(embedding) is not None
    assert measure(embedding[:-1]) is None


@pytest.mark.parametrize("decay", [0.3, 0.5, 0.7])
def test_the_fewest_clips_of_healthy_features_do_not_look_collapsed(decay, rng):
    spectrum = decay ** torch.arange(42.0)
    draws = torch.randn(200, FEWEST_CLIPS, 42, generator=rng) * spectrum

    ranks = [effective_rank(draw) or 0.0 for draw in draws]

    assert min(ranks) > 1.5
