"""Predictions of a model for a set of clips, beside the truth."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.data.batches import evaluation_batches
from slrctl.core.data.dataset import SignDataset
from slrctl.core.devices import map_on
from slrctl.core.model.build import Model
from slrctl.files import replacing
from slrctl.settings import Settings


@dataclass(frozen=True, eq=False)
class Predictions:
    """The log-probabilities of N clips over K classes, with their targets and signers.

    `target` holds labels, indices into `classes`. Signers and sessions are None where unknown.
    The log-probabilities are finite, as the log-softmax of finite logits always is: a probability
    may underflow to 0, its logarithm does not.

    Raises:
        ValueError: a log-probability is not finite.
    """

    clip_ids: tuple[str, ...]
    classes: tuple[str, ...]
    log_probabilities: Float[np.ndarray, "N K"]
    target: Int64[np.ndarray, " N"]
    signers: tuple[str | None, ...]
    sessions: tuple[str | None, ...]

    def __post_init__(self) -> None:
        is_bad = ~np.isfinite(self.log_probabilities).all(axis=1)
        if is_bad.any():
            raise ValueError(
                f"clip {self.clip_ids[int(is_bad.argmax())]!r}: a log-probability is not finite; "
                "log_softmax of finite logits is, so look for NaN or inf in the model's parameters"
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
        """The rank of the true label, 1 = most probable.

        Equally probable labels rank in the order of `classes`, as in `predicted`: so rank 1 and
        a correct prediction are the same thing.
        """
        truth = self.log_probability_of_truth[:, None]
        comes_first = np.arange(len(self.classes)) < self.target[:, None]
        is_ahead = (self.log_probabilities > truth) | (
            (self.log_probabilities == truth) & comes_first
        )
        return 1 + is_ahead.sum(axis=1)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a clip: predicted gloss, its probability, rank of the true one."""
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


def predict(
    model: Model,
    dataset: SignDataset,
    batches: Iterable[ClipBatch],
    device: torch.device,
    *,
    gather: Callable[[list[dict[str, torch.Tensor]]], list[dict[str, torch.Tensor]]] | None = None,
) -> Predictions:
    """Predict in fp32; the clips keep the order of the data set, whatever that of the batches.

    The batches hold every clip once, or, with `gather`, which collects the results of all
    processes, the clips of this process.
    """
    model.eval()
    rows = {clip.clip_id: row for row, clip in enumerate(dataset)}
    labels = {gloss: label for label, gloss in enumerate(dataset.classes)}
    log_probabilities = np.full((len(dataset), len(dataset.classes)), np.nan)

    @torch.no_grad()
    def predict_batch(batch: ClipBatch) -> dict[str, torch.Tensor]:
        logits = model(batch.to(device)).logits
        return {
            "rows": torch.tensor([rows[clip_id] for clip_id in batch.clip_ids]),
            "log_probabilities": F.log_softmax(logits.double(), dim=-1).cpu(),
        }

    results = list(map_on(device, predict_batch, batches))
    for result in results if gather is None else gather(results):
        log_probabilities[result["rows"].numpy()] = result["log_probabilities"].numpy()
    return Predictions(
        clip_ids=tuple(rows),
        classes=dataset.classes,
        log_probabilities=log_probabilities,
        target=np.array([labels[clip.gloss] for clip in dataset], dtype=np.int64),
        signers=tuple(clip.signer for clip in dataset),
        sessions=tuple(clip.session for clip in dataset),
    )


def predict_dataset(
    model: Model, dataset: SignDataset, settings: Settings, device: torch.device
) -> Predictions:
    """Prepare the clips of a data set and predict them, in batches of the evaluation's size."""
    return predict(model, dataset, evaluation_batches(dataset, settings), device)
