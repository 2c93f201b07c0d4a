"""One run from settings to results, saved in its folder as it goes."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from slrctl.core.data.batches import evaluation_batches, num_batches, prepare_clips
from slrctl.core.data.splits import Splits
from slrctl.core.devices import deterministic, keep_freed_memory, settled
from slrctl.errors import DataError, Interrupted, SlrctlError, TrainingDiverged, WorkerLost
from slrctl.evaluation.bootstrap import Evaluation, evaluate_predictions
from slrctl.evaluation.predictions import Predictions, predict
from slrctl.files import replacing, write_json
from slrctl.runs import folder as run_folder
from slrctl.runs.environment import changes, describe_environment, describe_machine
from slrctl.runs.folder import RunLock, holding
from slrctl.runs.load import load_run
from slrctl.settings import Settings
from slrctl.training.loop import BatchReport, EpochReport, TrainingData, train_epochs
from slrctl.training.processes import ALONE, Workers, first_only
from slrctl.training.resume import (
    SavedRun,
    bring_back_folder,
    check_same_clips,
    restore_state,
    save_epoch,
    save_state,
)
from slrctl.training.run_batches import training_data
from slrctl.training.state import TrainingState
from slrctl.training.stopping import StopAsked, StopRequest
from slrctl.training.trackers import Track, check_tracker, tracking


class RunReport(NamedTuple):
    """At the end of a run: what `summary.json` says, and the evaluations behind it."""

    summary: dict[str, Any]
    validation: Evaluation
    test: Evaluation | None


Reports = Generator[BatchReport | EpochReport | RunReport]


def run_training(
    settings: Settings,
    splits: Splits,
    run_dir: Path,
    *,
    force: bool = False,
    stop: StopRequest | None = None,
    workers: Workers = ALONE,
) -> Reports:
    """Train, keep the best model, and evaluate it on the validation clips and, once, on the test.

    Of several workers the first one writes the folder and gives the last report.

    Args:
        settings: of the run.
        splits: its clips.
        run_dir: its folder, which is made.
        force: write over a run that is in the folder.
        stop: by which somebody may ask to stop.
        workers: processes that train together, each of which calls this.

    Raises:
        UsageError: there is something in the folder.
        SlrctlError: the folder cannot be written to, or another process is writing to it.
        Interrupted: it was asked to stop, and is saved.
        TrainingDiverged: a loss, a gradient or a weight became NaN or infinite.
        WorkerLost: another worker ended.
    """
    check_tracker(settings)
    device = workers.device(settings.train.device)
    settings = _settled_for_all(settings, device, workers)
    keep_freed_memory()

    def begin() -> RunLock:
        lock = held.enter_context(holding(run_dir))
        run_folder.check_run_dir(run_dir, force=force)
        environment = describe_environment(device, splits.by_name)
        run_folder.start_run_dir(run_dir, settings, environment)
        return lock

    with deterministic(), ExitStack() as held:
        folder = _Folder(run_dir, first_only(workers, begin))
        state = TrainingState.initial(settings, splits.train.classes, device)
        yield from _run(state, splits, folder, stop or StopRequest(), workers)


def resume_training(
    saved: SavedRun, splits: Splits, *, stop: StopRequest | None = None, workers: Workers = ALONE
) -> Reports:
    """Go on with a run from its saved state, as if it had never been interrupted.

    The number of workers may be another than before.

    Raises:
        DataError: the clips are others, or the state is damaged.
        SlrctlError, Interrupted, TrainingDiverged, WorkerLost: as in `run_training`.
    """
    check_tracker(saved.settings)
    device = workers.device(saved.settings.train.device)
    keep_freed_memory()

    def take_up() -> TrainingState:
        check_same_clips(saved, splits)
        state = TrainingState.initial(saved.settings, splits.train.classes, device)
        restore_state(state, saved.state_path, saved.run_dir)
        batches = num_batches(len(splits.train), saved.settings.train.batch_size)
        if state.progress.step > batches:
            raise DataError(
                f"{saved.state_path}: damaged (it stands after batch {state.progress.step} of "
                f"{batches}); train again with --force"
            )
        return state

    with deterministic(), ExitStack() as held:
        lock = first_only(workers, lambda: held.enter_context(holding(saved.run_dir)))
        state, folder = workers.together(take_up), _Folder(saved.run_dir, lock)
        first_only(workers, lambda: _go_on(state, saved, folder))
        yield from _run(state, splits, folder, stop or StopRequest(), workers)


def _settled_for_all(settings: Settings, device: torch.device, workers: Workers) -> Settings:
    """The settings with one precision for all workers: fp32 where one of them would take that."""
    own = settled(settings, device)
    num_fp32 = workers.summed([own.train.precision == "fp32"])[0]
    if num_fp32 in (0, workers.count):
        return own
    return Settings.layered(settings.model_dump(), {"train": {"precision": "fp32"}})


class _Folder(NamedTuple):
    """The folder of a run, and the lock of the one worker that writes to it."""

    run_dir: Path
    lock: RunLock | None

    def save(self, write: Callable[[], None]) -> None:
        """Write, where this worker does, and say in one line what keeps it from that."""
        if self.lock is None:
            return
        self.lock.check()
        try:
            write()
        except OSError as error:
            self.lock.check()
            raise SlrctlError(
                f"{self.run_dir}: cannot be written any more ({error.strerror or error}); what was "
                "saved before is whole; make room, then go on with: "
                f"{run_folder.resume_command(self.run_dir)}"
            ) from None

    def tracked(self, state: TrainingState) -> AbstractContextManager[Track]:
        """Where epochs are shown, by the worker that writes."""
        if self.lock is None:
            return nullcontext(lambda metrics: None)
        is_new = (state.progress.epoch, state.progress.step) == (0, 0)
        return tracking(state.settings, self.run_dir, is_new=is_new)


def _run(
    state: TrainingState, splits: Splits, folder: _Folder, stop: StopRequest, workers: Workers
) -> Reports:
    """Train from where the state stands, and evaluate."""
    started, run_dir = time.perf_counter(), folder.run_dir
    data = training_data(state.settings, splits, workers)
    stoppable = data._replace(
        training=lambda epoch, start: stop.between(data.training(epoch, start), workers),
        validation=lambda: stop.dealt_out(data.validation(), workers),
    )
    try:
        with stop.awaited(), workers.watched(), folder.tracked(state) as track:
            try:
                yield from _train(state, stoppable, folder, workers, track)
                stop.check(workers)
            except StopAsked:
                if state.progress.step:  # else the end of the epoch was saved
                    folder.save(lambda: save_state(state, run_dir))
                go_on = run_folder.resume_command(run_dir)
                raise Interrupted(
                    f"interrupted {_position(state)}, which is saved; go on with: {go_on}"
                ) from None
        with workers.watched():
            yield from _evaluate_best(state, splits, folder, started, workers)
    except TrainingDiverged as error:
        raise TrainingDiverged(f"{error}; {_last_good(state, run_dir)}") from None
    except WorkerLost as error:
        raise WorkerLost(
            f"{error}; what was saved last is whole; go on, with any number of processes: "
            f"{run_folder.resume_command(run_dir)}"
        ) from None


def _train(
    state: TrainingState, data: TrainingData, folder: _Folder, workers: Workers, track: Track
) -> Reports:
    """Train, and save the state after every epoch and every so often within one."""
    saved, run_dir = time.monotonic(), folder.run_dir
    for report in train_epochs(state, data, workers):
        if isinstance(report, EpochReport):
            folder.save(lambda report=report: save_epoch(state, report, run_dir))
            folder.save(lambda report=report: track(report.metrics))
            saved = time.monotonic()
        elif time.monotonic() - saved >= state.settings.train.save_seconds:
            folder.save(lambda: save_state(state, run_dir))
            saved = time.monotonic()
        yield report


def _go_on(state: TrainingState, saved: SavedRun, folder: _Folder) -> None:
    def bring_back() -> None:
        bring_back_folder(state, saved.run_dir)
        _note_resumption(state, saved)

    folder.save(bring_back)


def _note_resumption(state: TrainingState, saved: SavedRun) -> None:
    """Write down where the run goes on, and what is not as it was."""
    begun = run_folder.read_environment(saved.run_dir)
    entry = {
        "epochs_behind": state.progress.epoch,
        "batches_behind": state.progress.step,
        "changes": changes(begun, describe_machine(state.device)),
    }
    resumed = [*begun.get("resumed", []), entry]
    write_json(saved.run_dir / run_folder.ENVIRONMENT, begun | {"resumed": resumed})


def _position(state: TrainingState) -> str:
    progress = state.progress
    batches = f"after batch {progress.step} of epoch {progress.epoch + 1}"
    return batches if progress.step else f"after epoch {progress.epoch}"


def _last_good(state: TrainingState, run_dir: Path) -> str:
    if state.progress.best_epoch is None:
        return "no epoch was finished, so there is no checkpoint"
    best = run_dir / run_folder.BEST
    return f"the last good checkpoint is {best} (epoch {state.progress.best_epoch})"


def _evaluate_best(
    state: TrainingState, splits: Splits, folder: _Folder, started: float, workers: Workers
) -> Iterator[RunReport]:
    settings, run_dir = state.settings, folder.run_dir
    workers.wait()  # the first one has written the best model when it comes here
    run = load_run(run_dir, state.device)
    predictions = {}
    for name, split in splits.by_name.items():
        if name != "train":
            batches = evaluation_batches(
                prepare_clips(split, settings),
                settings.evaluate.batch_size,
                start=workers.rank,
                step=workers.count,
            )
            predictions[name] = predict(
                run.model, split, batches, state.device, gather=workers.exchange
            )
    if folder.lock is None:
        return
    evaluations = {
        name: evaluate_predictions(part, resamples=settings.evaluate.resamples, seed=settings.seed)
        for name, part in predictions.items()
    }
    summary: dict[str, Any] = {
        "run_dir": str(run_dir),
        "epochs": state.progress.epoch,
        "best_epoch": state.progress.best_epoch,
        "validation": evaluations["val"].to_json(),
    }
    if "test" in evaluations:
        summary["test"] = evaluations["test"].to_json()
    summary["seconds"] = time.perf_counter() - started
    folder.save(lambda: _write_results(predictions, summary, run_dir))
    yield RunReport(summary, evaluations["val"], evaluations.get("test"))


def _write_results(
    predictions: dict[str, Predictions], summary: dict[str, Any], run_dir: Path
) -> None:
    _write_predictions(predictions, run_dir)
    write_json(run_dir / run_folder.SUMMARY, summary)


def _write_predictions(predictions: dict[str, Predictions], run_dir: Path) -> None:
    frames = [frame.to_frame().assign(split=name) for name, frame in predictions.items()]
    with replacing(run_dir / run_folder.PREDICTIONS) as unfinished:
        pd.concat(frames).to_parquet(unfinished, index=False)
