"""What a run makes of its splits: batches to train on, a first step to try."""

import time
from typing import NamedTuple

from slrctl.core.data.batches import (
    BatchParts,
    evaluation_batches,
    num_batches,
    prepare_clips,
    training_batches,
)
from slrctl.core.data.splits import Splits
from slrctl.core.devices import deterministic
from slrctl.settings import Settings
from slrctl.training.loop import BatchReport, TrainingData, train_epochs
from slrctl.training.processes import ALONE, Workers
from slrctl.training.state import TrainingState


class TrialBatch(NamedTuple):
    """What one batch showed, where nothing is to be kept."""

    report: BatchReport
    seconds: float


def try_one_batch(settings: Settings, splits: Splits, workers: Workers = ALONE) -> TrialBatch:
    """Take the first training step and save nothing."""
    device = workers.device(settings.train.device)
    with deterministic():
        state = TrainingState.initial(settings, splits.train.classes, device)
        data = training_data(settings, splits, workers)
        started = time.perf_counter()
        report = next(train_epochs(state, data, workers))
        if not isinstance(report, BatchReport):
            raise TypeError("the first report of a training is that of its first batch")
        return TrialBatch(report, time.perf_counter() - started)


def training_data(settings: Settings, splits: Splits, workers: Workers = ALONE) -> TrainingData:
    """The batches of the training and the validation split, as a worker gets them."""
    validation = prepare_clips(splits.val, settings)
    total = workers.count * settings.train.accumulate
    own = BatchParts(range(workers.rank, total, workers.count), total)
    return TrainingData(
        training=lambda epoch, start: training_batches(
            splits.train, settings, epoch, start=start, parts=own
        ),
        num_batches=num_batches(len(splits.train), settings.train.batch_size),
        validation=lambda: evaluation_batches(
            validation, settings.evaluate.batch_size, start=workers.rank, step=workers.count
        ),
    )
