"""Run the trials of a study, in processes of this machine or on a Ray cluster."""

import itertools
import statistics
import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock

from slrctl.core.data.cache import open_cache
from slrctl.core.data.splits import Splits, load_splits
from slrctl.core.devices import choose_device, deterministic
from slrctl.errors import DataError, SlrctlError, TrainingDiverged
from slrctl.pool import Crashed, ProcessPool
from slrctl.runs import folder as run_folder
from slrctl.settings import Settings
from slrctl.studies.ablation.on_ray import RayPool
from slrctl.studies.ablation.trials import Trial, is_finished
from slrctl.training.loop import BatchReport, TrainingData, train_epochs
from slrctl.training.resume import find_saved_run
from slrctl.training.run import resume_training, run_training
from slrctl.training.state import TrainingState

ATTEMPTS = 6
"""Most starts of a trial whose process is killed, or whose node is lost."""


class TrialStarted(NamedTuple):
    """A trial began, for the first time or again."""

    trial: Trial


class TrialDone(NamedTuple):
    """A trial is finished; its folder holds everything."""

    trial: Trial


class TrialFailed(NamedTuple):
    """A trial could not be finished, for a reason in one line."""

    trial: Trial
    message: str


TrialEvent = TrialStarted | TrialDone | TrialFailed


def run_trials(
    trials: Sequence[Trial],
    trials_dir: Path,
    *,
    jobs: int | None,
    threads: int,
    ray: str | None = None,
) -> Generator[TrialEvent]:
    """Run trials; closing the generator ends those that still run.

    A trial that is killed resumes from its last state; one that fails does not stop the others.

    Args:
        trials: to run.
        trials_dir: folder of their runs. All nodes of a cluster need it, the clips and the cache
            under the same paths as here.
        jobs: the most trials at a time; None for as many as the nodes of a cluster hold.
        threads: of torch in a trial; a trial on a cluster reserves as many processors.
        ray: address of a Ray cluster, see `RayPool`; None for processes of this machine.

    Raises:
        SlrctlError: the cluster cannot be used.
    """
    if not trials:
        return
    trials_dir = trials_dir.absolute()
    run = partial(run_trial, trials_dir=trials_dir, threads=threads)
    if ray is None:
        pool = ProcessPool(run, jobs or 1)
    else:
        trials_dir.mkdir(parents=True, exist_ok=True)
        pool = RayPool(run, trials_dir, address=ray, jobs=jobs, threads=threads)
    waiting, crashes = deque(trials), Counter[str]()
    with pool:
        while waiting or pool.is_busy:
            while waiting and pool.has_room:
                trial = waiting.popleft()
                yield TrialStarted(trial)
                pool.submit(trial)
            for trial, message in pool.wait():
                if isinstance(message, Crashed):
                    crashes[trial.key] += 1
                    if crashes[trial.key] < ATTEMPTS:
                        waiting.appendleft(trial)
                        continue
                    message = f"its process was lost {ATTEMPTS} times ({message.reason})"
                yield TrialDone(trial) if message is None else TrialFailed(trial, message)


def run_trial(trial: Trial, trials_dir: Path, threads: int) -> str | None:
    """Train, validate and test in the trial's folder, unless it is finished already.

    The last bits of a result depend on torch's threads, so all trials have as many.

    Returns:
        None once the trial is finished, else the reason of its failure in one line.
    """
    torch.set_num_threads(threads)
    run_dir = trials_dir / trial.key
    lock = FileLock(trials_dir / f"{trial.key}.lock")
    try:
        trials_dir.mkdir(parents=True, exist_ok=True)
        locked = lock.acquire()  # studies that share trials wait here for one another
    except OSError as error:
        return f"{lock.lock_file}: cannot be written or locked ({error.strerror})"
    with locked:
        try:
            if not is_finished(run_dir):
                _train(trial.settings, run_dir)
        except SlrctlError as error:
            return " ".join(str(error).split())
    return None


def _train(settings: Settings, run_dir: Path) -> None:
    splits = _splits(settings.model_dump_json(include={"data", "prepare", "seed"}))
    reports = None
    if (run_dir / run_folder.LAST).exists():
        with suppress(DataError):  # the state is damaged: train from the start
            reports = deque(resume_training(find_saved_run(run_dir), splits), maxlen=0)
    if reports is None:
        deque(run_training(settings, splits, run_dir, force=True), maxlen=0)
    for name in (run_folder.LAST, run_folder.PREVIOUS):  # those of many trials would fill a disk
        (run_dir / name).unlink(missing_ok=True)


@lru_cache(maxsize=2)
def _splits(settings_json: str) -> Splits:
    """Load the clips once for all trials of a process that share them."""
    settings = Settings.model_validate_json(settings_json)
    return load_splits(settings, open_cache(settings.data))


_STEPS = 5
_EVALUATION_SHARE = 1 / 3
"""Time of a forward pass over that of a training step, about."""


def estimate_seconds(
    trials: Sequence[Trial], splits: Splits, *, jobs: int, threads: int
) -> float | None:
    """Estimate the duration of trials from a few steps of the most demanding variant.

    Returns:
        None where every variant diverges in its first step.
    """
    variants = {trial.variant: trial.settings for trial in trials}.values()
    for settings in sorted(variants, key=lambda one: not one.cmcl.is_on):
        if (seconds := _step_seconds(settings, splits, threads)) is not None:
            break
    else:
        return None
    clips = len(splits.train) + _EVALUATION_SHARE * len(splits.val)
    schedules = (trial.settings.train for trial in trials)
    steps = sum(schedule.epochs * clips / schedule.batch_size for schedule in schedules)
    return steps * seconds / min(jobs, len(trials))


def _step_seconds(settings: Settings, splits: Splits, threads: int) -> float | None:
    """Return the median time of a step, without the first of several; None without any."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    times: list[float] = []
    try:
        with deterministic(), suppress(TrainingDiverged):  # its trial will report that
            device = choose_device(settings.train.device)
            state = TrainingState.initial(settings, splits.train.classes, device)
            times.append(time.perf_counter())
            data = TrainingData.of_splits(splits, settings, device)
            for report in train_epochs(state, data):
                if isinstance(report, BatchReport):
                    times.append(time.perf_counter())
                if len(times) > _STEPS:
                    break
    finally:
        torch.set_num_threads(before)
    steps = [after - start for start, after in itertools.pairwise(times)]
    return statistics.median(steps[1:] or steps) if steps else None
