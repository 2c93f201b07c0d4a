"""Run one trial in a process of its own."""

import fcntl
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from slrctl.core.data.parts import load_parts
from slrctl.core.data.splits import Parts
from slrctl.engine import run_folder
from slrctl.engine.resuming import find_saved_run
from slrctl.engine.run import Reports, resume_training, run_training
from slrctl.engine.run_lock import open_lock
from slrctl.errors import DataError, SlrctlError
from slrctl.settings import Settings
from slrctl.studies.ablation.trials import is_finished, kept_clips


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
            for _ in _reports(settings, _parts(_data_of(settings_json)), run_dir):
                pass
            run_folder.remove_states(run_dir)  # of many trials they would fill a disk
    except SlrctlError as error:
        return " ".join(str(error).split())
    return None


def _reports(settings: Settings, parts: Parts, run_dir: Path) -> Reports:
    """Go on with a trial that was killed, or begin it."""
    if (run_dir / run_folder.LAST).exists():
        try:
            yield from resume_training(find_saved_run(run_dir), parts)
        except DataError:
            pass  # damaged: then it is done again
        else:
            return
    yield from run_training(settings, parts, run_dir, force=True)


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
def _parts(data_json: str) -> Parts:
    settings = Settings.model_validate_json(data_json)
    return load_parts(settings, kept_clips(settings.data))


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Wait while another process works on the same trial, as studies that share trials may.

    Raises:
        SlrctlError: the folder of the trials cannot be written to.
    """
    path = run_dir.with_name(f"{run_dir.name}.lock")
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = open_lock(path)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise SlrctlError(f"{path}: cannot be written or locked ({error.strerror})") from None
    try:
        yield
    finally:
        os.close(lock)
