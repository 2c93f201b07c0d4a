import math

import numpy as np
import pytest
import torch
from clips import predictions_of, random_predictions
from numpy.testing import assert_allclose, assert_array_equal
from torchmetrics.functional.classification import multiclass_calibration_error

from slrctl.evaluation.metrics import (
    METRIC_NAMES,
    calibration_bins,
    class_results,
    confused_pairs,
    confusion_counts,
    point_metrics,
    weighted_metrics,
)


def answers(pairs, classes=4):
    """Predictions from (truth, predicted) pairs, with probability 0.7 on the predicted label."""
    probabilities = np.full((len(pairs), classes), 0.3 / (classes - 1))
    for row, (_, predicted) in enumerate(pairs):
        probabilities[row, predicted] = 0.7
    return predictions_of(np.log(probabilities), [truth for truth, _ in pairs])


# Class 0: two of three clips right; class 1: none of one; class 2: one of one; class 3: no clips.
WORKED = [(0, 0), (0, 0), (0, 3), (1, 0), (2, 2)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 3 / 5),
        ("macro_accuracy", (2 / 3 + 0 + 1) / 3),
        ("top5_accuracy", 1.0),
        # F1 = 2 hits / (clips + times named): 4 / (3 + 3), 0, 2 / (1 + 1); class 3 has no clips.
        ("macro_f1", (2 / 3 + 0 + 1) / 3),
        ("nll", -(3 * math.log(0.7) + 2 * math.log(0.1)) / 5),
        ("ece", 0.7 - 3 / 5),
    ],
)
def test_metrics_agree_with_values_worked_by_hand(name, expected):
    assert point_metrics(answers(WORKED))[name] == pytest.approx(expected, abs=1e-12)


def plain_metrics(predictions):
    """An independent version: loops over clips and classes."""
    rows = list(zip(predictions.log_probabilities.tolist(), predictions.target, strict=True))
    order = [sorted(range(len(row)), key=lambda c: (-row[c], c)) for row, _ in rows]
    truth = [int(label) for _, label in rows]
    recalls, f1s = [], []
    for label in sorted(set(truth)):
        hits = sum(t == o[0] == label for t, o in zip(truth, order, strict=True))
        named = sum(o[0] == label for o in order)
        recalls.append(hits / truth.count(label))
        f1s.append(2 * hits / (truth.count(label) + named))
    ece = 0.0
    for number in range(15):
        inside = [
            (math.exp(row[o[0]]), t == o[0])
            for (row, _), o, t in zip(rows, order, truth, strict=True)
            if number / 15 <= math.exp(row[o[0]]) < (number + 1) / 15 + (number == 14)
        ]
        if inside:
            confidence, right = (sum(values) / len(inside) for values in zip(*inside, strict=True))
            ece += len(inside) / len(rows) * abs(confidence - right)
    return {
        "accuracy": sum(t == o[0] for t, o in zip(truth, order, strict=True)) / len(rows),
        "macro_accuracy": sum(recalls) / len(recalls),
        "top5_accuracy": sum(t in o[:5] for t, o in zip(truth, order, strict=True)) / len(rows),
        "macro_f1": sum(f1s) / len(f1s),
        "nll": -sum(row[t] for (row, _), t in zip(rows, truth, strict=True)) / len(rows),
        "ece": ece,
    }


@pytest.mark.parametrize(
    ("clips", "classes", "present"),
    [(1, 1, None), (4, 1, None), (1, 2, None), (30, 2, 1), (60, 5, 3), (1, 9, None), (150, 13, 8)],
)
def test_metrics_agree_with_plain_loops_and_nothing_warns(clips, classes, present):
    predictions = random_predictions(clips, classes, present=present)

    metrics = point_metrics(predictions)

    assert tuple(metrics) == METRIC_NAMES
    assert metrics == pytest.approx(plain_metrics(predictions), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_counts_a_clip_as_often_as_it_says(seed):
    # 40 clips of 13 classes: a resample misses whole classes, which the macro metrics must skip.
    predictions = random_predictions(40, 13, seed=seed)
    drawn = np.random.default_rng(seed).integers(40, size=(3, 40))
    weights = np.array([np.bincount(row, minlength=40) for row in drawn], dtype=float)

    weighted = weighted_metrics(predictions, weights.T)

    repeated = [
        plain_metrics(predictions_of(predictions.log_probabilities[row], predictions.target[row]))
        for row in drawn
    ]
    assert tuple(weighted) == METRIC_NAMES
    for name, values in weighted.items():
        assert_allclose(values, [metrics[name] for metrics in repeated], atol=1e-12)


@pytest.mark.parametrize(("target", "expected"), [([0, 0], 0.0), ([1, 1], 1.0)])
def test_sure_predictions_have_the_least_or_the_largest_calibration_error(target, expected):
    sure = predictions_of(np.array([[0.0, -800.0]] * 2), target)

    assert point_metrics(sure)["ece"] == expected


def test_top_five_counts_equally_probable_labels_in_class_order():
    # All six labels are equally probable: the first five are the top five.
    uniform = predictions_of(np.full((2, 6), -math.log(6)), [4, 5])

    assert point_metrics(uniform)["top5_accuracy"] == 0.5


def test_nll_is_exact_where_the_probability_underflows_to_zero():
    predictions = predictions_of(np.array([[0.0, -2000.0]]), [1])

    assert predictions.probabilities[0, 1] == 0.0
    assert point_metrics(predictions)["nll"] == 2000.0


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_agrees_with_torchmetrics(seed):
    predictions = random_predictions(500, 10, seed=seed)

    expected = multiclass_calibration_error(
        torch.from_numpy(predictions.probabilities),
        torch.from_numpy(predictions.target),
        num_classes=10,
        n_bins=15,
        norm="l1",
    )

    # torchmetrics works in single precision.
    assert point_metrics(predictions)["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_calibration_bins_include_their_lower_edge_and_the_last_one_also_one():
    confidence = np.array([0.0, 0.05, 0.1, 14 / 15, 0.99, 1.0])

    assert_array_equal(calibration_bins(confidence), [0, 0, 1, 14, 14, 14])


def test_no_clips_are_an_error_that_says_so():
    empty = predictions_of(np.empty((0, 3)), np.empty(0, dtype=np.int64))

    with pytest.raises(ValueError, match="no clips to evaluate"):
        point_metrics(empty)


def test_confusions_have_the_truth_in_rows():
    expected = [[2, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]

    assert_array_equal(confusion_counts(answers(WORKED)), expected)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (0, ("g0", 3, 2 / 3, 2 / 3, 2 / 3, "g3", 1)),
        (1, ("g1", 1, 0.0, None, 0.0, "g0", 1)),
        (2, ("g2", 1, 1.0, 1.0, 1.0, None, 0)),
        (3, ("g3", 0, None, 0.0, None, None, 0)),
    ],
)
def test_a_class_alone_agrees_with_values_worked_by_hand(label, expected):
    assert class_results(answers(WORKED))[label] == pytest.approx(expected)


def test_confused_pairs_come_by_count_then_by_share_then_in_class_order():
    pairs = [(0, 1)] * 2 + [(0, 0)] * 2 + [(1, 2)] * 2 + [(2, 0), (2, 1), (3, 3)]

    assert confused_pairs(answers(pairs)) == (
        ("g1", "g2", 2, 1.0),
        ("g0", "g1", 2, 0.5),
        ("g2", "g0", 1, 0.5),
        ("g2", "g1", 1, 0.5),
    )
