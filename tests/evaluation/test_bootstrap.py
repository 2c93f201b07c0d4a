import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from clips import predictions_of, random_predictions
from numpy.testing import assert_allclose, assert_array_equal

from slrctl.core.seeding import stable_seed
from slrctl.evaluation import bootstrap
from slrctl.evaluation.bootstrap import (
    bootstrap_metrics,
    draw_counts,
    evaluate_predictions,
    resampling_units,
)
from slrctl.evaluation.metrics import METRIC_NAMES, weighted_metrics


def units_of(predictions):
    return resampling_units(predictions.clip_ids, predictions.signers, predictions.sessions)


def test_a_resample_by_signer_holds_whole_signers():
    signers = [f"signer{number % 12}" for number in range(60)]
    predictions = random_predictions(60, 5, signers=signers)
    unit, unit_of_clip = units_of(predictions)
    (counts,) = draw_counts(12, 3, np.random.default_rng(stable_seed(4, "bootstrap")))

    drawn = bootstrap_metrics(predictions, unit_of_clip, resamples=3, seed=4)

    assert unit == "signer"
    numbers = {name: number for number, name in enumerate(sorted(set(signers)))}
    weights = np.array([counts[numbers[signer]] for signer in signers])
    expected = weighted_metrics(predictions, weights)
    for name in METRIC_NAMES:
        assert_allclose(drawn[name], expected[name], rtol=1e-12)


def test_as_many_units_are_drawn_as_there_are_and_each_equally_often():
    (counts,) = draw_counts(5, 20_000, np.random.default_rng(0))

    assert_array_equal(counts.sum(axis=0), 5)
    # 100,000 draws: one unit's mean count has a standard error of 0.006.
    assert_allclose(counts.mean(axis=1), 1.0, atol=0.03)


def test_the_size_of_the_blocks_changes_nothing(monkeypatch):
    predictions = random_predictions(30, 4)
    whole = bootstrap_metrics(predictions, np.arange(30), resamples=100, seed=1)

    monkeypatch.setattr(bootstrap, "_BLOCK_NUMBERS", 7 * 30)
    in_blocks = bootstrap_metrics(predictions, np.arange(30), resamples=100, seed=1)

    for name in METRIC_NAMES:
        assert_allclose(in_blocks[name], whole[name], rtol=1e-12)


NAMES = [f"name{number % 10}" for number in range(40)]  # ten of them
NINE = [f"name{number % 9}" for number in range(40)]
ONE_UNKNOWN = [None, *NAMES[1:]]


@pytest.mark.parametrize(
    ("signers", "sessions", "unit", "units"),
    [
        (NAMES, NAMES, "signer", 10),
        (NINE, NAMES, "session", 10),
        (NINE, NINE, "clip", 40),
        (None, NAMES, "session", 10),
        (ONE_UNKNOWN, NAMES, "session", 10),
        (ONE_UNKNOWN, ONE_UNKNOWN, "clip", 40),
        (None, None, "clip", 40),
    ],
)
def test_the_unit_is_signers_from_ten_up_else_sessions_from_ten_up_else_clips(
    signers, sessions, unit, units
):
    predictions = random_predictions(40, 3, signers=signers, sessions=sessions)

    chosen, unit_of_clip = units_of(predictions)

    assert chosen == unit
    assert len(set(unit_of_clip.tolist())) == units


@pytest.mark.parametrize(
    ("signers", "note"),
    [
        (NAMES, None),
        (NINE, "9 signers, fewer than 10: the interval does not cover new signers"),
        (["anna"] * 40, "1 signer, fewer than 10: the interval does not cover new signers"),
        (None, "signers are not all known: the interval does not cover new signers"),
        (ONE_UNKNOWN, "signers are not all known: the interval does not cover new signers"),
    ],
)
def test_the_note_says_when_new_signers_are_not_covered(signers, note):
    predictions = random_predictions(40, 3, signers=signers)

    assert evaluate_predictions(predictions, resamples=200, seed=0).note == note


def test_the_note_warns_of_an_interval_without_width():
    predictions = random_predictions(20, 3, signers=NAMES[:20])
    all_right = replace(predictions, target=predictions.predicted)

    evaluation = evaluate_predictions(all_right, resamples=200, seed=0)

    assert evaluation.intervals["accuracy"] == (1.0, 1.0)
    assert "an interval without width is not certainty" in (evaluation.note or "")


def test_the_note_names_a_metric_that_lies_outside_its_own_interval():
    # Of 40 clips at each confidence just that share is right: ECE is 0, and above 0 in a resample.
    confidence = np.repeat([0.6, 0.75, 0.9], 40)
    target = np.concatenate([np.arange(40) >= right for right in (24, 30, 36)]).astype(np.int64)
    calibrated = replace(
        random_predictions(120, 2, signers=[f"signer{number}" for number in range(120)]),
        log_probabilities=np.log(np.stack([confidence, 1 - confidence], axis=1)),
        target=target,
    )

    evaluation = evaluate_predictions(calibrated, resamples=200, seed=0)

    assert evaluation.metrics["ece"] == pytest.approx(0, abs=1e-12)
    assert evaluation.intervals["ece"][0] > 0.005
    assert evaluation.note == (
        "ece: resampling itself shifts it; the value lies outside its interval"
    )


def test_one_seed_gives_one_result_and_another_seed_another():
    predictions = random_predictions(40, 5)

    first, again, other = (
        evaluate_predictions(predictions, resamples=200, seed=seed) for seed in (3, 3, 4)
    )

    assert first == again
    assert first.metrics == other.metrics
    assert first.intervals != other.intervals


def test_the_interval_is_the_middle_95_percent_of_the_resamples():
    predictions = random_predictions(40, 5)
    drawn = bootstrap_metrics(predictions, np.arange(40), resamples=1000, seed=3)

    low, high = evaluate_predictions(predictions, resamples=1000, seed=3).intervals["nll"]

    assert np.mean(drawn["nll"] < low) == pytest.approx(0.025, abs=0.001)
    assert np.mean(drawn["nll"] > high) == pytest.approx(0.025, abs=0.001)


def test_the_json_has_the_published_keys_and_nothing_json_cannot_hold():
    predictions = random_predictions(40, 5)

    values = evaluate_predictions(predictions, resamples=200, seed=0).to_json()

    published = ("accuracy", "macro_accuracy", "top5_accuracy", "macro_f1", "nll", "ece")
    assert set(values) == (
        {"clips", "classes", "chance", "majority_share", "ci_unit", "note"}
        | set(published)
        | {f"{name}_ci95" for name in published}
    )
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_the_counts_describe_the_clips():
    predictions = random_predictions(40, 5)
    most_common = Counter(predictions.target.tolist()).most_common(1)[0][1]

    evaluation = evaluate_predictions(predictions, resamples=200, seed=0)

    assert (evaluation.clips, evaluation.classes, evaluation.chance) == (40, 5, 0.2)
    assert evaluation.majority_share == most_common / 40
    assert sum(row.clips for row in evaluation.per_class) == 40
    errors = 40 * (1 - evaluation.metrics["accuracy"])
    assert sum(pair.clips for pair in evaluation.confused) == pytest.approx(errors)


def test_the_accuracy_interval_covers_the_truth_about_95_times_in_100():
    truth, clips, covered = 0.7, 200, 0
    generator = np.random.default_rng(0)
    for trial in range(300):
        target = (generator.random(clips) > truth).astype(np.int64)  # class 0 is always predicted
        predictions = predictions_of(np.log(np.tile([0.7, 0.3], (clips, 1))), target)
        evaluation = evaluate_predictions(predictions, resamples=400, seed=trial)
        low, high = evaluation.intervals["accuracy"]
        covered += low <= truth <= high

    assert 0.91 <= covered / 300 <= 0.98


def test_a_clip_and_its_mirrored_copy_are_resampled_together():
    predictions = random_predictions(4, 2)
    ids = ("b", "a", "b#mirrored", "c#mirrored")

    unit, numbers = units_of(replace(predictions, clip_ids=ids))

    assert unit == "clip"
    assert numbers.tolist() == [0, 1, 0, 2]
