"""What a model said about each clip, beside what was true."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int64

from slrctl.engine.files import replacing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Predictions:
    """The log-probabilities of N clips over K classes, with their truth and their origin.

    `target` holds labels, indices into `classes`. Signers and sessions are None where unknown.
    The log-probabilities are finite, as the log-softmax of finite logits always is: a probability
    may underflow to 0, its logarithm does not.

    Raises:
        ValueError: the parts do not belong together, or a log-probability is not finite.
    """

    clip_ids: tuple[str, ...]
    classes: tuple[str, ...]
    log_probabilities: Float[np.ndarray, "N K"]
    target: Int64[np.ndarray, " N"]
    signers: tuple[str | None, ...]
    sessions: tuple[str | None, ...]

    def __post_init__(self) -> None:
        count, num_classes = len(self.clip_ids), len(self.classes)
        if self.log_probabilities.shape != (count, num_classes):
            raise ValueError(
                f"log_probabilities have shape {self.log_probabilities.shape}; "
                f"{count} clips and {num_classes} classes need {(count, num_classes)}"
            )
        lengths = {len(self.target), len(self.signers), len(self.sessions)}
        if lengths != {count}:
            raise ValueError(
                f"target, signers and sessions have {sorted(lengths)} entries for {count} clips"
            )
        if count and not 0 <= self.target.min() <= self.target.max() < num_classes:
            raise ValueError(
                f"targets from {self.target.min()} to {self.target.max()} "
                f"must index {num_classes} classes"
            )
        is_bad = ~np.isfinite(self.log_probabilities).all(axis=1)
        if is_bad.any():
            raise ValueError(
                f"clip {self.clip_ids[int(is_bad.argmax())]!r}: a log-probability is not finite; "
                "log_softmax of finite logits is, so look for NaN or inf in the model's weights"
            )

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def probabilities(self) -> Float[np.ndarray, "N K"]:
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> Int64[np.ndarray, " N"]:
        """The most probable label, the first of equally probable ones."""
        return self.log_probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> Float[np.ndarray, " N"]:
        """The probability of the predicted label."""
        return np.exp(self.log_probabilities.max(axis=1))

    @cached_property
    def log_probability_of_truth(self) -> Float[np.ndarray, " N"]:
        return np.take_along_axis(self.log_probabilities, self.target[:, None], axis=1)[:, 0]

    @cached_property
    def rank_of_truth(self) -> Int64[np.ndarray, " N"]:
        """The place of the true label, 1 = most probable.

        Equally probable labels rank in the order of `classes`, as in `predicted`: so rank 1 and
        a correct prediction are the same thing.
        """
        truth = self.log_probability_of_truth[:, None]
        comes_first = np.arange(len(self.classes)) < self.target[:, None]
        is_ahead = (self.log_probabilities > truth) | (
            (self.log_probabilities == truth) & comes_first
        )
        return 1 + is_ahead.sum(axis=1)

    def to_frame(self) -> "pd.DataFrame":
        """One row a clip: the predicted gloss, its probability, and the rank of the true one."""
        import pandas as pd  # imported late: the metrics need none of it

        names = np.array(self.classes, dtype=object)
        return pd.DataFrame(
            {
                "clip_id": pd.array(self.clip_ids, dtype="string"),
                "gloss": pd.array(names[self.target], dtype="string"),
                "predicted": pd.array(names[self.predicted], dtype="string"),
                "probability": self.confidence,
                "rank": self.rank_of_truth,
                "signer": pd.array(self.signers, dtype="string"),
                "session": pd.array(self.sessions, dtype="string"),
            }
        )


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Save the rows of `to_frame` as Parquet, whole or not at all."""
    frame = predictions.to_frame()
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)
