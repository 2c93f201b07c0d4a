"""The training loop: a generator of reports that saves nothing and shows nothing."""

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from torch import nn

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.warnings import Streaks, conditions
from slrctl.core.devices import spared_from_collection
from slrctl.settings import TrainSettings
from slrctl.training.processes import ALONE, Workers
from slrctl.training.state import TrainingState
from slrctl.training.step import StepModule, train_step
from slrctl.training.validation import validate


def learning_rate(settings: TrainSettings, epoch: int, share_of_epoch: float) -> float:
    """The rate of a step.

    Args:
        settings: names the schedule, its peak and its warm-up.
        epoch: counted from 0.
        share_of_epoch: how much of the epoch lies behind, 0 to 1.
    """
    position = epoch + share_of_epoch
    if position < settings.warmup_epochs:
        # The first step of a warm-up must not be idle, so it counts a hundredth of an epoch.
        return settings.learning_rate * max(position, 0.01) / settings.warmup_epochs
    match settings.schedule:
        case "constant":
            factor = 1.0
        case "multistep":
            passed = epoch / settings.epochs
            factor = 0.01 if passed >= 0.8 else 0.1 if passed >= 0.6 else 1.0
        case "cosine":
            length = max(settings.epochs - settings.warmup_epochs, 1e-9)
            behind = (position - settings.warmup_epochs) / length
            factor = 0.5 * (1 + math.cos(math.pi * behind))
    return settings.learning_rate * factor


PHASES = ("data", "forward", "loss", "backward", "optimizer")
"""What a step consists of, by the names a profiler sees."""


class TrainingData(NamedTuple):
    """Where batches come from; a training asks for each epoch from any batch on.

    A process gets `train.accumulate` parts of every batch, one after the other; the one that is
    alone and does not accumulate, the whole batches.
    """

    training: Callable[[int, int], Iterator[ClipBatch]]
    num_batches: int
    validation: Callable[[], Iterator[ClipBatch]]


class BatchReport(NamedTuple):
    """After every step: the position and the means of the epoch so far.

    `gradients` are what each term asked of the model in this step, where that was measured.
    """

    epoch: int
    batch: int
    num_batches: int
    num_clips: int
    means: dict[str, float | None]
    gradients: dict[str, float]


class EpochReport(NamedTuple):
    """After every epoch: one line of `metrics.jsonl`, and what the user should know of it."""

    epoch: int
    metrics: dict[str, Any]
    is_best: bool
    warnings: list[str]


def train_epochs(
    state: TrainingState, data: TrainingData, workers: Workers = ALONE
) -> Generator[BatchReport | EpochReport]:
    """Train from where the state stands until it is over, changing the state in place.

    Until it ends, or is left, Python's garbage collector passes over what was there at first.

    The state is consistent at every report, so a caller can save it there and go on later. Several
    workers, each with its parts of the batches, take the steps that one would take alone, and have
    the same state afterwards.

    Raises:
        TrainingDiverged: a loss or a gradient became NaN or infinite; the step was not taken.
    """
    module = workers.wrap(StepModule(state))
    reports = _reports(state, module, data, workers)
    yield from itertools.islice(reports, 1)  # the first step loads what steps need
    with spared_from_collection():
        yield from reports


def _reports(
    state: TrainingState, module: nn.Module, data: TrainingData, workers: Workers
) -> Iterator[BatchReport | EpochReport]:
    settings = state.settings.train
    while not state.is_over:
        epoch, started = state.progress.epoch, time.perf_counter()
        seconds_before = state.progress.seconds
        state.model.train()
        batches = data.training(epoch, state.progress.step)
        while parts := list(itertools.islice(batches, settings.accumulate)):
            rate = learning_rate(settings, epoch, state.progress.step / data.num_batches)
            step = train_step(state, module, parts, rate, workers)
            state.progress.seconds = seconds_before + time.perf_counter() - started
            yield BatchReport(
                epoch + 1,
                state.progress.step,
                data.num_batches,
                step.num_clips,
                {name: state.progress.totals.mean(name) for name in _SHOWN},
                step.gradients,
            )
        yield _finish_epoch(state, data, epoch, workers)


_SHOWN = ("loss", "classification", "consistency", "alignment", "accuracy")


_GRADIENTS = (
    "gradient_norm_classification",
    "gradient_norm_consistency",
    "gradient_norm_alignment",
    "gradient_cosine_consistency",
    "gradient_cosine_alignment",
)


def _finish_epoch(
    state: TrainingState, data: TrainingData, epoch: int, workers: Workers
) -> EpochReport:
    progress, totals = state.progress, state.progress.totals
    validation = validate(state.model, state.loss, data.validation(), state.device, epoch, workers)
    is_best = progress.take_in(
        epoch + 1,
        accuracy=validation["val_accuracy"],
        error=validation["val_accuracy_error"],
        loss=validation["val_classification"],
    )
    clips = totals.counts["loss"]
    seconds = progress.seconds
    metrics = {
        "epoch": epoch + 1,
        "is_best": is_best,
        **{f"train_{name}": totals.mean(name) for name in _SHOWN},
        "train_contributing_share": totals.mean("contributing_share"),
        **validation,
        "lambda_consistency": state.loss.factor(epoch) * state.settings.cmcl.lambda_consistency,
        "lambda_alignment": state.loss.factor(epoch) * state.settings.cmcl.lambda_alignment,
        # Of the epoch's first step: the last step's would be 0 at the end of a cosine.
        "learning_rate": learning_rate(state.settings.train, epoch, 0.0),
        "gradient_norm": totals.mean("gradient_norm"),
        **{name: totals.mean(name) for name in _GRADIENTS},
        "seconds": seconds,
        "clips_per_second": clips / seconds if seconds else None,
    }
    streaks = Streaks(progress.streaks)
    warnings = streaks.take_in(conditions(metrics))
    progress.streaks = streaks.lengths
    progress.epoch, progress.step, progress.seconds = epoch + 1, 0, 0.0
    progress.totals = type(totals)()
    return EpochReport(epoch + 1, metrics, is_best, warnings)
