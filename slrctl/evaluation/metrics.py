"""Metrics of predictions, over all clips and for each class (`docs/method.md`, Evaluation)."""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int64

from slrctl.evaluation.predictions import Predictions

METRIC_NAMES = ("accuracy", "macro_accuracy", "top5_accuracy", "macro_f1", "nll", "ece")
TOP = 5
CALIBRATION_BINS = 15


def weighted_metrics(
    predictions: Predictions, weights: Float[np.ndarray, "N R"]
) -> dict[str, Float[np.ndarray, " R"]]:
    """Compute every metric under each of R weightings of the N clips; weight 2 is a clip twice.

    Macro metrics average over the classes that have clips in a weighting. `nll` is in nats and
    exact where a probability underflows to 0. `ece` (Naeini, Cooper, Hauskrecht, AAAI 2015) is the
    mean distance between the accuracy and the mean confidence of a clip's bin.

    Returns:
        Values for each of `METRIC_NAMES`, all but `nll` in 0-1.
    """
    num_clips, num_classes = predictions.log_probabilities.shape
    target, predicted = predictions.target, predictions.predicted
    is_correct = (predicted == target).astype(np.float64)
    once = np.ones(num_clips)

    def sums_by(
        group: Int64[np.ndarray, " N"], values: Float[np.ndarray, " N"], num_groups: int
    ) -> Float[np.ndarray, "G R"]:
        """Return the weighted sum of the values in each group of clips."""
        cells = (values, (group, np.arange(num_clips)))
        return scipy.sparse.csr_array(cells, shape=(num_groups, num_clips)) @ weights

    total = weights.sum(axis=0)
    clips = sums_by(target, once, num_classes)
    hits = sums_by(target, is_correct, num_classes)
    named = sums_by(predicted, once, num_classes)
    bins = calibration_bins(predictions.confidence)
    gaps = sums_by(bins, predictions.confidence - is_correct, CALIBRATION_BINS)

    is_present = clips > 0
    num_present = is_present.sum(axis=0)
    # An absent class has no hits: any denominator other than 0 makes it add nothing.
    recalls = hits / np.where(is_present, clips, 1.0)
    f1s = 2 * hits / np.where(is_present, clips + named, 1.0)
    return {
        "accuracy": is_correct @ weights / total,
        "macro_accuracy": recalls.sum(axis=0) / num_present,
        "top5_accuracy": (predictions.rank_of_truth <= TOP) @ weights / total,
        "macro_f1": f1s.sum(axis=0) / num_present,
        "nll": -predictions.log_probability_of_truth @ weights / total,
        "ece": np.abs(gaps).sum(axis=0) / total,
    }


def point_metrics(predictions: Predictions) -> dict[str, float]:
    """Compute every metric over all clips.

    Raises:
        ValueError: there are no clips.
    """
    if not len(predictions):
        raise ValueError("no clips to evaluate; metrics need at least one")
    values = weighted_metrics(predictions, np.ones((len(predictions), 1)))
    return {name: value.item() for name, value in values.items()}


def calibration_bins(confidence: Float[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Return the equal-width bin of each confidence: [0, 1/15), ... [14/15, 1]."""
    inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    return np.digitize(confidence, inner_edges)


class ClassResult(NamedTuple):
    """Results of one class.

    `accuracy` is its recall, the share of its clips that were recognised, and `precision` the share
    of right ones among the clips given its name. A number is None where its denominator is 0: no
    clip of the class, or none given its name. `confused_with` is the other gloss most often
    predicted for its clips, `confused_clips` times; None if that never happened.
    """

    gloss: str
    clips: int
    accuracy: float | None
    precision: float | None
    f1: float | None
    confused_with: str | None
    confused_clips: int


class ConfusedPair(NamedTuple):
    """Clips of `truth` that were taken for `predicted`: their number, and share of its clips."""

    truth: str
    predicted: str
    clips: int
    share: float


def confusion_counts(predictions: Predictions) -> Int64[np.ndarray, "K K"]:
    """Count clips by their truth (row) and their prediction (column)."""
    num_classes = len(predictions.classes)
    cells = predictions.target * num_classes + predictions.predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_results(predictions: Predictions) -> tuple[ClassResult, ...]:
    """Compute the results of each class, in the order of `predictions.classes`."""
    counts = confusion_counts(predictions)
    results = []
    for label, gloss in enumerate(predictions.classes):
        clips, named = int(counts[label].sum()), int(counts[:, label].sum())
        hits = int(counts[label, label])
        errors = counts[label].copy()
        errors[label] = 0
        rival = int(errors.argmax())
        results.append(
            ClassResult(
                gloss=gloss,
                clips=clips,
                accuracy=hits / clips if clips else None,
                precision=hits / named if named else None,
                f1=2 * hits / (clips + named) if clips else None,
                confused_with=predictions.classes[rival] if errors[rival] else None,
                confused_clips=int(errors[rival]),
            )
        )
    return tuple(results)


def confused_pairs(predictions: Predictions) -> tuple[ConfusedPair, ...]:
    """Return every confusion: most clips first, then the larger share, then in class order."""
    counts = confusion_counts(predictions)
    clips_of = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    pairs = [
        ConfusedPair(
            truth=predictions.classes[truth],
            predicted=predictions.classes[predicted],
            clips=int(counts[truth, predicted]),
            share=float(counts[truth, predicted] / clips_of[truth]),
        )
        for truth, predicted in zip(*counts.nonzero(), strict=True)
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.clips, -pair.share)))
