"""How good predictions are: the numbers of SPEC section 7, over all clips and class by class."""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int64

from slrctl.evaluation.predictions import Predictions

METRIC_NAMES = ("accuracy", "macro_accuracy", "top5_accuracy", "macro_f1", "nll", "ece")
TOP = 5
CALIBRATION_BINS = 15


class ClassResult(NamedTuple):
    """How one class fared.

    `accuracy` is the share of the class's clips that were recognised (its recall) and `precision`
    the share of right ones among the clips given its name. A number is None where its denominator
    is 0: no clip of the class, or none given its name. `confused_with` is the other gloss most
    often predicted for its clips, `confused_clips` times; None if that never happened.
    """

    gloss: str
    clips: int
    accuracy: float | None
    precision: float | None
    f1: float | None
    confused_with: str | None
    confused_clips: int


class ConfusedPair(NamedTuple):
    """Clips of `truth` that were taken for `predicted`: how many, and which share of its clips."""

    truth: str
    predicted: str
    clips: int
    share: float


def point_metrics(predictions: Predictions) -> dict[str, float]:
    """Compute every metric over all clips.

    Macro metrics average over the classes present in the truth. `nll` is in nats and taken from
    the log-probabilities, so it is exact where a probability underflows to 0.

    Returns:
        A number for each of `METRIC_NAMES`: fractions in 0-1, but for `nll`.

    Raises:
        ValueError: there are no clips.
    """
    if not len(predictions):
        raise ValueError("no clips to evaluate; metrics need at least one")
    from sklearn.metrics import accuracy_score, f1_score, recall_score  # late: it takes seconds

    target, predicted = predictions.target, predictions.predicted
    present = np.unique(target)  # these have clips, so no recall or F1 divides by 0
    is_correct = target == predicted
    return {
        "accuracy": float(accuracy_score(target, predicted)),
        # Not balanced_accuracy_score: it warns about a predicted class that the truth lacks.
        "macro_accuracy": float(recall_score(target, predicted, labels=present, average="macro")),
        "top5_accuracy": _top_accuracy(predictions),
        "macro_f1": float(f1_score(target, predicted, labels=present, average="macro")),
        "nll": float(0.0 - predictions.log_probability_of_truth.mean()),
        "ece": calibration_error(predictions.confidence, is_correct),
    }


def _top_accuracy(predictions: Predictions) -> float:
    from sklearn.metrics import top_k_accuracy_score

    num_classes = len(predictions.classes)
    if num_classes <= TOP:
        return 1.0  # every class is among the top min(5, K)
    # scikit-learn ranks the last of equally probable classes first; mirrored, the first one leads,
    # as in `Predictions.predicted`.
    mirrored = num_classes - 1 - predictions.target
    scores = predictions.log_probabilities[:, ::-1]
    return float(top_k_accuracy_score(mirrored, scores, k=TOP, labels=np.arange(num_classes)))


def calibration_bins(confidence: Float[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """The equal-width bin of each confidence: [0, 1/15), ... [14/15, 1], the last one closed."""
    inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    return np.digitize(confidence, inner_edges)


def calibration_error(
    confidence: Float[np.ndarray, " N"], is_correct: Bool[np.ndarray, " N"]
) -> float:
    """Expected calibration error (Naeini, Cooper, Hauskrecht, AAAI 2015), between 0 and 1.

    The mean over clips of how far their bin's accuracy lies from its mean confidence.
    """
    gaps = np.bincount(calibration_bins(confidence), weights=confidence - is_correct)
    return float(np.abs(gaps).sum() / len(confidence))


def confusion_counts(predictions: Predictions) -> Int64[np.ndarray, "K K"]:
    """Count clips by their truth (row) and their prediction (column)."""
    num_classes = len(predictions.classes)
    cells = predictions.target * num_classes + predictions.predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_results(predictions: Predictions) -> tuple[ClassResult, ...]:
    """Judge each class alone, in the order of `predictions.classes`."""
    counts = confusion_counts(predictions)
    errors = counts - np.diag(counts.diagonal())
    results = []
    for label, gloss in enumerate(predictions.classes):
        clips, named = int(counts[label].sum()), int(counts[:, label].sum())
        right = int(counts[label, label])
        rival = int(errors[label].argmax())
        confused_clips = int(errors[label, rival])
        results.append(
            ClassResult(
                gloss=gloss,
                clips=clips,
                accuracy=right / clips if clips else None,
                precision=right / named if named else None,
                f1=2 * right / (clips + named) if clips else None,
                confused_with=predictions.classes[rival] if confused_clips else None,
                confused_clips=confused_clips,
            )
        )
    return tuple(results)


def confused_pairs(predictions: Predictions) -> tuple[ConfusedPair, ...]:
    """Every confusion that occurred: most clips first, then the larger share, then class order."""
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


def clip_quantities(predictions: Predictions) -> scipy.sparse.csr_array:
    """What each clip adds to the sums that all metrics are made of: M quantities by N clips.

    In this order: 1; correct; among the top; negative log-likelihood; for each class its clips,
    its correct ones and those given its name; for each calibration bin confidence minus correct.
    """
    num_clips, num_classes = predictions.log_probabilities.shape
    is_correct = (predictions.predicted == predictions.target).astype(np.float64)
    first_class, first_bin = 4, 4 + 3 * num_classes
    entries = (
        (0, np.ones(num_clips)),
        (1, is_correct),
        (2, (predictions.rank_of_truth <= TOP).astype(np.float64)),
        (3, -predictions.log_probability_of_truth),
        (first_class + predictions.target, np.ones(num_clips)),
        (first_class + num_classes + predictions.target, is_correct),
        (first_class + 2 * num_classes + predictions.predicted, np.ones(num_clips)),
        (
            first_bin + calibration_bins(predictions.confidence),
            predictions.confidence - is_correct,
        ),
    )
    rows = np.concatenate([np.broadcast_to(row, num_clips) for row, _ in entries])
    values = np.concatenate([value for _, value in entries])
    columns = np.tile(np.arange(num_clips), len(entries))
    shape = (first_bin + CALIBRATION_BINS, num_clips)
    return scipy.sparse.coo_array((values, (rows, columns)), shape=shape).tocsr()


def metrics_of_sums(
    sums: Float[np.ndarray, "M R"], num_classes: int
) -> dict[str, Float[np.ndarray, " R"]]:
    """Every metric of R weightings, from the weighted sums of `clip_quantities`.

    Macro metrics average over the classes that have clips in that weighting.
    """
    total, correct, in_top, nll = sums[:4]
    by_class, gaps = sums[4:-CALIBRATION_BINS], sums[-CALIBRATION_BINS:]
    clips, hits, named = by_class.reshape(3, num_classes, -1)
    is_present = clips > 0
    num_present = is_present.sum(axis=0)
    # An absent class has no hits: any denominator other than 0 makes it add nothing.
    recalls = hits / np.where(is_present, clips, 1.0)
    f1s = 2 * hits / np.where(is_present, clips + named, 1.0)
    return {
        "accuracy": correct / total,
        "macro_accuracy": recalls.sum(axis=0) / num_present,
        "top5_accuracy": in_top / total,
        "macro_f1": f1s.sum(axis=0) / num_present,
        "nll": nll / total,
        "ece": np.abs(gaps).sum(axis=0) / total,
    }


def weighted_metrics(
    predictions: Predictions, weights: Float[np.ndarray, "R N"]
) -> dict[str, Float[np.ndarray, " R"]]:
    """Every metric under each of R weightings of the N clips; weight 2 counts a clip twice."""
    sums = clip_quantities(predictions) @ weights.T
    return metrics_of_sums(sums, len(predictions.classes))
