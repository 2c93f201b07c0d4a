"""Run one trial in a process of its own."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock

from slrctl.core.data.splits import Splits, load_splits
from slrctl.errors import DataError, SlrctlError
from slrctl.runs import folder as run_folder
from slrctl.settings import Settings
from slrctl.studies.ablation.trials import (
    Trial,
    TrialDone,
    TrialEvent,
    TrialFailed,
    TrialStarted,
    is_finished,
    kept_clips,
)
from slrctl.training.resume import find_saved_run
from slrctl.training.run import Reports, resume_training, run_training


def run_trial(settings_json: str, run_dir: Path, threads: int) -> str | None:
    """Train, validate and test, in the run's own folder, unless that was done already.

    Args:
        settings_json: the trial's settings; text crosses a process boundary as it is.
        run_dir: a folder that is this trial's alone.
        threads: of torch. The same for every trial, whatever else runs: results may differ in
            their last bits with the number of threads.

    Returns:
        None once the trial is finished, else what went wrong in one line.
    """
    torch.set_num_threads(threads)
    settings = Settings.model_validate_json(settings_json)
    try:
        with _alone(run_dir):
            if is_finished(run_dir):
                return None
            for _ in _reports(settings, _splits(_data_of(settings_json)), run_dir):
                pass
            for name in (run_folder.LAST, run_folder.PREVIOUS):  # they would fill a disk
                (run_dir / name).unlink(missing_ok=True)
    except SlrctlError as error:
        return " ".join(str(error).split())
    return None


def _reports(settings: Settings, splits: Splits, run_dir: Path) -> Reports:
    """Go on with a trial that was killed, or begin it."""
    if (run_dir / run_folder.LAST).exists():
        try:
            yield from resume_training(find_saved_run(run_dir), splits)
        except DataError:
            pass  # damaged: then it is done again
        else:
            return
    yield from run_training(settings, splits, run_dir, force=True)


def leave_with_the_parent() -> None:
    """End this process when the one that started it is gone, so that none is left behind.

    The parent may have gone while this process was still importing. It is therefore known by a
    pipe that it alone holds open, and not by `os.getppid`, which names another one by then.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise ValueError("only a process that multiprocessing started can leave with its parent")

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _data_of(settings_json: str) -> str:
    """The part of the settings that decides which clips there are; a key to remember them by."""
    settings = Settings.model_validate_json(settings_json)
    return settings.model_dump_json(include={"data", "prepare", "seed"})


@lru_cache(maxsize=2)
def _splits(data_json: str) -> Splits:
    settings = Settings.model_validate_json(data_json)
    return load_splits(settings, kept_clips(settings.data))


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Wait while another process works on the same trial, as studies that share trials may.

    Raises:
        SlrctlError: the folder of the trials cannot be written to.
    """
    path = run_dir.with_name(f"{run_dir.name}.lock")
    lock = FileLock(path)
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise SlrctlError(f"{path}: cannot be written or locked ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


ATTEMPTS = 3
"""How often a trial is started whose process was killed."""


def run_locally(
    trials: Sequence[Trial], trials_dir: Path, *, jobs: int, threads: int
) -> Generator[TrialEvent]:
    """Run trials, `jobs` at a time, and tell of each as it starts and ends.

    A killed worker costs its trial a new start; a trial that fails by itself is told of and the
    others go on. Closing the generator ends the workers.
    """
    waiting, kills = list(reversed(trials)), dict.fromkeys((trial.key for trial in trials), 0)
    running: dict[Future[str | None], Trial] = {}
    pool, is_broken = _pool(jobs), False
    try:
        while waiting or running:
            while waiting and len(running) < jobs and not is_broken:
                trial = waiting.pop()
                yield TrialStarted(trial)
                settings = trial.settings.model_dump_json()
                with _signals_held_back():
                    task = pool.submit(run_trial, settings, trials_dir / trial.key, threads)
                running[task] = trial
            for task in wait(running, return_when=FIRST_COMPLETED).done:
                trial = running.pop(task)
                error = task.exception()
                if error is None:
                    message = task.result()
                    yield TrialDone(trial) if message is None else TrialFailed(trial, message)
                    continue
                if not isinstance(error, BrokenProcessPool):
                    raise error
                is_broken = True  # one killed worker takes the whole pool with it
                kills[trial.key] += 1
                if kills[trial.key] < ATTEMPTS:
                    waiting.append(trial)
                else:
                    yield TrialFailed(trial, f"its process was killed {ATTEMPTS} times")
            if is_broken and not running:
                pool, is_broken = _pool(jobs), False
    finally:
        _end(pool)


def _pool(jobs: int) -> ProcessPoolExecutor:
    # What is left of a study that was stopped is cleared away without a word after its own.
    quiet = "ignore:resource_tracker:UserWarning"
    if quiet not in sys.warnoptions:
        sys.warnoptions.append(quiet)
    # A forked child of a process that has used torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=leave_with_the_parent)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let Ctrl-C and a hang-up wait while workers are started, which never hear of them then.

    A terminal sends both to every process of a study. The workers inherit the mask, and are ended
    by the one process that has something to say.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(pool: ProcessPoolExecutor) -> None:
    """Stop at once: what was killed in the middle is done again by the next start."""
    pool.shutdown(wait=False, cancel_futures=True)
    for process in multiprocessing.active_children():
        process.terminate()
