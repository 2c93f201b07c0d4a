"""Warnings in plain words, from lines of metrics.jsonl."""

import pytest

from slrctl.core.cmcl.warnings import Streaks, conditions

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


def test_a_healthy_epoch_has_nothing_to_tell():
    assert conditions(HEALTHY) == {}


def test_a_run_without_cmcl_has_nothing_to_tell():
    assert conditions(dict.fromkeys(HEALTHY)) == {}


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

    (told,) = conditions(HEALTHY | changes).values()

    assert "alignment" not in told
    assert "lower train.learning_rate" in told


def test_an_opposed_term_without_weight_does_not_fight():
    weak = {"gradient_norm_alignment": 0.1, "gradient_cosine_alignment": -0.9}

    assert conditions(HEALTHY | weak) == {}


def test_a_condition_is_told_of_once_when_it_has_lasted_three_epochs():
    streaks, told = Streaks({}), []
    for found in [{"a": "A"}, {"a": "A", "b": "B"}, {"a": "A"}, {"a": "A", "b": "B"}, {"b": "B"}]:
        told.append(streaks.take_in(found))
        streaks = Streaks(streaks.lengths)  # as a training that stopped and went on

    assert told == [[], [], ["A"], [], []]
    assert streaks.lengths == {"b": 2}
