import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from clips import predictions_of
from numpy.testing import assert_allclose, assert_array_equal

from slrctl.evaluation.predictions import Predictions, write_predictions

# Three clips over four classes, so that no swapped axis can pass.
PROBABILITIES = np.array(
    [
        [0.1, 0.2, 0.3, 0.4],
        [0.25, 0.25, 0.25, 0.25],
        [0.7, 0.1, 0.1, 0.1],
    ]
)


@pytest.fixture
def predictions():
    return Predictions(
        clip_ids=("file:0", "file:1", "file:2"),
        classes=("안녕", "no", "$5", "thank you"),
        log_probabilities=np.log(PROBABILITIES),
        target=np.array([1, 2, 0]),
        signers=("anna", None, "bo"),
        sessions=(None, None, None),
    )


def test_the_first_of_equally_probable_labels_is_predicted(predictions):
    assert_array_equal(predictions.predicted, [3, 0, 0])


def test_the_rank_counts_equally_probable_labels_in_class_order(predictions):
    # Clip 0: 0.4 and 0.3 lie ahead of 0.2. Clip 1: a tie of four, the truth is the third.
    assert_array_equal(predictions.rank_of_truth, [3, 3, 1])


def test_rank_one_and_a_correct_prediction_are_the_same_thing():
    generator = np.random.default_rng(0)
    coarse = generator.integers(3, size=(200, 4)).astype(float)  # many ties
    log_probabilities = coarse - np.log(np.exp(coarse).sum(axis=1, keepdims=True))
    tied = predictions_of(log_probabilities, generator.integers(4, size=200))

    assert_array_equal(tied.rank_of_truth == 1, tied.predicted == tied.target)


def test_probabilities_are_those_the_logarithm_was_taken_of(predictions):
    assert_allclose(predictions.probabilities, PROBABILITIES)
    assert_allclose(predictions.confidence, [0.4, 0.25, 0.7])


def test_a_frame_has_one_row_a_clip_with_names_for_labels(predictions):
    frame = predictions.to_frame()

    assert list(frame.columns) == [
        "clip_id", "gloss", "predicted", "probability", "rank", "signer", "session",
    ]  # fmt: skip
    assert frame["clip_id"].tolist() == ["file:0", "file:1", "file:2"]
    assert frame["gloss"].tolist() == ["no", "$5", "안녕"]
    assert frame["predicted"].tolist() == ["thank you", "안녕", "안녕"]
    assert_allclose(frame["probability"], [0.4, 0.25, 0.7])
    assert frame["rank"].tolist() == [3, 3, 1]
    assert frame["signer"].isna().tolist() == [False, True, False]
    assert frame["session"].isna().all()


@pytest.mark.parametrize("num_clips", [3, 0])
def test_a_saved_table_reads_back_the_same(tmp_path, num_clips):
    predictions = predictions_of(np.log(PROBABILITIES[:num_clips]), [1, 2, 0][:num_clips])

    write_predictions(predictions, tmp_path / "predictions.parquet")

    back = pd.read_parquet(tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(back, predictions.to_frame(), check_dtype=False)
    assert os.listdir(tmp_path) == ["predictions.parquet"]


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_a_log_probability_that_is_not_finite_is_refused_with_its_clip(predictions, bad):
    values = predictions.log_probabilities.copy()
    values[1, 2] = bad

    with pytest.raises(ValueError, match="clip 'file:1': a log-probability is not finite"):
        replace(predictions, log_probabilities=values)
