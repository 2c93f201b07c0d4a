"""Predict every clip of a set with a trained model."""

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.data.dataset import SignDataset
from slrctl.core.model import SiFormer, Spoter
from slrctl.engine.predictions import Predictions
from slrctl.engine.threads import map_on
from slrctl.engine.workers import ALONE, Workers


def predict(
    model: SiFormer | Spoter,
    dataset: SignDataset,
    batches: Iterable[ClipBatch],
    device: torch.device,
    workers: Workers = ALONE,
) -> Predictions:
    """Predict in fp32; the clips keep the order of the data set, whatever that of the batches.

    Each of several workers has some of the batches, and gets what all of them predict.
    """
    model.eval()
    rows = {clip.clip_id: row for row, clip in enumerate(dataset)}
    labels = {gloss: label for label, gloss in enumerate(dataset.classes)}
    log_probabilities = np.full((len(dataset), len(dataset.classes)), np.nan)

    @torch.no_grad()
    def work(batch: ClipBatch) -> dict[str, torch.Tensor]:
        logits = model(batch.to(device)).logits
        return {
            "rows": torch.tensor([rows[clip_id] for clip_id in batch.clip_ids]),
            "log_probabilities": F.log_softmax(logits.double(), dim=-1).cpu(),
        }

    for part in workers.exchange(list(map_on(device, work, batches))):
        log_probabilities[part["rows"].numpy()] = part["log_probabilities"].numpy()
    return Predictions(
        clip_ids=tuple(rows),
        classes=dataset.classes,
        log_probabilities=log_probabilities,
        target=np.array([labels[clip.gloss] for clip in dataset], dtype=np.int64),
        signers=tuple(clip.signer for clip in dataset),
        sessions=tuple(clip.session for clip in dataset),
    )
