"""The training loop: a generator of reports that saves nothing and shows nothing."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Self

import torch

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.diagnostics import conditions, update_streaks
from slrctl.core.cmcl.loss import TERMS
from slrctl.core.data.batches import (
    MicroBatch,
    evaluation_batches,
    num_batches,
    training_micro_batches,
)
from slrctl.core.data.splits import Splits
from slrctl.settings import CMCL_TERMS, Settings, TrainSettings
from slrctl.training.processes import SINGLE, ProcessGroup
from slrctl.training.state import EpochTotals, TrainingState
from slrctl.training.step import train_step
from slrctl.training.validation import validate


def learning_rate(settings: TrainSettings, epoch: int, share_of_epoch: float) -> float:
    """Return the learning rate after a share, 0 to 1, of an epoch, counted from 0."""
    position = epoch + share_of_epoch
    warmup = settings.epochs / 15 if settings.warmup_epochs is None else settings.warmup_epochs
    if position < warmup:
        # The first step of a warm-up must not be idle, so it counts a hundredth of an epoch.
        return settings.learning_rate * max(position, 0.01) / warmup
    match settings.schedule:
        case "constant":
            factor = 1.0
        case "multistep":
            passed = epoch / settings.epochs
            factor = 0.01 if passed >= 0.8 else 0.1 if passed >= 0.6 else 1.0
        case "cosine":
            length = max(settings.epochs - warmup, 1e-9)
            behind = (position - warmup) / length
            factor = 0.5 * (1 + math.cos(math.pi * behind))
    return settings.learning_rate * factor


PHASES = ("data", "forward", "loss", "backward", "optimizer")
"""The phases of a step, under the names a profiler sees."""


class TrainingData(NamedTuple):
    """The batches of a training: `training` gives those of an epoch from any batch on.

    A process gets its own micro-batches of each training batch, and some of the validation batches.
    """

    training: Callable[[int, int], Iterator[list[MicroBatch]]]
    num_batches: int
    validation: Callable[[], Iterator[ClipBatch]]

    @classmethod
    def of_splits(
        cls,
        splits: Splits,
        settings: Settings,
        device: torch.device,
        group: ProcessGroup = SINGLE,
    ) -> Self:
        """Take the training and the validation split, as a process of the group gets them."""
        return cls(
            training=lambda epoch, start: training_micro_batches(
                splits.train,
                settings,
                epoch,
                device=device,
                start=start,
                rank=group.rank,
                num_ranks=group.size,
            ),
            num_batches=num_batches(len(splits.train), settings.train.batch_size),
            validation=lambda: evaluation_batches(
                splits.val, settings, start=group.rank, step=group.size
            ),
        )


class BatchReport(NamedTuple):
    """The position after a step, and the means of the epoch so far.

    `gradients` are measures of the terms' gradients in this step, where they were taken.
    """

    epoch: int
    batch: int
    num_batches: int
    num_clips: int
    means: dict[str, float | None]
    gradients: dict[str, float]


class EpochReport(NamedTuple):
    """A finished epoch: its line of `metrics.jsonl`, and warnings for the user."""

    epoch: int
    metrics: dict[str, Any]
    is_best: bool
    warnings: list[str]


def train_epochs(
    state: TrainingState, data: TrainingData, group: ProcessGroup = SINGLE
) -> Generator[BatchReport | EpochReport]:
    """Train from where the state stands until it is over, changing the state in place.

    The state is consistent at every report, so a caller can save it there and go on later. Several
    processes, each with its micro-batches, take the steps that one would take, and have the same
    state afterwards.

    Raises:
        TrainingDiverged: a loss or a gradient became NaN or infinite; the step was not taken.
    """
    settings, progress = state.settings.train, state.progress
    while not state.is_over:
        epoch, started = progress.epoch, time.perf_counter()
        seconds_before = progress.seconds
        state.model.train()
        for micro_batches in data.training(epoch, progress.step):
            rate = learning_rate(settings, epoch, progress.step / data.num_batches)
            step = train_step(state, micro_batches, rate, group)
            progress.seconds = seconds_before + time.perf_counter() - started
            yield BatchReport(
                epoch + 1,
                progress.step,
                data.num_batches,
                step.num_clips,
                {name: progress.totals.mean(name) for name in _SHOWN},
                step.gradients,
            )
        yield _finish_epoch(state, data, epoch, group)


_SHOWN = ("loss", *TERMS, "accuracy")


def _finish_epoch(
    state: TrainingState, data: TrainingData, epoch: int, group: ProcessGroup
) -> EpochReport:
    progress, totals = state.progress, state.progress.totals
    validation = validate(state.model, state.loss, data.validation(), state.device, epoch, group)
    is_best = progress.judge(
        epoch + 1,
        accuracy=validation["val_accuracy"],
        error=validation["val_accuracy_error"],
        loss=validation["val_classification"],
    )
    lambdas, seconds = state.loss.lambdas(epoch), progress.seconds
    measures = [f"gradient_norm_{name}" for name in TERMS]
    measures += [f"gradient_cosine_{name}" for name in CMCL_TERMS]
    metrics = {
        "epoch": epoch + 1,
        "is_best": is_best,
        **{f"train_{name}": totals.mean(name) for name in _SHOWN},
        "train_contributing_share": totals.mean("contributing_share"),
        **validation,
        **{f"lambda_{name}": lambdas[name] for name in CMCL_TERMS},
        # Of the epoch's first step: the last step's would be 0 at the end of a cosine.
        "learning_rate": learning_rate(state.settings.train, epoch, 0.0),
        "gradient_norm": totals.mean("gradient_norm"),
        **{name: totals.mean(name) for name in measures},
        "seconds": seconds,
        "clips_per_second": totals.counts["loss"] / seconds if seconds else None,
    }
    progress.streaks, warnings = update_streaks(progress.streaks, conditions(metrics))
    progress.epoch, progress.step, progress.seconds = epoch + 1, 0, 0.0
    progress.totals = EpochTotals()
    return EpochReport(epoch + 1, metrics, is_best, warnings)
