"""The metrics under many weightings of the clips at once.

Every metric is a function of sums over clips, so R weightings of N clips are one product of
matrices. With all weights 1 they are `point_metrics`.
"""

import numpy as np
import scipy.sparse
from jaxtyping import Float

from slrctl.engine.metrics import CALIBRATION_BINS, TOP, calibration_bins
from slrctl.engine.predictions import Predictions


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
