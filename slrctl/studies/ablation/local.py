"""Run trials in processes on this machine."""

import multiprocessing
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from slrctl.studies.ablation.events import TrialDone, TrialEvent, TrialFailed, TrialStarted
from slrctl.studies.ablation.trials import Trial
from slrctl.studies.ablation.worker import leave_with_the_parent, run_trial

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
