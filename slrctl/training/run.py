"""One run from settings to results, saved in its folder as it goes."""

import importlib
import importlib.util
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd

from slrctl.core.data.batches import evaluation_batches
from slrctl.core.data.splits import Splits
from slrctl.core.devices import deterministic, keep_freed_memory, resolve_precision
from slrctl.errors import Interrupted, ProcessLost, SlrctlError, TrainingDiverged, UsageError
from slrctl.evaluation.bootstrap import Evaluation, evaluate_predictions
from slrctl.evaluation.predictions import Predictions, predict
from slrctl.files import replacing, write_json
from slrctl.layers import flatten
from slrctl.runs import folder as run_folder
from slrctl.runs.checkpoint import load_run
from slrctl.runs.folder import (
    RunLock,
    changes,
    describe_environment,
    describe_machine,
    holding,
)
from slrctl.settings import Settings
from slrctl.training.loop import BatchReport, EpochReport, TrainingData, train_epochs
from slrctl.training.processes import (
    SINGLE,
    ProcessGroup,
    StopAsked,
    StopRequest,
    lost_process_named,
)
from slrctl.training.resume import (
    SavedRun,
    bring_back_folder,
    restore_state,
    save_epoch,
    save_state,
)
from slrctl.training.state import TrainingState

TRACKING = "tracking"
"""Folder of a tracker's records in the run's folder: nothing is sent anywhere."""
Track = Callable[[dict[str, Any]], None]


class RunReport(NamedTuple):
    """The end of a run: the content of `summary.json`, and the evaluations behind it."""

    summary: dict[str, Any]
    validation: Evaluation
    test: Evaluation | None


Reports = Generator[BatchReport | EpochReport | RunReport]


def try_one_batch(
    settings: Settings, splits: Splits, group: ProcessGroup = SINGLE
) -> tuple[BatchReport, float]:
    """Take the first training step, save nothing, and return its report and its seconds."""
    device = group.device(settings.train.device)
    with deterministic():
        state = TrainingState.initial(settings, splits.train.classes, device)
        data = TrainingData.of_splits(splits, settings, device, group)
        started = time.perf_counter()
        report = cast(BatchReport, next(train_epochs(state, data, group)))
        return report, time.perf_counter() - started


def run_training(
    settings: Settings,
    splits: Splits,
    run_dir: Path,
    *,
    force: bool = False,
    stop: StopRequest | None = None,
    group: ProcessGroup = SINGLE,
) -> Reports:
    """Train, keep the best model, and evaluate it on the validation clips and, once, on the test.

    Each process of the group calls this; that of rank 0 writes the folder, which is made, and gives
    the last report. With `force` a run that is in the folder is overwritten.

    Raises:
        UsageError: there is something in the folder.
        SlrctlError: the folder cannot be written to, or another process is writing to it.
        Interrupted: it was asked to stop, and is saved.
        TrainingDiverged: a loss, a gradient or a parameter became NaN or infinite.
        ProcessLost: another process of the group ended.
    """
    _check_tracker(settings)
    device = group.device(settings.train.device)
    settings = resolve_precision(settings, device)
    if group.any(settings.train.precision == "fp32"):  # all take fp32 if one of them would
        settings = Settings.layered(settings.model_dump(), {"train": {"precision": "fp32"}})
    keep_freed_memory()

    def begin() -> RunLock:
        lock = held.enter_context(holding(run_dir))
        run_folder.check_run_dir(run_dir, force=force)
        environment = describe_environment(device, splits.by_name)
        run_folder.start_run_dir(run_dir, settings, environment)
        return lock

    with deterministic(), ExitStack() as held:
        lock = group.on_first(begin)
        state = TrainingState.initial(settings, splits.train.classes, device)
        yield from _Run(state, splits, run_dir, lock, stop or StopRequest(), group).reports()


def _check_tracker(settings: Settings) -> None:
    """Make sure that the tracker of a run is installed."""
    name = settings.train.tracker
    for package in ("accelerate", name):
        if name != "none" and importlib.util.find_spec(package) is None:
            raise UsageError(
                f"train.tracker is {name!r}, which needs the package {package}; "
                f"pip install 'slrctl[{name}]', or set train.tracker=none"
            )


def resume_training(
    saved: SavedRun,
    splits: Splits,
    *,
    stop: StopRequest | None = None,
    group: ProcessGroup = SINGLE,
) -> Reports:
    """Resume a run from its saved state, bit-identically.

    The number of processes may be another than before.

    Raises:
        DataError: the clips are others, or the state is damaged.
        SlrctlError, Interrupted, TrainingDiverged, ProcessLost: as in `run_training`.
    """
    _check_tracker(saved.settings)
    device = group.device(saved.settings.train.device)
    keep_freed_memory()

    def bring_back() -> None:
        bring_back_folder(state, saved.run_dir)
        begun = run_folder.read_environment(saved.run_dir)
        entry = {
            "epochs_behind": state.progress.epoch,
            "batches_behind": state.progress.step,
            "changes": changes(begun, describe_machine(state.device)),
        }
        resumed = [*begun.get("resumed", []), entry]
        write_json(saved.run_dir / run_folder.ENVIRONMENT, begun | {"resumed": resumed})

    with deterministic(), ExitStack() as held:
        lock = group.on_first(lambda: held.enter_context(holding(saved.run_dir)))
        state = group.together(lambda: restore_state(saved, splits, device))
        run = _Run(state, splits, saved.run_dir, lock, stop or StopRequest(), group)
        group.on_first(lambda: run.save(bring_back))
        yield from run.reports()


@dataclass(frozen=True)
class _Run:
    """A training and its folder; rank 0 holds the folder's lock and writes there."""

    state: TrainingState
    splits: Splits
    run_dir: Path
    lock: RunLock | None
    stop: StopRequest
    group: ProcessGroup

    def save(self, write: Callable[[], None]) -> None:
        """Write, in rank 0, and say in one line if that fails."""
        if self.lock is None:
            return
        self.lock.check()
        try:
            write()
        except OSError as error:
            self.lock.check()
            raise SlrctlError(
                f"{self.run_dir}: cannot be written any more ({error.strerror or error}); what was "
                f"saved before is whole; make room, then go on with: {self._resume_command}"
            ) from None

    def reports(self) -> Reports:
        """Train from where the state stands, and evaluate."""
        started, state, stop = time.perf_counter(), self.state, self.stop
        data = TrainingData.of_splits(self.splits, state.settings, state.device, self.group)
        stoppable = data._replace(
            training=lambda epoch, start: stop.between(data.training(epoch, start), self.group),
            validation=lambda: stop.until_asked(data.validation(), self.group),
        )
        try:
            with lost_process_named():
                with stop.awaited(), self._tracked() as track:
                    yield from self._train(stoppable, track)
                yield from self._evaluate_best(started)
        except TrainingDiverged as error:
            best, best_epoch = self.run_dir / run_folder.BEST, state.progress.best_epoch
            last_good = f"the last good checkpoint is {best} (epoch {best_epoch})"
            if best_epoch is None:
                last_good = "no epoch was finished, so there is no checkpoint"
            raise TrainingDiverged(f"{error}; {last_good}") from None
        except ProcessLost as error:
            raise ProcessLost(
                f"{error}; what was saved last is whole; go on, with any number of processes: "
                f"{self._resume_command}"
            ) from None

    @contextmanager
    def _tracked(self) -> Iterator[Track]:
        """Yield a function that shows a line of `metrics.jsonl` in the run's tracker, in rank 0."""
        settings, progress = self.state.settings, self.state.progress
        folder, name = self.run_dir / TRACKING, settings.train.tracker
        is_new = (progress.epoch, progress.step) == (0, 0)
        if is_new and self.lock is not None:
            shutil.rmtree(folder, ignore_errors=True)  # an earlier run's
        if name == "none" or self.lock is None:
            yield lambda metrics: None
            return
        folder.mkdir(exist_ok=True)
        tracker = _start_tracker(name, folder)
        if is_new:
            values = flatten(settings.model_dump(mode="json"))
            tracker.store_init_configuration({k: "" if v is None else v for k, v in values.items()})

        def track(metrics: dict[str, Any]) -> None:
            numbers = {k: float(v) for k, v in metrics.items() if v is not None and k != "epoch"}
            tracker.log(numbers, step=metrics["epoch"])

        try:
            yield track
        finally:
            tracker.finish()

    def _train(self, data: TrainingData, track: Track) -> Reports:
        """Train, and save the state after every epoch and every `train.save_seconds` within one."""
        state, run_dir, saved = self.state, self.run_dir, time.monotonic()
        try:
            for report in train_epochs(state, data, self.group):
                if isinstance(report, EpochReport):
                    self.save(lambda report=report: save_epoch(state, report, run_dir))
                    self.save(lambda report=report: track(report.metrics))
                    saved = time.monotonic()
                elif time.monotonic() - saved >= state.settings.train.save_seconds:
                    self.save(lambda: save_state(state, run_dir))
                    saved = time.monotonic()
                yield report
            self.stop.check(self.group)
        except StopAsked:
            if state.progress.step:  # else the end of the epoch was saved
                self.save(lambda: save_state(state, run_dir))
            raise Interrupted(
                f"interrupted {state.progress.position}, which is saved; go on with: "
                f"{self._resume_command}"
            ) from None

    def _evaluate_best(self, started: float) -> Iterator[RunReport]:
        settings, device, group = self.state.settings, self.state.device, self.group
        group.together(lambda: None)  # rank 0 has written the best model when it comes here
        model = load_run(self.run_dir, device).model
        predictions = {}
        for name, split in self.splits.by_name.items():
            if name != "train":
                batches = evaluation_batches(split, settings, start=group.rank, step=group.size)
                predictions[name] = predict(
                    model, split, batches, device, gather=group.gather_in_turn
                )
        if self.lock is None:
            return
        resamples, seed = settings.evaluate.resamples, settings.seed
        evaluations = {
            name: evaluate_predictions(of_split, resamples=resamples, seed=seed)
            for name, of_split in predictions.items()
        }
        titles = {"val": "validation", "test": "test"}
        summary: dict[str, Any] = {
            "run_dir": str(self.run_dir),
            "epochs": self.state.progress.epoch,
            "best_epoch": self.state.progress.best_epoch,
            **{titles[name]: evaluation.to_json() for name, evaluation in evaluations.items()},
            "seconds": time.perf_counter() - started,
        }
        self.save(lambda: _write_results(predictions, summary, self.run_dir))
        yield RunReport(summary, evaluations["val"], evaluations.get("test"))

    @property
    def _resume_command(self) -> str:
        return run_folder.resume_command(self.run_dir)


def _start_tracker(name: str, folder: Path) -> Any:
    """Start a tracker of Accelerate that keeps its records in the folder."""
    from accelerate import tracking as trackers
    from accelerate.state import PartialState

    PartialState()  # the trackers ask it which process they are in
    if name == "tensorboard":
        tracker = trackers.TensorBoardTracker("epochs", folder)
    elif name == "wandb":
        quiet = {"silent": True, "console": "off"}
        tracker = trackers.WandBTracker(
            "slrctl", name=folder.parent.name, dir=str(folder), mode="offline", settings=quiet
        )
    else:
        mlflow: Any = importlib.import_module("mlflow")
        place = folder.resolve()
        mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
        tracker = trackers.MLflowTracker("slrctl", place.as_uri(), run_name=folder.parent.name)
    tracker.start()
    return tracker


def _write_results(
    predictions: dict[str, Predictions], summary: dict[str, Any], run_dir: Path
) -> None:
    frames = [of_split.to_frame().assign(split=name) for name, of_split in predictions.items()]
    with replacing(run_dir / run_folder.PREDICTIONS) as unfinished:
        pd.concat(frames).to_parquet(unfinished, index=False)
    write_json(run_dir / run_folder.SUMMARY, summary)
