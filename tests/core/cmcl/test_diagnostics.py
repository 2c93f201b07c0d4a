"""Measures of what the terms do, and warnings in plain words from lines of metrics.jsonl."""

import math

import pytest
import torch
from maps import present

from slrctl.core.cmcl.diagnostics import (
    FEWEST_CLIPS,
    conditions,
    effective_rank,
    entropy_ratio,
    feature_variance,
    gradient_measures,
    update_streaks,
)

N, D = 12, 5
HEALTHY = {
    "gradient_norm_classification": 2.0,
    "gradient_norm_consistency": 0.1,
    "gradient_norm_alignment": 0.5,
    "gradient_cosine_consistency": 0.0,
    "gradient_cosine_alignment": -0.2,
    "val_variance_left_hand": 0.4,
    "val_variance_right_hand": 0.3,
    "val_variance_body": 0.2,
    "val_rank_left_hand": 9.0,
    "val_rank_right_hand": 8.0,
    "val_rank_body": 5.0,
    "lambda_alignment": 0.05,
}


def test_gradients_are_compared_with_that_of_the_cross_entropy():
    own, consistency, alignment = torch.tensor([[3.0, 4.0], [-8.0, 6.0], [0.0, 0.0]])

    measures = gradient_measures(
        {"classification": own, "consistency": consistency, "alignment": alignment}
    )

    assert measures == {
        "gradient_norm_classification": 5.0,
        "gradient_norm_consistency": 10.0,
        "gradient_norm_alignment": 0.0,
        "gradient_cosine_consistency": 0.0,
        "gradient_cosine_alignment": 0.0,
    }
    measures = gradient_measures({"classification": own, "consistency": -own})
    assert measures["gradient_cosine_consistency"] == pytest.approx(-1.0)


def test_entropy_is_1_for_uniform_rows_and_0_for_rows_of_one_frame():
    uniform = torch.full((2, 3, 3), 1 / 2)
    uniform[:, :, 2] = 0
    weights = torch.stack([uniform, torch.eye(3).expand(2, 3, 3), uniform])  # B H T T
    rows = present([1, 1, 0], [1, 1, 1], [1, 1, 1])
    keys = present([1, 1, 0], [1, 1, 1], [1, 0, 0])  # the last clip has no choice of frames

    ratios, is_counted = entropy_ratio(weights, rows, keys)

    assert ratios[:2].tolist() == pytest.approx([1.0, 0.0])
    assert is_counted.tolist() == [True, True, False]


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


@pytest.mark.parametrize("metrics", [HEALTHY, dict.fromkeys(HEALTHY)])
def test_a_healthy_epoch_and_one_without_cmcl_have_nothing_to_report(metrics):
    assert conditions(metrics) == {}


@pytest.mark.parametrize(
    ("changes", "name", "advice"),
    [
        ({"gradient_norm_consistency": 0.0019}, "consistency is inert", "cmcl.consistency=cycle"),
        ({"gradient_norm_alignment": 0.0}, "alignment is inert", "cmcl.alignment=contrastive"),
        ({"gradient_cosine_alignment": -0.6}, "alignment fights", "lower cmcl.lambda_alignment"),
        ({"val_variance_body": 0.009}, "body collapses", "lower cmcl.lambda_alignment"),
        ({"val_rank_left_hand": 1.2}, "left_hand collapses", "left hand features"),
    ],
)
def test_each_condition_is_named_with_advice(changes, name, advice):
    (found,) = conditions(HEALTHY | changes).items()

    assert found[0] == name
    assert advice in found[1]


@pytest.mark.parametrize("lambda_alignment", [0.0, None])
def test_a_collapse_without_alignment_is_not_blamed_on_it(lambda_alignment):
    changes = {"val_rank_body": 1.0, "lambda_alignment": lambda_alignment}

    (warning,) = conditions(HEALTHY | changes).values()

    assert "alignment" not in warning
    assert "lower train.learning_rate" in warning


def test_an_opposed_term_with_a_small_gradient_does_not_fight():
    weak = {"gradient_norm_alignment": 0.1, "gradient_cosine_alignment": -0.9}

    assert conditions(HEALTHY | weak) == {}


def test_a_condition_is_reported_once_when_it_has_lasted_three_epochs():
    streaks, warnings = {}, []
    for found in [{"a": "A"}, {"a": "A", "b": "B"}, {"a": "A"}, {"a": "A", "b": "B"}, {"b": "B"}]:
        streaks, due = update_streaks(streaks, found)
        warnings.append(due)

    assert warnings == [[], [], ["A"], [], []]
    assert streaks == {"b": 2}
