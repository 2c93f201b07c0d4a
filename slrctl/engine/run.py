"""One run from settings to results, saved in its folder as it goes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.loader import (
    evaluation_batches,
    num_batches,
    prepare_clips,
    training_batches,
)
from slrctl.core.data.parts import named_parts
from slrctl.core.data.splits import Parts
from slrctl.engine import run_folder
from slrctl.engine.bootstrap import Evaluation, evaluate_predictions
from slrctl.engine.checkpoint import named_tensors, save_checkpoint
from slrctl.engine.environment import describe_environment
from slrctl.engine.evaluation import predict
from slrctl.engine.files import replacing
from slrctl.engine.predictions import Predictions
from slrctl.engine.run_folder import load_run
from slrctl.engine.runtime import choose_device, deterministic, keep_freed_memory
from slrctl.engine.state import TrainingState
from slrctl.engine.training import BatchReport, EpochReport, TrainingData, train_epochs
from slrctl.settings import Settings


class RunReport(NamedTuple):
    """At the end of a run: what `summary.json` says, and the evaluations behind it."""

    summary: dict[str, Any]
    validation: Evaluation
    test: Evaluation | None


class TrialBatch(NamedTuple):
    """What one batch showed, where nothing is to be kept."""

    report: BatchReport
    seconds: float


def run_training(
    settings: Settings, parts: Parts, run_dir: Path
) -> Iterator[BatchReport | EpochReport | RunReport]:
    """Train, keep the best model, and evaluate it on the validation clips and, once, on the test.

    The caller has made sure that the folder may be written to.
    """
    started = time.perf_counter()
    device = choose_device(settings.train.device)
    keep_freed_memory()
    with deterministic():
        environment = describe_environment(device, named_parts(parts))
        run_folder.start_run_dir(run_dir, settings, environment)
        state = TrainingState.initial(settings, parts.train.classes, device)
        for report in train_epochs(state, training_data(settings, parts)):
            if isinstance(report, EpochReport):
                _save_epoch(state, report, run_dir)
            yield report
        yield _evaluate_best(settings, parts, run_dir, state, started)


def try_one_batch(settings: Settings, parts: Parts) -> TrialBatch:
    """Take the first training step and save nothing."""
    device = choose_device(settings.train.device)
    with deterministic():
        state = TrainingState.initial(settings, parts.train.classes, device)
        data = training_data(settings, parts)
        started = time.perf_counter()
        report = next(train_epochs(state, data))
        if not isinstance(report, BatchReport):
            raise TypeError("the first report of a training is that of its first batch")
        return TrialBatch(report, time.perf_counter() - started)


def training_data(settings: Settings, parts: Parts) -> TrainingData:
    """The batches of the training part, and those of the validation part."""
    validation = prepare_clips(parts.val, settings)
    return TrainingData(
        training=lambda epoch, start: training_batches(parts.train, settings, epoch, start=start),
        num_batches=num_batches(len(parts.train), settings.train.batch_size),
        validation=lambda: evaluation_batches(validation, settings.evaluate.batch_size),
    )


def predict_part(
    run: run_folder.LoadedRun, settings: Settings, part: SignDataset, device: torch.device
) -> Predictions:
    """Predict a data set with a trained model."""
    batches = evaluation_batches(prepare_clips(part, settings), settings.evaluate.batch_size)
    return predict(run.model, part, batches, device)


def _save_epoch(state: TrainingState, report: EpochReport, run_dir: Path) -> None:
    run_folder.append_line(run_dir / run_folder.METRICS, report.metrics)
    if report.is_best:
        save_checkpoint(
            run_dir / run_folder.BEST,
            named_tensors(model=state.model, loss=state.loss),
            state.settings,
            state.classes,
            {"epoch": report.epoch},
        )
    save_checkpoint(
        run_dir / run_folder.LAST,
        state.tensors(),
        state.settings,
        state.classes,
        state.progress_json(),
    )


def _evaluate_best(
    settings: Settings, parts: Parts, run_dir: Path, state: TrainingState, started: float
) -> RunReport:
    run = load_run(run_dir, state.device)
    predictions = {
        name: predict_part(run, settings, part, state.device)
        for name, part in named_parts(parts).items()
        if name != "train"
    }
    with replacing(run_dir / run_folder.PREDICTIONS) as unfinished:
        pd.concat(
            [frame.to_frame().assign(split=name) for name, frame in predictions.items()]
        ).to_parquet(unfinished, index=False)
    evaluations = {
        name: evaluate_predictions(part, resamples=settings.evaluate.resamples, seed=settings.seed)
        for name, part in predictions.items()
    }
    summary: dict[str, Any] = {
        "run_dir": str(run_dir),
        "epochs": settings.train.epochs,
        "best_epoch": state.progress.best_epoch,
        "validation": evaluations["val"].to_json(),
    }
    if "test" in evaluations:
        summary["test"] = evaluations["test"].to_json()
    summary["seconds"] = time.perf_counter() - started
    run_folder.write_json(run_dir / run_folder.SUMMARY, summary)
    return RunReport(summary, evaluations["val"], evaluations.get("test"))
